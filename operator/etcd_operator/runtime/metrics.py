"""Numbers about the operator for Prometheus.

Owns its registry: nothing is global, so that tests and several operators in a process do not share counts.
Other packages never import this one; they are handed single methods as callbacks.
"""

import threading
from collections import Counter
from collections.abc import Callable, Iterable, Mapping

import prometheus_client as prometheus
from prometheus_client.core import GaugeMetricFamily, Metric

from etcd_operator.runtime.controller import Key

PREFIX = "external_etcd_operator"
#: Seconds. A reconcile at rest takes some 10 ms, one that waits for a member that hangs some seconds.
BUCKETS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)


class Metrics:
    """All metrics of one operator process; its methods may be called from any thread."""

    def __init__(self) -> None:
        self.registry = registry = prometheus.CollectorRegistry()
        prometheus.ProcessCollector(registry=registry)
        self._reconciles = prometheus.Histogram(
            f"{PREFIX}_reconcile_seconds",
            "Duration of reconciles by kind and outcome (ok, requeued, error, timeout, cancelled).",
            ("kind", "outcome"),
            buckets=BUCKETS,
            registry=registry,
        )
        self._requests = prometheus.Counter(
            f"{PREFIX}_api_requests",
            "Requests to the API server by verb and HTTP code (none: no answer).",
            ("verb", "code"),
            registry=registry,
        )
        self._etcd_calls = prometheus.Counter(
            f"{PREFIX}_etcd_calls",
            "Calls to etcd members by method and outcome.",
            ("method", "code"),
            registry=registry,
        )
        self._leads = prometheus.Gauge(f"{PREFIX}_leader", "1 while this replica leads, else 0.", registry=registry)
        self._conditions = _Conditions()
        registry.register(self._conditions)

    def reconciled(self, kind: str, outcome: str, seconds: float) -> None:
        self._reconciles.labels(kind, outcome).observe(seconds)

    def api_request(self, verb: str, code: str) -> None:
        self._requests.labels(verb, code).inc()

    def etcd_call(self, method: str, code: str) -> None:
        self._etcd_calls.labels(method, code).inc()

    def leads(self, leads: bool) -> None:
        self._leads.set(leads)

    def conditions(self, key: Key, conditions: Mapping[str, str] | None) -> None:
        """What an object's conditions say now (type to status), `None` once it is gone."""
        self._conditions.set(key, conditions)

    def watch_queue(self, kinds: Iterable[str], depth: Callable[[], Mapping[str, int]]) -> None:
        """Have the queue's depth read whenever somebody asks for the metrics."""
        self.registry.register(_Depth(tuple(kinds), depth))

    def text(self) -> bytes:
        """Everything in Prometheus' text format."""
        return prometheus.generate_latest(self.registry)


class _Depth(prometheus.registry.Collector):
    def __init__(self, kinds: tuple[str, ...], depth: Callable[[], Mapping[str, int]]) -> None:
        self._kinds = kinds
        self._depth = depth

    def collect(self) -> Iterable[Metric]:
        gauge = GaugeMetricFamily(
            f"{PREFIX}_queue_depth", "Keys that wait for a place to be reconciled.", labels=["kind"]
        )
        depth = self._depth()
        for kind in self._kinds:
            gauge.add_metric([kind], depth.get(kind, 0))
        yield gauge


class _Conditions(prometheus.registry.Collector):
    """Counts objects by condition when asked, so that an object that is gone leaves nothing behind."""

    def __init__(self) -> None:
        self._by_key: dict[Key, Mapping[str, str]] = {}
        self._lock = threading.Lock()

    def set(self, key: Key, conditions: Mapping[str, str] | None) -> None:
        with self._lock:
            if conditions is None:
                self._by_key.pop(key, None)
            else:
                self._by_key[key] = dict(conditions)

    def collect(self) -> Iterable[Metric]:
        gauge = GaugeMetricFamily(
            f"{PREFIX}_objects",
            "Objects by kind and what a condition of theirs says.",
            labels=["kind", "condition", "status"],
        )
        with self._lock:
            counts = Counter(
                (key.kind, type_, status) for key, each in self._by_key.items() for type_, status in each.items()
            )
        for labels, count in sorted(counts.items()):
            gauge.add_metric(list(labels), count)
        yield gauge
