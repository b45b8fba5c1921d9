"""Every field of the spec is really applied, also by an edit; what cannot be is refused or told as pending."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from cryptography import x509

from devtools import environment
from e2e.support import Cluster, Etcd, KubectlError, Manifest, fresh_namespace, identity
from localcluster import versions

MI = 1024 * 1024


@pytest.fixture(scope="module")
def told(installed: Cluster) -> Iterator[Etcd]:
    """A member with a say on every field."""
    with fresh_namespace(installed) as namespace:
        etcd = Etcd(cluster=installed, namespace=namespace, name="a")
        priority = {"apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass", "value": 1000}
        installed.apply(
            {**priority, "metadata": {"name": namespace}},
            {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "runner", "namespace": namespace}},
        )
        etcd.create(**everything(namespace))
        yield etcd
        installed.kubectl("delete", "priorityclass", namespace)


def everything(namespace: str) -> dict[str, Any]:
    """A spec that sets each field to what is not its default."""
    sidecar = {
        "name": "sidecar",
        "image": versions.BUSYBOX_IMAGE,
        "command": ["sleep", "infinity"],
        "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
        "volumeMounts": [{"name": "scratch", "mountPath": "/scratch"}],
    }
    return {
        "members": 1,
        "storage": {"size": "2Gi", "storageClassName": "local-path"},
        "resources": {"requests": {"cpu": "30m", "memory": "64Mi"}, "limits": {"memory": "512Mi"}},
        "tls": {"client": {"extraSANs": ["etcd.example.com", "192.0.2.7"]}},
        "options": {
            "quotaBackendBytes": "256Mi",
            "heartbeatInterval": "200ms",
            "electionTimeout": "2s",
            "snapshotCount": 5000,
            "autoCompaction": {"mode": "Periodic", "retention": "1h"},
            "extra": {"max-request-bytes": 3 * MI},
        },
        "podTemplate": {
            "metadata": {"labels": {"team": "shop"}, "annotations": {"example.com/note": "yes"}},
            "spec": {
                "tolerations": [{"key": "etcd", "operator": "Exists"}],
                "nodeSelector": {"kubernetes.io/os": "linux"},
                "priorityClassName": namespace,
                "serviceAccountName": "runner",
                "topologySpreadConstraints": [
                    {
                        "maxSkew": 1,
                        "topologyKey": "kubernetes.io/hostname",
                        "whenUnsatisfiable": "ScheduleAnyway",
                        "labelSelector": {"matchLabels": {"team": "shop"}},
                    }
                ],
                "volumes": [{"name": "scratch", "emptyDir": {}}],
                "containers": [
                    {"name": "etcd", "volumeMounts": [{"name": "scratch", "mountPath": "/scratch"}]},
                    sidecar,
                ],
            },
        },
    }


def test_the_overlay_is_on_the_pods_beside_what_is_the_operators(told: Etcd) -> None:
    pod = told.pods()["a-0"]
    etcd, sidecar = pod["spec"]["containers"]
    assert etcd["resources"]["limits"] == {"memory": "512Mi"}
    assert {"name": "scratch", "mountPath": "/scratch"} in etcd["volumeMounts"]
    assert "/var/lib/etcd" in {mount["mountPath"] for mount in etcd["volumeMounts"]}
    assert (sidecar["name"], len(pod["status"]["containerStatuses"])) == ("sidecar", 2)
    assert pod["metadata"]["labels"]["team"] == "shop"
    assert pod["metadata"]["annotations"]["example.com/note"] == "yes"
    assert pod["spec"]["nodeSelector"] == {"kubernetes.io/os": "linux"}
    assert (pod["spec"]["priority"], pod["spec"]["serviceAccountName"]) == (1000, "runner")
    assert pod["spec"]["topologySpreadConstraints"][0]["topologyKey"] == "kubernetes.io/hostname"
    assert "etcd" in {toleration.get("key") for toleration in pod["spec"]["tolerations"]}


def test_the_volumes_are_as_asked(told: Etcd) -> None:
    assert {claim["spec"]["resources"]["requests"]["storage"] for claim in told.claims().values()} == {"2Gi"}
    assert {claim["spec"]["storageClassName"] for claim in told.claims().values()} == {"local-path"}


def test_etcd_itself_runs_with_the_options(told: Etcd) -> None:
    logs = told.cluster.kubectl("-n", told.namespace, "logs", "a-0", "-c", "etcd")
    for setting in (
        '"quota-backend-bytes":268435456',
        '"heartbeat-interval":"200ms"',
        '"election-timeout":"2s"',
        '"snapshot-count":5000',
        '"auto-compaction-mode":"periodic"',
        '"auto-compaction-retention":"1h0m0s"',
    ):
        assert setting in logs
    assert told.metrics("a-0")["etcd_server_quota_backend_bytes"] == 256 * MI


def test_an_extra_option_has_its_effect(told: Etcd) -> None:
    """By default etcd takes requests of 1.5 MiB."""
    large = "x" * (18 * MI // 10)
    assert told.etcdctl("put", "large", stdin=large) == "OK"


def test_the_server_certificate_has_the_extra_names(told: Etcd) -> None:
    certificate = x509.load_pem_x509_certificate(told.secret("server")["tls.crt"])
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    dns = names.value.get_values_for_type(x509.DNSName)
    addresses = names.value.get_values_for_type(x509.IPAddress)
    assert {"etcd.example.com", "192.0.2.7"} <= {*dns, *map(str, addresses)}


@pytest.fixture(scope="module")
def single(installed: Cluster) -> Iterator[Etcd]:
    """One member; every edit tried on it is refused."""
    with fresh_namespace(installed) as namespace:
        etcd = Etcd(cluster=installed, namespace=namespace, name="a")
        etcd.create(members=1)
        yield etcd


@pytest.mark.parametrize("members", [0, 2, 4, 6, 8, 9])
def test_a_number_of_members_that_makes_no_sense_is_refused_however_one_asks(single: Etcd, members: int) -> None:
    patch = json.dumps({"spec": {"members": members}})
    for command in (
        ["scale", "etcd/a", f"--replicas={members}"],
        ["patch", "etcd/a", "--type=merge", "-p", patch],
        ["patch", "etcd/a", "--type=json", "-p", f'[{{"op":"replace","path":"/spec/members","value":{members}}}]'],
    ):
        done = single.cluster.try_kubectl("-n", single.namespace, *command)
        assert done.returncode
        assert "must be 1, 3, 5 or 7: " in done.stderr
    with pytest.raises(KubectlError, match="must be 1, 3, 5 or 7: "):
        single.apply(members=members)
    fresh = Etcd(cluster=single.cluster, namespace=single.namespace, name="fresh")
    with pytest.raises(KubectlError, match="must be 1, 3, 5 or 7: "):
        fresh.apply(members=members)


def test_the_refusal_of_an_even_number_tells_why(single: Etcd) -> None:
    done = single.cluster.try_kubectl("-n", single.namespace, "scale", "etcd/a", "--replicas=4")
    assert "tolerates no more failures than one fewer" in done.stderr


REFUSED: dict[str, tuple[Manifest, str]] = {
    "an unknown field": ({"member": 3}, "unknown field"),
    "an unknown field within": ({"options": {"quota": "1Gi"}}, "unknown field"),
    "TLS off for peers": ({"tls": {"peer": {"mode": "Off"}}}, "immutable|create a new EtcdCluster"),
    "TLS off for clients": ({"tls": {"client": {"mode": "Off"}}}, "immutable|create a new EtcdCluster"),
    "another class": ({"storage": {"size": "1Gi", "storageClassName": "fast"}}, "is immutable"),
    "a smaller volume": ({"storage": {"size": "512Mi"}}, "cannot shrink"),
    "a version that is not supported": ({"version": "3.4.30"}, "must be a full version of etcd 3.5, 3.6 or 3.7"),
    "the operator's business": ({"options": {"extra": {"data-dir": "/"}}}, "is the operator's business"),
    "an election too short": ({"options": {"electionTimeout": "300ms"}}, "at least five times heartbeatInterval"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_is_refused_with_a_sentence(single: Etcd, case: str) -> None:
    spec, sentence = REFUSED[case]
    with pytest.raises(KubectlError, match=sentence):
        single.apply(**{"members": 1, **spec})
    assert single.get()["metadata"]["generation"] == 1


def test_an_edit_of_many_fields_reaches_every_member(etcd: Etcd) -> None:
    etcd.create()
    etcd.put("kept", "yes")
    before = identity(etcd)
    edited: dict[str, Any] = {
        "members": 5,
        "options": {"quotaBackendBytes": "1Gi"},
        "resources": {"requests": {"cpu": "10m", "memory": "40Mi"}},
        "podTemplate": {"metadata": {"labels": {"team": "shop"}}},
    }
    etcd.apply(**edited)
    seen = etcd.wait_settled(timeout=180)
    assert not seen["status"].get("pending")
    uid = etcd.kill("a-1", grace=0)
    etcd.wait_replaced("a-1", uid)
    etcd.wait_settled()
    pods = etcd.pods()
    assert set(pods) == etcd.voters() == {f"a-{number}" for number in range(5)}
    for name, pod in pods.items():
        assert etcd.metrics(name)["etcd_server_quota_backend_bytes"] == 1024 * MI
        assert pod["spec"]["containers"][0]["resources"]["requests"] == {"cpu": "10m", "memory": "40Mi"}
        assert pod["metadata"]["labels"]["team"] == "shop"
    assert etcd.read("kept") == "yes"
    cluster_id, ids, volumes = identity(etcd)
    assert before == (
        cluster_id,
        {name: ids[name] for name in before[1]},
        {name: volumes[name] for name in before[2]},
    )


@pytest.mark.parametrize(
    ("running", "wanted", "why"),
    [
        ("3.7.3", "3.6.16", "spec.version 3.6.16 is below 3.7.3"),
        ("3.5.35", "3.7.3", "set spec.version to 3.6.16 first"),
    ],
    ids=["an older one", "one that skips a minor version"],
)
def test_a_version_that_cannot_follow_is_refused_and_reaches_nothing(
    etcd: Etcd, old_etcd_images: None, running: str, wanted: str, why: str
) -> None:
    etcd.create(members=1, version=running)
    etcd.put("kept", "yes")
    before = settings(etcd)
    if (running, wanted) == ("3.5.35", "3.7.3"):  # the API server sees one edit at a time
        etcd.apply(members=1, version="3.6.16", paused=True)
    etcd.apply(members=1, version=wanted)
    etcd.wait_told("UpgradeRefused", why)
    assert etcd.condition("Progressing")["status"] == "False"
    assert any("spec.version" in line for line in etcd.status()["pending"])
    uid = etcd.kill("a-0", grace=0)
    etcd.wait_replaced("a-0", uid)
    etcd.wait(environment.is_available)
    assert settings(etcd) == before
    etcd.apply(members=1, version=running)
    seen = etcd.wait_settled()
    assert not seen["status"].get("pending")
    assert settings(etcd) == before
    assert etcd.read("kept") == "yes"


def settings(etcd: Etcd) -> Manifest:
    """What the members run with: their files, and what their pods were made from."""
    files = etcd.cluster.get("configmaps", etcd.namespace, "a-config")
    assert files is not None
    pods = {
        name: (pod["spec"]["containers"][0]["image"], pod["spec"]["containers"][0]["resources"])
        for name, pod in etcd.pods().items()
    }
    return {"files": files["data"], "template": etcd.stateful_set()["spec"]["template"], "pods": pods}
