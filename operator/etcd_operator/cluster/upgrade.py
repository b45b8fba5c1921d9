"""Which version of etcd may follow which: one minor at a time, from patches that etcd's upgrade guides name.

Pure. Going back is possible while one member still runs the older minor version, as etcd raises the cluster version
only when all run the newer one; after that an older binary refuses, unless etcd's downgrade was enabled.
"""

from etcd_operator.api import EtcdClusterSpec
from etcd_operator.cluster.observation import Observation
from etcd_operator.cluster.records import Proof
from etcd_operator.etcd.options import minor_number, version_number
from etcd_operator.resources.blueprint import Blueprint

#: The oldest patch from which the next minor version may follow (etcd's guides "Upgrading etcd from 3.5 to 3.6" and
#: "from 3.6 to 3.7"), and the version to go to where it is older.
LEAST = {(3, 5): ("3.5.32", "3.5.35"), (3, 6): ("3.6.11", "3.6.16")}

#: The first minor version that panics on requests of the v2 store in its log (MustUnmarshalMessage in Apply,
#: server/etcdserver/apply/apply.go in 3.7; seen), and the last that wrote such, at each start, to publish a member.
#: What is older than the last snapshot on disk is not replayed, so it takes a restart on 3.6 that saves snapshots. By
#: itself 3.6 saves one only where it replays that the cluster version was lower before (ClusterVersionSet, the same
#: file in 3.6), which is gone from the log once there was a snapshot since the founding (seen: then 3.7 died).
LOG_UNREADABLE, LOG_WRITER = (3, 7), (3, 5)
#: After how many entries 3.6 is to save one for that. It drops those from memory anyway (memorySnapshotCount,
#: server/etcdserver/server.go), so that this costs next to nothing; every entry (1) took 85% of the writes (measured).
SNAPSHOT_COUNT = 100


def log_version_after(plan: Blueprint, after: str) -> str:
    """`Blueprint.log_version` once all members run the version `after`."""
    before = plan.spec.version
    return before if minor_number(before) == LOG_WRITER != minor_number(after) else plan.log_version


def log_version_of_adopted(proven: Proof, version: str) -> str:
    """`Blueprint.log_version` where nothing tells what ran before: a restart too many is better than a panic."""
    older = (LOG_UNREADABLE[0], LOG_UNREADABLE[1] - 1)
    return "{}.{}".format(*LOG_WRITER) if proven.cluster_id and minor_number(version) == older else ""


def must_restart_first(plan: Blueprint, wanted: EtcdClusterSpec) -> bool:
    """Whether all members have to restart on the version that they run before the wanted one can read their logs."""
    return bool(plan.log_version) and minor_number(wanted.version) == LOG_UNREADABLE


def with_snapshots(spec: EtcdClusterSpec) -> EtcdClusterSpec:
    """The spec with which a member saves a snapshot soon after it runs; see `LOG_UNREADABLE`."""
    count = min(spec.options.snapshot_count, SNAPSHOT_COUNT)
    return spec.model_copy(update={"options": spec.options.model_copy(update={"snapshot_count": count})})


def as_before_snapshots(running: EtcdClusterSpec, wanted: EtcdClusterSpec) -> EtcdClusterSpec:
    """The spec that runs without what `with_snapshots` alone put into it on the way to the wanted version."""
    ours = running.options.snapshot_count == with_snapshots(wanted).options.snapshot_count
    if not ours or minor_number(wanted.version) != LOG_UNREADABLE or minor_number(running.version) == LOG_UNREADABLE:
        return running
    options = running.options.model_copy(update={"snapshot_count": wanted.options.snapshot_count})
    return running.model_copy(update={"options": options})


def index_of_snapshots(seen: Observation, plan: Blueprint) -> int:
    """The index by which all members, as they run now, have saved a snapshot of all that their logs have; 0: unknown.

    etcd saves one as soon as it has applied more than snapshot-count entries since the last (shouldSnapshotToDisk,
    server/etcdserver/server.go): so many later, the last one is not older than this moment.
    """
    applied = _applied(seen, plan)
    return max(applied) + SNAPSHOT_COUNT + 1 if applied else 0


def has_saved_snapshots(seen: Observation, plan: Blueprint, index: int) -> bool:
    """Whether all members have applied their logs up to that index of `index_of_snapshots`."""
    applied = _applied(seen, plan)
    return index > 0 and bool(applied) and min(applied) >= index


def _applied(seen: Observation, plan: Blueprint) -> list[int]:
    """How far each member has applied its log; none where one does not tell."""
    reports = [answer.status if (answer := seen.answers.get(member)) else None for member in plan.members]
    return [report.raft_applied_index for report in reports if report] if all(reports) else []


def unraised(seen: Observation, plan: Blueprint, wanted: EtcdClusterSpec) -> str:
    """Why the members do not restart for 3.7 yet, where they wait for etcd itself; empty where they do not."""
    if not must_restart_first(plan, wanted) or has_raised_versions(seen, plan):
        return ""
    major, minor = minor_number(plan.spec.version)
    return f"the members restart for it once etcd has taken the storage of all of them to {major}.{minor}"


def has_raised_versions(seen: Observation, plan: Blueprint) -> bool:
    """Whether every member has taken its storage to the version that runs, which it does after the cluster version."""
    reports = [answer.status if (answer := seen.answers.get(member)) else None for member in plan.members]
    ours = minor_number(plan.spec.version)
    return all(each and each.storage_version and minor_number(each.storage_version) == ours for each in reports)


def upgrade_problem(seen: Observation, running: EtcdClusterSpec, wanted: EtcdClusterSpec) -> str:
    """Why `wanted.version` cannot follow the version that runs, with the path to take; empty when it can."""
    before, after = minor_number(running.version), minor_number(wanted.version)
    if before == after:
        return ""
    if after < before:
        return _going_back(seen, running.version, wanted.version)
    if after > (before[0], before[1] + 1):
        _, through = LEAST.get((before[0], before[1] + 1), ("", f"{before[0]}.{before[1] + 1}"))
        return (
            f"spec.version {wanted.version} cannot follow {running.version}: etcd is upgraded one minor version at a "
            f"time; set spec.version to {through} first"
        )
    least, through = LEAST.get(before, ("", ""))
    versions = [report.version for answer in seen.answers.values() if (report := answer.status)]
    oldest = min(
        (version for version in (*versions, running.version) if minor_number(version) == before), key=version_number
    )
    if least and version_number(oldest) < version_number(least):
        return (
            f"spec.version {wanted.version} cannot follow {oldest}: the next minor version needs at least {least} "
            f"on every member; set spec.version to {through} first"
        )
    return ""


def _going_back(seen: Observation, running: str, wanted: str) -> str:
    target = minor_number(wanted)
    reports = [report for answer in seen.answers.values() if (report := answer.status)]
    if any(minor_number(report.version) == target for report in reports):
        return ""
    if any(report.downgrade_target and minor_number(f"{report.downgrade_target}.0") == target for report in reports):
        return ""
    back = f"spec.version {wanted} is below {running}, which all members run already"
    if target < (minor_number(running)[0], minor_number(running)[1] - 1):
        return f"{back}: etcd goes back one minor version at a time; set spec.version back to {running}"
    return (
        f"{back}: etcd refuses an older binary now; set spec.version back to {running}, or run "
        f"`etcdctl downgrade enable {target[0]}.{target[1]}` first"
    )
