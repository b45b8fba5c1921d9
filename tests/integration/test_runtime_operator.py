"""The runtime with a toy controller on a real API server: events, rights, silence, and bad neighbours."""

import asyncio
import json
import os
import subprocess
from functools import partial
from pathlib import Path
from uuid import uuid4

import pytest

from etcd_operator.kube import Kube
from etcd_operator.kube.resources import CONFIGMAPS, CRDS, ETCDCLUSTERS, LEASES
from etcd_operator.runtime import main
from etcd_operator.runtime.controller import Key
from etcd_operator.runtime.main import Operator, StartError
from etcd_operator.runtime.settings import Settings
from integration.api_server import ApiServer
from integration.running_operator import Run, etcd_cluster, has_members, run
from integration.support import MakeUser, until
from integration.toy_operator import ToyController, config_map

__all__ = ["run"]  # a fixture

OPERATOR_RULES = [
    {"apiGroups": ["externaletcd.io"], "resources": ["etcdclusters"], "verbs": ["get", "list", "watch"]},
    {"apiGroups": ["apps"], "resources": ["statefulsets", "deployments"], "verbs": ["list", "watch"]},
    {
        "apiGroups": [""],
        "resources": ["pods", "persistentvolumeclaims", "services", "secrets"],
        "verbs": ["list", "watch"],
    },
    {"apiGroups": ["policy"], "resources": ["poddisruptionbudgets"], "verbs": ["list", "watch"]},
    {"apiGroups": ["networking.k8s.io"], "resources": ["networkpolicies"], "verbs": ["list", "watch"]},
    {"apiGroups": [""], "resources": ["configmaps"], "verbs": ["get", "list", "watch", "create", "patch"]},
    {"apiGroups": [""], "resources": ["events"], "verbs": ["create"]},
    {"apiGroups": ["coordination.k8s.io"], "resources": ["leases"], "verbs": ["get", "create", "update"]},
]


async def test_changes_of_a_cluster_and_of_what_it_owns_arrive_at_once(
    run: Run, kube: Kube, namespace: str, admin_kubeconfig: Path
) -> None:
    async with run(admin_kubeconfig) as running:
        await kube.apply(etcd_cluster(namespace, "a"))
        await until(partial(has_members, kube, namespace, "a", 3), seconds=5)
        await kube.apply(etcd_cluster(namespace, "a", 5))
        await until(partial(has_members, kube, namespace, "a", 5), seconds=2)
        await kube.patch(CONFIGMAPS, namespace, "a-toy", {"data": {"members": "99"}}, kind="merge")
        await until(partial(has_members, kube, namespace, "a", 5), seconds=2)
        await kube.delete(CONFIGMAPS, namespace, "a-toy")
        await until(partial(has_members, kube, namespace, "a", 5), seconds=2)
        before = running.toy.count(f"{namespace}/a")
        await kube.delete(ETCDCLUSTERS, namespace, "a")

        async def told_of_the_end() -> bool:
            return running.toy.count(f"{namespace}/a") > before

        await until(told_of_the_end, seconds=2)


async def test_a_requeue_is_no_change(run: Run, kube: Kube, namespace: str, admin_kubeconfig: Path) -> None:
    async with run(admin_kubeconfig) as running:
        await kube.apply(etcd_cluster(namespace, "busy-a"))

        async def some_calls() -> bool:
            return running.toy.count(f"{namespace}/busy-a") > 30

        await until(some_calls)
        kinds = [changed for key, changed in running.toy.calls if key.endswith("busy-a")]
        assert kinds[0] is True
        assert kinds[-10:] == [False] * 10


async def test_a_cluster_that_hangs_and_one_that_fails_delay_nobody(
    run: Run, kube: Kube, namespace: str, admin_kubeconfig: Path
) -> None:
    async with run(admin_kubeconfig, workers=4) as running:
        for name in ("slow-a", "broken-a", "broken-b"):
            await kube.apply(etcd_cluster(namespace, name))
        for number in range(10):
            await kube.apply(etcd_cluster(namespace, f"good-{number}"))
        for number in range(10):
            await until(partial(has_members, kube, namespace, f"good-{number}", 3), seconds=3)

        async def retried() -> bool:
            return running.toy.count(f"{namespace}/broken-a") > 2

        await until(retried)
        status, text = await running.read("/metrics")
        assert status == 200
        assert 'reconcile_seconds_count{kind="EtcdCluster",outcome="error"}' in text


async def test_at_rest_nothing_is_written_but_the_lease_and_kopf_writes_nothing_ever(
    run: Run, kube: Kube, namespace: str, make_user: MakeUser, api_server: ApiServer
) -> None:
    user = f"operator-{uuid4().hex[:6]}"
    kubeconfig = await make_user(OPERATOR_RULES, name=user)
    api_server.mark_audit()
    async with run(kubeconfig, watch_namespaces=()) as running:
        for name in ("a", "b", "c"):
            await kube.apply(etcd_cluster(namespace, name))
            await until(partial(has_members, kube, namespace, name, 3), seconds=5)
        await asyncio.sleep(1.5)  # the resync that follows the first lists
        calls, resting_since = len(running.toy.calls), len(list(api_server.audit(user)))
        await asyncio.sleep(6)
        assert len(running.toy.calls) == calls
        resting = list(api_server.audit(user))[resting_since:]
    writes = [each for each in resting if each["verb"] not in {"get", "list", "watch"}]
    assert {(each["verb"], each["objectRef"]["resource"]) for each in writes} == {("update", "leases")}
    everything = list(api_server.audit(user))
    by_kopf = {each["verb"] for each in everything if each.get("userAgent", "").endswith("/watch")}
    assert by_kopf == {"get", "list", "watch"}  # get: discovery
    refused = [each for each in everything if each["responseStatus"].get("code") == 403]
    assert not refused, refused[0]


async def test_a_namespaced_operator_needs_no_right_outside_and_looks_at_nothing_there(
    run: Run, kube: Kube, namespace: str, make_user: MakeUser, api_server: ApiServer
) -> None:
    second, foreign = f"{namespace}-two", f"{namespace}-foreign"
    for name in (second, foreign):
        await kube.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
    user = f"operator-{uuid4().hex[:6]}"
    kubeconfig = await make_user(OPERATOR_RULES, namespaces=[namespace, second], name=user)
    api_server.mark_audit()
    async with run(kubeconfig, watch_namespaces=(namespace, second)) as running:
        for where in (namespace, second, foreign):
            await kube.apply(etcd_cluster(where, "a"))
        for where in (namespace, second):
            await until(partial(has_members, kube, where, "a", 3), seconds=5)
        await kube.delete(CONFIGMAPS, second, "a-toy")
        await until(partial(has_members, kube, second, "a", 3), seconds=2)
        assert running.toy.count(f"{foreign}/a") == 0
    refused = [each for each in api_server.audit(user) if each["responseStatus"].get("code") == 403]
    assert not refused, refused[0]


async def test_events_are_posted_once(run: Run, kube: Kube, namespace: str, admin_kubeconfig: Path) -> None:
    async with run(admin_kubeconfig):
        await kube.apply(etcd_cluster(namespace, "a"))
        await until(partial(has_members, kube, namespace, "a", 3))
        await kube.delete(CONFIGMAPS, namespace, "a-toy")
        await until(partial(has_members, kube, namespace, "a", 3))
    found = await kube.get(CONFIGMAPS, namespace, "a-toy")
    assert found is not None
    page = await kube._send("list", "GET", f"/api/v1/namespaces/{namespace}/events")
    assert [each["message"] for each in page["items"]] == ["wrote 3 members"]


async def test_health_metrics_and_the_release_at_the_end(
    run: Run, kube: Kube, namespace: str, admin_kubeconfig: Path
) -> None:
    async with run(admin_kubeconfig) as running:
        assert await running.read("/healthz") == (200, "ok\n")
        assert await running.read("/readyz") == (200, "ok\n")
        _, text = await running.read("/metrics")
        for metric in ("queue_depth", "leader 1.0", 'api_requests_total{code="200",verb="discover"}'):
            assert metric in text
        lease = await kube.get(LEASES, namespace, "external-etcd-operator")
        assert lease is not None
        assert lease["spec"]["holderIdentity"]
    lease = await kube.get(LEASES, namespace, "external-etcd-operator")
    assert lease is not None
    assert lease["spec"]["holderIdentity"] == ""


class OtherKind(ToyController):
    kind = "EtcdRestore"


async def test_without_its_kinds_the_operator_says_so_and_ends(
    monkeypatch: pytest.MonkeyPatch, admin_kubeconfig: Path, namespace: str
) -> None:
    monkeypatch.setenv("KUBECONFIG", str(admin_kubeconfig))
    monkeypatch.setattr(main, "WAIT_FOR_KINDS", 0.1)
    settings = Settings(lease_namespace=namespace, health_port=0, health_address="127.0.0.1")
    operator = Operator(settings, lambda kube, events, settings, metrics: [OtherKind(kube, events)])
    with pytest.raises(StartError, match=r"does not serve EtcdRestore in externaletcd\.io/v1alpha1: apply the Custom"):
        await operator.run(asyncio.Event())


async def test_the_operator_comes_up_when_its_kinds_come(
    monkeypatch: pytest.MonkeyPatch, admin_kubeconfig: Path, namespace: str, kube: Kube
) -> None:
    crd = await kube.get(CRDS, None, "etcdclusters.externaletcd.io")
    assert crd is not None
    names = {"kind": "EtcdRestore", "listKind": "EtcdRestoreList", "plural": "etcdrestores", "singular": "etcdrestore"}
    schema = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    version = {"name": "v1alpha1", "served": True, "storage": True, "schema": {"openAPIV3Schema": schema}}
    monkeypatch.setenv("KUBECONFIG", str(admin_kubeconfig))
    settings = Settings(lease_namespace=namespace, health_port=0, health_address="127.0.0.1")
    operator = Operator(settings, lambda kube, events, settings, metrics: [OtherKind(kube, events)])
    stop = asyncio.Event()
    task = asyncio.create_task(operator.run(stop))
    await asyncio.sleep(0.5)
    assert operator._obstacles() == ["the kinds of externaletcd.io/v1alpha1 are not (yet) served"]
    await kube.create(
        {
            "apiVersion": "apiextensions.k8s.io/v1",
            "kind": "CustomResourceDefinition",
            "metadata": {"name": "etcdrestores.externaletcd.io"},
            "spec": {"group": "externaletcd.io", "scope": "Namespaced", "names": names, "versions": [version]},
        }
    )

    async def leads() -> bool:
        return operator._leader is not None and operator._leader.leads

    try:
        await until(leads, seconds=10)
    finally:
        stop.set()
        await asyncio.gather(task, return_exceptions=True)
        await kube.delete(CRDS, None, "etcdrestores.externaletcd.io")


def test_a_bad_setting_ends_the_program_with_two_and_one_sentence() -> None:
    done = subprocess.run(
        ["python", "-c", "from etcd_operator.runtime.main import main; main()"],
        env={**os.environ, "WORKERS": "none"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr == (
        "external-etcd-operator: WORKERS='none' cannot be used: it must be a whole number from 1 to 1000\n"
    )


def test_the_toy_writes_what_it_says() -> None:
    assert json.loads(json.dumps(config_map(Key("EtcdCluster", "ns", "a"), "3")))["data"] == {"members": "3"}
