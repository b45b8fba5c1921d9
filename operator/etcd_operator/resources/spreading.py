"""Keeping pods of one kind apart: what members and proxies have in common.

Pure.
"""

from collections.abc import Mapping

from etcd_operator.resources.names import Manifest


def apart(selector: Mapping[str, str]) -> Manifest:
    """The affinity that prefers another node for each pod that the labels select, then another zone.

    Softly: a cluster on too few nodes is better than no cluster; the status reports members that share one.
    Anti-affinity and not topology spread constraints: of those the scheduler ignores all on nodes that lack the
    label of any, so that a Kubernetes without zones would not spread over nodes either (seen).
    """
    wishes = [_apart(selector, "kubernetes.io/hostname", weight=100)]
    wishes += [_apart(selector, "topology.kubernetes.io/zone", weight=50)]
    return {"podAntiAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": wishes}}


def _apart(selector: Mapping[str, str], topology_key: str, *, weight: int) -> Manifest:
    term = {"topologyKey": topology_key, "labelSelector": {"matchLabels": dict(selector)}}
    return {"weight": weight, "podAffinityTerm": term}
