"""The client against a real API server: what server-side apply, preconditions and RBAC really do."""

from typing import Any

import pytest

from etcd_operator.kube import Conflict, EventRecorder, Forbidden, Invalid, Kube, NotFound
from etcd_operator.kube import client as client_module
from etcd_operator.kube.resources import CONFIGMAPS, ETCDCLUSTERS, EVENTS, PODS, SECRETS
from integration.api_server import ApiServer
from integration.support import MakeUser, open_kube


def config_map(namespace: str, name: str = "a", **data: str) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": name, "namespace": namespace, "labels": {"test": name}},
        "data": data,
    }


def cluster(namespace: str, name: str = "a", **spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": ETCDCLUSTERS.api_version,
        "kind": "EtcdCluster",
        "metadata": {"name": name, "namespace": namespace},
        "spec": spec,
    }


async def test_apply_creates_changes_and_removes_and_writes_nothing_when_nothing_changed(
    kube: Kube, namespace: str
) -> None:
    created = await kube.apply(config_map(namespace, one="1", two="2"))
    same = await kube.apply(config_map(namespace, one="1", two="2"))
    assert same["metadata"]["resourceVersion"] == created["metadata"]["resourceVersion"]
    changed = await kube.apply(config_map(namespace, one="one"))
    assert changed["data"] == {"one": "one"}


async def test_apply_keeps_what_others_added_and_takes_back_what_is_ours(kube: Kube, namespace: str) -> None:
    await kube.apply(config_map(namespace, ours="1"))
    foreign = {"data": {"ours": "changed", "theirs": "2"}}
    await kube._send(
        "patch",
        "PATCH",
        CONFIGMAPS.path(namespace, "a"),
        query={"fieldManager": "somebody"},
        body=foreign,
        content_type="application/merge-patch+json",
    )
    with pytest.raises(Conflict, match="somebody"):
        await kube.apply(config_map(namespace, ours="1"), force=False)
    restored = await kube.apply(config_map(namespace, ours="1"))
    assert restored["data"] == {"ours": "1", "theirs": "2"}


@pytest.mark.parametrize("misfit", [{"containrs": []}, {"containers": "none"}], ids=["unknown field", "wrong type"])
async def test_what_does_not_fit_the_schema_is_refused_for_good(
    kube: Kube, namespace: str, misfit: dict[str, Any]
) -> None:
    manifest = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a", "namespace": namespace}, "spec": misfit}
    with pytest.raises(Invalid, match=next(iter(misfit))):
        await kube.apply(manifest)


async def test_apply_with_a_uid_never_makes_or_changes_another_object(kube: Kube, namespace: str) -> None:
    manifest = config_map(namespace, a="1")
    manifest["metadata"]["uid"] = "11111111-1111-1111-1111-111111111111"
    with pytest.raises(Conflict):
        await kube.apply(manifest)
    assert await kube.get(CONFIGMAPS, namespace, "a") is None
    await kube.apply(config_map(namespace, a="1"))
    with pytest.raises(Conflict):
        await kube.apply(manifest)


async def test_status_fields_that_are_said_no_more_go_away(kube: Kube, namespace: str) -> None:
    made = await kube.apply(cluster(namespace, members=1))
    conditions = [{"type": "Available", "status": "True", "reason": "Fine", "message": "", "lastTransitionTime": NOW}]

    def status(**fields: Any) -> dict[str, Any]:
        metadata = {"name": "a", "namespace": namespace, "uid": made["metadata"]["uid"]}
        return {"apiVersion": ETCDCLUSTERS.api_version, "kind": "EtcdCluster", "metadata": metadata, "status": fields}

    await kube.apply_status(status(leader="a-0", readyMembers=1, conditions=conditions))
    after = await kube.apply_status(status(readyMembers=0))
    assert after["status"] == {"readyMembers": 0}
    assert after["spec"]["members"] == 1
    again = await kube.apply_status(status(readyMembers=0))
    assert again["metadata"]["resourceVersion"] == after["metadata"]["resourceVersion"]


async def test_the_status_of_an_object_that_is_gone_is_not_found(kube: Kube, namespace: str) -> None:
    with pytest.raises(NotFound):
        await kube.apply_status(cluster(namespace, "gone") | {"status": {"readyMembers": 0}})


async def test_delete_honours_the_uid(kube: Kube, namespace: str) -> None:
    made = await kube.apply(config_map(namespace))
    assert await kube.delete(CONFIGMAPS, namespace, "a", uid="22222222-2222-2222-2222-222222222222") is False
    assert await kube.get(CONFIGMAPS, namespace, "a") is not None
    assert await kube.delete(CONFIGMAPS, namespace, "a", uid=made["metadata"]["uid"]) is True
    assert await kube.delete(CONFIGMAPS, namespace, "a") is False


async def test_lists_select_page_and_say_the_kind(kube: Kube, namespace: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(5):
        await kube.apply(config_map(namespace, f"m{number}", data="x"))
    monkeypatch.setattr(client_module, "PAGE_SIZE", 2)
    found = await kube.list(CONFIGMAPS, namespace)
    assert [item["metadata"]["name"] for item in found] == ["m0", "m1", "m2", "m3", "m4"]
    assert {(item["kind"], item["apiVersion"]) for item in found} == {("ConfigMap", "v1")}
    assert [each["data"] for each in await kube.list(CONFIGMAPS, namespace, labels={"test": "m3"})] == [{"data": "x"}]
    bare = await kube.list(CONFIGMAPS, namespace, metadata_only=True)
    assert len(bare) == 5
    assert all("data" not in item and item["kind"] == "ConfigMap" for item in bare)
    everywhere = await kube.list(CONFIGMAPS, None, labels={"test": "m3"}, fields=f"metadata.namespace={namespace}")
    assert len(everywhere) == 1


async def test_patches_and_replace(kube: Kube, namespace: str) -> None:
    made = await kube.apply(config_map(namespace, a="1"))
    merged = await kube.patch(CONFIGMAPS, namespace, "a", {"data": {"b": "2"}}, kind="merge")
    assert merged["data"] == {"a": "1", "b": "2"}
    with pytest.raises(Invalid):
        await kube.patch(CONFIGMAPS, namespace, "a", [{"op": "test", "path": "/data/a", "value": "no"}], kind="json")
    with pytest.raises(Conflict) as caught:
        await kube.replace(made)
    assert not caught.value.already_exists
    with pytest.raises(Conflict) as caught:
        await kube.create(config_map(namespace))
    assert caught.value.already_exists


async def test_a_refusal_by_validation_tells_field_and_sentence(kube: Kube, namespace: str) -> None:
    with pytest.raises(Invalid) as caught:
        await kube.apply(cluster(namespace, members=4))
    assert "spec.members" in caught.value.message
    assert caught.value.details["causes"][0]["field"].startswith("spec.members")


async def test_a_missing_right_is_told_as_forbidden(namespace: str, make_user: MakeUser) -> None:
    rules = [{"apiGroups": [""], "resources": ["configmaps"], "verbs": ["get", "list"]}]
    limited = await open_kube(await make_user(rules, namespaces=[namespace]))
    assert await limited.list(CONFIGMAPS, namespace) == []
    with pytest.raises(Forbidden, match="secrets"):
        await limited.list(SECRETS, namespace)
    with pytest.raises(Forbidden):
        await limited.list(CONFIGMAPS, None)
    with pytest.raises(Forbidden):
        await limited.apply(config_map(namespace))
    await limited.close()


async def test_events_are_stored_where_kubectl_describe_looks(kube: Kube, namespace: str) -> None:
    made = await kube.apply(cluster(namespace, members=1))
    events = EventRecorder(kube, instance="operator-0")
    events.emit(made, "Warning", "QuorumLost", "2 of 3 members are down")
    await events.close()
    (event,) = await kube.list(EVENTS, namespace, fields=f"involvedObject.uid={made['metadata']['uid']}")
    assert (event["type"], event["reason"], event["message"]) == ("Warning", "QuorumLost", "2 of 3 members are down")
    assert event["involvedObject"]["kind"] == "EtcdCluster"


async def test_served_kinds(kube: Kube) -> None:
    assert "EtcdCluster" in await kube.served_kinds("externaletcd.io", "v1alpha1")
    assert await kube.served_kinds("nobody.example", "v1") == frozenset()


async def test_requests_reach_pods_of_a_namespace_that_does_not_exist(kube: Kube) -> None:
    assert await kube.list(PODS, "no-such-namespace") == []


async def test_a_stranger_is_refused_plainly(api_server: ApiServer) -> None:
    stranger = await open_kube(api_server.kubeconfig("stranger"))
    with pytest.raises(Forbidden, match="stranger"):
        await stranger.list(PODS, "default")
    await stranger.close()


NOW = "2026-01-01T00:00:00Z"
