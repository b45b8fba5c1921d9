"""The objects of a cluster are owned, put right when somebody changes or deletes them, and left alone otherwise."""

import json
from collections.abc import Iterator

import pytest

from devtools import kube
from e2e.support import Etcd, Manifest, fresh_namespace

OBJECTS = [
    ("configmaps", "a-config"),
    ("services", "a"),
    ("services", "a-peers"),
    ("poddisruptionbudgets", "a"),
    ("secrets", "a-client"),
    ("secrets", "a-server"),
    ("secrets", "a-peer"),
    ("statefulsets", "a"),
]
IDS = [f"{plural}/{name}" for plural, name in OBJECTS]


@pytest.fixture(scope="module")
def made(installed: kube.Cluster) -> Iterator[Etcd]:
    """One EtcdCluster for all tests here, as none of them may harm it."""
    with fresh_namespace(installed) as namespace:
        etcd = Etcd(cluster=installed, namespace=namespace, name="a")
        etcd.create()
        yield etcd


def get(etcd: Etcd, plural: str, name: str) -> Manifest:
    found = etcd.cluster.get(plural, etcd.namespace, name)
    assert found is not None, f"{plural}/{name}"
    return found


@pytest.mark.parametrize(("plural", "name"), OBJECTS, ids=IDS)
def test_it_belongs_to_the_etcd_cluster_and_carries_its_labels(made: Etcd, plural: str, name: str) -> None:
    metadata = get(made, plural, name)["metadata"]
    (owner,) = metadata["ownerReferences"]
    assert (owner["kind"], owner["uid"]) == ("EtcdCluster", made.get()["metadata"]["uid"])
    assert metadata["labels"]["app.kubernetes.io/managed-by"] == "external-etcd-operator"
    assert metadata["labels"]["externaletcd.io/cluster"] == "a"


@pytest.mark.parametrize(("plural", "name"), OBJECTS, ids=IDS)
def test_it_is_made_again_when_it_is_deleted(made: Etcd, plural: str, name: str) -> None:
    before = get(made, plural, name)
    made.cluster.delete(plural, made.namespace, name)
    made.cluster.wait_for_one(
        lambda seen: (
            seen["metadata"]["uid"] != before["metadata"]["uid"] and "deletionTimestamp" not in seen["metadata"]
        ),
        plural,
        made.namespace,
        name,
        timeout=30,
        what=f"another {plural}/{name}",
    )
    made.wait_available()


CHANGES: dict[tuple[str, str], Manifest] = {
    ("configmaps", "a-config"): {"data": {"a-0.yaml": "name: somebody-else\n"}},
    ("services", "a"): {"spec": {"selector": {"app.kubernetes.io/instance": "b"}}},
    ("services", "a-peers"): {"spec": {"publishNotReadyAddresses": False}},
    ("poddisruptionbudgets", "a"): {"spec": {"maxUnavailable": 3}},
    ("secrets", "a-client"): {"data": {"endpoints": "aHR0cDovL2VsZXNld2hlcmU="}},
    ("statefulsets", "a"): {"spec": {"template": {"spec": {"terminationGracePeriodSeconds": 1}}}},
}


@pytest.mark.parametrize(("plural", "name"), CHANGES, ids=[f"{plural}/{name}" for plural, name in CHANGES])
def test_it_is_put_right_when_it_is_changed(made: Etcd, plural: str, name: str) -> None:
    patch = CHANGES[plural, name]
    before = get(made, plural, name)
    made.cluster.kubectl("-n", made.namespace, "patch", plural, name, "--type=merge", "-p", json.dumps(patch))
    field = next(iter(patch))
    made.cluster.wait_for_one(
        lambda seen: seen[field] == before[field],
        plural,
        made.namespace,
        name,
        timeout=15,
        what=f"{plural}/{name} as before",
    )


def test_what_others_add_beside_ours_stays(made: Etcd) -> None:
    arguments = ("-n", made.namespace, "annotate", "service", "a", "example.com/note=ours-too")
    made.cluster.kubectl(*arguments)
    made.cluster.kubectl(
        "-n", made.namespace, "label", "service", "a", "app.kubernetes.io/managed-by=me", "--overwrite"
    )
    seen = made.cluster.wait_for_one(
        lambda seen: seen["metadata"]["labels"]["app.kubernetes.io/managed-by"] == "external-etcd-operator",
        "services",
        made.namespace,
        "a",
        timeout=15,
        what="our label back",
    )
    assert seen["metadata"]["annotations"]["example.com/note"] == "ours-too"


def test_only_ready_members_are_behind_the_service(made: Etcd) -> None:
    address = made.pods()["a-2"]["status"]["podIP"]
    made.kill("a-2", grace=0)

    def without(slices: dict[str, Manifest]) -> bool:
        ready = {
            address
            for item in slices.values()
            for endpoint in item.get("endpoints") or []
            if endpoint["conditions"]["ready"]
            for address in endpoint["addresses"]
        }
        return bool(ready) and address not in ready

    made.cluster.wait_for(
        without,
        "endpointslices",
        made.namespace,
        labels="kubernetes.io/service-name=a",
        timeout=15,
        what="the Service without the killed member",
    )
    made.wait_available()
