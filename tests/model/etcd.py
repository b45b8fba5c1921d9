"""etcd of the model: what its processes do with a configuration file and a data directory, and when they have a quorum.

A miniature of the rules that the operator rests on, each seen on real etcd or read in its source: data on disk makes
the file's member list void; `new` on an empty directory founds, unless the peers know this member as bootstrapped;
`existing` with only itself on an empty directory exits, and with the exact member list joins. Elections and commits
follow Raft: a majority of the voters in the log votes, never for a log that is behind, and an entry that a majority
holds is committed. What members are told to change is in `calls`.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import yaml

from etcd_operator.etcd.errors import EtcdError
from etcd_operator.etcd.model import Answer, Endpoint, MemberList, MemberReport
from model.membership import Change, History, Roster, cluster_id, member_id
from model.tls import is_trusted

DISCOVERY = '{"level":"fatal","msg":"discovery failed","error":"%s"}'
FUSE = DISCOVERY % "cannot fetch cluster info from peer urls: no answer"
BOOTSTRAPPED = DISCOVERY % "member %s has already been bootstrapped"
MEMBER_LIST = DISCOVERY % "error validating peerURLs {ClusterID:%x Members:[%s] RemovedMemberIDs:[]}: %s"
NO_FILE = '{"level":"warn","msg":"failed to verify flags","error":"open /etc/etcd/%s.yaml: no such file or directory"}'


class EtcdExitedError(Exception):
    """etcd refused to start; the text is the end of its log."""


@dataclass
class Data:
    """A data directory: the log, how much of it is known to be committed, and the member list that this makes.

    `joined`: a directory of a member that did not found; it knows of no voters before it has entries.
    `hollow`: etcd was killed right after its first write, before the log had an entry.
    """

    cluster_id: int
    member_id: int
    roster: Roster
    joined: bool = False
    hollow: bool = False
    term: int = 0
    log: list[tuple[int, str]] = field(default_factory=list)
    commit: int = 0

    @property
    def entries(self) -> set[str]:
        return {entry for _, entry in self.log}

    @property
    def waiting(self) -> list[str]:
        """Entries that are not known to be committed."""
        return [entry for _, entry in self.log[self.commit :]]

    @property
    def age(self) -> tuple[int, int]:
        """What Raft compares to find the log that is further: the term of the last entry, then the length."""
        return (self.log[-1][0] if self.log else 0, len(self.log))

    @property
    def may_campaign(self) -> bool:
        return not self.hollow and self.member_id in self.roster.voters and bool(self.log or not self.joined)

    @property
    def is_learner(self) -> bool:
        return self.member_id in self.roster.learners

    @property
    def member_list(self) -> MemberList:
        return (Roster() if self.hollow else self.roster).as_list(self.cluster_id)


@dataclass
class Volume:
    """A disk: data directories by path."""

    directories: dict[str, Data] = field(default_factory=dict)


@dataclass(eq=False)
class Process:
    """A running etcd. It trusts the authorities that it read when it started, and shows the certificates of now."""

    name: str
    address: str
    url: str
    version: str
    data: Data
    trusts_peers_of: bytes
    trusts_clients_of: bytes
    shows_peers: bytes
    shows_clients: bytes
    #: Of its file; etcd 3.5 has no such setting, and a limit of one.
    max_learners: int = 1
    #: It listens on the loopback only, to be made the only member.
    alone: bool = False
    frozen: bool = False
    lagging: bool = False
    #: While it leads: how much of its log each member was last known to have, also after that member went away.
    matches: dict[int, int] = field(default_factory=dict)


class Etcd:
    """Every etcd process there is."""

    def __init__(self) -> None:
        self.processes: dict[str, Process] = {}
        self.leaders: dict[int, Process] = {}
        #: The next directory that is made belongs to a process that is killed right after its first write.
        self.kill_at_first_write = False
        #: So many calls more for a change of voters are refused, as etcd does for 5 s after voters connected.
        self.unsettled = 0
        #: By cluster ID, what was ever committed, and what should never have happened.
        self.history: dict[int, History] = {}
        self.problems: list[str] = []
        #: Told every change of the voters that was accepted.
        self.on_change: Callable[[Change], None] = lambda change: None
        #: Told the directory of a member that was made the only one.
        self.on_force: Callable[[Data], None] = lambda data: None

    # --- starting and ending -----------------------------------------------------------------------------------------

    def start(self, pod: str, address: str, mounts: dict[str, Any], volume: Volume, name: str) -> None:
        """Start the member of that pod with the file of that name; raises `EtcdExitedError`."""
        text = mounts["config"].get(name)
        if text is None:
            raise EtcdExitedError(NO_FILE % pod)
        try:
            file = yaml.safe_load(text)
            path = file["data-dir"]
        except (yaml.YAMLError, KeyError, TypeError):
            raise EtcdExitedError('{"level":"fatal","msg":"failed to verify flags","error":"yaml"}') from None
        peer, server = mounts.get("peer", {}), mounts.get("server", {})
        if path not in volume.directories:
            volume.directories[path] = self._make(pod, file, peer)
            if self.kill_at_first_write:
                self.kill_at_first_write = False
                volume.directories[path].hollow = True
                raise EtcdExitedError("")
        if any(each.data is volume.directories[path] for each in self.processes.values()):
            raise EtcdExitedError('{"level":"fatal","msg":"cannot lock the directory","error":"another etcd has it"}')
        if file.get("force-new-cluster"):
            self._force(volume.directories[path])
        self.processes[pod] = Process(
            name=pod,
            address=address,
            url=file["initial-advertise-peer-urls"],
            version="3.7.3",
            data=volume.directories[path],
            trusts_peers_of=peer.get("ca.crt", b""),
            trusts_clients_of=server.get("ca.crt", b""),
            shows_peers=peer.get("tls.crt", b""),
            shows_clients=server.get("tls.crt", b""),
            max_learners=file.get("max-learners", 1),
            alone="127.0.0.1" in file.get("listen-peer-urls", ""),
        )

    def _force(self, data: Data) -> None:
        """Make a member the only one; whoever of the others runs could go on as if nothing had happened."""
        others = [each.name for each in self.processes.values() if each.data.cluster_id == data.cluster_id]
        if others and frozenset(data.roster.members) != {data.member_id}:
            self.problems.append(f"{data.member_id:x} was made the only member while {', '.join(others)} ran")
        data.log, data.roster = data.log[: data.commit], data.roster.alone(data.member_id)
        self.leaders.pop(data.cluster_id, None)
        self.history[data.cluster_id].force(data.log, data.roster)
        self.on_force(data)

    def _make(self, pod: str, file: dict[str, Any], tls: dict[str, bytes]) -> Data:
        """A new data directory."""
        pairs = [pair.split("=", 1) for pair in file["initial-cluster"].split(",")]
        names, urls = [name for name, _ in pairs], sorted(url for _, url in pairs)
        peers = self._peers(file["initial-advertise-peer-urls"], urls, tls)
        if file["initial-cluster-state"] == "existing":
            data = self._join(file, urls, peers)
        else:
            data = self._found(file, dict(zip(names, (url for _, url in pairs), strict=True)), peers)
        history = self.history.setdefault(data.cluster_id, History(data.roster))
        if data.member_id in history.holders & history.roster.voters:
            self.problems.append(f"{pod} lost its data and came back as the voter {data.member_id:x} that it was")
        if data.member_id in history.roster.removed:
            self.problems.append(f"{pod} joined as the member {data.member_id:x} that was removed")
        return data

    def _peers(self, url: str, listed: list[str], tls: dict[str, bytes]) -> Iterator[Process]:
        """The other members of a file's list that a process can ask when it starts."""
        for peer in sorted(self.processes.values(), key=lambda each: each.url):
            shown, trusted = tls.get("tls.crt", b""), tls.get("ca.crt", b"")
            agree = is_trusted(shown, peer.trusts_peers_of) and is_trusted(peer.shows_peers, trusted)
            if not peer.frozen and peer.url in listed and peer.url != url and agree:
                yield peer

    def _found(self, file: dict[str, Any], listed: dict[str, str], peers: Iterator[Process]) -> Data:
        token, url = file["initial-cluster-token"], file["initial-advertise-peer-urls"]
        roster, own = Roster.founded(listed, token), member_id(url, token)
        for peer in peers:
            known = peer.data.roster.members.get(own)
            if known is not None and known.started:
                raise EtcdExitedError(BOOTSTRAPPED % file["name"])
        return Data(cluster_id=cluster_id(roster.members), member_id=own, roster=roster)

    def _join(self, file: dict[str, Any], listed: list[str], peers: Iterator[Process]) -> Data:
        """The first peer that answers with a member list decides, however old its list is.

        etcd looks its own ID up by URL and does not ask whether that member has started before: one that lost its
        data comes back as itself, without what it had voted for and acknowledged.
        """
        for peer in peers:
            if peer.data.hollow:
                continue
            roster, of = peer.data.roster, peer.data.cluster_id
            own = roster.by_url(file["initial-advertise-peer-urls"])
            told = ", ".join(roster.urls)
            if len(roster.urls) != len(listed):
                raise EtcdExitedError(MEMBER_LIST % (of, told, "member count is unequal"))
            if own is None or roster.urls != listed:
                raise EtcdExitedError(MEMBER_LIST % (of, told, "PeerURLs: no match found for existing member"))
            return Data(cluster_id=of, member_id=own.id, roster=roster, joined=True)
        raise EtcdExitedError(FUSE)

    def stop(self, pod: str) -> None:
        self.processes.pop(pod, None)

    def _end_removed(self) -> list[str]:
        """A member ends, with exit code 0, once it or one that it hears knows that it was removed."""
        ended = [
            process.name
            for process in self.processes.values()
            if any(process.data.member_id in each.data.roster.removed for each in self.heard(process))
        ]
        for name in ended:
            self.stop(name)
        return ended

    # --- the log -----------------------------------------------------------------------------------------------------

    def step(self) -> list[str]:
        """Let every cluster elect a leader where it can, catch up, and publish its members.

        Returns the names of processes that ended by themselves.
        """
        ids = {process.data.cluster_id for process in self.processes.values()}
        for gone in self.leaders.keys() - ids:
            del self.leaders[gone]
        for cluster in ids:
            leader = self.leaders.get(cluster)
            if leader is None or not self._leads(leader):
                self.leaders.pop(cluster, None)
                self._elect(cluster)
            if leader := self.leaders.get(cluster):
                self.replicate(leader)
                for member in self.followers(leader):
                    known = leader.data.roster.members.get(member.data.member_id)
                    if known is not None and not known.started:
                        self.append(leader, f"publish {known.id} {member.name}")
        return self._end_removed()

    def _elect(self, cluster: int) -> None:
        members = [each for each in self.processes.values() if each.data.cluster_id == cluster]
        candidates = [each for each in members if each.data.may_campaign]
        for candidate in sorted(candidates, key=lambda each: (each.data.age, each.data.member_id), reverse=True):
            votes = [each for each in self.followers(candidate) if each.data.age <= candidate.data.age]
            if candidate.data.roster.has_quorum(_ids(each for each in votes if not each.data.hollow)):
                self._crown(candidate, votes)
                return

    def _crown(self, leader: Process, votes: list[Process]) -> None:
        if leader.data.member_id in self.history[leader.data.cluster_id].roster.removed:
            self.problems.append(f"{leader.name} leads members that were left behind")
        term = max(each.data.term for each in votes) + 1
        for each in votes:
            each.data.term = term
        self.leaders[leader.data.cluster_id] = leader
        leader.matches = {}
        leader.data.log.append((term, f"leader {leader.data.member_id} {term}"))

    def hand_over(self, leader: Process, to: Process) -> bool:
        """Move the lead to a voter; `False` when it does not catch up."""
        self.replicate(leader)
        if to not in self.followers(leader) or to.lagging or not to.data.may_campaign:
            return False
        self._crown(to, [each for each in self.followers(to) if each.data.age <= to.data.age])
        self.replicate(to)
        return True

    def heard(self, process: Process) -> list[Process]:
        """The processes of its cluster that hear this one and are heard, itself included; none where it is not up."""
        if self.processes.get(process.name) is not process or process.frozen:
            return []
        return [
            each
            for each in self.processes.values()
            if not each.frozen
            and (each is process or not (each.alone or process.alone))
            and each.data.cluster_id == process.data.cluster_id
            and is_trusted(process.shows_peers, each.trusts_peers_of)
            and is_trusted(each.shows_peers, process.trusts_peers_of)
        ]

    def followers(self, leader: Process) -> list[Process]:
        """Those of its member list that a leader, or a candidate, hears, itself included."""
        if leader.data.hollow:
            return []
        return [each for each in self.heard(leader) if each.data.member_id in leader.data.roster.members]

    def _leads(self, leader: Process) -> bool:
        roster, present = leader.data.roster, _ids(self.followers(leader))
        return leader.data.member_id in roster.voters & present and roster.has_quorum(present)

    def replicate(self, leader: Process) -> None:
        """Bring the followers that keep up to the leader's log, and commit what a majority of the voters holds."""
        synced = [each for each in self.followers(leader) if each is leader or not each.lagging]
        for each in synced:
            each.data.log = list(leader.data.log)
            each.data.term = leader.data.term
            each.data.hollow = False
            leader.matches[each.data.member_id] = len(leader.data.log)
        self._commit(leader.data, _ids(synced))
        history = self.history[leader.data.cluster_id]
        for each in synced:
            each.data.commit, each.data.roster = leader.data.commit, leader.data.roster
            if history.acknowledged:
                history.holders.add(each.data.member_id)

    def _commit(self, data: Data, holding: set[int]) -> None:
        """One entry after the other, as each change of members applies to those that come after it."""
        history = self.history[data.cluster_id]
        while data.commit < len(data.log) and data.roster.has_quorum(holding):
            data.roster = data.roster.after(data.log[data.commit][1])
            if problem := history.commit(data.log, data.commit, data.roster):
                self.problems.append(problem)
            data.commit += 1

    def append(self, leader: Process, entry: str) -> bool:
        """Commit an entry; `False` when no majority holds it yet, though it may be committed later."""
        if entry not in leader.data.waiting:
            leader.data.log.append((leader.data.term, entry))
        self.replicate(leader)
        return not leader.data.waiting

    # --- what clients and the operator get ---------------------------------------------------------------------------

    def leader_of(self, process: Process) -> Process | None:
        """The leader that this process follows, if it has a majority."""
        leader = self.leaders.get(process.data.cluster_id)
        return leader if leader is not None and process in self.followers(leader) and self._leads(leader) else None

    def is_ready(self, process: Process) -> bool:
        """Whether it answers a linearizable read: it must hold all that was committed."""
        leader = self.leader_of(process)
        if leader is None or process.data.is_learner:
            return False
        settled = leader.data.commit > 0 and leader.data.log[leader.data.commit - 1][0] == leader.data.term
        return settled and process.data.commit == leader.data.commit

    def put(self, process: Process, value: str) -> bool:
        """Write through this process; whether the write was acknowledged."""
        leader = self.leader_of(process)
        if leader is None or process.data.is_learner or not self.append(leader, f"put {value}"):
            return False
        self.history[leader.data.cluster_id].acknowledged = True
        self.replicate(leader)
        return True

    def reach(self, endpoint: Endpoint) -> Process:
        """The process at that address; raises `EtcdError` where there is none that would answer."""
        process = next((each for each in self.processes.values() if f"{each.address}:2379" == endpoint.address), None)
        if process is None or process.alone:
            raise EtcdError("refused", "connection refused")
        if process.frozen:
            raise EtcdError("timeout", "no answer")
        if (who := endpoint.tls) is not None and not (
            is_trusted(who.cert or b"", process.trusts_clients_of) and is_trusted(process.shows_clients, who.ca)
        ):
            raise EtcdError("tls", "the TLS handshake failed")
        if process.data.member_id in process.data.roster.removed:
            raise EtcdError("unavailable", "the connection broke")  # it ends within a second
        return process

    def answer(self, endpoint: Endpoint, now: datetime) -> Answer:
        """What the process at that address answers the operator."""
        try:
            process = self.reach(endpoint)
        except EtcdError as problem:
            return Answer(status=None, members=None, linearizable=False, error=problem, asked_at=now)
        report = self.report(process)
        if report.is_learner:
            return Answer(status=report, members=None, linearizable=False, error=None, asked_at=now)
        ready = self.is_ready(process)
        error = None if ready else EtcdError("no_leader", "no leader")
        return Answer(status=report, members=process.data.member_list, linearizable=ready, error=error, asked_at=now)

    def report(self, process: Process) -> MemberReport:
        leader, data = self.leader_of(process), process.data
        return MemberReport(
            cluster_id=data.cluster_id,
            member_id=data.member_id,
            version=process.version,
            leader_id=leader.data.member_id if leader else 0,
            is_learner=data.is_learner,
            raft_index=data.commit,
            raft_applied_index=data.commit,
            raft_term=data.term,
            revision=data.commit,
            db_size=20480 + 4096 * data.commit,
            db_size_in_use=4096 * data.commit,
        )


def _ids(processes: "Iterator[Process] | list[Process]") -> set[int]:
    return {each.data.member_id for each in processes}
