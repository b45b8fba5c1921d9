"""What the members of the model are told: the operator's `EtcdClient`, on the model's etcd.

When etcd refuses a change of members follows its source (mayAddMember, mayRemoveMember, isLearnerReady in
server/etcdserver/server.go, ValidateConfigurationChange in api/membership/cluster.go; the same in 3.5, 3.6 and 3.7):
MemberAdd wants a majority of the voters *with one more* connected to the member that is asked, so that three voters
may not lack one; a voter that is down may always be removed, one that is connected only if enough others are; and a
learner is promoted by what its leader last knew of its log, whether or not it still runs.
"""

from collections.abc import Callable
from typing import Protocol, TypeVar

from etcd_operator.etcd.errors import EtcdError, error_from
from etcd_operator.etcd.model import Endpoint, Member, MemberList, MemberReport
from model.etcd import Etcd, Process
from model.membership import Change, Roster, is_change, member_id

T = TypeVar("T")

#: Of the leader's log, what a learner must have to be promoted (readyPercentThreshold).
READY = 0.9


class Gate(Protocol):
    """What a call passes on its way to etcd."""

    def check(self) -> None: ...

    def write(self, what: str, write: Callable[[], T], failure: Callable[[], Exception]) -> T: ...


class OpenGate:
    """Lets everything pass."""

    def check(self) -> None:
        pass

    def write(self, what: str, write: Callable[[], T], failure: Callable[[], Exception]) -> T:
        return write()


class ModelClient:
    """What the operator uses of `EtcdClient`; raises `EtcdError` as that does."""

    def __init__(self, etcd: Etcd, gate: Gate | None = None) -> None:
        self._etcd = etcd
        self._gate: Gate = gate or OpenGate()

    async def aclose(self) -> None:
        """There is nothing to close."""

    async def status(self, endpoint: Endpoint, **_: float) -> MemberReport:
        self._gate.check()
        return self._etcd.report(self._etcd.reach(endpoint))

    async def members(self, endpoint: Endpoint, *, linearizable: bool, **_: float) -> MemberList:
        self._gate.check()
        process = self._reach(endpoint)
        if linearizable and not self._etcd.is_ready(process):
            raise EtcdError("no_leader", "no leader")
        return process.data.member_list

    async def member_add(
        self, endpoint: Endpoint, peer_urls: tuple[str, ...], *, learner: bool = True, **_: float
    ) -> tuple[Member, MemberList]:
        return self._write("member_add", lambda: self._add(endpoint, peer_urls, learner=learner))

    async def member_remove(self, endpoint: Endpoint, member_id: int, **_: float) -> MemberList:
        return self._write("member_remove", lambda: self._remove(endpoint, member_id))

    async def member_promote(self, endpoint: Endpoint, member_id: int, **_: float) -> MemberList:
        return self._write("member_promote", lambda: self._promote(endpoint, member_id))

    async def move_leader(self, endpoint: Endpoint, target_id: int, **_: float) -> None:
        self._write("move_leader", lambda: self._move(endpoint, target_id))

    def _write(self, what: str, write: Callable[[], T]) -> T:
        return self._gate.write(what, write, lambda: EtcdError("timeout", "injected"))

    # --- what etcd does ----------------------------------------------------------------------------------------------

    def _add(self, endpoint: Endpoint, peer_urls: tuple[str, ...], *, learner: bool) -> tuple[Member, MemberList]:
        process = self._reach(endpoint)
        known = process.data.roster
        bigger = (len(known.voters) + 1) // 2 + 1
        if len(known.voters) > 1:
            if not learner and known.started_voters < bigger:
                raise EtcdError("not_enough_started", "too few voters have started")
            if self._is_unsettled() or len(self._connected(process) & known.voters) < bigger:
                raise EtcdError("unhealthy_cluster", "unhealthy cluster")
        leader = self._leader(process)
        roster = leader.data.roster
        (url,) = peer_urls
        if roster.by_url(url) is not None:
            raise EtcdError("already_exists", "Peer URLs already exists")
        if learner and len(roster.learners) >= process.max_learners:
            raise EtcdError("too_many_learners", "too many learner members in cluster")
        # etcd takes the second for the salt; here each addition is one of its own.
        added = member_id(url, str(len(leader.data.log)))
        self._propose(process, leader, f"{'add' if learner else 'add-voter'} {added} {url}")
        return process.data.roster.members[added], process.data.member_list

    def _remove(self, endpoint: Endpoint, removed: int) -> MemberList:
        process = self._reach(endpoint)
        known, connected = process.data.roster, self._connected(process)
        if removed not in known.learners:
            left = Roster({each: known.members[each] for each in known.voters - {removed}})
            if left.started_voters < len(left.voters) // 2 + 1:
                raise EtcdError("not_enough_started", "not enough started members")
            active = 1 if removed in connected and self._is_unsettled() else len(connected & known.voters)
            if removed in connected and active - 1 < (len(known.voters) - 1) // 2 + 1:
                raise EtcdError("unhealthy_cluster", "unhealthy cluster")
        leader = self._leader(process)
        if removed not in leader.data.roster.members:
            raise EtcdError("not_found", "member not found")
        self._propose(process, leader, f"remove {removed}")
        return process.data.member_list

    def _promote(self, endpoint: Endpoint, promoted: int) -> MemberList:
        process = self._reach(endpoint)
        leader = self._leader(process)
        roster = leader.data.roster
        if promoted not in roster.members:
            raise EtcdError("not_found", "member not found")
        if leader.matches.get(promoted, 0) < READY * len(leader.data.log):
            raise EtcdError("learner_not_ready", "not in sync with leader")
        if roster.started_voters + 1 < (len(roster.voters) + 1) // 2 + 1:
            raise EtcdError("not_enough_started", "not enough started members")
        if promoted not in roster.learners:
            raise EtcdError("not_a_learner", "can only promote a learner member")
        self._propose(process, leader, f"promote {promoted}")
        return process.data.member_list

    def _move(self, endpoint: Endpoint, target: int) -> None:
        process = self._reach(endpoint)
        if self._etcd.leader_of(process) is not process:
            raise EtcdError("not_leader", "not leader")
        if target not in process.data.roster.voters:
            raise EtcdError("bad_transferee", "bad leader transferee")
        to = next((each for each in self._etcd.followers(process) if each.data.member_id == target), None)
        if to is process:
            return
        if to is None or not self._etcd.hand_over(process, to):
            raise error_from("UNAVAILABLE", "etcdserver: request timed out, leader transfer took too long")

    def _reach(self, endpoint: Endpoint) -> Process:
        """A learner answers Status alone."""
        process = self._etcd.reach(endpoint)
        if process.data.is_learner:
            raise EtcdError("is_learner", "rpc not supported for learner")
        return process

    def _leader(self, process: Process) -> Process:
        leader = self._etcd.leader_of(process)
        if leader is None:
            raise EtcdError("no_leader", "no leader")
        return leader

    def _connected(self, process: Process) -> set[int]:
        return {each.data.member_id for each in self._etcd.heard(process)}

    def _is_unsettled(self) -> bool:
        self._etcd.unsettled = max(0, (before := self._etcd.unsettled) - 1)
        return before > 0

    def _propose(self, process: Process, leader: Process, entry: str) -> None:
        """Commit a change; a timeout tells nothing of whether it will be, or was without this member's knowing."""
        before = leader.data.roster.voters
        self._etcd.replicate(leader)
        dropped = any(is_change(waiting) for waiting in leader.data.waiting)
        committed = not dropped and self._etcd.append(leader, entry)
        if leader.data.roster.voters != before:
            connected = frozenset(self._connected(leader))
            self._etcd.on_change(Change(entry=entry, roster=leader.data.roster, connected=connected))
        if not committed or process.data.commit < leader.data.commit:
            raise EtcdError("timeout", "no answer in time")
