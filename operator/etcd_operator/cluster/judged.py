"""The observation with everything that follows from it, worked out once for `plan` and `status` alike.

Pure.
"""

from dataclasses import dataclass
from typing import Self

from etcd_operator.cluster.members import Membership, membership
from etcd_operator.cluster.observation import Observation
from etcd_operator.cluster.records import Proof, proof
from etcd_operator.cluster.settled import blueprint, pending, problems
from etcd_operator.resources.blueprint import Blueprint


@dataclass(frozen=True, kw_only=True, slots=True)
class Judged:
    """One observation and what it amounts to."""

    seen: Observation
    proof: Proof
    blueprint: Blueprint
    membership: Membership
    problems: tuple[str, ...]
    pending: tuple[str, ...]

    @classmethod
    def of(cls, seen: Observation) -> Self:
        proven = proof(seen)
        plan = blueprint(seen, proven)
        return cls(
            seen=seen,
            proof=proven,
            blueprint=plan,
            membership=membership(seen, plan),
            problems=tuple(problems(seen.cluster.spec)),
            pending=pending(seen.cluster.spec, plan.spec),
        )
