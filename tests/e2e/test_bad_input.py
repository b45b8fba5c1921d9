"""What only shows later becomes a condition that names the object and the reason, and heals when it is corrected."""

import json

from devtools import environment
from e2e.support import Etcd, condition_of

#: Seconds within which a mistake is told.
TOLD = 15.0


def wait_told(etcd: Etcd, *words: str) -> None:
    """Wait until a condition says all these words."""

    def tells(seen: dict[str, object]) -> bool:
        conditions = [condition_of(seen, type_) for type_ in ("Progressing", "Degraded")]
        return any(
            all(word in f"{condition.get('reason')}: {condition.get('message')}" for word in words)
            for condition in conditions
        )

    etcd.wait(tells, what=f"a condition that says {words}", timeout=TOLD)


def test_an_image_that_does_not_exist(etcd: Etcd) -> None:
    etcd.apply(version="3.7.99")
    wait_told(etcd, "ImageUnavailable", "a-", "v3.7.99")
    etcd.apply()
    etcd.wait_available()


def test_a_storage_class_that_does_not_exist(etcd: Etcd) -> None:
    name = f"later-{etcd.namespace}"
    etcd.apply(members=1, storage={"size": "1Gi", "storageClassName": name})
    wait_told(etcd, name)
    stock = etcd.cluster.get("storageclasses", None, "local-path")
    assert stock is not None
    kept = {key: stock[key] for key in ("provisioner", "reclaimPolicy", "volumeBindingMode")}
    etcd.cluster.apply({"apiVersion": "storage.k8s.io/v1", "kind": "StorageClass", "metadata": {"name": name}, **kept})
    try:
        etcd.wait_available()
    finally:
        etcd.cluster.delete("storageclasses", None, name)


def test_no_room_to_schedule(etcd: Etcd) -> None:
    etcd.apply(resources={"requests": {"cpu": "1000"}})
    wait_told(etcd, "Unschedulable", "a-")
    etcd.apply()
    etcd.wait_available()


def test_an_option_that_etcd_does_not_know(etcd: Etcd) -> None:
    etcd.apply(members=1, options={"extra": {"max-reqest-bytes": 1}})
    wait_told(etcd, "max-reqest-bytes", "max-request-bytes")
    etcd.apply(members=1)
    etcd.wait_available()


def test_an_option_that_etcd_refuses_to_start_with(etcd: Etcd) -> None:
    etcd.apply(members=1, options={"extra": {"log-level": "loud"}})
    wait_told(etcd, "a-0", "log")
    etcd.apply(members=1)
    etcd.wait_available()


def test_a_quota_that_forbids_the_pods(etcd: Etcd) -> None:
    quota = {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "none"}, "spec": {"hard": {"pods": "0"}}}
    etcd.cluster.apply(quota, namespace=etcd.namespace)
    etcd.apply(members=1)
    wait_told(etcd, "PodsRefused", "StatefulSet a", "exceeded quota")
    etcd.cluster.kubectl("-n", etcd.namespace, "delete", "resourcequota", "none")
    etcd.wait_available()


def test_a_pod_that_would_break_restricted_pod_security(etcd: Etcd) -> None:
    etcd.apply(members=1, podTemplate={"spec": {"hostNetwork": True}})
    etcd.wait(
        lambda seen: condition_of(seen, "Progressing").get("reason") in ("PodsRefused", "InvalidSpec"), timeout=TOLD
    )
    etcd.apply(members=1)
    etcd.wait_available()


def test_one_broken_cluster_does_not_delay_another(etcd: Etcd) -> None:
    broken = [Etcd(cluster=etcd.cluster, namespace=etcd.namespace, name=f"broken-{n}") for n in range(3)]
    for each in broken:
        each.apply(members=1, version="3.7.99")
    wait_told(broken[0], "ImageUnavailable")
    etcd.create(members=1)
    assert environment.is_available(etcd.get())
    assert not any("client" in json.dumps(each.status().get("endpoints", {})) for each in broken)
