"""What Prometheus reads."""

from collections import Counter

from etcd_operator.runtime.controller import Key
from etcd_operator.runtime.metrics import Metrics


def lines(metrics: Metrics) -> set[str]:
    return {line for line in metrics.text().decode().splitlines() if not line.startswith("#")}


def test_objects_are_counted_by_condition_and_leave_nothing_behind() -> None:
    metrics = Metrics()
    for name, available in (("a", "True"), ("b", "True"), ("c", "False")):
        metrics.conditions(Key("EtcdCluster", "ns", name), {"Available": available})
    metrics.conditions(Key("EtcdCluster", "ns", "b"), None)
    wanted = 'external_etcd_operator_objects{condition="Available",kind="EtcdCluster",status="%s"} 1.0'
    assert {line for line in lines(metrics) if "_objects{" in line} == {wanted % "True", wanted % "False"}


def test_the_queue_depth_is_read_when_asked_and_zero_when_empty() -> None:
    metrics, depth = Metrics(), Counter({"EtcdCluster": 2})
    metrics.watch_queue(["EtcdCluster", "EtcdBackup"], lambda: depth)
    assert 'external_etcd_operator_queue_depth{kind="EtcdCluster"} 2.0' in lines(metrics)
    depth.clear()
    assert 'external_etcd_operator_queue_depth{kind="EtcdCluster"} 0.0' in lines(metrics)
    assert 'external_etcd_operator_queue_depth{kind="EtcdBackup"} 0.0' in lines(metrics)


def test_counters_have_their_labels() -> None:
    metrics = Metrics()
    metrics.api_request("get", "200")
    metrics.etcd_call("Status", "ok")
    metrics.reconciled("EtcdCluster", "error", 0.2)
    metrics.leads(True)
    told = lines(metrics)
    assert 'external_etcd_operator_api_requests_total{code="200",verb="get"} 1.0' in told
    assert 'external_etcd_operator_etcd_calls_total{code="ok",method="Status"} 1.0' in told
    assert 'external_etcd_operator_reconcile_seconds_count{kind="EtcdCluster",outcome="error"} 1.0' in told
    assert "external_etcd_operator_leader 1.0" in told


def test_two_operators_in_one_process_count_apart() -> None:
    first, second = Metrics(), Metrics()
    first.api_request("get", "200")
    assert not any("api_requests_total" in line for line in lines(second))
