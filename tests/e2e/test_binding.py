"""An ApiServerBinding: a hosted kube-apiserver that follows its etcd, and everything that it is not made to do."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from e2e.hosted import CONTROLLERS, LABELS, NAME, Binding, Hosted, running
from e2e.hosted_use import using
from e2e.support import Cluster, Etcd, Manifest, fresh_namespace

PROXY = {"resources": {"requests": {"cpu": "20m", "memory": "32Mi"}}}
TLS = {"client": {"rotationGrace": "20s"}}
#: As whom Kubernetes knows the tests' own requests.
EDITOR = "pykube-ng"
#: Seconds for two API servers to be replaced one after the other on a busy machine.
ROLLOUT = 240.0


pytestmark = pytest.mark.filterwarnings("ignore:Unverified HTTPS request")


@pytest.fixture(scope="module")
def hosted(installed: Cluster) -> Iterator[Hosted]:
    """A kube-apiserver that is bound to EtcdCluster `a` through its proxy, with an object in it; tests leave it so."""
    with fresh_namespace(installed) as namespace:
        etcd = Etcd(cluster=installed, namespace=namespace, name="a")
        etcd.apply(proxy=PROXY, tls=TLS)
        made = Hosted(cluster=installed, namespace=namespace)
        installed.apply(*made.manifests())
        binding = Binding(cluster=installed, namespace=namespace)
        binding.apply()
        etcd.wait_available()
        binding.wait_reason("Bound", "all 2 instances use EtcdCluster a", timeout=ROLLOUT)
        made.put("kept")
        installed.apply(*made.controllers())
        for name in CONTROLLERS:
            installed.wait_for_one(
                lambda seen: seen.get("status", {}).get("readyReplicas") == 1,
                "deployments",
                namespace,
                name,
                timeout=120,
            )
        yield made


def is_up(deployment: Manifest) -> bool:
    return bool(deployment.get("status", {}).get("readyReplicas") == 1)


def etcd_of(hosted: Hosted) -> Etcd:
    return Etcd(cluster=hosted.cluster, namespace=hosted.namespace, name="a")


def binding_of(hosted: Hosted, name: str = "hosted") -> Binding:
    return Binding(cluster=hosted.cluster, namespace=hosted.namespace, name=name)


WITHOUT_TLS = {"client": {"mode": "Off"}}


def proxied(hosted: Hosted) -> str:
    return f"https://a.{hosted.namespace}.svc:2379"


def members(hosted: Hosted, count: int) -> str:
    domain = f"a-peers.{hosted.namespace}.svc.cluster.local:2379"
    return ",".join(f"https://a-{ordinal}.{domain}" for ordinal in range(count))


def wait_running(hosted: Hosted, servers: str) -> None:
    hosted.cluster.wait_for(
        lambda seen: running(seen, servers),
        "pods",
        hosted.namespace,
        labels=LABELS,
        what=f"all API servers use {servers}",
        timeout=ROLLOUT,
    )


def test_its_own_arguments_stay_and_its_status_tells_all(hosted: Hosted) -> None:
    arguments = hosted.arguments()
    assert arguments[: len(arguments) - 5] == hosted.manifests()[1]["spec"]["template"]["spec"]["containers"][0]["args"]
    found = hosted.cluster.get("apiserverbindings", hosted.namespace, "hosted")
    assert found is not None
    status = found["status"]
    assert status["arguments"] == arguments[-5:]
    assert (status["ready"], status["target"], status["secretName"]) == ("2/2", f"deployment/{NAME}", "a-client")
    assert [each["etcdServers"] for each in status["instances"]] == [proxied(hosted)] * 2
    line = hosted.cluster.kubectl("-n", hosted.namespace, "get", "apibind", "hosted", "--no-headers").split()
    assert line[:6] == ["hosted", "a", f"deployment/{NAME}", "Proxy", "2/2", "Bound"]


def test_through_the_proxy_nothing_of_it_changes_whatever_the_members_do(hosted: Hosted) -> None:
    etcd, before = etcd_of(hosted), hosted.deployment()["metadata"]["generation"]
    with using(hosted) as use:
        for count in (5, 3):
            etcd.apply(members=count, proxy=PROXY, tls=TLS)
            etcd.wait_settled()
        etcd.kill("a-0", grace=0)
        etcd.wait_whole()
        uids = {name: pod["metadata"]["uid"] for name, pod in etcd.pods().items()}
        annotate(etcd, "restart")
        for name, uid in uids.items():
            etcd.wait_replaced(name, uid, timeout=ROLLOUT)
        etcd.wait_settled()
    use.check()
    use.check_leases()
    assert hosted.deployment()["metadata"]["generation"] == before


def test_a_rotated_authority_reaches_all_api_servers_and_a_lost_member_is_not_noticed(hosted: Hosted) -> None:
    etcd = etcd_of(hosted)
    authority = etcd.secret("client")["ca.crt"]
    with using(hosted) as use:
        annotate(etcd, "rotate-client")
        etcd.cluster.wait_for_one(
            lambda _: etcd.secret("client")["ca.crt"] != authority, "secrets", etcd.namespace, "a-client", timeout=30
        )
        binding_of(hosted).wait_reason("RollingOut")
        binding_of(hosted).wait_reason("Bound", timeout=ROLLOUT)
        etcd.wait_settled(timeout=ROLLOUT)
        lost = etcd.member_ids()["a-1"]
        etcd.cluster.delete("persistentvolumeclaims", etcd.namespace, "data-a-1")
        etcd.kill("a-1", grace=0)
        etcd.wait_status(lambda told: lost not in str(told["members"]), what="a-1 removed", timeout=90)
        etcd.wait_settled()
    use.check()
    use.check_leases()


def annotate(etcd: Etcd, what: str) -> None:
    etcd.cluster.kubectl("-n", etcd.namespace, "annotate", "etcd/a", f"externaletcd.io/{what}=now")


def test_members_are_followed(hosted: Hosted) -> None:
    etcd, binding = etcd_of(hosted), binding_of(hosted)
    with using(hosted) as use:
        binding.apply(endpoints="Members")
        wait_running(hosted, members(hosted, 3))
        etcd.apply(members=5, proxy=PROXY, tls=TLS)
        wait_running(hosted, members(hosted, 5))
        etcd.apply(members=3, proxy=PROXY, tls=TLS)
        wait_running(hosted, members(hosted, 3))
        binding.apply()
        wait_running(hosted, proxied(hosted))
        binding.wait_reason("Bound", timeout=ROLLOUT)
    use.check()
    use.check_leases()
    assert "kept" in hosted.names()


def test_somebody_elses_edit_is_undone_and_a_quarrel_is_told(hosted: Hosted) -> None:
    binding, wired = binding_of(hosted), hosted.arguments()
    for _ in range(3):
        set_arguments(hosted, [each for each in wired if not each.startswith("--etcd-prefix")])
        hosted.cluster.wait_for_one(
            lambda seen: sorted(arguments_of(seen)) == sorted(wired),
            "deployments",
            hosted.namespace,
            NAME,
            what="arguments put right",
            timeout=60,
        )
    set_arguments(hosted, [each for each in wired if not each.startswith("--etcd-prefix")])
    binding.wait_reason("Contested", EDITOR, NAME)
    set_arguments(hosted, wired)
    hosted.cluster.wait_for(
        lambda events: any(f"{EDITOR} had changed" in event["message"] for event in events.values()),
        "events",
        hosted.namespace,
        fields="involvedObject.kind=ApiServerBinding,reason=DriftCorrected",
        what="the drift told",
    )


def set_arguments(hosted: Hosted, arguments: list[str]) -> None:
    patch = [{"op": "replace", "path": "/spec/template/spec/containers/0/args", "value": arguments}]
    response = hosted.cluster.request(
        "PATCH",
        f"/apis/apps/v1/namespaces/{hosted.namespace}/deployments/{NAME}",
        data=json.dumps(patch),
        headers={"Content-Type": "application/json-patch+json"},
    )
    response.raise_for_status()


def arguments_of(deployment: Manifest) -> list[str]:
    told: list[str] = deployment["spec"]["template"]["spec"]["containers"][0]["args"]
    return told


def test_an_etcd_with_other_objects_is_refused_with_the_numbers(hosted: Hosted) -> None:
    other = Etcd(cluster=hosted.cluster, namespace=hosted.namespace, name="other")
    other.create(members=1)
    before = hosted.arguments()
    binding = binding_of(hosted, "moved")
    binding.apply(clusterRef={"name": "other"})
    binding.wait_reason("TargetTaken", "ApiServerBinding hosted")
    hosted.cluster.delete("apiserverbindings", hosted.namespace, "hosted")
    told = binding.wait_reason("DifferentData", "keys there at revision", "0 below /registry of EtcdCluster other")
    assert told["status"]["summary"] == "The EtcdCluster holds other data"
    assert hosted.arguments() == before
    hosted.cluster.delete("apiserverbindings", hosted.namespace, "moved")
    binding_of(hosted).apply()
    binding_of(hosted).wait_reason("Bound")
    other.delete()


REFUSED: list[tuple[str, dict[str, Any], str]] = [
    ("TargetNotFound", {"target": {"deployment": {"name": "none"}}, "prefix": "/b"}, "there is no deployment/none"),
    ("TargetNotFound", {"target": {"statefulSet": {"name": NAME}}, "prefix": "/b"}, f"no statefulset/{NAME}"),
    (
        "ContainerNotFound",
        {"target": {"deployment": {"name": NAME, "container": "api"}}, "prefix": "/b"},
        f"no container api, but {NAME}",
    ),
    ("ClusterNotFound", {"clusterRef": {"name": "none"}}, "there is no EtcdCluster none"),
    ("ClusterNotFound", {"clusterRef": {"name": "a", "namespace": "kube-system"}}, "in namespace kube-system"),
    ("PrefixTaken", {"target": {"manual": {}}, "prefix": "/registry/sub"}, "ApiServerBinding hosted"),
    ("TargetTaken", {"prefix": "/b"}, "ApiServerBinding hosted"),
]


@pytest.mark.parametrize(("reason", "spec", "words"), REFUSED)
def test_what_cannot_be_is_told(hosted: Hosted, reason: str, spec: dict[str, Any], words: str) -> None:
    binding = binding_of(hosted, "refused")
    binding.apply(**spec)
    binding.wait_reason(reason, words)
    hosted.cluster.delete("apiserverbindings", hosted.namespace, "refused")


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ({"target": {}}, "exactly one of deployment, statefulSet, kubeadm and manual"),
        (
            {"target": {"kubeadm": {"kubeconfigRef": {"name": "x"}, "readyWithin": "5s"}}},
            "a duration between 30s and 1h",
        ),
        (
            {"target": {"manual": {}, "deployment": {"name": "x"}}},
            "exactly one of deployment, statefulSet, kubeadm and manual",
        ),
        ({"prefix": "registry"}, "spec.prefix"),
        ({"prefix": "/x/../registry"}, "spec.prefix"),
        ({"endpoints": "All"}, "spec.endpoints"),
    ],
)
def test_mistakes_are_told_by_the_api_server(hosted: Hosted, spec: dict[str, Any], words: str) -> None:
    manifest = json.dumps(binding_of(hosted, "mistaken").manifest(**spec))
    refused = hosted.cluster.try_kubectl("apply", "-f", "-", stdin=manifest)
    assert refused.returncode
    assert words in refused.stderr


@pytest.mark.parametrize("spec", [{"prefix": "/b"}, {"clusterRef": {"name": "b"}}, {"target": {"manual": {}}}])
def test_what_an_api_server_was_told_is_for_good(hosted: Hosted, spec: dict[str, Any]) -> None:
    refused = hosted.cluster.try_kubectl("apply", "-f", "-", stdin=json.dumps(binding_of(hosted).manifest(**spec)))
    assert "is immutable: the API server would find other data there" in refused.stderr


def test_a_manual_one_tells_what_to_set(hosted: Hosted) -> None:
    binding = binding_of(hosted, "unit")
    binding.apply(target={"manual": {}}, prefix="/other")
    told = binding.wait_reason("Manual")["status"]
    assert told["arguments"][0] == f"--etcd-servers={proxied(hosted)}"
    assert told["arguments"][-1] == "--etcd-prefix=/other"
    assert told["secretName"] == "a-client"
    hosted.cluster.delete("apiserverbindings", hosted.namespace, "unit")


def test_from_another_namespace_where_it_is_allowed_and_back_as_it_was(hosted: Hosted) -> None:
    etcd = etcd_of(hosted)
    with fresh_namespace(hosted.cluster) as namespace:
        guest = Hosted(cluster=hosted.cluster, namespace=namespace)
        before = guest.manifests(replicas=1, arguments=("--etcd-servers=",))
        hosted.cluster.apply(*before)
        binding = binding_of(guest, "guest")
        binding.apply(clusterRef={"name": "a", "namespace": hosted.namespace}, prefix="/guest", onDelete="Restore")
        binding.wait_reason("NotAllowed", f"add {namespace} to its spec.access.bindings")
        assert hosted.cluster.get("secrets", namespace, "guest-etcd-client") is None
        etcd.apply(proxy=PROXY, tls=TLS, access={"bindings": [namespace]})
        binding.wait_reason("Bound", f"EtcdCluster a in namespace {hosted.namespace}", timeout=ROLLOUT)
        guest.put("theirs")
        assert "theirs" not in hosted.names()
        hosted.cluster.delete("apiserverbindings", namespace, "guest")
        hosted.cluster.wait_until_gone("apiserverbindings", namespace, name="guest")
        assert guest.arguments() == before[1]["spec"]["template"]["spec"]["containers"][0]["args"]
        template = guest.deployment()["spec"]["template"]["spec"]
        assert {volume["name"] for volume in template["volumes"]} == {"keys", "certificates"}
    etcd.apply(proxy=PROXY, tls=TLS)
