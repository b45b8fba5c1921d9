"""Data that is kept in memory: whose is gone, and what that means.

Pure. A tmpfs lives as long as its pod: containers that are started again find it as it was, another pod of the same
name finds it empty. So the pod that has a member's data is recorded (`Seat.pod`), and once that pod is gone, or goes,
the member can never serve again, whatever runs under its name.
"""

from etcd_operator.api import Quantity
from etcd_operator.cluster.judged import Judged
from etcd_operator.cluster.members import SeenMember
from etcd_operator.cluster.records import annotations, is_terminating
from etcd_operator.resources.names import FILES_REFRESHED

#: Phases of a pod that runs nothing any more.
ENDED = {"Failed", "Succeeded"}
#: What etcd's last words prove, of a member that has had its fuse: that its directory is empty, or of no use.
DATA_GONE = {"DataMissing", "DataCorrupt"}


def gone_with_its_pod(judged: Judged, member: SeenMember) -> str:
    """Why the member's data is gone, or goes for sure; empty where it may be there."""
    holder, pod = judged.blueprint.seat(member.name).pod, member.pod
    if not judged.blueprint.in_memory or not holder:
        return ""
    if pod is None or pod["metadata"]["uid"] != holder:
        return "its data was in the memory of a pod that is gone"
    if is_terminating(pod):
        return "its data is in the memory of a pod that goes"
    return "its data was in the memory of a pod that has ended" if _phase(member) in ENDED else ""


def fuse_tripped(judged: Judged, member: SeenMember) -> str:
    """What etcd said when it refused to start on an empty directory, or on one of no use; empty where it did not.

    It proves so only of a member whose pod has had the fuse since it started, and that does not try once more.
    """
    refreshed = judged.blueprint.refreshed(member.name)
    fused = bool(refreshed) and annotations(member.pod).get(FILES_REFRESHED) == refreshed
    proved = fused and member.cannot_start and not member.healthy
    if proved and member.trouble and member.trouble.reason in DATA_GONE:
        return member.trouble.message.partition(": ")[2]
    return ""


def members_without_data(judged: Judged) -> tuple[SeenMember, ...]:
    """Voters whose data was in memory and is gone."""
    if not judged.blueprint.in_memory:
        return ()
    return tuple(m for m in judged.membership.voters if gone_with_its_pod(judged, m) or fuse_tripped(judged, m))


def data_lost(judged: Judged) -> str:
    """What is lost when too few members still have their data ever to be a quorum again; empty while enough do."""
    members, gone = judged.membership, members_without_data(judged)
    left = [member.name for member in members.voters if member not in gone]
    if not gone or members.voter_count - len(gone) >= members.needed:
        return ""
    told = f"the data was in memory, and that of {', '.join(member.name for member in gone)} went with their pods"
    again = "nothing is founded anew by itself: delete the EtcdCluster and apply it again to begin with an empty etcd"
    if left:
        return f"{told}; what is left is in {', '.join(left)} alone: save it before that pod goes; {again}"
    return f"{told}: all of it is lost; {again}"


def memory_limit_problem(judged: Judged) -> str:
    """That etcd may use less memory than its data may take; empty where it may not."""
    spec = judged.blueprint.spec
    limit = spec.resources.get("limits", {}).get("memory")
    if not judged.blueprint.in_memory or limit is None or Quantity(limit) > spec.storage.size:
        return ""
    return (
        f"resources.limits.memory {limit} leaves no room beside storage.size {spec.storage.size}, which is memory as "
        "well: etcd is killed when both together reach the limit"
    )


def _phase(member: SeenMember) -> str:
    return str(((member.pod or {}).get("status") or {}).get("phase", ""))
