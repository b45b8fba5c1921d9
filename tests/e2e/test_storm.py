"""Clients that read, write and compare-and-swap through a storm of failures and changes see one etcd, always.

What they saw is judged by an established checker (tests/linearizability). Three minutes, or as long as `hack/test soak`
asks; its seed is printed, and the same seed deals out the same faults, though what they meet is never the same twice.
"""

import os
import uuid
from collections.abc import Iterator

import pytest

from devtools import environment
from devtools.endpoints import Endpoints
from e2e.evidence import evidence
from e2e.faults import SOON, Scene
from e2e.storm import Storm
from e2e.support import Cluster, Etcd, Manifest, is_true
from linearizability import checker
from linearizability.clients import Clients
from linearizability.history import Recorder
from localcluster.cluster import Cluster as LocalCluster
from localcluster.progress import Progress

#: Minutes of a storm that nobody asked to be longer; what `hack/test soak` sets.
MINUTES = float(os.environ.get("STORM_MINUTES", "3"))
SEED = os.environ.get("STORM_SEED") or uuid.uuid4().hex[:8]
#: Answered operations that a run must have to count, for each minute, and of each kind.
LEAST, LEAST_OF_A_KIND = 1000, 100
#: Seconds until the cluster is as its spec asks, once the faults have ended.
RECOVERY = 180.0


@pytest.fixture
def whole(local: LocalCluster, cluster: Cluster) -> Iterator[LocalCluster]:
    """The local cluster; its nodes, and the operator on them, as they were afterwards."""
    yield local
    for node in local.nodes:
        local.heal(node.name)
    environment.wait_for_operator(cluster)


def test_history_is_linearizable_through_a_storm(etcd: Etcd, whole: LocalCluster) -> None:
    program = checker.program(Progress())
    created = etcd.create(options={"snapshotCount": 1000})  # so that members that join late get a snapshot
    with evidence(etcd, f"storm-{SEED}", keep=bool(os.environ.get("E2E_KEEP"))) as folder:
        print(f"A storm of {MINUTES:g} minutes; again with STORM_SEED={SEED}; record in {folder}", flush=True)
        history = folder / "history.jsonl"
        endpoints = Endpoints(cluster=etcd.cluster, namespace=etcd.namespace, name=etcd.name)
        endpoints.follow()
        scene = Scene(etcd=etcd, local=whole, endpoints=endpoints)
        scene.until(lambda reports: len(reports) == 3, "three members answering", SOON)
        storm = Storm(scene=scene, seed=SEED, log=folder / "faults.log")
        with Recorder(path=history) as recorder:
            clients = Clients(endpoints=lambda: endpoints.now, recorder=recorder, seed=SEED)
            with clients:
                storm.rage(MINUTES * 60)
                etcd.scale(3)
                recovered(etcd, whole)
            silent = clients.read_all()
        endpoints.stop()
        print(f"Operations: {recorder}\nFaults: {storm}", flush=True)
        verdict = checker.judge(program, history, pictures=folder)
        print(verdict, flush=True)
        assert verdict.linearizable, verdict
        assert not silent, f"no member told these keys: {silent}"
        check_members(etcd, created, set(scene.bereft.values()))
        check_hashes(etcd)
        check_worth(recorder, storm)


def recovered(etcd: Etcd, local: LocalCluster) -> None:
    """Wait until nodes, operator and EtcdCluster are as they should be, now that nothing is broken on purpose."""
    for node in local.nodes:
        etcd.cluster.wait_for_one(lambda seen: is_true(seen, "Ready"), "nodes", None, node.name, timeout=RECOVERY)
    environment.wait_for_operator(etcd.cluster, timeout=RECOVERY)
    etcd.wait_settled(timeout=RECOVERY)


def check_members(etcd: Etcd, created: Manifest, bereft: set[str]) -> None:
    """It is the same etcd, and no member was replaced that had its data."""
    status, before = etcd.status(), {each["name"]: each["id"] for each in created["status"]["members"]}
    assert status["clusterID"] == created["status"]["clusterID"]
    now = etcd.member_ids()
    assert set(now) == set(before)
    assert {name for name in before if now[name] != before[name]} <= bereft, (before, now, bereft)
    assert etcd.voters() == set(before)


def check_hashes(etcd: Etcd) -> None:
    """All members have the same keys, values and revisions: the hashes at one revision agree."""
    members = sorted(etcd.pods())
    revision = max(etcd.ask(member, lambda client, endpoint: client.status(endpoint)).revision for member in members)
    told = {member: etcd.ask(member, lambda client, endpoint: client.hash_kv(endpoint, revision)) for member in members}
    print(f"HashKV at revision {revision}: {told}", flush=True)
    assert len(told) == 3
    assert len({(one.hash, one.compact_revision, one.hash_revision) for one in told.values()}) == 1, told


def check_worth(recorder: Recorder, storm: Storm) -> None:
    """Enough was asked, and every kind of fault took effect; else the run proves nothing."""
    assert recorder.acknowledged >= LEAST * MINUTES, str(recorder)
    for kind in ("put", "get", "cas"):
        assert recorder.counts[kind, "done"] >= LEAST_OF_A_KIND * MINUTES, str(recorder)
    assert not storm.lacking, f"never took effect: {storm.lacking}; {storm}"
