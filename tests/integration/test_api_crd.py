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
from integration.api_crd_cases import BAD_FIELDS, GOOD_FIELDS, IMMUTABLE
from localcluster.artifacts import ensure_kubectl
from localcluster.progress import Progress

ROOT = Path(__file__).parents[2]
CRDS = ROOT / "crds"
SAMPLES = ROOT / "deploy" / "samples"
NAMESPACE = f"crd-{uuid4().hex[:8]}"
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
def kubectl(admin_kubeconfig: Path, crds: None) -> Iterator[Kubectl]:
    """kubectl as an administrator, in a namespace that holds no EtcdCluster afterwards."""
    tool = Kubectl(admin_kubeconfig)
    tool.ok("create", "namespace", NAMESPACE)
    yield tool
    tool.ok("delete", "etcd", "--all", "--wait=false")


def manifest(name: str, **spec: Any) -> dict[str, Any]:
    return {"apiVersion": "externaletcd.io/v1alpha1", "kind": "EtcdCluster", "metadata": {"name": name}, "spec": spec}


Created = Callable[..., str]


@pytest.fixture
def created(kubectl: Kubectl) -> Created:
    """Make an EtcdCluster; gives its name."""

    def create(**spec: Any) -> str:
        name = f"test-{uuid4().hex[:8]}"
        kubectl.ok("apply", "-f", "-", stdin=manifest(name, **spec))
        return name

    return create


def refused(done: Done, field: str, message: str) -> None:
    """The call failed for that field with that message, and for nothing else."""
    assert done.returncode != 0, done.stdout
    assert f"{field}:" in done.stderr
    assert message in done.stderr
    assert "rule evaluation error" not in done.stderr
    assert "is invalid: [" not in done.stderr, "more than one complaint"


def test_the_crd_is_accepted_without_a_warning_and_its_names_are_granted(kubectl: Kubectl) -> None:
    kubectl.ok("apply", "--server-side", "--force-conflicts", "--warnings-as-errors", "-f", str(CRDS))
    kubectl.ok("wait", "--for=condition=Established", "--timeout=30s", "-f", str(CRDS))
    crd = json.loads(kubectl.ok("get", "crd", "etcdclusters.externaletcd.io", "-o", "json"))
    conditions = {item["type"]: item["status"] for item in crd["status"]["conditions"]}
    assert conditions == {"NamesAccepted": "True", "Established": "True"}, "NonStructuralSchema or a clash of names"


def test_an_empty_spec_becomes_a_three_member_cluster(kubectl: Kubectl, created: Created) -> None:
    spec = kubectl.read(created())["spec"]
    assert (spec["members"], spec["version"], spec["paused"]) == (3, "3.7.3", False)
    assert spec["storage"] == {"size": "8Gi", "medium": "Disk", "deletionPolicy": "Retain"}
    assert spec["tls"]["peer"] == {"mode": "Managed"}
    assert spec["tls"]["client"] == {"mode": "Managed", "rotationGrace": "5m"}
    assert spec["options"]["quotaBackendBytes"] == "2Gi"
    assert "autoCompaction" not in spec["options"]


def test_a_manifest_without_a_spec_is_one_too(kubectl: Kubectl, created: Created) -> None:
    name = created()
    assert (
        kubectl("patch", "etcd", name, "--type=json", "--patch", '[{"op": "remove", "path": "/spec"}]').returncode == 0
    )
    assert kubectl.read(name)["spec"]["members"] == 3


@pytest.mark.parametrize("sample", sorted(SAMPLES.glob("*.yaml")), ids=lambda path: path.stem)
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


@pytest.mark.parametrize(("spec", "field", "message"), BAD_FIELDS.values(), ids=BAD_FIELDS)
def test_bad_input_is_refused_in_plain_words_however_it_comes(
    kubectl: Kubectl, created: Created, spec: dict[str, Any], field: str, message: str
) -> None:
    name = created()
    refused(kubectl.apply(manifest(f"{name}-new", **spec)), field, message)
    refused(kubectl.patch(name, {"spec": spec}), field, message)


@pytest.mark.parametrize("spec", GOOD_FIELDS.values(), ids=GOOD_FIELDS)
def test_good_input_is_kept_as_written(kubectl: Kubectl, created: Created, spec: dict[str, Any]) -> None:
    def contained(part: Any, whole: Any) -> bool:
        if isinstance(part, dict):
            return all(name in whole and contained(value, whole[name]) for name, value in part.items())
        return bool(part == whole)

    stored = kubectl.read(created(**spec))
    assert contained(spec, stored["spec"])
    assert EtcdCluster.model_validate(stored).metadata.uid, "the operator reads what the API server takes"


def found(kubectl: Kubectl, name: str) -> None:
    """Write into the status that the etcd was founded."""
    status = {"status": {"bootstrap": {"clusterID": "5eca1e5034949cd5", "incarnation": "299e9fb660"}}}
    kubectl.ok("patch", "etcd", name, "--subresource=status", "--type=merge", "-p", json.dumps(status))


@pytest.mark.parametrize(("before", "after", "field", "message"), IMMUTABLE.values(), ids=IMMUTABLE)
def test_what_cannot_change_says_so(
    kubectl: Kubectl, created: Created, before: dict[str, Any], after: dict[str, Any], field: str, message: str
) -> None:
    name = created(**before)
    found(kubectl, name)
    refused(kubectl.patch(name, {"spec": after}), field, message)


def test_the_class_can_be_corrected_until_the_etcd_was_founded(kubectl: Kubectl, created: Created) -> None:
    name = created(storage={"storageClassName": "typo"})
    assert kubectl.patch(name, {"spec": {"storage": {"storageClassName": "fast"}}}).returncode == 0
    assert kubectl.read(name)["spec"]["storage"]["storageClassName"] == "fast"


def test_a_minor_version_cannot_be_skipped_once_the_etcd_was_founded(kubectl: Kubectl, created: Created) -> None:
    name = created(version="3.5.35")
    assert kubectl.patch(name, {"spec": {"version": "3.7.3"}}).returncode == 0, "nothing runs yet"
    assert kubectl.patch(name, {"spec": {"version": "3.5.35"}}).returncode == 0
    found(kubectl, name)
    done = kubectl.patch(name, {"spec": {"version": "3.7.3"}})
    assert done.returncode
    assert "spec.version: Invalid value" in done.stderr
    assert "cannot skip a minor version" in done.stderr
    assert kubectl.patch(name, {"spec": {"version": "3.6.16"}}).returncode == 0
    assert kubectl.patch(name, {"spec": {"version": "3.7.3"}}).returncode == 0
    done = kubectl.patch(name, {"spec": {"version": "3.5.35"}})
    assert done.returncode
    assert "cannot skip a minor version" in done.stderr


def test_a_version_that_was_refused_can_be_withdrawn_in_one_step(kubectl: Kubectl, created: Created) -> None:
    name = created(version="3.7.3")
    found(kubectl, name)
    status = json.dumps({"status": {"version": "3.7.3"}})
    kubectl.ok("patch", "etcd", name, "--subresource=status", "--type=merge", "-p", status)
    for version in ("3.6.16", "3.5.35", "3.7.3"):
        done = kubectl.patch(name, {"spec": {"version": version}})
        assert (done.returncode, done.stderr) == (0, "")


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
