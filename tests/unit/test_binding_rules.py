"""What a binding makes of what it saw: the wiring, what is in the way of it, and what is told."""

import copy
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from etcd_operator.api import ApiServerBinding, ApiServerBindingStatus, EtcdCluster
from etcd_operator.binding import rules, wiring
from etcd_operator.binding.comparison import Comparison, Content
from etcd_operator.binding.files import FileSource, file_source
from etcd_operator.binding.observation import Rival, Seen
from etcd_operator.binding.owners import manager_of_arguments
from etcd_operator.binding.status import as_json, has_changed, instances, status, verdict
from etcd_operator.resources.names import Manifest
from etcd_operator.resources.secrets import authority_digest
from support.merge_patch import merged

AT = datetime(2026, 11, 30, tzinfo=UTC)
ACCESS = {"ca.crt": b"ca", "tls.crt": b"cert", "tls.key": b"key"}
HOST = "https://a.ns.svc:2379"


def binding(name: str = "b", namespace: str = "ns", **spec: Any) -> ApiServerBinding:
    said = {"clusterRef": {"name": "a"}, "target": {"deployment": {"name": "api"}}, **spec}
    metadata = {"name": name, "namespace": namespace, "uid": name, "generation": 1}
    return ApiServerBinding.model_validate({"metadata": metadata, "spec": said})


def as_raw(of: ApiServerBinding) -> Manifest:
    """The object as the API server has it."""
    raw: Manifest = of.model_dump(by_alias=True, exclude_none=True, mode="json")
    return raw


def cluster(members: int = 3, learners: int = 0, **spec: Any) -> EtcdCluster:
    names = [f"a-{number}" for number in range(members + learners)]
    told = [
        {"name": name, "role": "Voter" if number < members else "Learner", "healthy": True}
        for number, name in enumerate(names)
    ]
    endpoints = {"client": HOST, "members": [f"https://{name}.a-peers.ns.svc.cluster.local:2379" for name in names]}
    bootstrap = {"clusterID": "1", "incarnation": "i"}
    return EtcdCluster.model_validate(
        {
            "metadata": {"name": "a", "namespace": "ns"},
            "spec": spec,
            "status": {"endpoints": endpoints, "members": told, "bootstrap": bootstrap},
        }
    )


def workload(*arguments: str, replicas: int = 2) -> Manifest:
    container = {"name": "kube-apiserver", "command": ["kube-apiserver"], "args": ["--v=2", *arguments]}
    return {
        "metadata": {"name": "api", "namespace": "ns", "resourceVersion": "7"},
        "spec": {"replicas": replicas, "template": {"metadata": {}, "spec": {"containers": [container]}}},
    }


def pod(name: str, of: Manifest, *, ready: bool = True, ip: str = "192.0.2.1") -> Manifest:
    template = copy.deepcopy(of["spec"]["template"])
    conditions = [{"type": "Ready", "status": "True" if ready else "False"}]
    started = "2026-11-30T00:00:00Z"
    told = {"podIP": ip, "conditions": conditions, "startTime": started}
    return {"metadata": {**template["metadata"], "name": name}, "spec": template["spec"], "status": told}


def seen(**changes: Any) -> Seen:
    made = Seen(
        binding=binding(),
        raw={},
        at=AT,
        cluster=cluster(),
        access=ACCESS,
        copy=None,
        others=(),
        workload=workload(),
        pods=(),
        host_addresses=frozenset({"192.0.2.99"}),
    )
    made = replace(made, **changes)
    return made if made.raw else replace(made, raw=as_raw(made.binding))


def wanted_by(of: Seen) -> wiring.Wiring:
    found = wiring.wiring(of)
    assert found is not None
    return found


def wired(of: Seen) -> Manifest:
    """The workload once the binding has wired it."""
    before = copy.deepcopy(of.workload)
    patch = wiring.wiring_patch(of, wanted_by(of))
    assert patch is not None
    assert patch["metadata"]["resourceVersion"] == "7"
    assert of.workload == before
    after: Manifest = merged(of.workload, patch)
    return after


def reason(of: Seen) -> str:
    found = rules.obstacle(of, wiring.wiring(of))
    return found.reason if found else ""


# --- the wiring


def test_all_five_arguments_and_the_secret_come_together() -> None:
    before = seen()
    after = wired(before)
    container = after["spec"]["template"]["spec"]["containers"][0]
    assert container["args"] == ["--v=2", *wanted_by(before).arguments]
    assert container["volumeMounts"] == [{"name": wiring.VOLUME, "mountPath": wiring.FOLDER, "readOnly": True}]
    assert after["spec"]["template"]["spec"]["volumes"][0]["secret"] == {"secretName": "a-client"}
    assert wiring.wiring_patch(seen(workload=after), wanted_by(before)) is None


def test_what_kubernetes_fills_in_is_no_reason_to_write_again() -> None:
    after = wired(seen())
    after["spec"]["template"]["spec"]["volumes"][0]["secret"]["defaultMode"] = 420
    after["spec"]["template"]["spec"]["containers"][0]["volumeMounts"][0]["recursiveReadOnly"] = "Disabled"
    assert wiring.wiring_patch(seen(workload=after), wanted_by(seen())) is None


def test_another_authority_restarts_the_api_server_and_another_leaf_does_not() -> None:
    after = wired(seen())
    leaf = seen(workload=after, access={**ACCESS, "tls.crt": b"new", "tls.key": b"new"})
    assert wiring.wiring_patch(leaf, wanted_by(leaf)) is None
    authority = seen(workload=after, access={**ACCESS, "ca.crt": b"new"})
    assert wired(authority)["spec"]["template"]["metadata"]["annotations"][wiring.AUTHORITY]


def test_a_listed_member_stays_listed_while_it_is_replaced() -> None:
    listed = [f"https://a-{number}.a-peers.ns.svc.cluster.local:2379" for number in range(3)]
    told = binding(endpoints="Members").status.model_copy(update={"arguments": (f"--etcd-servers={','.join(listed)}",)})
    bound_ = binding(endpoints="Members").model_copy(update={"status": told})
    replacing = cluster(2, learners=1)
    assert wanted_by(seen(binding=bound_, cluster=replacing)).servers == tuple(listed)
    assert len(wanted_by(seen(binding=binding(endpoints="Members"), cluster=replacing)).servers) == 2
    unknown = replacing.model_copy(update={"status": replacing.status.model_copy(update={"members": ()})})
    assert wanted_by(seen(binding=bound_, cluster=unknown)).servers == tuple(listed)


def test_learners_are_no_endpoints() -> None:
    members = seen(binding=binding(endpoints="Members"), cluster=cluster(3, learners=2))
    assert len(wanted_by(members).servers) == 3


def test_the_former_arguments_come_back() -> None:
    before = workload("--etcd-servers=http://127.0.0.1:2379", "--etcd-prefix", "/x")
    after = wired(seen(workload=before))
    assert wiring.was_given(seen(workload=after), wanted_by(seen()))
    patch = wiring.unwiring_patch(seen(workload=after))
    assert patch is not None
    again = merged(after, patch)
    old, new = before["spec"]["template"]["spec"], again["spec"]["template"]["spec"]
    assert new["containers"][0]["args"] == old["containers"][0]["args"]
    assert not new.get("volumes")
    assert again["metadata"]["annotations"] == {}


@pytest.mark.parametrize("note", ["{", "[]", '{"foo": "x"}'])
def test_a_spoiled_note_is_told_as_one(note: str) -> None:
    after = wired(seen())
    after["metadata"]["annotations"][wiring.ORIGINAL] = note
    with pytest.raises(ValueError):  # noqa: PT011 - whatever it says of itself
        wiring.unwiring_patch(seen(workload=after))


def test_only_the_binding_that_wired_a_workload_unwires_it() -> None:
    assert wiring.unwiring_patch(seen(workload=wired(seen()), binding=binding(name="another"))) is None


def test_the_former_arguments_are_noted_once() -> None:
    first = wired(seen(workload=workload("--etcd-prefix=/x")))
    second = wired(seen(workload=first, binding=binding(prefix="/y")))
    assert second["metadata"]["annotations"][wiring.ORIGINAL] == first["metadata"]["annotations"][wiring.ORIGINAL]


@pytest.mark.parametrize(
    ("server", "ours"),
    [
        (HOST, True),
        ("https://a.ns.svc.cluster.local.:2379", True),
        ("https://a-1.a-peers.ns.svc:2379", True),
        ("https://a.other.svc:2379", False),
        ("https://b.ns.svc:2379", False),
        ("http://127.0.0.1:2379", False),
        ("https://a.ns.svc.other.example:2379", False),
        ("https://[::1", False),
    ],
)
def test_its_addresses_are_known_by_their_names(server: str, ours: bool) -> None:
    assert wiring.is_ours(server, cluster()) is ours


# --- what is in the way


def other(prefix: str, name: str = "a-first", told: bool = False, **spec: Any) -> Rival:
    made = binding(name=name, prefix=prefix, **{"target": {"deployment": {"name": "another"}}, **spec})
    return Rival.of(as_raw(holding(made) if told else made))


def holding(of: ApiServerBinding) -> ApiServerBinding:
    """It, once its API server was told to use its prefix."""
    told = of.status.model_copy(update={"arguments": (f"--etcd-prefix={of.spec.prefix}",)})
    return of.model_copy(update={"status": told})


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        pytest.param({}, "", id="nothing"),
        pytest.param({"cluster": None}, "ClusterNotFound", id="no cluster"),
        pytest.param({"access": {}}, "ClusterNotReady", id="no client Secret yet"),
        pytest.param({"workload": None}, "TargetNotFound", id="no workload"),
        pytest.param(
            {"binding": binding(target={"deployment": {"name": "api", "container": "x"}})},
            "ContainerNotFound",
            id="no such container",
        ),
        pytest.param({"others": (other("/registry"),)}, "PrefixTaken", id="the same prefix"),
        pytest.param({"others": (other("/registry/a"),)}, "PrefixTaken", id="a prefix below it"),
        pytest.param({"others": (other("/registry2"),)}, "", id="a prefix beside it"),
        pytest.param({"others": (other("/registry", name="z-later"),)}, "", id="the older one keeps it"),
        pytest.param(
            {"workload": workload("--etcd-servers-overrides=/events#https://x")}, "OverridesSet", id="overrides"
        ),
        pytest.param({"workload": workload("--etcd-servers")}, "ArgumentsUnreadable", id="no value"),
        pytest.param({"pods": (pod("p", workload(), ip="192.0.2.99"),)}, "HostCluster", id="our own API server"),
        pytest.param(
            {"binding": binding(clusterRef={"name": "a", "namespace": "elsewhere"})}, "NotAllowed", id="not allowed"
        ),
    ],
)
def test_each_obstacle_has_its_reason(changes: dict[str, Any], expected: str) -> None:
    assert reason(seen(**changes)) == expected


def test_whoever_runs_with_the_prefix_keeps_it() -> None:
    younger_told, older_told = other("/registry", name="z-later", told=True), other("/registry", told=True)
    assert reason(seen(others=(younger_told,))) == "PrefixTaken"
    told = seen(binding=holding(binding()))
    assert reason(replace(told, others=(younger_told,))) == "PrefixTaken"  # both step back, and the older begins anew
    wired_ = wired(told)
    assert reason(seen(binding=holding(binding()), workload=wired_, others=(older_told,))) == ""
    assert reason(seen(binding=holding(binding()), workload=wired_, others=(other("/registry"),))) == ""


def test_a_workload_has_one_binding() -> None:
    target = {"deployment": {"name": "api", "container": "another"}}
    twin: dict[str, Any] = {"target": target, "clusterRef": {"name": "other"}}
    older, younger = other("/x", **twin), other("/x", name="z-later", **twin)
    assert reason(seen(others=(older,))) == "TargetTaken"
    assert reason(seen(others=(younger,))) == ""
    assert reason(seen(workload=wired(seen()), others=(older,))) == ""
    theirs = workload()
    theirs["metadata"]["annotations"] = {wiring.BOUND_BY: "z-later"}
    assert reason(seen(workload=theirs, others=(younger,))) == "TargetTaken"
    assert reason(seen(others=(other("/x", target={"statefulSet": {"name": "api"}}),))) == ""


def test_a_volume_of_the_workloads_own_is_left_alone() -> None:
    own = workload()
    own["spec"]["template"]["spec"]["volumes"] = [{"name": wiring.VOLUME, "emptyDir": {}}]
    assert reason(seen(workload=own)) == "NameTaken"
    assert reason(seen(workload=wired(seen()))) == ""


def test_no_arguments_are_told_while_something_forbids_them() -> None:
    of = seen(cluster=None)
    wanted = wanted_by(seen())
    verdict_ = verdict(of, wanted, rules.obstacle(of, wanted), (), pending=False)
    assert status(of, wanted, verdict_, (), allowed=False).arguments == ()


def test_two_manual_ones_are_two_api_servers() -> None:
    manual: dict[str, Any] = {"target": {"manual": {}}}
    taken = seen(binding=binding(**manual), others=(other("/registry", **manual),), workload=None)
    assert reason(taken) == "PrefixTaken"


def test_the_hosts_api_server_may_be_allowed() -> None:
    host = {"pods": (pod("p", workload(), ip="192.0.2.99"),)}
    assert reason(seen(**host, binding=binding(allowHostCluster=True))) == ""


FOREIGN = "--etcd-servers=https://old:2379"


@pytest.mark.parametrize(
    ("arguments", "needed"),
    [
        ((), False),
        ((f"--etcd-servers={HOST}",), False),
        ((f"--etcd-servers={HOST}", "--etcd-prefix=/registry/"), False),
        ((f"--etcd-servers={HOST}", "--etcd-prefix=/other"), True),
        ((f"--etcd-servers={HOST},https://old:2379",), True),
        ((f"--etcd-servers={HOST}", "--etcd-prefix=registry"), False),
        ((FOREIGN,), True),
    ],
)
def test_data_is_compared_where_the_api_server_has_other_data(arguments: tuple[str, ...], needed: bool) -> None:
    assert rules.needs_comparison(seen(workload=workload(*arguments))) is needed


def content(digest: str, keys: int = 3) -> Content:
    return Content(keys=keys, revision=9, digest=digest)


@pytest.mark.parametrize(
    ("changes", "comparison", "expected"),
    [
        ({}, Comparison(servers="x", same_etcd=True), ""),
        ({}, Comparison(servers="x", problem="no answer"), "DataUnknown"),
        ({}, Comparison(servers="x", before=content("1"), wanted=content("2", 0)), "DifferentData"),
        ({}, Comparison(servers="x", before=content("1"), wanted=content("1")), "WritesNotStopped"),
        (
            {"workload": workload(FOREIGN, replicas=0)},
            Comparison(servers="x", before=content("1"), wanted=content("1")),
            "",
        ),
        (
            {"workload": workload(FOREIGN, replicas=0), "pods": (pod("p", workload()),)},
            Comparison(servers="x", before=content("1"), wanted=content("1")),
            "WritesNotStopped",
        ),
        (
            {"workload": workload(FOREIGN, replicas=0)},
            Comparison(servers="x", before=content("1"), wanted=content("1"), moving=True),
            "WritesNotStopped",
        ),
        (
            {"binding": binding(acceptDifferentData=True)},
            Comparison(servers="x", before=content("1"), wanted=content("2")),
            "",
        ),
    ],
)
def test_no_api_server_loses_its_data(changes: dict[str, Any], comparison: Comparison, expected: str) -> None:
    of = seen(**{"workload": workload(FOREIGN), **changes})
    found = rules.obstacle_by_etcd(of, wanted_by(of), {HOST: ""}, comparison)
    assert (found.reason if found else "") == expected


def test_the_numbers_of_both_sides_are_told() -> None:
    of = seen(workload=workload(FOREIGN))
    comparison = Comparison(servers="https://old:2379", before=content("1"), wanted=content("2", 0))
    found = rules.obstacle_by_etcd(of, wanted_by(of), {}, comparison)
    assert found is not None
    assert "3 keys there at revision 9, 0 below /registry of EtcdCluster a at revision 9" in found.message


def test_every_endpoint_must_answer_first_and_one_is_enough_later() -> None:
    answers = {"https://x": "", "https://y": "no answer in time"}
    first = seen()
    found = rules.obstacle_by_etcd(first, wanted_by(first), answers, None)
    assert found is not None
    assert (found.reason, found.waits) == ("EndpointUnreachable", True)
    later = seen(workload=wired(seen()))
    assert rules.obstacle_by_etcd(later, wanted_by(later), answers, None) is None
    assert rules.obstacle_by_etcd(later, wanted_by(later), {"https://x": "no answer"}, None)


# --- what is told


def told(of: Seen) -> dict[str, Any]:
    wanted = wiring.wiring(of)
    pods = instances(of, wanted)
    return as_json(
        status(of, wanted, verdict(of, wanted, rules.obstacle(of, wanted), pods, pending=False), pods, allowed=True)
    )


def bound(of: Seen) -> tuple[str, str, str]:
    said = told(of)
    condition = next(each for each in said["conditions"] if each["type"] == "Bound")
    return condition["status"], condition["reason"], said["ready"]


def test_it_is_bound_when_all_instances_run_with_it() -> None:
    after = wired(seen())
    both = (pod("p", after), pod("q", after))
    assert bound(seen(workload=after, pods=both)) == ("True", "Bound", "2/2")
    old = pod("r", workload())
    assert bound(seen(workload=after, pods=(*both, old)))[:2] == ("False", "RollingOut")
    assert bound(seen(workload=after, pods=(both[0], pod("q", after, ready=False)))) == ("False", "RollingOut", "1/2")


def test_whose_authority_all_trust_is_told_once_they_do() -> None:
    after = wired(seen())
    both = (pod("p", after), pod("q", after))
    assert told(seen(workload=after, pods=both))["authority"] == authority_digest(ACCESS["ca.crt"])
    assert "authority" not in told(seen(workload=after, pods=both[:1]))


def test_one_that_is_scaled_to_zero_is_bound() -> None:
    after = wired(seen(workload=workload(replicas=0)))
    assert bound(seen(workload=after)) == ("True", "Bound", "0/0")


def test_why_an_instance_does_not_come_up_is_told() -> None:
    after = wired(seen())
    broken = pod("q", after, ready=False)
    waiting = {"reason": "CrashLoopBackOff", "message": "back-off 10s"}
    broken["status"]["containerStatuses"] = [{"state": {"waiting": waiting}}]
    said = told(seen(workload=after, pods=(pod("p", after), broken)))
    assert "q: CrashLoopBackOff back-off 10s" in said["conditions"][0]["message"]


def test_times_stand_while_the_condition_does() -> None:
    before = told(seen())
    standing = binding().model_copy(update={"status": type(binding().status).model_validate(before)})
    later = seen(binding=standing, at=datetime(2027, 1, 1, tzinfo=UTC))
    assert told(later) == before


def test_revisions_of_an_etcd_that_lives_are_no_reason_to_write() -> None:
    of = seen(workload=workload(FOREIGN))
    wanted = wanted_by(of)

    def said(keys: int) -> ApiServerBindingStatus:
        comparison = Comparison(servers="x", before=content("1", keys), wanted=content("2", 0))
        stands = rules.obstacle_by_etcd(of, wanted, {}, comparison)
        return status(of, wanted, verdict(of, wanted, stands, (), pending=False), (), allowed=False)

    standing = replace(of, raw={**of.raw, "status": as_json(said(3))})
    assert not has_changed(said(4), standing)
    assert has_changed(status(of, wanted, verdict(of, wanted, None, (), pending=False), (), allowed=True), standing)


# --- helpers


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("/pki/ca.crt", FileSource(kind="Secret", name="s", key="ca.crt")),
        ("/pki/inner/x", FileSource(kind="ConfigMap", name="c", key="key-of-x")),
        ("/projected/p", FileSource(kind="Secret", name="t", key="p")),
        ("/host/ca.crt", None),
        ("/elsewhere", None),
    ],
)
def test_files_are_found_behind_volumes(path: str, source: FileSource | None) -> None:
    mounts = {"s": "/pki", "c": "/pki/inner", "p": "/projected", "h": "/host"}
    spec = {
        "volumes": [
            {"name": "s", "secret": {"secretName": "s"}},
            {"name": "c", "configMap": {"name": "c", "items": [{"key": "key-of-x", "path": "x"}]}},
            {"name": "p", "projected": {"sources": [{"secret": {"name": "t"}}]}},
            {"name": "h", "hostPath": {"path": "/etc"}},
        ]
    }
    container = {"volumeMounts": [{"name": name, "mountPath": folder} for name, folder in mounts.items()]}
    assert file_source(spec, container, path) == source


def test_who_wrote_the_arguments_last_is_named() -> None:
    fields: Manifest = {
        "f:spec": {"f:template": {"f:spec": {"f:containers": {'k:{"name":"kube-apiserver"}': {"f:args": {}}}}}}
    }
    edited = workload()
    edited["metadata"]["managedFields"] = [
        {"manager": "helm", "time": "2026-01-01T00:00:00Z", "fieldsV1": fields},
        {"manager": "argocd", "time": "2026-02-01T00:00:00Z", "fieldsV1": fields},
        {"manager": "external-etcd-operator", "time": "2026-03-01T00:00:00Z", "fieldsV1": fields},
        {"manager": "kubectl", "time": "2026-04-01T00:00:00Z", "fieldsV1": {"f:spec": {"f:replicas": {}}}},
    ]
    assert manager_of_arguments(seen(workload=edited)) == "argocd"
    assert manager_of_arguments(seen()) == "somebody"
