"""How many members a drain may take at once.

Pure.
"""

from etcd_operator.resources.blueprint import Blueprint, owned_metadata
from etcd_operator.resources.names import Manifest, selector_labels


def pod_disruption_budget(blueprint: Blueprint) -> Manifest | None:
    """A budget that lets one member go at a time; `None` for a single member, which has no spare."""
    if len(blueprint.members) == 1:
        return None
    return {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": owned_metadata(blueprint, blueprint.names.disruption_budget),
        "spec": {"maxUnavailable": 1, "selector": {"matchLabels": selector_labels(blueprint.names.name)}},
    }
