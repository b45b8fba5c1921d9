"""The observation with everything that follows from it, worked out once for `plan` and `status` alike.

Pure.
"""

from dataclasses import dataclass
from typing import Self

from etcd_operator.api import EtcdClusterSpec
from etcd_operator.cluster.ahead import with_upcoming
from etcd_operator.cluster.authority import HeldAuthority, Phase
from etcd_operator.cluster.certificates import authority
from etcd_operator.cluster.members import Membership, membership
from etcd_operator.cluster.observation import Observation
from etcd_operator.cluster.provided import provided_problems
from etcd_operator.cluster.records import Proof, foundation, proof
from etcd_operator.cluster.settled import blueprint, pending, problems, target_spec
from etcd_operator.cluster.upgrade import upgrade_problem
from etcd_operator.resources.blueprint import Blueprint
from etcd_operator.resources.secrets import wanted_authorities

#: Reasons of the condition Available that are told before clients were ever let in.
BEFORE_ACCESS = {"Bootstrapping", "Publishing", "Starting", "InvalidSpec"}


@dataclass(frozen=True, kw_only=True, slots=True)
class Judged:
    """One observation and what it amounts to.

    `problems` and `pending` speak of the user's spec: sentences that say what is wrong with it, and the fields in
    which it differs from what the members run. `refused` says why its version cannot follow the one that runs.
    `founded` tells whether objects record what that is, `published` whether the status that stands says that clients
    were let in. `rotating` is the authority that is being replaced.
    """

    seen: Observation
    proof: Proof
    blueprint: Blueprint
    membership: Membership
    problems: tuple[str, ...]
    refused: str
    pending: tuple[str, ...]
    founded: bool
    published: bool
    rotating: HeldAuthority | None

    @classmethod
    def of(cls, seen: Observation) -> Self:
        proven = proof(seen)
        plan = with_upcoming(seen, blueprint(seen, proven))
        return cls(
            seen=seen,
            proof=proven,
            blueprint=plan,
            membership=membership(seen, plan),
            problems=(*problems(seen.cluster.spec), *(() if proven.cluster_id else provided_problems(seen))),
            refused="" if plan.target_revision else upgrade_problem(seen, plan.spec, seen.cluster.spec),
            pending=pending(_awaited(seen, plan), plan.spec),
            founded=foundation(seen) is not None,
            published=_was_published(seen),
            rotating=_rotating(seen, plan),
        )


def _awaited(seen: Observation, plan: Blueprint) -> EtcdClusterSpec:
    """The user's spec, of a founded cluster as far as members restart for it: volumes grow without that."""
    return target_spec(seen.cluster.spec, plan.spec) if plan.bootstrapped else seen.cluster.spec


def _was_published(seen: Observation) -> bool:
    standing = seen.cluster.status.conditions if seen.cluster.status else ()
    return any(each.type == "Available" and each.reason not in BEFORE_ACCESS for each in standing)


def _rotating(seen: Observation, plan: Blueprint) -> HeldAuthority | None:
    found = (authority(seen, plan, side) for side in wanted_authorities(plan))
    return next((each for each in found if each and each.phase is not Phase.REST), None)
