"""An EtcdCluster from `kubectl apply` to reads and writes, what it is made of, and what is refused."""

import json

import pytest

from devtools import environment
from e2e.support import SMALL, Etcd, KubectlError, Manifest, condition_of, is_ready_pod


def test_three_members_are_told_as_they_are(etcd: Etcd) -> None:
    status = etcd.create()["status"]
    assert status["quorum"] == "3/3"
    assert (status["readyMembers"], status["toleratedFailures"], status["summary"]) == (3, 1, "Available")
    assert status["version"] == "3.7.3"
    assert status["observedGeneration"] == 1
    assert status["endpoints"]["client"] == f"https://a.{etcd.namespace}.svc:2379"
    members = {member["name"]: member for member in status["members"]}
    assert set(members) == {"a-0", "a-1", "a-2"}
    assert status["leader"] in members
    assert all(member["role"] == "Voter" and member["version"] == "3.7.3" for member in members.values())
    told = {line.split(", ")[2]: line.split(", ")[0] for line in etcd.etcdctl("member", "list").splitlines()}
    assert told == {name: member["id"] for name, member in members.items()}
    assert status["clusterID"] == f"{cluster_id(etcd):x}"
    assert {"Bootstrapped", "Available"} <= etcd.event_reasons()


def cluster_id(etcd: Etcd) -> int:
    """The cluster ID that etcd itself says."""
    answer = json.loads(etcd.etcdctl("endpoint", "status", "-w", "json"))
    return int(answer[0]["Status"]["header"]["cluster_id"])


def test_the_table_of_kubectl_get(etcd: Etcd) -> None:
    etcd.create(members=1)
    header, line = etcd.cluster.kubectl("-n", etcd.namespace, "get", "etcd").splitlines()
    assert header.split() == ["NAME", "MEMBERS", "READY", "TOLERATES", "LEADER", "VERSION", "STATUS", "AGE"]
    assert line.split()[:-1] == ["a", "1", "1", "0", "a-0", "3.7.3", "Available"]


def test_members_stand_on_different_nodes(etcd: Etcd) -> None:
    etcd.create()
    assert len({pod["spec"]["nodeName"] for pod in etcd.pods().values()}) == 3


def test_a_key_goes_in_and_out_over_tls_and_not_without(etcd: Etcd) -> None:
    etcd.create()
    etcd.put("greeting", "hello")
    assert etcd.read("greeting") == "hello"
    with pytest.raises(KubectlError, match=r"(?i)certificate|tls|deadline|EOF|closed"):
        etcd.etcdctl("get", "greeting", "--cert=", "--key=", "--command-timeout=3s", "--dial-timeout=2s")


def test_more_members_than_nodes_share_and_it_is_told(etcd: Etcd) -> None:
    etcd.create(members=5)
    assert "share node" in etcd.condition("Degraded")["message"]


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


def test_the_spec_reaches_the_objects(etcd: Etcd) -> None:
    etcd.apply(
        storage={"size": "2Gi", "storageClassName": "local-path"},
        resources={"requests": {"cpu": "30m", "memory": "64Mi"}, "limits": {"memory": "512Mi"}},
        options={
            "quotaBackendBytes": "1Gi",
            "heartbeatInterval": "200ms",
            "electionTimeout": "2s",
            "snapshotCount": 5000,
            "autoCompaction": {"mode": "Periodic", "retention": "1h"},
            "extra": {"max-request-bytes": 3145728},
        },
        podTemplate={
            "metadata": {"labels": {"team": "shop"}, "annotations": {"example.com/note": "yes"}},
            "spec": {
                "tolerations": [{"key": "etcd", "operator": "Exists"}],
                "nodeSelector": {"kubernetes.io/os": "linux"},
                "volumes": [{"name": "scratch", "emptyDir": {}}],
                "containers": [{"name": "etcd", "volumeMounts": [{"name": "scratch", "mountPath": "/scratch"}]}],
            },
        },
    )
    etcd.wait_available()
    pod = etcd.pods()["a-0"]
    container = next(container for container in pod["spec"]["containers"] if container["name"] == "etcd")
    assert container["resources"]["limits"] == {"memory": "512Mi"}
    assert {"name": "scratch", "mountPath": "/scratch"} in container["volumeMounts"]
    assert len(container["volumeMounts"]) > 1, "the overlay must not replace the operator's own mounts"
    assert pod["metadata"]["labels"]["team"] == "shop"
    assert pod["metadata"]["annotations"]["example.com/note"] == "yes"
    assert pod["spec"]["nodeSelector"] == {"kubernetes.io/os": "linux"}
    assert {claim["spec"]["resources"]["requests"]["storage"] for claim in etcd.claims().values()} == {"2Gi"}
    assert {claim["spec"]["storageClassName"] for claim in etcd.claims().values()} == {"local-path"}
    logs = etcd.cluster.kubectl("-n", etcd.namespace, "logs", "a-0")
    for setting in ('"quota-backend-bytes":1073741824', '"heartbeat-interval":"200ms"', '"election-timeout":"2s"'):
        assert setting in logs
    assert '"snapshot-count":5000' in logs
    assert '"auto-compaction-retention":"1h0m0s"' in logs
    assert '"max-request-bytes":3145728' in logs


def test_four_members_are_refused_however_one_asks(etcd: Etcd) -> None:
    etcd.create(members=1)
    for command in (
        ["scale", "etcd/a", "--replicas=4"],
        ["patch", "etcd/a", "--type=merge", "-p", '{"spec": {"members": 4}}'],
    ):
        done = etcd.cluster.try_kubectl("-n", etcd.namespace, *command)
        assert done.returncode
        assert "must be 1, 3, 5 or 7" in done.stderr
    with pytest.raises(KubectlError, match="tolerates no more failures than one fewer"):
        etcd.apply(members=4)


def test_an_edit_that_needs_an_ordered_change_is_told_as_pending_and_reaches_nothing(etcd: Etcd) -> None:
    etcd.create()
    before = {name: pod["metadata"]["uid"] for name, pod in etcd.pods().items()}
    file_before = etcd.cluster.get("configmaps", etcd.namespace, "a-config")
    etcd.apply(members=5, options={"quotaBackendBytes": "1Gi"})
    status = etcd.wait_status(lambda told: bool(told.get("pending")) and told["observedGeneration"] == 2, timeout=15)
    assert any("spec.members" in line for line in status["pending"])
    assert any("spec.options.quotaBackendBytes" in line for line in status["pending"])
    assert {name: pod["metadata"]["uid"] for name, pod in etcd.pods().items()} == before
    assert file_before == etcd.cluster.get("configmaps", etcd.namespace, "a-config")
    etcd.apply()
    etcd.wait_status(lambda told: not told.get("pending") and told["observedGeneration"] == 3, timeout=15)
    etcd.wait(environment.is_available)


def test_a_paused_cluster_is_watched_and_left_alone(etcd: Etcd) -> None:
    etcd.create(members=1)
    etcd.apply(members=1, paused=True)
    etcd.wait(lambda seen: condition_reason(seen) == "Paused", timeout=15)
    etcd.cluster.delete("services", etcd.namespace, "a")
    uid = etcd.kill("a-0", grace=0)
    etcd.wait_replaced("a-0", uid)
    etcd.wait_status(lambda told: told.get("quorum") == "1/1")
    assert etcd.cluster.get("services", etcd.namespace, "a") is None
    etcd.apply(members=1, paused=False)
    etcd.cluster.wait_for_one(bool, "services", etcd.namespace, "a", timeout=15)


def condition_reason(seen: Manifest) -> str:
    """The reason of Progressing."""
    return str(condition_of(seen, "Progressing").get("reason", ""))


def test_an_application_needs_no_more_than_the_client_secret(etcd: Etcd) -> None:
    etcd.create(members=1)
    held = etcd.secret("client")
    assert set(held) == {"ca.crt", "tls.crt", "tls.key", "endpoints"}
    assert held["endpoints"].decode() == f"https://a.{etcd.namespace}.svc:2379"


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
