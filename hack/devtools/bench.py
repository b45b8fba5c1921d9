"""`hack/bench`: how fast the operator creates and changes an etcd, and what it costs at rest, on the local cluster.

`create` alternates the floor (tests/bench/golden.sh, the whole shape made by hand, kept unaltered) with an
EtcdCluster of the same version, size, resources and StorageClass. Both clocks start right before
`kubectl apply` and are stopped by watches of the same client; both leave nothing before the next one starts.
"""

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass

from devtools import bench_lifecycle, bench_proxy, bench_rest, environment, kube
from devtools.bench_sides import NAMESPACE, PATIENCE, etcd_cluster, golden, remove_golden, wait_until_clean
from localcluster import artifacts
from localcluster.progress import Progress

#: Where the clusters are that crash beside those that are measured.
CRASHING = f"{NAMESPACE}-crashing"


@dataclass(frozen=True, kw_only=True, slots=True)
class Summary:
    """The medians, in seconds, and how many times the floor ours takes."""

    floor_s: float
    ours_s: float
    ratio: float


def summarize(floors: list[float], ours: list[float]) -> Summary:
    """Medians of both sides, rounded to a hundredth of a second; the ratio is that of the exact medians."""
    floor, own = statistics.median(floors), statistics.median(ours)
    return Summary(floor_s=round(floor, 2), ours_s=round(own, 2), ratio=round(own / floor, 2))


def time_floor(cluster: kube.Cluster, name: str) -> float:
    """Seconds from `kubectl apply` of the golden manifest to three ready pods."""
    manifest = golden(name)
    started = time.monotonic()
    cluster.apply(manifest, namespace=NAMESPACE)

    def three_ready(pods: kube.Snapshot) -> bool:
        return sum(map(kube.is_ready_pod, pods.values())) == 3

    cluster.wait_for(three_ready, "pods", NAMESPACE, labels=f"app={name}", timeout=PATIENCE, what="three ready pods")
    elapsed = time.monotonic() - started
    remove_golden(cluster, name, manifest)
    return elapsed


def time_ours(cluster: kube.Cluster, name: str) -> float:
    """Seconds from `kubectl apply` of an EtcdCluster to all members healthy and its client Secret published."""
    manifest = etcd_cluster(name)
    started = time.monotonic()
    cluster.apply(manifest, namespace=NAMESPACE)
    cluster.wait_for_one(environment.is_available, "etcdclusters", NAMESPACE, name, timeout=PATIENCE, what="available")
    cluster.wait_for_one(bool, "secrets", NAMESPACE, f"{name}-client", timeout=PATIENCE)
    elapsed = time.monotonic() - started
    cluster.delete("etcdclusters", NAMESPACE, name)
    return elapsed


def create(options: argparse.Namespace) -> None:
    """The rounds, each told as it ends, then the medians and their ratio."""
    cluster = open_cluster(options)
    sides: dict[str, Callable[[kube.Cluster, str], float]] = {"floor": time_floor, "ours": time_ours}
    times: dict[str, list[float]] = {side: [] for side in sides}
    environment.make_namespace(cluster, NAMESPACE)
    try:
        wait_until_clean(cluster)
        make_crashing(cluster, options.crashing)
        for number in range(1, options.rounds + 1):
            # Who starts alternates too, so that neither side always finds the caches warmed by the other.
            for side in sorted(sides, reverse=number % 2 == 0):
                elapsed = sides[side](cluster, f"{side}-{number}")
                times[side].append(elapsed)
                print(f"round {number}  {side:5}  {elapsed:6.2f} s", flush=True)
                wait_until_clean(cluster)
    finally:
        cluster.kubectl("delete", "namespace", NAMESPACE, CRASHING, "--wait=false", "--ignore-not-found")
    summary = summarize(times["floor"], times["ours"])
    print(
        f"median   floor {summary.floor_s:.2f} s   ours {summary.ours_s:.2f} s   ratio {summary.ratio:.2f}", flush=True
    )
    if options.json:
        print(json.dumps(asdict(summary)), flush=True)


def make_crashing(cluster: kube.Cluster, count: int) -> None:
    """EtcdClusters of one member that etcd refuses to start, in a namespace of their own: neighbours of both sides."""
    if not count:
        return
    environment.make_namespace(cluster, CRASHING)
    for number in range(count):
        manifest = etcd_cluster(f"crashing-{number}")
        manifest["spec"] |= {"members": 1, "options": {"extra": {"log-level": "loud"}}}
        cluster.apply(manifest, namespace=CRASHING)

    def all_told(seen: kube.Snapshot) -> bool:
        told = [kube.condition_of(etcd, "Available").get("reason") for etcd in seen.values()]
        return told == ["InvalidOption"] * count

    cluster.wait_for(all_told, "etcdclusters", CRASHING, timeout=PATIENCE, what=f"{count} that crash, told as such")


def rest(options: argparse.Namespace) -> None:
    """What the operator does and costs while nothing happens."""
    cluster = open_cluster(options)
    report = bench_rest.measure(cluster, clusters=options.clusters, seconds=options.seconds)
    print(
        f"{report.clusters} clusters at rest for {report.seconds:.0f} s: {report.writes} writes (the Lease's apart), "
        f"{report.reads} reads, {report.cpu_percent:.2f}% of a core, {report.rss_mib:.0f} MiB",
        flush=True,
    )
    if options.json:
        print(json.dumps(asdict(report)), flush=True)


def lifecycle(options: argparse.Namespace) -> None:
    """The rounds of every change beside its floor, then every change once more under load."""
    cluster = open_cluster(options, old_etcd=bench_lifecycle.OLDER)
    environment.make_namespace(cluster, NAMESPACE)
    try:
        figures = bench_lifecycle.measure(cluster, options.rounds)
    finally:
        cluster.kubectl("delete", "namespace", NAMESPACE, "--wait=false")
    rounded = {key: _rounded(value) for key, value in asdict(figures).items()}
    for key, value in rounded.items():
        print(f"{key:22} {value}", flush=True)
    if options.json:
        print(json.dumps(rounded), flush=True)


def proxy(options: argparse.Namespace) -> None:
    """Puts and ranges to the members and through the proxies, in turn."""
    cluster = open_cluster(options)
    environment.make_namespace(cluster, NAMESPACE)
    try:
        report = asdict(bench_proxy.measure(cluster))
    finally:
        cluster.kubectl("delete", "namespace", NAMESPACE, "--wait=false")
    for key, value in report.items():
        print(f"{key:18} {value}", flush=True)
    if options.json:
        print(json.dumps(report), flush=True)


def _rounded(value: object) -> object:
    if isinstance(value, dict):
        return {key: _rounded(each) for key, each in value.items()}
    return round(value, 2) if isinstance(value, float) else value


def open_cluster(options: argparse.Namespace, *, old_etcd: str = "") -> kube.Cluster:
    """The local cluster, brought up where it is not, with the operator of this checkout in it, and an older etcd."""
    progress = Progress()
    local = environment.local_cluster(options.name, options.nodes, progress)
    if old_etcd:
        local.load(artifacts.ensure_etcd_image(old_etcd, progress))
    cluster = kube.Cluster(local.kubeconfig)
    if not options.as_installed:
        environment.install(cluster, environment.load_images(local, progress))
    environment.wait_for_operator(cluster)
    return cluster


def parse(argv: list[str] | None) -> argparse.Namespace:
    """The command line."""
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--name", default="dev", help="the local cluster to use, brought up if need be (%(default)s)")
    common.add_argument("--nodes", type=int, help="its nodes (as many as it has, or three)")
    common.add_argument("--as-installed", action="store_true", help="measure the operator that runs there already")
    common.add_argument("--json", action="store_true", help="end with one line of JSON")
    parser = argparse.ArgumentParser(prog="hack/bench", description="Measure the operator on the local cluster.")
    commands = parser.add_subparsers(required=True)
    creating = commands.add_parser("create", parents=[common], help="how long an etcd takes, beside its floor")
    creating.add_argument("--rounds", type=int, default=3, help="rounds of each side (%(default)s)")
    creating.add_argument(
        "--crashing", type=int, default=0, help="EtcdClusters beside them that crash all the time (%(default)s)"
    )
    creating.set_defaults(run=create)
    proxying = commands.add_parser("proxy", parents=[common], help="what the proxy costs its clients")
    proxying.set_defaults(run=proxy)
    resting = commands.add_parser("rest", parents=[common], help="what the operator costs while nothing happens")
    resting.add_argument("--seconds", type=float, default=120.0, help="how long to look (%(default)g)")
    resting.add_argument("--clusters", type=int, default=3, help="EtcdClusters at rest (%(default)s)")
    resting.set_defaults(run=rest)
    changing = commands.add_parser("lifecycle", parents=[common], help="how long changes take, and clients wait")
    changing.add_argument("--rounds", type=int, default=3, help="rounds of each side (%(default)s)")
    changing.set_defaults(run=lifecycle)
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    """Run one bench; 0 when it could be measured, whatever the figures."""
    options = parse(argv)
    try:
        options.run(options)
    except (AssertionError, *environment.FAILURES) as error:
        print(f"hack/bench: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
