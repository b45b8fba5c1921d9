"""What only shows later becomes a condition that names the object and the reason, and heals when it is corrected.

All mistakes are made at once, in one namespace, and corrected at once: so none may hide or delay another.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from devtools import environment
from e2e.support import SMALL, Cluster, Etcd, Manifest, fresh_namespace, sentence

#: Seconds within which a mistake is told.
TOLD = 15.0
#: Seconds within which everything stands once it was corrected, containers' back-off of Kubernetes included.
HEALED = 90.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Mistake:
    """A spec that cannot work, or surroundings in which it cannot, and what the user is told.

    `relief` makes the surroundings right; without it the spec itself is corrected.
    """

    told: tuple[str, ...]
    spec: dict[str, Any] = field(default_factory=dict)
    relief: Callable[[Cluster, str], None] | None = None


def make_class(cluster: Cluster, namespace: str) -> None:
    stock = cluster.get("storageclasses", None, "local-path")
    assert stock is not None
    kept = {key: stock[key] for key in ("provisioner", "reclaimPolicy", "volumeBindingMode")}
    cluster.apply({"apiVersion": "storage.k8s.io/v1", "kind": "StorageClass", "metadata": {"name": namespace}, **kept})


def make_account(cluster: Cluster, namespace: str) -> None:
    account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "runner", "namespace": namespace}}
    cluster.apply(account)


def forbid_pods(cluster: Cluster, namespace: str) -> None:
    quota = {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "none"}, "spec": {"hard": {"pods": "0"}}}
    cluster.apply(quota, namespace=namespace)


def allow_pods(cluster: Cluster, namespace: str) -> None:
    cluster.delete("resourcequotas", namespace, "none")


def insist_on_a_node(key: str) -> dict[str, Any]:
    return {"podTemplate": {"spec": {"nodeSelector": {key: "yes"}}}}


def mounting(config_map: str) -> dict[str, Any]:
    return {
        "volumes": [{"name": "more", "configMap": {"name": config_map}}],
        "containers": [{"name": "etcd", "volumeMounts": [{"name": "more", "mountPath": "/more"}]}],
    }


def mistakes(namespace: str) -> dict[str, Mistake]:
    """By the name of the EtcdCluster that makes it."""
    privileged = {"name": "etcd", "securityContext": {"privileged": True, "allowPrivilegeEscalation": True}}
    return {
        "image": Mistake(
            spec={"image": {"repository": "registry.example.com/no/such"}},
            told=("ImageUnavailable", "image-0", "registry.example.com/no/such:v3.7.3"),
        ),
        "class": Mistake(
            spec={"storage": {"size": "1Gi", "storageClassName": namespace}},
            relief=make_class,
            told=("data-class-0", namespace),
        ),
        "class-edited": Mistake(
            spec={"storage": {"size": "1Gi", "storageClassName": "no-such-class"}},
            told=("data-class-edited-0", "no-such-class"),
        ),
        "room": Mistake(
            spec={"resources": {"requests": {"cpu": "1000"}}}, told=("Unschedulable", "room-0", "Insufficient cpu")
        ),
        "node": Mistake(
            spec=insist_on_a_node("example.com/no-such"), told=("Unschedulable", "node-0", "node affinity/selector")
        ),
        "unknown-option": Mistake(
            spec={"options": {"extra": {"max-reqest-bytes": 1}}},
            told=("InvalidSpec", "max-reqest-bytes", "max-request-bytes"),
        ),
        "wrong-option": Mistake(
            spec={"options": {"extra": {"log-level": "loud"}}}, told=("InvalidOption", "wrong-option-0", "loud")
        ),
        "overlay": Mistake(
            spec={"podTemplate": {"spec": {"hostNetwork": True}}},
            told=("InvalidSpec", "spec.podTemplate.spec.hostNetwork belongs to the operator"),
        ),
        "malformed": Mistake(
            spec={"podTemplate": {"spec": {"tolerations": [{"key": "x", "operator": "Perhaps"}]}}},
            told=("Refused", "StatefulSet", "Perhaps"),
        ),
        "pod-security": Mistake(
            spec={"podTemplate": {"spec": {"containers": [privileged]}}},
            told=("PodsRefused", "StatefulSet pod-security", "violates PodSecurity"),
        ),
        "account": Mistake(
            spec={"podTemplate": {"spec": {"serviceAccountName": "runner"}}},
            relief=make_account,
            told=("PodsRefused", "StatefulSet account", 'serviceaccount "runner" not found'),
        ),
        "config-map": Mistake(
            spec={"podTemplate": {"spec": mounting("no-such-map")}}, told=("config-map-0", "no-such-map")
        ),
    }


@dataclass(frozen=True, kw_only=True, slots=True)
class Made:
    """All mistakes, and the sentence by which each was told in time, by name."""

    etcds: dict[str, Etcd]
    mistakes: dict[str, Mistake]
    told: dict[str, str]


@pytest.fixture(scope="module")
def made(installed: Cluster) -> Iterator[Made]:
    environment.wait_for_operator(installed)
    with fresh_namespace(installed) as namespace:
        wrong = mistakes(namespace)
        etcds = {name: Etcd(cluster=installed, namespace=namespace, name=name) for name in wrong}
        manifests = [etcds[name].manifest(**{**base(), **each.spec}) for name, each in wrong.items()]
        installed.apply(*manifests)
        told: dict[str, str] = {}
        # Twice the time of a mistake made alone: a dozen pods start at once, and on two cores they wait for each other.
        for seen in installed.snapshots("etcdclusters", namespace, timeout=2 * TOLD):
            for name, etcd in seen.items():
                if name not in told and (words := sentence(etcd, *wrong[name].told)):
                    told[name] = words
            if len(told) == len(wrong):
                break
        yield Made(etcds=etcds, mistakes=wrong, told=told)
        installed.delete("storageclasses", None, namespace)


def base() -> dict[str, Any]:
    return {"members": 1, "storage": {"size": "1Gi"}, "resources": SMALL}


@pytest.mark.parametrize("name", mistakes("any"))
def test_it_is_told_with_the_object_and_the_reason(made: Made, name: str) -> None:
    assert name in made.told, made.etcds[name].status().get("conditions")
    assert made.etcds[name].condition("Available").get("status") == "False"


@pytest.fixture(scope="module")
def corrected(made: Made) -> dict[str, Manifest]:
    """The EtcdClusters that stand within their time after every mistake was corrected, by name."""
    for name, mistake in made.mistakes.items():
        etcd = made.etcds[name]
        if mistake.relief:
            mistake.relief(etcd.cluster, etcd.namespace)
        else:
            etcd.apply(members=1)
    some = next(iter(made.etcds.values()))
    seen: dict[str, Manifest] = {}
    for seen in some.cluster.snapshots("etcdclusters", some.namespace, timeout=HEALED):
        if all(map(environment.is_available, seen.values())):
            break
    return {name: etcd for name, etcd in seen.items() if environment.is_available(etcd)}


@pytest.mark.parametrize("name", mistakes("any"))
def test_it_heals_by_itself_when_it_is_corrected(made: Made, corrected: dict[str, Manifest], name: str) -> None:
    assert name in corrected, made.etcds[name].status().get("conditions")


def test_a_quota_that_forbids_pods(etcd: Etcd) -> None:
    forbid_pods(etcd.cluster, etcd.namespace)
    etcd.apply(members=1)
    etcd.wait_told("PodsRefused", "StatefulSet a", "exceeded quota", timeout=TOLD)
    allow_pods(etcd.cluster, etcd.namespace)
    etcd.wait_available()


def test_a_mistake_in_a_cluster_that_serves_changes_nothing_but_what_is_told(etcd: Etcd) -> None:
    etcd.create(members=1)
    etcd.put("kept", "yes")
    etcd.apply(members=1, options={"extra": {"max-reqest-bytes": 1}})
    etcd.wait_told("InvalidSpec", "max-reqest-bytes", timeout=TOLD)
    assert etcd.condition("Available")["status"] == "True"
    assert etcd.read("kept") == "yes"
    etcd.apply(members=1)
    etcd.wait_told("AsSpecified", timeout=TOLD)
