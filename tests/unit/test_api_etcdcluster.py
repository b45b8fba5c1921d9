"""EtcdCluster as read from and written to the API server."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import ValidationError

from etcd_operator.api import (
    API_VERSION,
    Bootstrap,
    Condition,
    Duration,
    Endpoints,
    EtcdCluster,
    EtcdClusterSpec,
    EtcdClusterStatus,
    MemberStatus,
    Quantity,
)

SAMPLES = Path(__file__).parents[2] / "deploy" / "samples"
NOW = datetime(2026, 11, 21, 9, 0, 0, 123456, tzinfo=UTC)


def body(**spec: Any) -> dict[str, Any]:
    metadata = {"name": "tenant-a", "namespace": "shop", "uid": "u-1", "generation": 4, "resourceVersion": "17"}
    return {"apiVersion": API_VERSION, "kind": "EtcdCluster", "metadata": metadata, "spec": spec}


def test_an_empty_spec_is_a_three_member_cluster_fit_for_production() -> None:
    spec = EtcdCluster.model_validate(body()).spec
    assert (spec.members, spec.version, spec.paused) == (3, "3.7.3", False)
    assert spec.image.repository == "gcr.io/etcd-development/etcd"
    assert (spec.storage.size.bytes, spec.storage.deletion_policy) == (8 * 2**30, "Retain")
    assert spec.storage.storage_class_name is None
    assert (spec.tls.peer.mode, spec.tls.client.mode) == ("Managed", "Managed")
    assert spec.tls.renew_before < spec.tls.certificate_duration
    assert spec.options.quota_backend_bytes.bytes == 2 * 2**30
    assert spec.options.election_timeout.milliseconds() == 10 * spec.options.heartbeat_interval.milliseconds()
    assert spec.options.auto_compaction is None
    assert spec.resources == {"requests": {"cpu": "100m", "memory": "256Mi"}}


def test_what_a_user_writes_is_found_under_python_names() -> None:
    cluster = EtcdCluster.model_validate(
        body(
            image={"pullPolicy": "Always", "pullSecrets": [{"name": "registry"}]},
            storage={"size": 1073741824, "storageClassName": "fast", "deletionPolicy": "Delete"},
            resources={"limits": {"cpu": 2, "memory": "1Gi"}},
            options={
                "autoCompaction": {"mode": "Revision", "retention": 1000},
                "extra": {"cors": "*", "pre-vote": True},
            },
            tls={"client": {"extraSANs": ["etcd.example.com"]}, "renewBefore": "5m"},
            podTemplate={"metadata": {"labels": {"a": "b"}}, "spec": {"nodeSelector": {"disk": "nvme"}}},
        )
    )
    spec = cluster.spec
    assert spec.image.pull_secrets[0].name == "registry"
    assert (spec.storage.size, spec.storage.storage_class_name) == (Quantity("1Gi"), "fast")
    assert spec.resources == {"limits": {"cpu": 2, "memory": "1Gi"}}
    assert spec.options.auto_compaction is not None
    assert (spec.options.auto_compaction.mode, spec.options.auto_compaction.retention) == ("Revision", "1000")
    assert spec.options.extra == {"cors": "*", "pre-vote": True}
    assert spec.tls.client.extra_sans == ("etcd.example.com",)
    assert spec.tls.renew_before == Duration("300s")
    assert spec.pod_template.metadata == {"labels": {"a": "b"}}
    assert spec.pod_template.spec == {"nodeSelector": {"disk": "nvme"}}


def test_metadata_is_kept() -> None:
    raw = body()
    raw["metadata"] |= {"deletionTimestamp": "2026-11-21T09:00:00Z", "labels": {"a": "b"}, "annotations": {"c": "d"}}
    metadata = EtcdCluster.model_validate(raw).metadata
    assert (metadata.name, metadata.namespace, metadata.uid) == ("tenant-a", "shop", "u-1")
    assert (metadata.generation, metadata.resource_version) == (4, "17")
    assert metadata.deletion_timestamp == NOW.replace(microsecond=0)
    assert (metadata.labels, metadata.annotations) == ({"a": "b"}, {"c": "d"})


def test_fields_of_another_release_are_no_obstacle() -> None:
    raw = body(proxy={"enabled": True}) | {"status": {"leader": "tenant-a-1", "moon": "full"}}
    assert EtcdCluster.model_validate(raw).status.leader == "tenant-a-1"


@pytest.mark.parametrize(
    "spec",
    [
        {"storage": {"size": "8GB"}},
        {"storage": {"size": True}},
        {"tls": {"peer": {"mode": "Sometimes"}}},
        {"options": {"heartbeatInterval": "soon"}},
        {"members": "three"},
    ],
)
def test_values_of_the_wrong_shape_are_refused(spec: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        EtcdCluster.model_validate(body(**spec))


def test_a_status_is_written_as_kubernetes_takes_it_and_read_back_the_same() -> None:
    condition = Condition(
        type="Available",
        status="True",
        reason="QuorumHealthy",
        message="m",
        last_transition_time=NOW,
        observed_generation=4,
    )
    status = EtcdClusterStatus(
        ready_members=3,
        cluster_id="5b76b8cb1ea6d3b1",
        tolerated_failures=1,
        endpoints=Endpoints(client="https://tenant-a.shop.svc:2379", members=("https://a:2379",)),
        members=(MemberStatus(name="tenant-a-0", role="Voter", healthy=True, db_size=Quantity("24Mi"), leader=True),),
        bootstrap=Bootstrap(cluster_id="5b76b8cb1ea6d3b1", incarnation="i-1"),
        conditions=(condition,),
    )
    written = status.model_dump(by_alias=True, exclude_none=True, mode="json")
    assert written == {
        "readyMembers": 3,
        "clusterID": "5b76b8cb1ea6d3b1",
        "toleratedFailures": 1,
        "endpoints": {"client": "https://tenant-a.shop.svc:2379", "members": ["https://a:2379"]},
        "members": [{"name": "tenant-a-0", "role": "Voter", "healthy": True, "leader": True, "dbSize": "24Mi"}],
        "pending": [],
        "bootstrap": {"clusterID": "5b76b8cb1ea6d3b1", "incarnation": "i-1"},
        "conditions": [
            {
                "type": "Available",
                "status": "True",
                "reason": "QuorumHealthy",
                "message": "m",
                "lastTransitionTime": "2026-11-21T09:00:00Z",
                "observedGeneration": 4,
            }
        ],
    }
    again = EtcdClusterStatus.model_validate(written)
    assert again.model_dump(by_alias=True, exclude_none=True, mode="json") == written


def test_a_spec_survives_being_written_and_read() -> None:
    spec = EtcdClusterSpec(members=5)
    assert EtcdClusterSpec.model_validate(spec.model_dump(by_alias=True, exclude_none=True, mode="json")) == spec


@pytest.mark.parametrize("sample", sorted(SAMPLES.glob("etcdcluster-*.yaml")), ids=lambda path: path.stem)
def test_the_samples_can_be_read(sample: Path) -> None:
    manifest = yaml.safe_load(sample.read_text())
    cluster = EtcdCluster.model_validate(manifest)
    assert cluster.metadata.name == manifest["metadata"]["name"]
    assert cluster.spec.members == manifest["spec"]["members"]


@pytest.mark.parametrize(("text", "patience"), [("5m", 300.0), ("1h30m", 5400.0), ("Never", None)])
def test_how_long_a_member_may_stay_away(text: str, patience: float | None) -> None:
    found = EtcdClusterSpec.model_validate({"healing": {"replaceAfter": text}}).healing.patience
    assert (found.total_seconds() if found else None) == patience


def test_a_time_that_cannot_be_read_is_refused() -> None:
    with pytest.raises(ValidationError, match="no duration"):
        EtcdClusterSpec.model_validate({"healing": {"replaceAfter": "soon"}})
