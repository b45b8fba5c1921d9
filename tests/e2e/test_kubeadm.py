"""kubeadm's external topology on an EtcdCluster, and its static-pod API servers bound to it: Members, then Proxy.

Uses another cluster (`tenant`), which is taken down at the end. The tests build on each other.
"""

from collections.abc import Iterator
from typing import Any

import pytest

from e2e.support import Cluster, Etcd, Manifest, fresh_namespace
from e2e.tenant import Tenant
from localcluster import cluster as localcluster

NAME = "tenant"
NODES = [f"{NAME}-{number}" for number in (1, 2, 3)]
SPEC: dict[str, Any] = {"proxy": {"service": {"type": "NodePort"}}, "access": {"members": "NodePort"}}
#: Seconds for three API servers to be restarted one after the other on a busy machine.
ROLLOUT = 400.0
#: A firewall that lets a few connections through: enough to see that somebody answers, not to start an API server.
FIREWALL = """
table inet fault {{
  chain out {{
    type filter hook output priority 0;
    tcp dport {port} tcp flags & (syn|ack) == syn limit rate over 4/minute burst 12 packets drop
  }}
}}
"""


@pytest.fixture(scope="module")
def etcd(installed: Cluster) -> Iterator[Etcd]:
    """An EtcdCluster that is reached from outside, and each of its members too."""
    with fresh_namespace(installed) as namespace:
        made = Etcd(cluster=installed, namespace=namespace, name="a")
        made.apply(**SPEC)
        made.wait_available()
        made.wait(lambda seen: len(outside(seen)) == 3, what="all members are reached from outside")
        yield made


@pytest.fixture(scope="module")
def tenant(etcd: Etcd, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tenant]:
    """A cluster whose three API servers were set up on that etcd, by the steps that are documented."""
    localcluster.remove(NAME)
    try:
        yield Tenant.up(NAME, etcd, tmp_path_factory.mktemp("tenant"))
    finally:
        localcluster.remove(NAME)


def outside(seen: Manifest) -> list[str]:
    """The members' addresses from outside, of those that vote."""
    members = seen.get("status", {}).get("members") or ()
    return [each["external"] for each in members if each.get("external") and each.get("role") == "Voter"]


def bind(etcd: Etcd, **spec: Any) -> None:
    target = {"kubeadm": {"kubeconfigRef": {"name": "admin"}, "readyWithin": "90s"}}
    etcd.cluster.apply(
        {
            "apiVersion": "externaletcd.io/v1alpha1",
            "kind": "ApiServerBinding",
            "metadata": {"name": NAME, "namespace": etcd.namespace},
            "spec": {"clusterRef": {"name": etcd.name}, "target": target, **spec},
        }
    )


def bound(seen: Manifest) -> dict[str, str]:
    told = seen.get("status", {}).get("conditions") or ()
    return next((dict(each) for each in told if each["type"] == "Bound"), {})


def wait_reason(etcd: Etcd, reason: str, servers: list[str] | None = None) -> dict[str, str]:
    """Wait for it; with `servers`, until all instances run with just these."""

    def is_so(seen: Manifest) -> bool:
        used = [each.get("etcdServers") for each in seen.get("status", {}).get("instances") or ()]
        return bound(seen).get("reason") == reason and (servers is None or used == [",".join(servers)] * 3)

    seen = etcd.cluster.wait_for_one(is_so, "apiserverbindings", etcd.namespace, NAME, timeout=ROLLOUT)
    return bound(seen)


def scaled(etcd: Etcd, members: int) -> list[str]:
    """The members' addresses once there are so many."""
    etcd.apply(members=members, **SPEC)
    etcd.wait_settled()
    etcd.wait(lambda seen: len(outside(seen)) == members, what=f"{members} members are reached from outside")
    return outside(etcd.get())


def test_kubeadm_sets_up_three_control_planes_on_it_and_members_may_die(etcd: Etcd, tenant: Tenant) -> None:
    other = tenant.cluster()
    assert sorted(each["metadata"]["name"] for each in other.list("nodes", None)) == [*NODES, f"{NAME}-4"]
    assert len(etcd.etcdctl("get", "/registry/", "--prefix", "--keys-only", "--limit=101").split()) == 101
    with tenant.in_use():
        for member in ("a-0", "a-1", "a-2"):
            etcd.kill(member, grace=0)
            etcd.wait_whole()
        other.wait_for_one(
            lambda seen: seen.get("status", {}).get("readyReplicas") == seen["spec"]["replicas"],
            "deployments",
            "kube-system",
            "coredns",
        )


def test_its_api_servers_use_every_member(etcd: Etcd, tenant: Tenant) -> None:
    etcd.cluster.apply(
        {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": "admin", "namespace": etcd.namespace},
            "stringData": {"kubeconfig": tenant.local.kubeconfig.read_text()},
        }
    )
    before = tenant.arguments()
    with tenant.in_use():
        bind(etcd, endpoints="Members")
        wait_reason(etcd, "Bound", outside(etcd.get()))
    after = tenant.arguments()
    assert sorted(after) == NODES
    assert all(len(words) == 5 for words in after.values())
    assert before != after
    external = tenant.configuration()["etcd"]["external"]
    assert (external["endpoints"], external["caFile"]) == (
        outside(etcd.get()),
        "/etc/kubernetes/pki/external-etcd/ca.crt",
    )
    left = etcd.cluster.kubectl("--kubeconfig", str(tenant.local.kubeconfig), "-n", "kube-system", "get", "secrets")
    assert "external-etcd" not in left


def test_its_api_servers_follow_members_that_come_and_go(etcd: Etcd, tenant: Tenant) -> None:
    with tenant.in_use():
        for count in (5, 3):
            wait_reason(etcd, "Bound", scaled(etcd, count))
    assert tenant.configuration()["etcd"]["external"]["endpoints"] == outside(etcd.get())


def test_a_node_whose_api_server_does_not_come_is_rolled_back_and_named_and_the_others_serve_on(
    etcd: Etcd, tenant: Tenant
) -> None:
    servers, former = etcd.get()["status"]["endpoints"]["external"], tenant.arguments()
    port = servers[0].rpartition(":")[2]
    fault = FIREWALL.format(port=port)
    assert tenant.local.exec(NODES[1], ["sh", "-c", f"nft -f - <<'E'\n{fault}\nE"]).returncode == 0
    try:
        with tenant.in_use():
            bind(etcd, endpoints="Proxy")
            told = wait_reason(etcd, "NotReady")
        assert f"node {NODES[1]}" in told["message"]
        assert tenant.arguments()[NODES[1]] == former[NODES[1]]
        ready = [
            each["spec"]["nodeName"]
            for each in tenant.cluster().list("pods", "kube-system", labels="component=kube-apiserver")
            if any(c["type"] == "Ready" and c["status"] == "True" for c in each["status"]["conditions"])
        ]
        assert sorted(ready) == NODES
        listed = tenant.local.exec(NODES[1], ["ls", "-A", "/etc/kubernetes/manifests"]).stdout.split()
        assert listed == ["kube-apiserver.yaml", "kube-controller-manager.yaml", "kube-scheduler.yaml"]
    finally:
        tenant.local.exec(NODES[1], ["nft", "delete", "table", "inet", "fault"])
    kubeconfig = str(tenant.local.kubeconfig)
    etcd.cluster.kubectl("--kubeconfig", kubeconfig, "-n", "kube-system", "delete", "pod", f"external-etcd-{NODES[1]}")
    wait_reason(etcd, "Bound", servers)


def test_a_renewed_certificate_reaches_the_nodes_without_a_restart(etcd: Etcd, tenant: Tenant) -> None:
    path = "/etc/kubernetes/pki/external-etcd/tls.crt"
    before = {name: tenant.local.exec(name, ["cat", path]).stdout for name in NODES}
    started = tenant.local.exec(NODES[0], ["pgrep", "-o", "kube-apiserver"]).stdout
    etcd.cluster.kubectl("-n", etcd.namespace, "delete", "secret", "a-client")
    etcd.cluster.wait_for_one(lambda seen: bool(seen), "secrets", etcd.namespace, "a-client")
    renewed = etcd.secret("client")["tls.crt"].decode()
    assert renewed not in before.values()
    tenant.cluster().wait_for(
        lambda seen: all(tenant.local.exec(name, ["cat", path]).stdout == renewed for name in NODES),
        "pods",
        "kube-system",
        what="all nodes have the renewed certificate",
        timeout=ROLLOUT,
    )
    assert tenant.local.exec(NODES[0], ["pgrep", "-o", "kube-apiserver"]).stdout == started
