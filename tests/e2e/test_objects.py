"""The objects of a cluster are owned, put right when somebody changes or deletes them, and the data never suffers."""

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from devtools import environment
from e2e.support import (
    Cluster,
    Etcd,
    Manifest,
    Writer,
    addresses_in,
    fresh_namespace,
    identity,
    kill_operator,
)

OBJECTS = [
    ("configmaps", "a-config"),
    ("services", "a"),
    ("services", "a-peers"),
    ("poddisruptionbudgets", "a"),
    ("networkpolicies", "a-members"),
    ("secrets", "a-client"),
    ("secrets", "a-server"),
    ("secrets", "a-peer"),
    ("secrets", "a-peer-ca"),
    ("secrets", "a-client-ca"),
    ("statefulsets", "a"),
]
IDS = [f"{plural}/{name}" for plural, name in OBJECTS]


@pytest.fixture(scope="module")
def shared(installed: Cluster) -> Iterator[Etcd]:
    """One EtcdCluster with data for all tests here."""
    with fresh_namespace(installed) as namespace:
        etcd = Etcd(cluster=installed, namespace=namespace, name="a")
        etcd.create()
        etcd.put("kept", "yes")
        yield etcd


@pytest.fixture
def made(shared: Etcd) -> Iterator[Etcd]:
    """The shared EtcdCluster, which must be the same etcd with the same data after the test as before."""
    shared.wait_available()
    before = identity(shared)
    yield shared
    environment.wait_for_operator(shared.cluster)
    shared.wait_whole(timeout=150)
    for plural, name in OBJECTS:
        shared.cluster.wait_for_one(bool, plural, shared.namespace, name, timeout=15)
    assert identity(shared) == before
    assert shared.read("kept") == "yes"


def get(etcd: Etcd, plural: str, name: str) -> Manifest:
    found = etcd.cluster.get(plural, etcd.namespace, name)
    assert found is not None, f"{plural}/{name}"
    return found


def test_each_belongs_to_the_etcd_cluster_and_carries_its_labels(shared: Etcd) -> None:
    for plural, name in OBJECTS:
        metadata = get(shared, plural, name)["metadata"]
        (owner,) = metadata["ownerReferences"]
        assert (owner["kind"], owner["uid"]) == ("EtcdCluster", shared.get()["metadata"]["uid"]), name
        assert metadata["labels"]["app.kubernetes.io/managed-by"] == "external-etcd-operator", name
        assert metadata["labels"]["externaletcd.io/cluster"] == "a", name


@pytest.mark.parametrize(("plural", "name"), OBJECTS[:-1], ids=IDS[:-1])
def test_it_is_made_again_when_it_is_deleted(made: Etcd, plural: str, name: str) -> None:
    delete_and_wait(made, plural, name)


def delete_and_wait(etcd: Etcd, plural: str, name: str) -> None:
    """Delete an object and wait for another one of its name."""
    before = get(etcd, plural, name)["metadata"]["uid"]
    etcd.cluster.delete(plural, etcd.namespace, name)
    etcd.cluster.wait_for_one(
        lambda seen: bool(seen["metadata"]["uid"] != before),
        plural,
        etcd.namespace,
        name,
        timeout=15,
        what=f"another {plural}/{name}",
    )


def test_an_authority_that_is_deleted_comes_back_with_the_key_that_everybody_trusts(made: Etcd) -> None:
    for side in ("peer-ca", "client-ca"):
        before = made.secret(side)
        delete_and_wait(made, "secrets", f"a-{side}")
        assert made.secret(side) == before


def test_all_secrets_deleted_at_once(made: Etcd) -> None:
    authorities = {side: made.secret(side) for side in ("peer-ca", "client-ca")}
    made.cluster.kubectl("-n", made.namespace, "delete", "secrets", "-l", made.labels)
    made.cluster.wait_for(
        lambda seen: {name for plural, name in OBJECTS if plural == "secrets"} <= set(seen),
        "secrets",
        made.namespace,
        timeout=15,
        what="all Secrets back",
    )
    assert {side: made.secret(side) for side in ("peer-ca", "client-ca")} == authorities


#: A JSON pointer into each object, and what somebody writes there.
CHANGES: dict[tuple[str, str], tuple[str, Any]] = {
    ("configmaps", "a-config"): ("/data/a-0.yaml", "name: somebody-else"),
    ("services", "a"): ("/spec/selector/app.kubernetes.io~1instance", "b"),
    ("services", "a-peers"): ("/spec/publishNotReadyAddresses", False),
    ("poddisruptionbudgets", "a"): ("/spec/maxUnavailable", 3),
    ("networkpolicies", "a-members"): ("/spec/ingress/0", {"ports": [{"protocol": "TCP", "port": "peer"}]}),
    ("secrets", "a-client"): ("/data/endpoints", "aHR0cDovL2VsZXNld2hlcmU="),
    ("secrets", "a-client-ca"): ("/data/tls.key", "bm9uc2Vuc2U="),
    ("statefulsets", "a"): ("/spec/template/spec/containers/0/image", "example.com/etcd:other"),
}


@pytest.mark.parametrize(("plural", "name"), CHANGES, ids=[f"{plural}/{name}" for plural, name in CHANGES])
def test_it_is_put_right_when_it_is_changed(made: Etcd, plural: str, name: str) -> None:
    pointer, value = CHANGES[plural, name]
    before = pointed_at(get(made, plural, name), pointer)
    patch = json.dumps([{"op": "replace", "path": pointer, "value": value}])
    made.cluster.kubectl("-n", made.namespace, "patch", plural, name, "--type=json", "-p", patch)
    made.cluster.wait_for_one(
        lambda seen: bool(pointed_at(seen, pointer) == before),
        plural,
        made.namespace,
        name,
        timeout=15,
        what=f"{plural}/{name} as before",
    )


def pointed_at(manifest: Manifest, pointer: str) -> Any:
    place: Any = manifest
    for part in pointer.split("/")[1:]:
        place = place[int(part)] if isinstance(place, list) else place.get(part.replace("~1", "/"))
    return place


def test_the_certificates_are_issued_again_when_somebody_spoils_them(made: Etcd) -> None:
    made.cluster.kubectl(
        "-n",
        made.namespace,
        "patch",
        "secret",
        "a-server",
        "--type=merge",
        "-p",
        '{"data": {"tls.crt": "bm9uc2Vuc2U="}}',
    )
    made.cluster.wait_for_one(
        lambda _: made.secret("server")["tls.crt"].startswith(b"-----BEGIN"), "secrets", made.namespace, "a-server"
    )


def test_what_others_add_beside_ours_stays(made: Etcd) -> None:
    made.cluster.kubectl("-n", made.namespace, "annotate", "service", "a", "example.com/note=ours-too")
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
        ready = addresses_in(slices)
        return bool(ready) and address not in ready

    made.cluster.wait_for(
        without,
        "endpointslices",
        made.namespace,
        labels="kubernetes.io/service-name=a",
        timeout=15,
        what="the Service without the killed member",
    )


# --- faults; the fixture proves that the same etcd comes out of each


def kill_pods(*pods: str) -> Callable[[Etcd], None]:
    def kill(etcd: Etcd) -> None:
        uids = {pod: etcd.kill(pod, grace=0) for pod in pods}
        for pod, uid in uids.items():
            etcd.wait_replaced(pod, uid)

    return kill


def delete_status(etcd: Etcd) -> None:
    etcd.cluster.kubectl(
        "-n",
        etcd.namespace,
        "patch",
        "etcd/a",
        "--subresource=status",
        "--type=json",
        "-p",
        '[{"op": "remove", "path": "/status"}]',
    )


def delete_stateful_set(how: str) -> Callable[[Etcd], None]:
    def delete(etcd: Etcd) -> None:
        etcd.cluster.kubectl("-n", etcd.namespace, "delete", "sts", "a", f"--cascade={how}", "--wait=false")

    return delete


def scale_stateful_set(replicas: int) -> Callable[[Etcd], None]:
    def scale(etcd: Etcd) -> None:
        etcd.cluster.kubectl("-n", etcd.namespace, "scale", "sts/a", f"--replicas={replicas}")

    return scale


def strip_proof(etcd: Etcd) -> None:
    """Take the record of the bootstrap off the objects that a person can edit."""
    for plural, name in (("statefulset", "a"), ("configmap", "a-config")):
        etcd.cluster.kubectl("-n", etcd.namespace, "annotate", plural, name, "externaletcd.io/cluster-id-")


def everything_at_once(etcd: Etcd) -> None:
    kill_operator(etcd.cluster)
    delete_status(etcd)
    etcd.cluster.delete("configmaps", etcd.namespace, "a-config")
    delete_stateful_set("background")(etcd)
    for pod in etcd.pods():
        etcd.cluster.delete("pods", etcd.namespace, pod, gracePeriodSeconds=0)


FAULTS: dict[str, Callable[[Etcd], None]] = {
    "one pod killed": kill_pods("a-1"),
    "all pods killed": kill_pods("a-0", "a-1", "a-2"),
    "status deleted": delete_status,
    "StatefulSet deleted": delete_stateful_set("background"),
    "StatefulSet deleted, pods kept": delete_stateful_set("orphan"),
    "StatefulSet deleted, in the foreground": delete_stateful_set("foreground"),
    "StatefulSet scaled to 1": scale_stateful_set(1),
    "StatefulSet scaled to 0": scale_stateful_set(0),
    "StatefulSet scaled to 5": scale_stateful_set(5),
    "record taken off": strip_proof,
    "operator killed": lambda etcd: kill_operator(etcd.cluster),
    "everything at once": everything_at_once,
}


@pytest.mark.parametrize("fault", FAULTS)
def test_the_same_etcd_comes_out_of(made: Etcd, fault: str) -> None:
    FAULTS[fault](made)


def test_no_acknowledged_write_is_lost_while_pods_are_killed(made: Etcd) -> None:
    with Writer(etcd=made) as writer:
        for pods in (["a-0"], ["a-1"], ["a-0", "a-1", "a-2"]):
            kill_pods(*pods)(made)
            made.wait_available()
    assert len(writer.acknowledged) > 3
    assert not writer.lost()
