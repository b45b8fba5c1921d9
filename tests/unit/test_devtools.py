"""hack/test's counting and order, the client's snapshots, and the bench's arithmetic."""

import hashlib
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

from devtools import bench, bench_proxy, bench_rest, bench_sides, demo, environment, kube, layers
from devtools.layers import Tally
from devtools.patience import Ticks, stretch
from devtools.project import ROOT

JUNIT = '<testsuites><testsuite tests="9" failures="2" errors="1" skipped="3"/></testsuites>'


def test_counts_are_those_of_the_junit_report_and_broken_setups_have_failed(tmp_path: Path) -> None:
    report = tmp_path / "junit.xml"
    report.write_text(JUNIT)
    assert layers.read_junit(report) == Tally(passed=3, failed=3, skipped=3)


def test_a_run_without_a_report_has_failed(tmp_path: Path) -> None:
    assert layers.read_junit(tmp_path / "none.xml") == Tally(failed=1)


def test_layers_run_in_their_order_up_to_the_first_that_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[str] = []

    def runner(name: str) -> Any:
        def run(_: Any) -> Tally:
            ran.append(name)
            return Tally(passed=1, failed=int(name == "unit"))

        return run

    monkeypatch.setattr(layers, "RUNNERS", {name: runner(name) for name in layers.LAYERS})
    assert layers.run_layers(["model", "unit", "lint"], [], keep=True) == Tally(passed=2, failed=1)
    assert ran == ["lint", "unit"]


def test_the_summary_is_the_last_line_and_the_exit_code_tells_of_failures(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(layers, "RUNNERS", {**layers.RUNNERS, "unit": lambda _: Tally(passed=4, failed=1, skipped=2)})
    assert layers.main(["unit"]) == 1
    assert capsys.readouterr().out.splitlines()[-1] == "4 passed, 1 failed, 2 skipped"


def test_a_layer_without_tests_fails(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "tests" / "model").mkdir(parents=True)
    monkeypatch.setattr(layers, "ROOT", tmp_path)
    assert layers.run_pytest("model", []).failed == 1


def test_the_e2e_cluster_is_taken_down_even_after_an_interrupt(monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[list[str]] = []

    def interrupted(_: Any) -> Tally:
        raise KeyboardInterrupt

    monkeypatch.delenv("E2E_CLUSTER", raising=False)
    monkeypatch.setattr(layers, "run", ran.append)
    monkeypatch.setattr(layers, "RUNNERS", {"e2e": interrupted})
    with pytest.raises(KeyboardInterrupt):
        layers.run_layers(["e2e"], [], keep=False)
    assert ran == [["hack/cluster", "down", "--name", name] for name in ("test-gw0", "test-gw1")]


def test_a_cluster_that_the_developer_named_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("E2E_CLUSTER", "dev")
    monkeypatch.setattr(layers, "run", lambda argv: pytest.fail(f"ran {argv}"))
    layers.take_down(layers.e2e_clusters([]))


def test_each_worker_has_a_cluster_of_its_own_and_a_single_test_needs_but_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("E2E_CLUSTER", raising=False)
    assert layers.e2e_clusters([]) == [layers.e2e_cluster(worker) for worker in ("gw0", "gw1")]
    assert layers.e2e_clusters(["-k", "name"]) == [layers.e2e_cluster(None)] == ["test"]


def test_e2e_fails_where_its_cluster_does_not_come_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layers, "run", lambda argv: 1 if argv[:2] == ["hack/cluster", "up"] else pytest.fail("went on"))
    assert layers.e2e([]) == Tally(failed=1)


@pytest.mark.parametrize(("layer", "left_out"), [("e2e", True), ("thorough", False)])
def test_what_shows_the_same_once_more_runs_only_when_asked_for(
    monkeypatch: pytest.MonkeyPatch, layer: str, left_out: bool
) -> None:
    ran: list[list[str]] = []

    def run(argv: list[str]) -> int:
        ran.append(argv)
        return 0

    monkeypatch.setattr(layers, "run", run)
    layers.RUNNERS[layer]([])
    assert ("not thorough" in ran[-1]) is left_out
    assert [argv[:2] for argv in ran[:-1]] == [["hack/cluster", "up"]] * 2
    layers.RUNNERS[layer](["-k", "name"])
    assert "not thorough" not in ran[-1]
    assert "thorough" not in layers.parse([]).layers


def test_a_soak_takes_as_long_as_asked_and_only_when_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str | None, ...]] = []

    def soak(_: Any) -> Tally:
        asked.append((os.environ.get("STORM_MINUTES"), os.environ.get("STORM_SEED")))
        return Tally(passed=1)

    monkeypatch.setenv("E2E_CLUSTER", "dev")
    monkeypatch.setenv("STORM_MINUTES", "1")
    monkeypatch.setenv("STORM_SEED", "")
    monkeypatch.setattr(layers, "RUNNERS", {**layers.RUNNERS, "soak": soak})
    assert layers.main(["soak", "--minutes", "8.5", "--seed", "a1"]) == 0
    assert asked == [("8.5", "a1")]
    assert "soak" not in layers.parse([]).layers
    with pytest.raises(SystemExit):
        layers.parse(["soak", "e2e"])


def test_arguments_after_the_dashes_go_to_pytest() -> None:
    options = layers.parse(["unit", "--", "-k", "quorum", "--", "x"])
    assert (options.layers, options.arguments) == (["unit"], ["-k", "quorum", "--", "x"])


def test_a_failing_check_counts_as_one_and_the_others_still_run() -> None:
    good, bad = [sys.executable, "-c", ""], [sys.executable, "-c", "exit(3)"]
    assert layers.run_checks(bad, good, good) == Tally(passed=2, failed=1)


# --- waiting


class FakeCluster(kube.Cluster):
    """A cluster whose answers are written down: a list for each GET, lines for each watch."""

    def __init__(self, answers: list[Any]) -> None:
        self.answers = answers
        self.patience = lambda: 1.0

    def request(self, method: str, path: str, **options: Any) -> Any:
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer


class Answer:
    """As much of an HTTP response as the client looks at."""

    def __init__(self, *, items: list[kube.Manifest] | None = None, events: list[kube.Manifest] | None = None) -> None:
        self.items, self.events = items, events

    def raise_for_status(self) -> None:
        pass

    def json(self) -> Any:
        return {"metadata": {"resourceVersion": "7"}, "items": self.items}

    def iter_lines(self) -> Iterator[bytes]:
        return (json.dumps(event).encode() for event in self.events or [])

    def __enter__(self) -> "Answer":
        return self

    def __exit__(self, *_: object) -> None:
        pass


def pod(name: str, *, ready: bool = False, **metadata: Any) -> kube.Manifest:
    status = {"conditions": [{"type": "Ready", "status": str(ready), "observedGeneration": 1}]}
    return {"metadata": {"name": name, **metadata}, "spec": {}, "status": status}


def test_snapshots_follow_the_watch_and_begin_anew_after_an_expired_one() -> None:
    events = [
        {"type": "ADDED", "object": pod("b")},
        {"type": "DELETED", "object": pod("a")},
        {"type": "ERROR", "object": {"code": 410}},
    ]
    cluster = FakeCluster([Answer(items=[pod("a")]), Answer(events=events), Answer(items=[pod("c")])])
    seen = cluster.snapshots("pods", "ns", timeout=60)
    assert [sorted(next(seen)) for _ in range(4)] == [["a"], ["a", "b"], ["b"], ["c"]]


def test_a_wait_survives_an_api_server_that_refuses_for_a_moment() -> None:
    refused = requests.ConnectionError("refused")
    cluster = FakeCluster([refused, Answer(items=[pod("a", ready=True)])])
    assert cluster.wait_for_one(kube.is_ready_pod, "pods", "ns", "a", timeout=60)["metadata"]["name"] == "a"


def test_a_wait_that_fails_says_what_it_saw_last() -> None:
    cluster = FakeCluster([Answer(items=[pod("a")]), *[requests.ConnectionError()] * 100])
    with pytest.raises(kube.Timeout, match=r"not a is ready; last seen: .*Ready"):
        cluster.wait_for_one(kube.is_ready_pod, "pods", "ns", "a", timeout=0.3, what="a is ready")


def test_a_pod_on_its_way_out_is_not_ready() -> None:
    assert kube.is_ready_pod(pod("a", ready=True))
    assert not kube.is_ready_pod(pod("a", ready=True, deletionTimestamp="2026-01-01T00:00:00Z"))
    assert not kube.is_ready_pod(pod("a"))


def etcd(*, available: str = "True", healthy: int = 3, ready: int = 3, observed: int = 2) -> kube.Manifest:
    return {
        "metadata": {"name": "demo", "generation": 2},
        "spec": {"members": 3},
        "status": {
            "leader": "demo-1",
            "readyMembers": ready,
            "members": [{"name": f"demo-{n}", "role": "Voter", "healthy": n < healthy} for n in range(3)],
            "conditions": [{"type": "Available", "status": available, "observedGeneration": observed}],
        },
    }


def test_available_means_all_members_and_the_newest_spec() -> None:
    assert environment.is_available(etcd())
    for lesser in (etcd(available="False"), etcd(healthy=2), etcd(ready=2), etcd(observed=1)):
        assert not environment.is_available(lesser)


def test_a_members_line_says_what_etcd_says_once_it_is_up() -> None:
    assert demo.member_line(pod("demo-1", ready=True), etcd()).state == "Voter, healthy, leader"
    assert demo.member_line(pod("demo-1", ready=True, deletionTimestamp="now"), etcd()).state == "stopping"
    waiting = pod("demo-2")
    waiting["status"]["containerStatuses"] = [{"state": {"waiting": {"reason": "ContainerCreating"}}}]
    assert demo.member_line(waiting, etcd(healthy=2)).state == "ContainerCreating"


# --- the bench


def test_the_ratio_is_that_of_the_medians() -> None:
    summary = bench.summarize([6.0, 5.0, 100.0], [9.0, 1.0, 7.5])
    assert (summary.floor_s, summary.ours_s, summary.ratio) == (6.0, 7.5, 1.25)


def test_what_the_proxy_costs() -> None:
    def side(requests: int, seconds_each: float) -> bench_proxy.Side:
        return bench_proxy.Side(took=[seconds_each] * requests, seconds=10.0)

    report = bench_proxy.compare(
        {
            ("etcd", "put"): side(1000, 0.010),
            ("etcd-proxy", "put"): side(900, 0.0115),
            ("etcd", "range"): side(2000, 0.005),
            ("etcd-proxy", "range"): side(1900, 0.0052),
        }
    )
    assert (report.put_ratio, report.range_ratio) == (0.9, 0.95)
    assert (report.put_added_ms_p50, report.range_added_ms_p50) == (1.5, 0.2)
    assert (report.direct_puts_s, report.direct_ranges_s) == (100, 200)


def test_the_floor_is_the_one_that_all_figures_were_measured_against() -> None:
    digest = hashlib.sha256(bench_sides.GOLDEN.read_bytes()).hexdigest()
    assert digest == "a3df5af469e45c2900531b2d52a0966b5b2c206906a9d617177a44d84b7d46f0"


def test_ours_asks_for_what_the_floor_holds() -> None:
    golden, ours = bench_sides.GOLDEN.read_text(), bench_sides.etcd_cluster("x")["spec"]
    assert f"replicas: {ours['members']}" in golden
    assert f"requests: {{storage: {ours['storage']['size']}}}" in golden
    assert f"storageClassName: {ours['storage']['storageClassName']}" in golden
    requests_ = ours["resources"]["requests"]
    assert f"requests: {{cpu: {requests_['cpu']}, memory: {requests_['memory']}}}" in golden


METRICS = """\
# TYPE external_etcd_operator_api_requests_total counter
external_etcd_operator_api_requests_total{{verb="get",code="200"}} {reads}
external_etcd_operator_api_requests_total{{verb="apply_status",code="200"}} {writes}
external_etcd_operator_api_requests_total{{verb="replace",code="200"}} {renewals}
# TYPE process_cpu_seconds_total counter
process_cpu_seconds_total {cpu}
# TYPE process_resident_memory_bytes gauge
process_resident_memory_bytes {rss}
"""


def test_rest_counts_writes_without_the_lease_and_cpu_as_a_share_of_one_core() -> None:
    before = bench_rest.read_sample(METRICS.format(reads=10, writes=5, renewals=3, cpu=2.0, rss=50 * 2**20), at=100.0)
    after = bench_rest.read_sample(METRICS.format(reads=16, writes=6, renewals=33, cpu=3.2, rss=40 * 2**20), at=220.0)
    report = bench_rest.compare(before, after, clusters=3)
    assert (report.writes, report.reads, report.seconds) == (1, 6, 120.0)
    assert (report.cpu_percent, report.rss_mib) == (1.0, 50.0)


def test_the_operator_replaces_nothing_but_its_lease() -> None:
    """What the count of writes at rest rests on."""
    package = ROOT / "operator" / "etcd_operator"
    users = {path.name for path in package.rglob("*.py") if "kube.replace(" in path.read_text()}
    assert users == {"leader.py"}


def test_objects_that_came_went_or_changed_are_told() -> None:
    assert bench_rest.differing({"a": "1", "b": "1", "c": "1"}, {"a": "1", "b": "2", "d": "1"}) == ["b", "c", "d"]


QUIET = Ticks(busy=0, stolen=0)


def test_the_line_of_proc_stat_is_read_by_its_columns() -> None:
    assert Ticks.parse("cpu  10 2 5 1000 7 1 3 40 0 0") == Ticks(busy=21, stolen=40)


@pytest.mark.parametrize(
    ("load", "busy", "stolen", "expected"),
    [
        (1.0, 100, 0, 1.0),
        (8.0, 100, 0, 1.0),
        (16.0, 100, 0, 2.0),
        (1.0, 100, 100, 2.0),
        (16.0, 100, 100, 4.0),
        (1.0, 0, 0, 1.0),
        (500.0, 1, 100, 5.0),
    ],
)
def test_promises_are_stretched_by_load_and_by_what_the_host_takes(
    load: float, busy: int, stolen: int, expected: float
) -> None:
    assert stretch(load, 2, QUIET, Ticks(busy=busy, stolen=stolen)) == expected
