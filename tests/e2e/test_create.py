"""An EtcdCluster from `kubectl apply` to reads and writes: what is told of it, and what it rests on."""

import json
from collections.abc import Iterator

import pytest
import yaml

from devtools import environment, feed, kube
from e2e.support import SMALL, Cluster, Etcd, Manifest, condition_of, fresh_namespace, is_ready_pod
from localcluster.cluster import Cluster as LocalCluster

#: Seconds of watching in which nothing of a resting cluster may change; longer than several looks at its etcd.
REST = 30.0


@pytest.fixture(scope="module")
def plain(installed: Cluster) -> Iterator[Etcd]:
    """`spec: {}`, and no test here changes it."""
    with fresh_namespace(installed) as namespace:
        etcd = Etcd(cluster=installed, namespace=namespace, name="a")
        installed.apply(etcd.manifest())
        etcd.wait_available()
        yield etcd


def test_three_members_are_told_as_they_are(plain: Etcd) -> None:
    status = plain.status()
    assert status["quorum"] == "3/3"
    assert (status["readyMembers"], status["toleratedFailures"], status["summary"]) == (3, 1, "Available")
    assert (status["version"], status["observedGeneration"]) == ("3.7.3", 1)
    assert status["endpoints"]["client"] == f"https://a.{plain.namespace}.svc:2379"
    assert len(status["endpoints"]["members"]) == 3
    members = {member["name"]: member for member in status["members"]}
    assert set(members) == {"a-0", "a-1", "a-2"}
    assert [name for name, member in members.items() if member.get("leader")] == [status["leader"]]
    assert all(member["role"] == "Voter" and member["version"] == "3.7.3" for member in members.values())
    assert plain.member_ids() == {name: member["id"] for name, member in members.items()}
    answer = json.loads(plain.etcdctl("endpoint", "status", "-w", "json"))
    assert status["clusterID"] == f"{int(answer[0]['Status']['header']['cluster_id']):x}"


def test_the_conditions_and_events_of_a_healthy_cluster(plain: Etcd) -> None:
    told = {type_: plain.condition(type_) for type_ in ("Available", "Progressing", "Degraded")}
    assert {type_: condition["status"] for type_, condition in told.items()} == {
        "Available": "True",
        "Progressing": "False",
        "Degraded": "False",
    }
    assert "3 of 3 voters answer; leader a-" in told["Available"]["message"]
    assert {"Bootstrapped", "Available"} <= plain.event_reasons()


def test_the_table_of_kubectl_get(plain: Etcd) -> None:
    header, line = plain.cluster.kubectl("-n", plain.namespace, "get", "etcd").splitlines()
    assert header.split() == ["NAME", "MEMBERS", "READY", "TOLERATES", "LEADER", "VERSION", "STATUS", "AGE"]
    name, *numbers, leader, version, state, _ = line.split()
    assert (name, numbers, version, state) == ("a", ["3", "3", "1"], "3.7.3", "Available")
    assert leader in plain.pods()


def test_members_stand_on_different_nodes(plain: Etcd) -> None:
    assert len({pod["spec"]["nodeName"] for pod in plain.pods().values()}) == 3


def test_one_member_at_a_time_may_be_disrupted(plain: Etcd) -> None:
    def lets_one_go(budget: Manifest) -> bool:
        status = budget.get("status", {})
        return bool(status.get("disruptionsAllowed") == 1 and status.get("expectedPods") == 3)

    plain.cluster.wait_for_one(lets_one_go, "poddisruptionbudgets", plain.namespace, "a", timeout=15)


def test_a_key_goes_in_and_out_with_the_client_certificate_and_not_without(plain: Etcd) -> None:
    plain.put("greeting", "hello")
    assert plain.read("greeting") == "hello"
    stranger = yaml.safe_load(environment.etcdctl_pod("a"))
    stranger["metadata"]["name"] = "stranger"
    stranger["spec"]["restartPolicy"] = "Never"
    (container,) = stranger["spec"]["containers"]
    container["command"] = ["/usr/local/bin/etcdctl", "get", "greeting", "--command-timeout=3s"]
    container["env"] = [each for each in container["env"] if each["name"] not in ("ETCDCTL_CERT", "ETCDCTL_KEY")]
    plain.cluster.apply(stranger, namespace=plain.namespace)
    plain.cluster.wait_for_one(
        lambda pod: pod["status"]["phase"] == "Failed", "pods", plain.namespace, "stranger", timeout=30
    )
    assert "hello" not in plain.cluster.kubectl("-n", plain.namespace, "logs", "stranger")


def test_an_application_needs_no_more_than_the_client_secret(plain: Etcd) -> None:
    held = plain.secret("client")
    assert set(held) == {"ca.crt", "tls.crt", "tls.key", "endpoints"}
    assert held["endpoints"].decode() == f"https://a.{plain.namespace}.svc:2379"


def test_the_proxies_and_nothing_else_are_behind_the_service(plain: Etcd) -> None:
    def addresses(application: str) -> set[str]:
        labels = f"app.kubernetes.io/name={application},{plain.labels}"
        return {pod["status"]["podIP"] for pod in plain.cluster.list("pods", plain.namespace, labels=labels)}

    plain.cluster.wait_for(
        lambda _: plain.ready_addresses() == addresses("etcd-proxy") and len(plain.ready_addresses()) == 2,
        "endpointslices",
        plain.namespace,
        timeout=30,
        what="both proxies behind the Service",
    )


def test_without_a_proxy_every_ready_member_and_nothing_else_is_behind_the_service(etcd: Etcd) -> None:
    etcd.create()
    etcd.cluster.wait_for(
        lambda _: etcd.ready_addresses() == {pod["status"]["podIP"] for pod in etcd.pods().values()},
        "endpointslices",
        etcd.namespace,
        timeout=15,
        what="all three members behind the Service",
    )


def test_volumes_tell_whose_data_they_hold(plain: Etcd) -> None:
    ids = plain.member_ids()
    for name, claim in plain.claims().items():
        told = claim["metadata"]["annotations"]
        assert told["externaletcd.io/cluster-id"] == plain.status()["clusterID"]
        assert told["externaletcd.io/member-id"] == ids[name.removeprefix("data-")]


def test_at_rest_nothing_is_written(plain: Etcd) -> None:
    etcd = plain
    # The last events of the bootstrap first: the rest begins when nothing has changed for five seconds.
    for _ in range(12):
        if sum(1 for _ in etcd.cluster.snapshots("etcdclusters", etcd.namespace, timeout=5)) == 1:
            break
    else:
        pytest.fail("the status never comes to rest")
    before = versions(etcd)
    objects = ["secrets", "services", "poddisruptionbudgets", "networkpolicies"]
    changes = ["etcdclusters", "statefulsets", "configmaps", *objects]
    for picture in feed.follow(etcd.cluster.kubeconfig, changes, etcd.namespace, timeout=REST):
        seen = {
            f"{plural}/{name}": item["metadata"]["resourceVersion"]
            for plural, snapshot in picture.items()
            for name, item in snapshot.items()
        }
        assert seen.items() <= before.items(), "changed while it should rest"
    assert versions(etcd) == before


def versions(etcd: Etcd) -> dict[str, str]:
    """The version of each object of the cluster's namespace, but of pods and endpoints, which Kubernetes writes."""
    plurals = (
        "etcdclusters",
        "statefulsets",
        "deployments",
        "configmaps",
        "secrets",
        "services",
        "poddisruptionbudgets",
        "networkpolicies",
        "persistentvolumeclaims",
    )
    return {
        f"{plural}/{item['metadata']['name']}": item["metadata"]["resourceVersion"]
        for plural in plurals
        for item in etcd.cluster.list(plural, etcd.namespace)
    }


def test_one_member(etcd: Etcd) -> None:
    etcd.create(members=1)
    _, line = etcd.cluster.kubectl("-n", etcd.namespace, "get", "etcd").splitlines()
    assert line.split()[:-1] == ["a", "1", "1", "0", "a-0", "3.7.3", "Available"]
    assert etcd.cluster.get("poddisruptionbudgets", etcd.namespace, "a") is None
    etcd.put("greeting", "hello")
    assert etcd.read("greeting") == "hello"


def test_more_members_than_nodes_share_and_it_is_told(etcd: Etcd) -> None:
    etcd.create(members=5)
    assert "share node" in etcd.condition("Degraded")["message"]
    assert etcd.status()["toleratedFailures"] == 2


@pytest.mark.parametrize("version", ["3.6.16", "3.5.35"])
def test_older_versions(etcd: Etcd, version: str, old_etcd_images: None) -> None:
    status = etcd.create(version=version)["status"]
    assert status["version"] == version
    etcd.put("greeting", "hello")
    assert etcd.read("greeting") == "hello"


def test_without_tls(etcd: Etcd) -> None:
    etcd.create(tls={"peer": {"mode": "Off"}, "client": {"mode": "Off"}})
    assert etcd.status()["endpoints"]["client"].startswith("http://")
    assert set(etcd.secret("client")) == {"endpoints"}
    plain_pod = etcd.pods()["a-0"]
    assert {volume["name"] for volume in plain_pod["spec"]["volumes"]} == {"data", "config"}


def test_an_image_from_a_mirror(etcd: Etcd, local: LocalCluster) -> None:
    stock, mirror = "gcr.io/etcd-development/etcd:v3.7.3", "mirror.example.com/infra/etcd"
    for node in local.nodes:
        done = local.exec(node.name, ["ctr", "-n", "k8s.io", "images", "tag", "--force", stock, f"{mirror}:v3.7.3"])
        assert done.returncode == 0, done
    etcd.create(members=1, image={"repository": mirror})
    (container,) = etcd.pods()["a-0"]["spec"]["containers"]
    assert container["image"] == f"{mirror}:v3.7.3"


def test_two_clusters_side_by_side_share_nothing(etcd: Etcd) -> None:
    other = Etcd(cluster=etcd.cluster, namespace=etcd.namespace, name="a-0")
    etcd.apply(members=1, resources=SMALL)
    other.apply(members=1, resources=SMALL)
    etcd.wait_available()
    other.wait_available()
    etcd.put("whose", "mine")
    assert other.read("whose") == ""
    assert etcd.status()["clusterID"] != other.status()["clusterID"]
    assert set(etcd.pods()) == {"a-0"}
    assert all(is_ready_pod(pod) for pod in (*etcd.pods().values(), *other.pods().values()))


def test_a_paused_cluster_is_watched_and_left_alone(etcd: Etcd) -> None:
    etcd.create(members=1)
    etcd.apply(members=1, paused=True)
    etcd.wait(lambda seen: condition_of(seen, "Progressing").get("reason") == "Paused", timeout=15)
    etcd.cluster.delete("services", etcd.namespace, "a")
    uid = etcd.kill("a-0", grace=0)
    etcd.wait(lambda seen: not kube.is_true(seen, "Available"), what="told as down", timeout=15)
    etcd.wait_replaced("a-0", uid)
    etcd.wait_status(lambda told: told.get("quorum") == "1/1")
    assert etcd.cluster.get("services", etcd.namespace, "a") is None
    etcd.apply(members=1, paused=False)
    etcd.cluster.wait_for_one(bool, "services", etcd.namespace, "a", timeout=15)
    etcd.wait(environment.is_available)
