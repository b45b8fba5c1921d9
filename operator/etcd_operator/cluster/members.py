"""Each member as it was seen: what etcd says of it, what Kubernetes says of it, and whether they prove it down.

Pure. Unknown is not down: a member counts as down only when its pod is gone or not running, when nothing
listens on its port, or when the kubelet too has found it not ready for a while; silence, or an election, alone leaves
it unknown.
"""

from dataclasses import dataclass
from datetime import timedelta
from enum import Enum
from typing import Literal

from etcd_operator.cluster.observation import AWAY, Observation
from etcd_operator.cluster.records import is_terminating, volume_record
from etcd_operator.cluster.roster import member_list
from etcd_operator.cluster.trouble import (
    DISK_FULL,
    NO_FILE,
    Trouble,
    claim_trouble,
    is_ready,
    is_running,
    is_unready_for_others,
    pod_trouble,
    ready_changed,
    refused_pods,
)
from etcd_operator.etcd.model import Alarm, AlarmKind, Answer, Member, MemberList, hex_id
from etcd_operator.resources.blueprint import Blueprint
from etcd_operator.resources.names import Manifest

Role = Literal["Voter", "Learner"]

#: How long a process that runs must not have served, to the kubelet as well, before it counts as down: on a machine
#: that is short of CPU all members may miss a probe together (seen: for 2.3 s), or elect a leader for longer than the
#: operator waits, and a lost quorum alarms people.
SILENCE = timedelta(seconds=5)


@dataclass(frozen=True, kw_only=True, slots=True)
class SeenMember:
    """One member. `why` tells in a few words why it is not healthy; `listed` is its entry in etcd's member list."""

    name: str
    pod: Manifest | None
    answer: Answer | None
    listed: Member | None
    healthy: bool
    down: bool
    foreign: bool
    why: str
    trouble: Trouble | None

    @property
    def role(self) -> Role:
        return "Learner" if self.listed and self.listed.is_learner else "Voter"

    @property
    def cannot_start(self) -> bool:
        """Whether what is told of it keeps its process from running now; not while that tries once more."""
        return self.trouble is not None and not is_running(self.pod or {})

    @property
    def cannot_run(self) -> bool:
        """Whether it has a pod that stays, and its process is proved not to run in it."""
        return self.cannot_start and self.pod is not None and not is_terminating(self.pod)

    @property
    def is_full(self) -> bool:
        """Whether etcd ended as its volume has no room."""
        return self.cannot_run and self.trouble is not None and self.trouble.reason == DISK_FULL

    @property
    def node(self) -> str | None:
        node: str | None = (self.pod or {}).get("spec", {}).get("nodeName")
        return node


class Quorum(Enum):
    """Whether etcd can take a write, as far as can be known."""

    HEALTHY = "healthy"
    LOST = "lost"
    UNKNOWN = "unknown"


@dataclass(frozen=True, kw_only=True, slots=True)
class Membership:
    """All members of one cluster in one round; `list` is etcd's own, from a quorum where one answered."""

    members: tuple[SeenMember, ...]
    list: MemberList | None
    confirmed: bool
    cluster_id: str

    @property
    def voters(self) -> tuple[SeenMember, ...]:
        return tuple(member for member in self.members if member.role == "Voter")

    @property
    def voter_count(self) -> int:
        """Voters by etcd's own list where it is known: members without a pod count, as their votes do."""
        if self.list is not None:
            return sum(not member.is_learner for member in self.list.members)
        return len(self.voters)

    @property
    def healthy(self) -> tuple[SeenMember, ...]:
        return tuple(member for member in self.voters if member.healthy)

    @property
    def ailing(self) -> tuple[SeenMember, ...]:
        """Members that should be well and are not; a learner that simply comes up is none of them."""
        return tuple(
            m
            for m in self.members
            if not m.healthy and (m.role == "Voter" or (m.trouble is not None and not is_terminating(m.pod)))
        )

    @property
    def learners(self) -> tuple[SeenMember, ...]:
        return tuple(member for member in self.members if member.role == "Learner")

    @property
    def connected(self) -> SeenMember | None:
        """The member to tell etcd anything through: the leader, or any other that a quorum answers."""
        sound = [member for member in self.healthy if member.answer and member.answer.linearizable]
        return self.leader if self.leader in sound else next(iter(sound), None)

    def survives_without(self, gone: SeenMember) -> bool:
        """Whether the voters that remain would hold a quorum of healthy ones (invariant 1)."""
        remaining = self.voter_count - 1
        return sum(member.healthy for member in self.voters if member is not gone) >= remaining // 2 + 1

    def survives_with(self, promoted: SeenMember) -> bool:
        """Whether a quorum of the voters, this learner among them, would be healthy (invariant 1)."""
        return promoted.healthy and len(self.healthy) + 1 >= (self.voter_count + 1) // 2 + 1

    @property
    def alarms(self) -> frozenset[Alarm]:
        """The alarms that are raised, as members tell that a quorum answers; a member that lags may not know yet."""
        reports = [m.answer.status for m in self.members if m.answer and m.answer.linearizable and m.answer.status]
        return frozenset(alarm for report in reports for alarm in report.alarms)

    @property
    def alarmed(self) -> bool:
        """Whether etcd refuses writes, as the data of members differs."""
        return any(alarm.kind is AlarmKind.CORRUPT for alarm in self.alarms)

    @property
    def answering(self) -> int:
        """Members of which etcd said anything at all."""
        return sum(member.answer is not None and member.answer.status is not None for member in self.members)

    @property
    def needed(self) -> int:
        return self.voter_count // 2 + 1

    @property
    def quorum(self) -> Quorum:
        if (
            self.confirmed or len(self.healthy) >= self.needed
        ):  # one member's word is enough: etcd asked a quorum for it
            return Quorum.HEALTHY
        possible = len(self.healthy) + sum(not member.down for member in self.voters if not member.healthy)
        return Quorum.UNKNOWN if possible >= self.needed else Quorum.LOST

    @property
    def tolerated(self) -> int:
        """How many more members may fail before writes stop."""
        return max(0, len(self.healthy) - self.needed)

    @property
    def leader(self) -> SeenMember | None:
        """The member that a healthy member names as leader, of the newest term if they differ."""
        reports = [m.answer.status for m in self.members if m.healthy and m.answer and m.answer.status]
        for report in sorted(reports, key=lambda report: report.raft_term, reverse=True):
            for member in self.members:
                if report.leader_id and member.listed and member.listed.id == report.leader_id:
                    return member
        return None


def membership(seen: Observation, plan: Blueprint) -> Membership:
    """The members of `plan`, each with what was seen of it."""
    listed, confirmed = member_list(seen, plan.cluster_id)
    by_name = {member.name: member for member in listed.members} if listed else {}
    by_url = {url: member for member in (listed.members if listed else ()) for url in member.peer_urls}
    members = tuple(
        _seen_member(seen, plan, name, by_url.get(plan.peer_url(name)) or by_name.get(name)) for name in plan.members
    )
    return Membership(
        members=members, list=listed, confirmed=confirmed, cluster_id=hex_id(listed.cluster_id) if listed else ""
    )


def _seen_member(seen: Observation, plan: Blueprint, name: str, listed: Member | None) -> SeenMember:
    pod, answer = seen.objects.pods.get(name), seen.answers.get(name)
    foreign = _is_foreign(answer, plan.cluster_id)
    trouble = _foreign_volume(seen, plan, name) or _trouble(seen, name, pod)
    if trouble and trouble.reason == NO_FILE and plan.seat(name).joining:
        trouble = None  # its pod was made ahead, and starts again with the file that it has now
    why = _why(pod, answer, foreign=foreign, listed=listed, plan=plan, trouble=trouble)
    return SeenMember(
        name=name,
        pod=pod,
        answer=answer,
        listed=listed,
        healthy=not why,
        down=bool(why) and _is_down(seen, name, pod, answer),
        foreign=foreign,
        why=why,
        trouble=trouble,
    )


def _foreign_volume(seen: Observation, plan: Blueprint, name: str) -> Trouble | None:
    """A volume that another etcd cluster's data is recorded on; this cluster's directory is not there."""
    claim = seen.objects.claims.get(seen.names.claim(name))
    record = volume_record(claim, name) if claim else None
    if record is None or not plan.cluster_id or record.cluster_id == plan.cluster_id:
        return None
    return Trouble(
        reason="ForeignVolume",
        message=f"{name}: PersistentVolumeClaim {seen.names.claim(name)} holds the data of etcd cluster "
        f"{record.cluster_id}, not of this one; put the right volume in its place",
    )


def _trouble(seen: Observation, name: str, pod: Manifest | None) -> Trouble | None:
    claim = seen.objects.claims.get(seen.names.claim(name))
    from_claim = claim_trouble(claim, seen.complaints, seen.at) if claim else None
    return from_claim or (pod_trouble(pod, seen.complaints, seen.at) if pod else refused_pods(seen.complaints))


def _is_foreign(answer: Answer | None, cluster_id: str) -> bool:
    return bool(cluster_id and answer and answer.status and hex_id(answer.status.cluster_id) != cluster_id)


def _why(
    pod: Manifest | None,
    answer: Answer | None,
    *,
    foreign: bool,
    listed: Member | None,
    plan: Blueprint,
    trouble: Trouble | None,
) -> str:
    """Why a member is not healthy; empty when it is."""
    if pod is None:
        return "its pod is missing"
    if is_terminating(pod):  # also while it still answers: nothing may be built on it any more
        return "its pod is terminating"
    if foreign and answer and answer.status:
        return f"it serves the data of another etcd cluster ({hex_id(answer.status.cluster_id)})"
    if answer is None:
        starting = "it could not be asked" if is_running(pod) else "its pod is starting"
        return trouble.reason if trouble else starting
    if answer.status and listed and answer.status.member_id != listed.id:
        return "it still runs as the member that was removed"
    if answer.status and any(_is_corrupt(alarm, answer.status.member_id) for alarm in answer.status.alarms):
        return "etcd found that its data differs from that of the others"
    if answer.linearizable:
        return ""
    if listed and listed.is_learner and answer.status:
        return "" if answer.status.leader_id else "it is a learner without a leader"
    if trouble:
        return trouble.reason
    if answer.status and not answer.status.leader_id:
        return "it has no leader"
    return answer.error.message if answer.error else "it cannot reach a quorum"


def _is_corrupt(alarm: Alarm, member_id: int) -> bool:
    return alarm.kind is AlarmKind.CORRUPT and alarm.member_id == member_id


def _is_down(seen: Observation, name: str, pod: Manifest | None, answer: Answer | None) -> bool:
    """Proof: see the module's docstring. etcd's own readiness, the kubelet's probe, takes a quorum."""
    if pod is None or is_terminating(pod) or not is_running(pod):
        return True
    if answer and answer.error and answer.error.kind == "refused":
        return True
    place = seen.places.get(name)
    stale = place is not None and place.node in AWAY  # what the kubelet said last of its containers
    if is_ready(pod) or (is_unready_for_others(pod) and not stale):
        return False
    changed = ready_changed(pod)
    # A time to come is that of a node whose clock is ahead: it says nothing about how long.
    return changed is None or not timedelta(0) <= seen.at - changed < SILENCE
