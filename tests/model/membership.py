"""The member list of the model's etcd: who is in it, who votes, and what every entry of the log does to it.

A list is the founding members plus what the committed log says, nothing else, as in etcd: so whoever holds the same
log has the same list. `History` is what no etcd knows: all that was ever committed, whoever has forgotten it since.
"""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

from etcd_operator.etcd.model import Member, MemberList

#: Entries of the log that change who votes or follows: `add <id> <url>` adds a learner. Only one at a time may wait to
#: be committed.
CHANGES = ("add", "add-voter", "promote", "remove")


def _id(text: bytes) -> int:
    """As etcd makes member and cluster IDs (membership.computeMemberID and RaftCluster.genID)."""
    return int.from_bytes(hashlib.sha1(text).digest()[:8], "big")


def member_id(url: str, salt: str) -> int:
    """A member's ID; `salt` is the token of a founding, or for a member that is added what etcd takes the time for."""
    return _id((url + salt).encode())


def cluster_id(members: Iterable[int]) -> int:
    return _id(b"".join(member.to_bytes(8, "big") for member in sorted(members)))


def is_change(entry: str) -> bool:
    return entry.split(" ", 1)[0] in CHANGES


@dataclass(frozen=True)
class Roster:
    """A member list at one moment, by ID; the IDs of `removed` never come back."""

    members: Mapping[int, Member] = field(default_factory=dict)
    removed: frozenset[int] = frozenset()

    @classmethod
    def founded(cls, listed: Mapping[str, str], token: str) -> "Roster":
        """Of an initial cluster: a founder bears its name from the first entry on, started or not."""
        members = (Member(id=member_id(url, token), name=name, peer_urls=(url,)) for name, url in listed.items())
        return cls({member.id: member for member in members})

    @cached_property
    def voters(self) -> frozenset[int]:
        return frozenset(each.id for each in self.members.values() if not each.is_learner)

    @cached_property
    def learners(self) -> frozenset[int]:
        return frozenset(self.members) - self.voters

    def alone(self, member: int) -> "Roster":
        """The list with that member alone (force-new-cluster)."""
        return Roster({member: self.members[member]}, self.removed | (frozenset(self.members) - {member}))

    @property
    def started_voters(self) -> int:
        """How many voters etcd takes for started: those with a name, which a founder has before its first start."""
        return sum(bool(self.members[voter].name) for voter in self.voters)

    @property
    def urls(self) -> list[str]:
        return sorted(url for member in self.members.values() for url in member.peer_urls)

    def has_quorum(self, present: Iterable[int]) -> bool:
        """Whether these are a majority of the voters."""
        return len(self.voters.intersection(present)) > len(self.voters) // 2

    def by_url(self, url: str) -> Member | None:
        return next((member for member in self.members.values() if url in member.peer_urls), None)

    def as_list(self, of: int) -> MemberList:
        return MemberList(cluster_id=of, members=tuple(self.members[each] for each in sorted(self.members)))

    def after(self, entry: str) -> "Roster":
        """The list once this entry is committed; entries about members that are not in it do nothing."""
        what, *words = entry.split(" ")
        if what in ("add", "add-voter"):
            added = Member(id=int(words[0]), name="", peer_urls=(words[1],), is_learner=what == "add")
            return replace(self, members={**self.members, added.id: added})
        member = self.members.get(int(words[0])) if what in ("promote", "remove", "publish") else None
        if member is None:
            return self
        if what == "remove":
            left = {each.id: each for each in self.members.values() if each is not member}
            return Roster(left, self.removed | {member.id})
        if what == "promote":
            member = replace(member, is_learner=False)
        else:
            client_urls = tuple(url.replace(":2380", ":2379") for url in member.peer_urls)
            member = replace(member, name=words[1], client_urls=client_urls)
        return replace(self, members={**self.members, member.id: member})


@dataclass(frozen=True, kw_only=True)
class Change:
    """A change of the voters that etcd accepted: the list that it leads to, and who was connected to the leader."""

    entry: str
    roster: Roster
    connected: frozenset[int]


@dataclass
class History:
    """All that was ever committed in one etcd cluster.

    `voters` has each set of voters in turn. `holders` are members whose directory holds, or held, a write that was
    acknowledged to a client: none of them may come back empty as a voter.
    """

    roster: Roster
    log: list[tuple[int, str]] = field(default_factory=list)
    voters: list[frozenset[int]] = field(default_factory=list)
    holders: set[int] = field(default_factory=set)
    #: Voters of before the etcd was rebuilt from one of them.
    before: frozenset[int] = frozenset()
    acknowledged: bool = False

    def __post_init__(self) -> None:
        self.voters.append(self.roster.voters)

    @property
    def ever_voted(self) -> frozenset[int]:
        return self.before.union(*self.voters)

    def force(self, log: Sequence[tuple[int, str]], roster: Roster) -> None:
        """One member was made the only one: what it did not know to be committed is gone, and so are the others."""
        self.before, self.log, self.roster, self.voters = self.ever_voted, list(log), roster, [roster.voters]
        self.holders &= roster.voters

    def commit(self, log: Sequence[tuple[int, str]], position: int, roster: Roster) -> str | None:
        """A leader committed the entry at that position of its log; why that must not be, if so.

        Before any write was acknowledged, members that lose everything may well begin anew.
        """
        problem = None
        if position != len(self.log):
            if self.log[position : position + 1] == [log[position]]:
                return None
            if self.acknowledged:
                problem = f"committed {self.log[position:]} is lost, {log[position]} stands in its place"
            self.log, self.voters = list(log[:position]), [roster.voters]
        self.log.append(log[position])
        self.roster = roster
        if roster.voters != self.voters[-1]:
            self.voters.append(roster.voters)
        return problem
