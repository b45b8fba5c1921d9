"""EtcdCluster as a real API server takes it: what is refused and with which words, defaults, columns, documentation."""

import json
import subprocess
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from etcd_operator.api import (
    Bootstrap,
    Condition,
    Endpoints,
    EtcdCluster,
    EtcdClusterStatus,
    MemberStatus,
    Quantity,
)
from localcluster.artifacts import ensure_kubectl
from localcluster.progress import Progress

ROOT = Path(__file__).parents[2]
CRD = ROOT / "crds" / "etcdclusters.yaml"
SAMPLES = ROOT / "deploy" / "samples"
NAMESPACE = "default"
NOW = datetime(2026, 11, 21, 9, tzinfo=UTC)

EVEN = "must be 1, 3, 5 or 7: an even number of members tolerates no more failures than one fewer"
MANY = "must be 1, 3, 5 or 7: with more members every write waits"
NONE = "must be 1, 3, 5 or 7: to stop an etcd and keep its data"

Done = subprocess.CompletedProcess[str]


class Kubectl:
    """kubectl against the API server of the tests."""

    def __init__(self, kubeconfig: Path) -> None:
        self._kubeconfig = kubeconfig
        self._program = ensure_kubectl(Progress())

    def __call__(self, *arguments: str, stdin: dict[str, Any] | None = None) -> Done:
        """What kubectl answered; a refusal is no error."""
        command = [str(self._program), "--kubeconfig", str(self._kubeconfig), "--namespace", NAMESPACE, *arguments]
        text = None if stdin is None else json.dumps(stdin)
        return subprocess.run(command, input=text, capture_output=True, text=True, timeout=60, check=False)

    def ok(self, *arguments: str, stdin: dict[str, Any] | None = None) -> str:
        """The output of a call that succeeds without a warning."""
        done = self(*arguments, stdin=stdin)
        assert done.returncode == 0, done.stderr
        assert done.stderr == ""
        return done.stdout

    def apply(self, manifest: dict[str, Any]) -> Done:
        return self("apply", "-f", "-", stdin=manifest)

    def patch(self, name: str, patch: dict[str, Any]) -> Done:
        return self("patch", "etcd", name, "--type=merge", "--patch", json.dumps(patch))

    def read(self, name: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.ok("get", "etcd", name, "-o", "json"))
        return found


@pytest.fixture(scope="module")
def kubectl(admin_kubeconfig: Path) -> Kubectl:
    """kubectl as an administrator, with the CRD of the checkout in force."""
    tool = Kubectl(admin_kubeconfig)
    tool.ok("apply", "--server-side", "--force-conflicts", "-f", str(CRD))
    tool.ok("wait", "--for=condition=Established", "--timeout=30s", f"crd/{CRD.stem}.externaletcd.io")
    return tool


def manifest(name: str, **spec: Any) -> dict[str, Any]:
    return {"apiVersion": "externaletcd.io/v1alpha1", "kind": "EtcdCluster", "metadata": {"name": name}, "spec": spec}


Created = Callable[..., str]


@pytest.fixture
def created(kubectl: Kubectl) -> Iterator[Created]:
    """Make an EtcdCluster that is gone after the test; gives its name."""
    names: list[str] = []

    def create(**spec: Any) -> str:
        name = f"test-{uuid4().hex[:8]}"
        done = kubectl.apply(manifest(name, **spec))
        assert done.returncode == 0, done.stderr
        assert done.stderr == ""
        names.append(name)
        return name

    yield create
    for name in names:
        kubectl.ok("delete", "etcd", name, "--wait=false")


def refused(done: Done, field: str, message: str) -> None:
    """The call failed for that field with that message, and for nothing else."""
    assert done.returncode != 0, done.stdout
    assert f"{field}:" in done.stderr
    assert message in done.stderr
    assert "rule evaluation error" not in done.stderr
    assert "is invalid: [" not in done.stderr, "more than one complaint"


def test_the_crd_is_accepted_without_a_warning_and_its_names_are_granted(kubectl: Kubectl) -> None:
    kubectl.ok("apply", "--server-side", "--force-conflicts", "--warnings-as-errors", "-f", str(CRD))
    crd = json.loads(kubectl.ok("get", "crd", "etcdclusters.externaletcd.io", "-o", "json"))
    conditions = {item["type"]: item["status"] for item in crd["status"]["conditions"]}
    assert conditions == {"NamesAccepted": "True", "Established": "True"}, "NonStructuralSchema or a clash of names"


def test_an_empty_spec_becomes_a_three_member_cluster(kubectl: Kubectl, created: Created) -> None:
    spec = kubectl.read(created())["spec"]
    assert (spec["members"], spec["version"], spec["paused"]) == (3, "3.7.3", False)
    assert spec["storage"] == {"size": "8Gi", "deletionPolicy": "Retain"}
    assert spec["tls"]["peer"] == {"mode": "Managed"}
    assert spec["tls"]["client"] == {"mode": "Managed"}
    assert spec["options"]["quotaBackendBytes"] == "2Gi"
    assert "autoCompaction" not in spec["options"]


def test_a_manifest_without_a_spec_is_one_too(kubectl: Kubectl, created: Created) -> None:
    name = created()
    assert (
        kubectl("patch", "etcd", name, "--type=json", "--patch", '[{"op": "remove", "path": "/spec"}]').returncode == 0
    )
    assert kubectl.read(name)["spec"]["members"] == 3


@pytest.mark.parametrize("sample", sorted(SAMPLES.glob("etcdcluster-*.yaml")), ids=lambda path: path.stem)
def test_the_samples_are_accepted(kubectl: Kubectl, sample: Path) -> None:
    kubectl.ok("apply", "--dry-run=server", "--validate=strict", "--warnings-as-errors", "-f", str(sample))


@pytest.mark.parametrize("members", [1, 3, 5, 7])
def test_odd_sizes_are_accepted(kubectl: Kubectl, created: Created, members: int) -> None:
    name = created(members=members)
    kubectl.ok("scale", f"etcd/{name}", f"--replicas={8 - members}")
    assert kubectl.read(name)["spec"]["members"] == 8 - members


@pytest.mark.parametrize(
    ("members", "message"), [(0, NONE), (2, EVEN), (4, EVEN), (6, EVEN), (8, MANY), (9, MANY), (-1, NONE)]
)
def test_other_sizes_are_refused_however_they_come(
    kubectl: Kubectl, created: Created, members: int, message: str
) -> None:
    name = created(members=3)
    refused(kubectl.apply(manifest(f"{name}-new", members=members)), "spec.members", message)
    refused(kubectl.apply(manifest(name, members=members)), "spec.members", message)
    refused(kubectl.patch(name, {"spec": {"members": members}}), "spec.members", message)
    if members >= 0:  # kubectl itself knows no negative replicas
        refused(kubectl("scale", f"etcd/{name}", f"--replicas={members}"), "spec.members", message)
    assert kubectl.read(name)["spec"]["members"] == 3


BAD_FIELDS: dict[str, tuple[dict[str, Any], str, str]] = {
    "an unknown minor": ({"version": "3.4.30"}, "spec.version", "must be a full version of etcd 3.5, 3.6 or 3.7"),
    "a leading v": ({"version": "v3.7.3"}, "spec.version", "without a leading v"),
    "no patch": ({"version": "3.7"}, "spec.version", "must be a full version"),
    "a tag": ({"image": {"repository": "quay.io/coreos/etcd:v3.7.3"}}, "spec.image.repository", "set spec.version"),
    "a digest": ({"image": {"repository": "quay.io/etcd@sha256:ab"}}, "spec.image.repository", "without tag or digest"),
    "a pull policy": ({"image": {"pullPolicy": "Sometimes"}}, "spec.image.pullPolicy", "Unsupported value"),
    "a unit": ({"storage": {"size": "8GB"}}, "spec.storage.size", "must be a quantity of at least 128Mi, such as 8Gi"),
    "a tiny volume": ({"storage": {"size": "64Mi"}}, "spec.storage.size", "of at least 128Mi"),
    "a bare number": ({"storage": {"size": 8}}, "spec.storage.size", "of at least 128Mi"),
    "a negative quota": ({"options": {"quotaBackendBytes": "-1"}}, "spec.options.quotaBackendBytes", "at least 1Mi"),
    "no duration": ({"options": {"heartbeatInterval": "soon"}}, "spec.options.heartbeatInterval", "such as 100ms"),
    "no heartbeat": ({"options": {"heartbeatInterval": "0s"}}, "spec.options.heartbeatInterval", "at least 10ms"),
    "a long election": ({"options": {"electionTimeout": "51s"}}, "spec.options.electionTimeout", "at most 50s"),
    "a short election": (
        {"options": {"heartbeatInterval": "250ms"}},
        "spec.options",
        "electionTimeout must be at least five times heartbeatInterval",
    ),
    "no snapshots": ({"options": {"snapshotCount": 0}}, "spec.options.snapshotCount", "greater than or equal to 1"),
    "a count for a period": (
        {"options": {"autoCompaction": {"retention": 1000}}},
        "spec.options.autoCompaction",
        "retention must be a duration such as 1h where mode is Periodic",
    ),
    "a period of nothing": (
        {"options": {"autoCompaction": {"retention": "0s"}}},
        "spec.options.autoCompaction",
        "leave autoCompaction out",
    ),
    "a period for a count": (
        {"options": {"autoCompaction": {"mode": "Revision", "retention": "1h"}}},
        "spec.options.autoCompaction",
        "retention must be a number of revisions such as 1000 where mode is Revision",
    ),
    "the operator's own key": (
        {"options": {"extra": {"data-dir": "/tmp"}}},
        "spec.options.extra.data-dir",
        "is the operator's business: the operator places the data on the volumes of spec.storage",
    ),
    "a key with a field of its own": (
        {"options": {"extra": {"quota-backend-bytes": 4294967296}}},
        "spec.options.extra.quota-backend-bytes",
        "use spec.options.quotaBackendBytes",
    ),
    "a dangerous key": (
        {"options": {"extra": {"unsafe-no-fsync": True}}},
        "spec.options.extra.unsafe-no-fsync",
        "acknowledged writes would be lost",
    ),
    "a nested key": (
        {"options": {"extra": {"client-transport-security": {"auto-tls": True}}}},
        "spec.options.extra.client-transport-security",
        "TLS is set under spec.tls",
    ),
    "a name that is no name": (
        {"tls": {"client": {"extraSANs": ["https://etcd"]}}},
        "spec.tls.client.extraSANs[0]",
        "must be an IP address or a DNS name",
    ),
    "a short certificate": ({"tls": {"certificateDuration": "1m"}}, "spec.tls.certificateDuration", "at least 10m"),
    "an endless renewal": (
        {"tls": {"certificateDuration": "24h"}},
        "spec.tls",
        "renewBefore must be shorter than certificateDuration",
    ),
    "no resource": ({"resources": {"requests": {"cpu": "lots"}}}, "spec.resources.requests[cpu]", "such as 500m"),
    "a label of a number": (
        {"podTemplate": {"metadata": {"labels": {"a": 1}}}},
        "spec.podTemplate.metadata.labels.a",
        "",
    ),
}


@pytest.mark.parametrize(("spec", "field", "message"), BAD_FIELDS.values(), ids=BAD_FIELDS)
def test_bad_input_is_refused_in_plain_words_however_it_comes(
    kubectl: Kubectl, created: Created, spec: dict[str, Any], field: str, message: str
) -> None:
    name = created()
    refused(kubectl.apply(manifest(f"{name}-new", **spec)), field, message)
    refused(kubectl.patch(name, {"spec": spec}), field, message)


GOOD_FIELDS: dict[str, dict[str, Any]] = {
    "an older minor": {"version": "3.5.35"},
    "a mirror with a port": {"image": {"repository": "registry.example.com:5000/etcd", "pullSecrets": [{"name": "a"}]}},
    "a number of bytes": {"storage": {"size": 8589934592}, "options": {"quotaBackendBytes": 4294967296}},
    "a number of cores": {"resources": {"requests": {"cpu": 2}, "limits": {"memory": "1.5Gi"}}},
    "a slow network": {"options": {"heartbeatInterval": "500ms", "electionTimeout": "2s500ms"}},
    "compaction by time": {"options": {"autoCompaction": {"retention": "1h30m"}}},
    "compaction by number": {"options": {"autoCompaction": {"mode": "Revision", "retention": 1000}}},
    "compaction by text": {"options": {"autoCompaction": {"mode": "Revision", "retention": "1000"}}},
    "names and addresses": {"tls": {"client": {"extraSANs": ["*.example.com", "192.0.2.1", "2001:db8::1", "etcd"]}}},
    "other keys of etcd": {"options": {"extra": {"pre-vote": True, "max-wals": 5, "cors": "*", "log-level": "debug"}}},
    "no TLS": {"tls": {"peer": {"mode": "Off"}, "client": {"mode": "Off"}}},
    "a pod overlay": {"podTemplate": {"metadata": {"labels": {"a": "b"}}, "spec": {"nodeSelector": {"disk": "nvme"}}}},
}


@pytest.mark.parametrize("spec", GOOD_FIELDS.values(), ids=GOOD_FIELDS)
def test_good_input_is_kept_as_written(kubectl: Kubectl, created: Created, spec: dict[str, Any]) -> None:
    def contained(part: Any, whole: Any) -> bool:
        if isinstance(part, dict):
            return all(name in whole and contained(value, whole[name]) for name, value in part.items())
        return bool(part == whole)

    stored = kubectl.read(created(**spec))
    assert contained(spec, stored["spec"])
    assert EtcdCluster.model_validate(stored).metadata.uid, "the operator reads what the API server takes"


IMMUTABLE: dict[str, tuple[dict[str, Any], dict[str, Any], str, str]] = {
    "another class": (
        {"storage": {"storageClassName": "fast"}},
        {"storage": {"storageClassName": "slow"}},
        "spec.storage",
        "storageClassName is immutable",
    ),
    "a class set later": (
        {},
        {"storage": {"storageClassName": "slow"}},
        "spec.storage",
        "storageClassName is immutable",
    ),
    "a class taken away": (
        {"storage": {"storageClassName": "fast"}},
        {"storage": {"storageClassName": None}},
        "spec.storage",
        "storageClassName is immutable",
    ),
    "the storage taken away": (
        {"storage": {"storageClassName": "fast"}},
        {"storage": None},
        "spec.storage",
        "storageClassName is immutable",
    ),
    "the spec taken away": ({"tls": {"peer": {"mode": "Off"}}}, {"tls": None}, "spec.tls.peer.mode", "is immutable"),
    "peers": ({}, {"tls": {"peer": {"mode": "Off"}}}, "spec.tls.peer.mode", "is immutable: members with TLS"),
    "clients": ({}, {"tls": {"client": {"mode": "Off"}}}, "spec.tls.client.mode", "is immutable: clients"),
    "a smaller volume": (
        {"storage": {"size": "2Gi"}},
        {"storage": {"size": "2047Mi"}},
        "spec.storage.size",
        "cannot shrink",
    ),
    "a smaller number": (
        {"storage": {"size": "1Gi"}},
        {"storage": {"size": 536870912}},
        "spec.storage.size",
        "cannot shrink",
    ),
}


@pytest.mark.parametrize(("before", "after", "field", "message"), IMMUTABLE.values(), ids=IMMUTABLE)
def test_what_cannot_change_says_so(
    kubectl: Kubectl, created: Created, before: dict[str, Any], after: dict[str, Any], field: str, message: str
) -> None:
    refused(kubectl.patch(created(**before), {"spec": after}), field, message)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ({"storage": {"size": "1Gi"}}, {"storage": {"size": "1025Mi"}}),
        ({"storage": {"size": "1Gi"}}, {"storage": {"size": 1073741824}}),
        ({"storage": {"size": "1Gi"}}, {"storage": {"deletionPolicy": "Delete"}}),
        ({}, {"version": "3.6.16"}),
        ({"resources": {"requests": {"cpu": "1"}}}, {"resources": None}),
    ],
)
def test_what_can_change_does(
    kubectl: Kubectl, created: Created, before: dict[str, Any], after: dict[str, Any]
) -> None:
    done = kubectl.patch(created(**before), {"spec": after})
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("name", ["9lives", "a.b", "a" * 49])
def test_a_name_that_makes_no_service_is_refused(kubectl: Kubectl, name: str) -> None:
    done = kubectl.apply(manifest(name))
    assert done.returncode != 0
    assert "metadata.name must be lower case letters" in done.stderr


def test_the_longest_name_is_accepted(kubectl: Kubectl) -> None:
    kubectl.ok("apply", "--dry-run=server", "-f", "-", stdin=manifest("a" * 47 + "9"))


def test_unknown_fields_are_refused_by_kubectl_and_pruned_by_the_api_server(kubectl: Kubectl, created: Created) -> None:
    done = kubectl.apply(manifest("typo", storage={"sizze": "8Gi"}))
    assert done.returncode != 0
    assert 'unknown field "spec.storage.sizze"' in done.stderr
    name = created()
    kubectl("apply", "--validate=ignore", "-f", "-", stdin=manifest(name, storage={"sizze": "8Gi"}))
    assert "sizze" not in kubectl.read(name)["spec"]["storage"]


STATUS = EtcdClusterStatus(
    observed_generation=1,
    ready_members=3,
    selector="externaletcd.io/cluster=tenant-a",
    summary="Available",
    cluster_id="5b76b8cb1ea6d3b1",
    version="3.7.3",
    leader="tenant-a-1",
    quorum="3/3",
    tolerated_failures=1,
    endpoints=Endpoints(client="https://tenant-a.shop.svc:2379", members=("https://tenant-a-0.tenant-a-peers:2379",)),
    members=(
        MemberStatus(
            name="tenant-a-0",
            id="8e9e05c52164694d",
            role="Voter",
            healthy=True,
            leader=True,
            version="3.7.3",
            db_size=Quantity("24Mi"),
            db_in_use=Quantity("11Mi"),
            node="n2",
            reason="none",
        ),
    ),
    pending=("a change",),
    bootstrap=Bootstrap(cluster_id="5b76b8cb1ea6d3b1", incarnation="i-1", recorded_at=NOW),
    conditions=(
        Condition(
            type="Available",
            status="True",
            reason="QuorumHealthy",
            message="3 of 3 voters answer",
            last_transition_time=NOW,
            observed_generation=1,
        ),
    ),
).model_dump(by_alias=True, exclude_none=True, mode="json")


def test_no_field_of_the_status_is_lost(kubectl: Kubectl, created: Created) -> None:
    name = created()
    kubectl.ok("patch", "etcd", name, "--subresource=status", "--type=merge", "--patch", json.dumps({"status": STATUS}))
    assert kubectl.read(name)["status"] == STATUS


def test_the_columns_show_the_status_and_scale_reads_it(kubectl: Kubectl, created: Created) -> None:
    name = created()
    kubectl.ok("patch", "etcd", name, "--subresource=status", "--type=merge", "--patch", json.dumps({"status": STATUS}))
    header, row = kubectl.ok("get", "etcd", name).splitlines()
    assert header.split() == ["NAME", "MEMBERS", "READY", "TOLERATES", "LEADER", "VERSION", "STATUS", "AGE"]
    assert row.split()[:7] == [name, "3", "3", "1", "tenant-a-1", "3.7.3", "Available"]
    url = f"/apis/externaletcd.io/v1alpha1/namespaces/{NAMESPACE}/etcdclusters/{name}/scale"
    scale = json.loads(kubectl.ok("get", "--raw", url))
    assert scale["spec"] == {"replicas": 3}
    assert scale["status"] == {"replicas": 3, "selector": "externaletcd.io/cluster=tenant-a"}


def test_a_user_cannot_write_the_status_by_the_way(kubectl: Kubectl, created: Created) -> None:
    name = created()
    assert kubectl.patch(name, {"status": STATUS}).returncode == 0
    assert "status" not in kubectl.read(name)


@pytest.mark.parametrize("name", ["etcd", "etcdcluster", "etcdclusters", "externaletcd"])
def test_the_kind_is_found_under_its_names(kubectl: Kubectl, created: Created, name: str) -> None:
    created()
    assert "MEMBERS" in kubectl.ok("get", name)


def test_explain_reads_like_documentation(kubectl: Kubectl) -> None:
    whole = kubectl.ok("explain", "etcd.spec", "--recursive")
    assert "<no description>" not in kubectl.ok("explain", "etcd.spec")
    assert "quotaBackendBytes" in whole
    members = kubectl.ok("explain", "etcd.spec.members")
    assert "With 3 one may fail" in members
    template = kubectl.ok("explain", "etcd.spec.podTemplate.spec")
    assert "      nodeSelector: {disk: nvme}\n" in template, "the example keeps its lines"
