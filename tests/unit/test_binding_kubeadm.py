"""One node of a control plane after the other: what is done next, judged from what the other cluster tells."""

import json
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
import yaml

from etcd_operator.agent.plan import PKI_FOLDER, Result
from etcd_operator.api import EtcdCluster
from etcd_operator.binding import kubeadm, rules, wiring
from etcd_operator.binding.agent_pod import BINDING, agent_name, agent_pod, agent_secret
from etcd_operator.binding.kubeadm import DropAgent, DropSecret, Move, StartAgent, Wait
from etcd_operator.binding.kubeadm_config import configured, restored
from etcd_operator.binding.observation import ControlPlane, ControlPlaneNode, Rival, Seen, Unreachable
from etcd_operator.binding.obstacle import Obstacle
from etcd_operator.binding.status import instances, status, verdict
from etcd_operator.resources.names import Manifest
from support.merge_patch import merged
from unit.test_binding_rules import AT, binding, cluster, seen

LOCAL = ("--etcd-servers=https://127.0.0.1:2379", "--etcd-cafile=/etc/kubernetes/pki/etcd/ca.crt")
URLS = ["https://192.0.2.1:32379", "https://192.0.2.2:32379"]
TARGET = {"kubeadm": {"kubeconfigRef": {"name": "admin"}}}


def exposed(*, members: str = "Internal", service: str = "NodePort") -> EtcdCluster:
    made = cluster(access={"members": members}, proxy={"service": {"type": service}})
    told = made.model_dump(by_alias=True, exclude_none=True, mode="json")
    told["status"]["endpoints"]["external"] = URLS if service != "ClusterIP" else []
    for index, member in enumerate(told["status"]["members"]):
        if members == "NodePort":
            member["external"] = f"https://192.0.2.{index + 1}:3000{index}"
    return EtcdCluster.model_validate(told)


def static_pod(*flags: str, ready: bool = True, annotations: dict[str, str] | None = None) -> Manifest:
    container = {"name": "kube-apiserver", "command": ["kube-apiserver", "--v=2", *flags]}
    return {
        "metadata": {"name": "kube-apiserver", "annotations": annotations or {}},
        "spec": {"containers": [container]},
        "status": {"conditions": [{"type": "Ready", "status": "True" if ready else "False"}]},
    }


def node(
    name: str, server: Manifest | None = None, agent: Manifest | None = None, *, ready: bool = True
) -> ControlPlaneNode:
    return ControlPlaneNode(name=name, ready=ready, api_server=server or static_pod(*LOCAL), agent=agent)


def of(*nodes: ControlPlaneNode, secrets: tuple[str, ...] = (), **changes: Any) -> Seen:
    plane = ControlPlane(
        uid="k", access=("s", "1"), is_host=False, nodes=nodes, secrets=frozenset(secrets), configuration=None
    )
    pods = tuple(each.api_server for each in nodes if each.api_server)
    base = {"binding": binding(target=TARGET), "cluster": exposed(), "workload": None, "agent_image": "operator:1"}
    return seen(**{**base, "control_plane": plane, "pods": pods, **changes})


def wanted(at: Seen) -> wiring.Wiring:
    found = wiring.wiring(at)
    assert found is not None
    return found


def next_move(at: Seen) -> Move | None:
    assert rules.obstacle(at, wiring.wiring(at)) is None
    return kubeadm.move(at, wanted(at))


def started(at: Seen) -> StartAgent:
    step = next_move(at)
    assert isinstance(step, StartAgent), step
    return step


def agent(step: StartAgent, at: Seen, result: Result | None = None, *, ago: float = 3600, phase: str = "") -> Manifest:
    """The pod of a step, as it is after it ended with that result; or in that phase."""
    pod = agent_pod(step.node, step.plan, step.files, binding=at.identity, image=at.agent_image)
    pod["metadata"] |= {"uid": "u", "creationTimestamp": AT.isoformat()}
    if result is None:
        return {**pod, "status": {"phase": phase or "Running"}}
    ended = {"finishedAt": (AT - timedelta(seconds=ago)).isoformat(), "message": result.to_json()}
    told = [{"name": "wiring", "state": {"terminated": ended}}]
    return {**pod, "status": {"phase": "Succeeded", "containerStatuses": told}}


def wired(step: StartAgent, **more: Any) -> Manifest:
    """The static pod once the agent has done that."""
    flags = [f"--{name}={value}" for name, value in step.plan.flags.items() if value is not None]
    return static_pod(*flags, annotations={k: v for k, v in step.plan.annotations.items() if v}, **more)


def done(name: str, **more: Any) -> ControlPlaneNode:
    """A node that was wired some time ago."""
    at = of(node(name))
    step = started(at)
    return node(name, wired(step, **more), agent(step, at, Result(result="Applied")))


def test_files_come_to_the_node_where_kubeadm_mounts_them() -> None:
    step = started(of(node("n1"), node("n2")))
    assert step.node == "n1"
    assert step.plan.flags["etcd-servers"] == ",".join(URLS)
    assert step.plan.flags["etcd-cafile"] == f"{PKI_FOLDER}/ca.crt"
    assert sorted(step.files) == ["ca.crt", "tls.crt", "tls.key"]
    assert step.plan.before["etcd-servers"] == "https://127.0.0.1:2379"
    assert set(step.plan.ours) == set(URLS)


def test_one_node_at_a_time() -> None:
    at = of(node("n1"), node("n2"), node("n3"))
    step = started(at)
    works = node("n1", agent=agent(step, at))
    assert isinstance(next_move(of(works, node("n2"), node("n3"), secrets=(agent_name("n1"),))), Wait)
    first = done("n1")
    assert next_move(of(first, node("n2"), secrets=(agent_name("n1"),))) == DropSecret(name=agent_name("n1"))
    assert started(of(first, node("n2"), node("n3"))).node == "n2"
    assert next_move(of(done("n1"), done("n2"), done("n3"))) is None


def test_a_sick_api_server_comes_first_and_holds_up_all_others() -> None:
    sick = static_pod(*LOCAL, ready=False)
    assert started(of(node("n1"), node("n2", sick))).node == "n2"
    assert isinstance(next_move(of(done("n1", ready=False), node("n2"))), Wait)


def test_a_node_that_is_down_is_waited_for() -> None:
    down = node("n1", static_pod(*LOCAL, ready=False), ready=False)
    for others in ((node("n2"),), (done("n2"),)):
        step = next_move(of(down, *others))
        assert isinstance(step, Wait)
        assert step.message == "node n1 is not ready"


def test_a_node_that_went_down_while_its_agent_worked_lets_no_other_follow() -> None:
    at = of(node("n1"), node("n2"))
    lost = replace(node("n1", static_pod(*LOCAL, ready=False), agent(started(at), at)), ready=False)
    step = next_move(of(lost, node("n2")))
    assert isinstance(step, Wait)
    assert "works on node n1" in step.message
    result = Result(result="RolledBack", reason="NotRestored", message="m")
    assert isinstance(next_move(of(replace(lost, agent=agent(started(at), at, result, ago=1)), node("n2"))), Obstacle)


def test_a_kubelet_that_lags_is_given_time_and_after_that_it_was_somebody() -> None:
    at = of(node("n1"))
    fresh = agent(started(at), at, Result(result="Applied"), ago=5)
    assert isinstance(next_move(of(node("n1", agent=fresh))), Wait)
    long_ago = agent(started(at), at, Result(result="Applied"), ago=600)
    step = next_move(of(node("n1", agent=long_ago)))
    assert isinstance(step, DropAgent)
    assert step.drifted


@pytest.mark.parametrize(
    ("access", "endpoints"), [({"ca.crt": b"ca", "tls.crt": b"new", "tls.key": b"new"}, "Proxy"), (None, "Members")]
)
def test_another_certificate_or_list_is_brought_to_every_node_again(access: Any, endpoints: str) -> None:
    changed = of(done("n1"), binding=binding(target=TARGET, endpoints=endpoints), cluster=exposed(members="NodePort"))
    changed = replace(changed, access=access or changed.access)
    step = next_move(changed)
    assert isinstance(step, DropAgent)
    assert not step.drifted
    assert changed.control_plane
    without = replace(changed.control_plane, nodes=(node("n1", done("n1").api_server),))
    again = started(replace(changed, control_plane=without))
    assert json.loads(again.plan.annotations[wiring.ORIGINAL] or "")["etcd-servers"] == "https://127.0.0.1:2379"


def test_members_are_listed_by_their_own_ports_once_they_vote() -> None:
    at = of(node("n1"), binding=binding(target=TARGET, endpoints="Members"), cluster=exposed(members="NodePort"))
    assert wanted(at).servers == tuple(f"https://192.0.2.{index + 1}:3000{index}" for index in range(3))


@pytest.mark.parametrize(
    ("result", "ago", "tries_again"),
    [
        (Result(result="RolledBack", reason="NotReady", message="readyz says 500"), 300, False),
        (Result(result="RolledBack", reason="NotReady", message="readyz says 500"), 700, True),
        (Result(result="Refused", reason="EndpointUnreachable", message="no route"), 10, False),
        (Result(result="Refused", reason="EndpointUnreachable", message="no route"), 31, True),
    ],
)
def test_a_node_that_failed_is_named_and_tried_again_later(result: Result, ago: float, tries_again: bool) -> None:
    at = of(node("n1"))
    failed = node("n1", agent=agent(started(at), at, result, ago=ago))
    step = next_move(of(failed, node("n2")))
    if tries_again:
        assert isinstance(step, DropAgent)
    else:
        assert isinstance(step, Obstacle)
        assert (step.reason, step.message) == (result.reason, f"node n1: {result.message}")


def test_an_agent_that_cannot_start_says_why_and_goes_when_the_plan_changes() -> None:
    at = of(node("n1"))
    pod = agent(started(at), at, phase="Pending")
    waiting = {"reason": "ErrImageNeverPull", "message": "no such image"}
    pod["status"]["containerStatuses"] = [{"name": "wiring", "state": {"waiting": waiting}}]
    step = next_move(of(node("n1", agent=pod)))
    assert isinstance(step, Wait)
    assert "ErrImageNeverPull no such image" in step.message
    assert isinstance(next_move(replace(of(node("n1", agent=pod)), access={**at.access, "tls.crt": b"x"})), DropAgent)


def test_an_agent_that_was_ended_without_a_word_is_told_as_such() -> None:
    at = of(node("n1"))
    pod = agent(started(at), at)
    pod["status"] = {"phase": "Failed", "reason": "Evicted", "startTime": AT.isoformat()}
    step = next_move(of(node("n1", agent=pod)))
    assert isinstance(step, Obstacle)
    assert step.message.endswith("failed: Evicted")


def test_the_former_arguments_come_back_node_by_node() -> None:
    at = of(done("n1"), node("n2"))
    step = kubeadm.move_back(at)
    assert isinstance(step, DropAgent)
    bare = of(node("n1", done("n1").api_server), node("n2"))
    again = kubeadm.move_back(bare)
    assert isinstance(again, StartAgent)
    assert again.plan.flags["etcd-servers"] == "https://127.0.0.1:2379"
    assert again.plan.flags["etcd-keyfile"] is None
    assert set(again.plan.annotations.values()) == {None}
    assert not again.plan.check
    left = agent(again, bare, Result(result="Applied"))
    assert isinstance(kubeadm.move_back(of(node("n1", agent=left), node("n2"))), DropAgent)
    assert kubeadm.move_back(of(node("n1"), node("n2"))) is None


def test_keys_are_in_the_secret_alone() -> None:
    step = started(of(node("n1")))
    assert "key" not in json.dumps(agent_pod("n1", step.plan, step.files, binding="ns/b", image="i")["metadata"])
    assert set(agent_secret("n1", step.plan, step.files)["data"]) == {"plan.json", "ca.crt", "tls.crt", "tls.key"}
    assert "tls.key" not in repr(step).replace(f"{PKI_FOLDER}/tls.key", "")


def test_an_agent_is_carried_on_by_the_kubelet_and_takes_no_plan_but_its_own() -> None:
    step = started(of(node("n1")))
    spec = agent_pod("n1", step.plan, step.files, binding="ns/b", image="i")["spec"]
    assert spec["restartPolicy"] == "OnFailure"
    assert "activeDeadlineSeconds" not in spec
    assert spec["containers"][0]["command"][-1] == f"--digest={step.plan.digest(step.files)}"


def rival(name: str) -> Rival:
    return Rival.of(
        {"metadata": {"name": name, "namespace": "ns"}, "spec": {"clusterRef": {"name": "x"}, "target": TARGET}}
    )


FOREIGN = static_pod(*LOCAL, annotations={wiring.BOUND_BY: "ns/other"})


@pytest.mark.parametrize(
    ("at", "expected"),
    [
        (of(cluster=exposed(service="ClusterIP")), "NotExposed"),
        (of(binding=binding(target=TARGET, endpoints="Members")), "NotExposed"),
        (of(), "NoControlPlane"),
        (of(ControlPlaneNode(name="n1", ready=True, api_server=None, agent=None)), "NoControlPlane"),
        (of(node("n1"), agent_image=""), "AgentImageUnknown"),
        (of(node("n1", static_pod("--etcd-servers-overrides=/events#https://x:2379"))), "OverridesSet"),
        (of(node("n1", static_pod("--etcd-servers"))), "ArgumentsUnreadable"),
        (of(node("n1", FOREIGN), others=(rival("other"),)), "TargetTaken"),
        (of(node("n1", FOREIGN)), ""),
        (of(node("n1", agent={"metadata": {"annotations": {BINDING: "ns/o"}}}), others=(rival("o"),)), "TargetTaken"),
        (
            of(control_plane=None, unreachable=Unreachable(reason="KubeconfigInvalid", message="m", waits=False)),
            "KubeconfigInvalid",
        ),
    ],
)
def test_each_obstacle_has_its_reason(at: Seen, expected: str) -> None:
    found = rules.obstacle(at, wiring.wiring(at))
    assert (found.reason if found else "") == expected


def test_the_operators_own_cluster_is_known_by_its_uid_and_not_by_addresses() -> None:
    own = of(node("n1"))
    assert own.control_plane
    own = replace(own, control_plane=replace(own.control_plane, is_host=True))
    found = rules.obstacle(own, wanted(own))
    assert found
    assert found.reason == "HostCluster"
    assert rules.obstacle(of(node("n1"), host_addresses=frozenset({"192.0.2.1"})), wanted(own)) is None


def test_status_tells_of_every_node_and_of_what_is_waited_for() -> None:
    at = of(done("n1"), node("n2"), node("n3"))
    pods = instances(at, wanted(at))
    told = verdict(at, wanted(at), None, pods, pending=False, note="node n2 is not ready")
    assert (told.summary, told.message) == (
        "Rolling out: 1 of 3",
        "1 of 3 instances are ready and use EtcdCluster a; node n2 is not ready",
    )
    assert status(at, wanted(at), told, pods, allowed=True).ready == "1/3"


def test_of_a_cluster_that_does_not_answer_nothing_is_claimed() -> None:
    at = of(control_plane=None, unreachable=Unreachable(reason="ApiServerUnreachable", message="m", waits=True))
    told = verdict(at, wanted(at), rules.obstacle(at, wanted(at)), (), pending=False)
    assert (told.bound, told.needs_person) == ("Unknown", False)


# --- what must not happen


def told(at: Seen, **status: Any) -> Seen:
    """After the status told the wiring."""
    said = {"arguments": list(wanted(at).arguments), "clusterUID": "k", **status}
    raw = at.binding.model_dump(by_alias=True, exclude_none=True, mode="json") | {"status": said}
    return replace(at, binding=type(at.binding).model_validate(raw), raw=raw)


def test_a_kubeconfig_that_leads_to_another_cluster_is_refused() -> None:
    at = told(of(done("n1")))
    assert rules.obstacle(at, wanted(at)) is None
    found = rules.obstacle(told(at, clusterUID="another"), wanted(at))
    assert found
    assert found.reason == "AnotherCluster"


def test_several_nodes_are_not_moved_one_by_one_to_an_etcd_with_other_data() -> None:
    accepting = binding(target=TARGET, acceptDifferentData=True)
    for nodes, expected in (((node("n1"), node("n2")), "WouldSplit"), ((node("n1"),), ""), ((done("n1"),) * 2, "")):
        at = of(*nodes, binding=accepting)
        found = rules.obstacle(at, wanted(at))
        assert (found.reason if found else "") == expected


def test_of_an_operator_that_may_not_know_its_own_cluster_that_is_asked() -> None:
    at = of(node("n1"))
    assert at.control_plane
    unsure = replace(at, control_plane=replace(at.control_plane, is_host=None))
    assert rules.obstacle(unsure, wanted(unsure))
    allowed = replace(unsure, binding=binding(target=TARGET, allowHostCluster=True))
    assert rules.obstacle(allowed, wanted(allowed)) is None


def test_a_later_binding_of_the_same_name_is_another_one() -> None:
    at = of(done("n1"))
    raw = json.loads(json.dumps(at.raw))
    raw["metadata"]["uid"] = "another-one"
    later = replace(at, binding=type(at.binding).model_validate(raw), raw=raw)
    assert later.identity != at.identity
    assert isinstance(kubeadm.move(later, wanted(later)), DropAgent)


@pytest.mark.parametrize(
    ("at", "kept"),
    [
        (of(ControlPlaneNode(name="n1", ready=True, api_server=None, agent=None)), True),
        (of(done("n1")), True),
        (of(control_plane=None), True),
        (of(node("n1")), False),
    ],
)
def test_a_claim_stands_while_an_api_server_may_run_with_it(at: Seen, kept: bool) -> None:
    assert rules.holds_claim(told(at)) is kept
    assert not rules.holds_claim(at)


def without_note(server: Manifest | None) -> Manifest:
    """The static pod as kubeadm writes it anew when it upgrades, or joins another node."""
    assert server
    return {**server, "metadata": {"name": "kube-apiserver"}}


def test_a_node_that_joined_later_gets_what_the_others_had() -> None:
    joined = node("n2", without_note(done("n1").api_server))
    at = told(of(done("n1"), joined))
    step = kubeadm.move(at, wanted(at))
    assert isinstance(step, StartAgent)
    assert step.node == "n2"
    assert json.loads(step.plan.annotations[wiring.ORIGINAL] or "")["etcd-servers"] == "https://127.0.0.1:2379"


def upgraded(*, etcd: str = "  local:\n    dataDir: /var/lib/etcd\n") -> tuple[Seen, Manifest]:
    """A control plane whose manifests kubeadm wrote anew after it was bound, and what kubeadm knows."""
    at = told(of(done("n1"), done("n2")))
    knows = config_map(f"apiVersion: kubeadm.k8s.io/v1beta4\netcd:\n{etcd}")
    patch = configured(knows, wanted(at), at.identity)
    assert patch
    assert at.control_plane
    anew = tuple(node(each.name, without_note(each.api_server)) for each in at.nodes)
    plane = replace(at.control_plane, nodes=anew, configuration=merged(knows, patch))
    return replace(at, control_plane=plane), knows


def test_after_an_upgrade_by_kubeadm_the_former_arguments_are_those_that_it_knew() -> None:
    at, _ = upgraded()
    step = kubeadm.move_back(at)
    assert isinstance(step, StartAgent)
    assert step.plan.flags["etcd-servers"] == "https://127.0.0.1:2379"
    assert step.plan.flags["etcd-cafile"] == "/etc/kubernetes/pki/etcd/ca.crt"
    assert step.plan.flags["etcd-prefix"] is None


def test_nodes_that_were_set_up_on_this_etcd_are_not_given_it_back_for_ever() -> None:
    external = "".join(f"      - {url}\n" for url in URLS)
    at, _ = upgraded(
        etcd=f"  external:\n    endpoints:\n{external}    caFile: /ca\n    certFile: /c\n    keyFile: /k\n"
    )
    step = kubeadm.move_back(at)
    assert isinstance(step, StartAgent)
    flags = [f"--{name}={value}" for name, value in step.plan.flags.items() if value is not None]
    back = tuple(node(each.name, static_pod(*flags)) for each in at.nodes)
    assert at.control_plane
    assert kubeadm.move_back(replace(at, control_plane=replace(at.control_plane, nodes=back))) is None


def test_nodes_that_had_different_etcds_are_not_sent_back_to_them() -> None:
    first, second = done("n1"), done("n2")
    noted = json.loads(wiring.annotations(second.api_server or {})[wiring.ORIGINAL])
    noted["etcd-servers"] = "https://elsewhere:2379"
    assert second.api_server
    second.api_server["metadata"]["annotations"][wiring.ORIGINAL] = json.dumps(noted)
    with pytest.raises(ValueError, match="two clusters of one"):
        kubeadm.move_back(told(of(first, second)))


# --- what kubeadm knows


def config_map(text: str) -> Manifest:
    metadata = {"name": "kubeadm-config", "resourceVersion": "9"}
    return {"metadata": metadata, "data": {"ClusterConfiguration": text}}


V1BETA3 = (
    "apiVersion: kubeadm.k8s.io/v1beta3\netcd:\n  local:\n    dataDir: /var/lib/etcd\nkubernetesVersion: v1.30.0\n"
)
V1BETA4 = """apiVersion: kubeadm.k8s.io/v1beta4
etcd:
  local:
    dataDir: /var/lib/etcd
apiServer:
  extraArgs:
  - name: v
    value: '2'
"""


@pytest.mark.parametrize("text", [V1BETA3, V1BETA4])
@pytest.mark.parametrize("prefix", ["/registry", "/tenants/a"])
def test_kubeadm_learns_of_the_etcd_and_forgets_it_again(text: str, prefix: str) -> None:
    at = of(node("n1"), binding=binding(target=TARGET, prefix=prefix))
    before = config_map(text)
    patch = configured(before, wanted(at), at.identity)
    assert patch
    assert patch["metadata"]["resourceVersion"] == "9"
    after = merged(before, patch)
    told = yaml.safe_load(after["data"]["ClusterConfiguration"])
    assert told["etcd"]["external"]["endpoints"] == URLS
    assert told["etcd"]["external"]["keyFile"] == f"{PKI_FOLDER}/tls.key"
    assert "local" not in told["etcd"]
    assert ("/tenants/a" in json.dumps(told)) is (prefix != "/registry")
    assert configured(after, wanted(at), at.identity) is None
    back = restored(after, at.identity)
    assert back
    former = yaml.safe_load(merged(after, back)["data"]["ClusterConfiguration"])
    former.get("apiServer", {}).pop("extraArgs", None) if text == V1BETA3 else None
    assert {key: value for key, value in former.items() if value != {}} == yaml.safe_load(text)
    assert restored(before, at.identity) is None
    assert restored(after, "ns/b/another") is None


@pytest.mark.parametrize("text", ["", "- a", "{"])
def test_what_is_no_kubeadms_is_left_alone(text: str) -> None:
    assert configured(config_map(text), wanted(of(node("n1"))), "i") is None
    assert configured({}, wanted(of(node("n1"))), "i") is None
