"""What the operator would do about an observation, for tests of its rules."""

from typing import Any

from etcd_operator.cluster.observation import Observation
from etcd_operator.cluster.plan import plan
from etcd_operator.cluster.steps import Plan
from support.builders import judged


def planned(seen: Observation) -> Plan:
    """The plan, with the name of the rule that spoke."""
    return plan(judged(seen))


def the_step(seen: Observation) -> Any:
    """The only step of the plan."""
    (step,) = planned(seen).steps
    return step
