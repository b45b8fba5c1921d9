"""What the operator would do about an observation, for tests of its rules."""

from typing import Any

from etcd_operator.cluster.observation import Observation
from etcd_operator.cluster.plan import plan
from etcd_operator.cluster.steps import Apply, Plan
from support.builders import judged, live, with_object


def planned(seen: Observation) -> Plan:
    """The plan, with the name of the rule that spoke."""
    return plan(judged(seen))


def the_step(seen: Observation) -> Any:
    """The only step of the plan."""
    (step,) = planned(seen).steps
    return step


def carried_out(seen: Observation) -> Observation:
    """The objects after the steps that are planned now were applied, round by round."""
    for _ in range(5):
        steps = planned(seen).steps
        applies = [step for step in steps if isinstance(step, Apply)]
        if not applies or len(applies) < len(steps):
            return seen
        kinds = {
            "ConfigMap": "config_maps",
            "StatefulSet": "stateful_sets",
            "PodDisruptionBudget": "disruption_budgets",
            "NetworkPolicy": "network_policies",
        }
        for step in applies:
            seen = with_object(seen, kinds[step.manifest["kind"]], live(step.manifest))
    return seen
