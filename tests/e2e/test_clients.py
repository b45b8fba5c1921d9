"""Access for applications: a certificate each, in the namespaces that agree, for as long as they and the etcd do."""

import base64
from collections.abc import Iterator

import pytest
import yaml

from e2e.support import Cluster, Etcd, Manifest, fresh_namespace, is_ready_pod, lasting_pod
from etcd_operator.pki import inspect

LABEL, FINALIZER = "externaletcd.io/accept-clients-from", "externaletcd.io/clients-elsewhere"


@pytest.fixture
def shop(bare_cluster: Cluster) -> Iterator[str]:
    """Another namespace, which does not agree to anything yet."""
    with fresh_namespace(bare_cluster) as name:
        yield name


def agree(etcd: Etcd, namespace: str, *, agrees: bool = True) -> None:
    word = f"{LABEL}={etcd.namespace}" if agrees else f"{LABEL}-"
    etcd.cluster.kubectl("label", "namespace", namespace, word)


def copy_name(etcd: Etcd, client: str) -> str:
    return f"{etcd.namespace}.{etcd.name}-client-{client}"


def wait_copy(etcd: Etcd, namespace: str, client: str = "web") -> dict[str, bytes]:
    """The content of a client's Secret in another namespace, as soon as it is there; noticing a label may take 30 s."""
    found = etcd.cluster.wait_for_one(bool, "secrets", namespace, copy_name(etcd, client), timeout=60)
    return {key: base64.b64decode(value) for key, value in found["data"].items()}


def wait_no_copy(etcd: Etcd, namespace: str, client: str = "web") -> None:
    etcd.cluster.wait_until_gone("secrets", namespace, name=copy_name(etcd, client), timeout=60)


def wait_held(etcd: Etcd, *, held: bool) -> None:
    etcd.wait(
        lambda seen: (FINALIZER in seen["metadata"].get("finalizers", [])) is held, what=f"held: {held}", timeout=60
    )


def etcdctl(etcd: Etcd, namespace: str, secret: str, *arguments: str) -> str:
    """Run etcdctl in a pod of that namespace that has nothing but that Secret."""
    pod: Manifest = yaml.safe_load(yaml.safe_dump(lasting_pod(etcd.name)).replace(f"{etcd.name}-client", secret))
    name = pod["metadata"]["name"]
    if etcd.cluster.get("pods", namespace, name) is None:
        etcd.cluster.apply(pod, namespace=namespace)
    etcd.cluster.wait_for_one(is_ready_pod, "pods", namespace, name, timeout=60, what=f"{name} ready")
    return etcd.cluster.kubectl("-n", namespace, "exec", name, "--", "etcdctl", *arguments).strip()


def test_an_application_elsewhere_reaches_the_etcd_while_its_namespace_agrees(etcd: Etcd, shop: str) -> None:
    etcd.create(members=1, clients=[{"name": "web", "namespaces": [shop, "not-there"]}])
    etcd.wait_told("ClientsNotServed", f"kubectl label namespace {shop} {LABEL}={etcd.namespace}", "not-there")
    assert etcd.cluster.get("secrets", shop, copy_name(etcd, "web")) is None
    wait_held(etcd, held=False)

    agree(etcd, shop)
    copy = wait_copy(etcd, shop)
    assert copy == etcd.secret("client-web")
    info = inspect(copy["tls.crt"])
    assert (info.common_name, info.client, info.server) == ("web", True, False)
    wait_held(etcd, held=True)
    assert etcdctl(etcd, shop, copy_name(etcd, "web"), "put", "from-shop", "yes") == "OK"
    assert etcd.read("from-shop") == "yes"

    etcd.cluster.delete("secrets", shop, copy_name(etcd, "web"))  # a stray hand
    assert wait_copy(etcd, shop) == copy

    agree(etcd, shop, agrees=False)
    wait_no_copy(etcd, shop)
    wait_held(etcd, held=False)
    assert etcd.secret("client-web") == copy


def test_an_entry_that_goes_and_an_etcd_that_goes_take_their_secrets_along(etcd: Etcd, shop: str) -> None:
    agree(etcd, shop)
    web, worker = ({"name": name, "namespaces": [shop]} for name in ("web", "worker"))
    etcd.create(members=1, clients=[web, worker])
    wait_copy(etcd, shop)
    wait_copy(etcd, shop, "worker")
    assert etcd.secret("client-web")["tls.key"] != etcd.secret("client-worker")["tls.key"]

    etcd.patch({"spec": {"clients": [worker]}})
    wait_no_copy(etcd, shop)
    etcd.cluster.wait_until_gone("secrets", etcd.namespace, name="a-client-web")
    etcd.wait_settled()
    assert etcd.cluster.get("secrets", shop, copy_name(etcd, "worker"))

    etcd.delete()
    assert etcd.cluster.get("secrets", shop, copy_name(etcd, "worker")) is None
    etcd.cluster.wait_until_gone("secrets", etcd.namespace, name="a-client-worker")


def test_an_etcd_that_goes_with_its_namespace_takes_copies_along(cluster: Cluster, shop: str) -> None:
    with fresh_namespace(cluster) as namespace:
        etcd = Etcd(cluster=cluster, namespace=namespace, name="a")
        agree(etcd, shop)
        etcd.create(members=1, clients=[{"name": "web", "namespaces": [shop]}])
        wait_copy(etcd, shop)
    cluster.kubectl("delete", "namespace", namespace, "--ignore-not-found", "--wait=false")
    wait_no_copy(etcd, shop)
    cluster.wait_until_gone("etcdclusters", namespace)


def test_a_secret_of_somebody_else_is_neither_overwritten_nor_in_the_way_of_others(etcd: Etcd, shop: str) -> None:
    agree(etcd, shop)
    strangers = [(shop, copy_name(etcd, "web")), (etcd.namespace, "a-client-batch")]
    for namespace, name in strangers:
        mine = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name, "namespace": namespace}}
        etcd.cluster.apply({**mine, "stringData": {"whose": "mine"}})
    clients = [{"name": "web", "namespaces": [shop]}, {"name": "batch"}, {"name": "worker", "namespaces": [shop]}]
    etcd.create(members=1, clients=clients)
    wait_copy(etcd, shop, "worker")
    etcd.wait_told("ClientsNotServed", "a-client-batch", copy_name(etcd, "web"), timeout=30)
    etcd.put("still", "served")
    for namespace, name in strangers:
        found = etcd.cluster.get("secrets", namespace, name)
        assert found is not None
        assert set(found["data"]) == {"whose"}
        etcd.cluster.delete("secrets", namespace, name)
    assert wait_copy(etcd, shop) == etcd.secret("client-web")
    etcd.wait_settled()
    assert etcd.secret("client-batch")["endpoints"]
