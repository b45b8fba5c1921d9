"""Why a member's pod does not run, from what Kubernetes and etcd say."""

from typing import Any

import pytest

from etcd_operator.cluster.observation import Complaint
from etcd_operator.cluster.trouble import claim_trouble, pod_trouble, refused_pods
from support.builders import NOW, blueprint, claim, pod, terminated


def log(error: str, message: str = "discovery failed") -> str:
    return f'{{"level":"fatal","msg":"{message}","error":"{error}"}}'


@pytest.mark.parametrize(
    ("state", "reason", "told"),
    [
        ({"waiting": {"reason": "ImagePullBackOff", "message": "not found"}}, "ImageUnavailable", "image etcd:v3"),
        ({"waiting": {"reason": "ErrImagePull"}}, "ImageUnavailable", "ErrImagePull"),
        ({"waiting": {"reason": "CreateContainerConfigError", "message": "no key"}}, "ContainerRefused", "no key"),
        (terminated(log("cannot fetch cluster info from peer urls: x")), "DataMissing", "directory is empty"),
        (terminated(log("member 1 has already been bootstrapped")), "DataMissing", "already"),
        (terminated(log("expected --x", "failed to verify flags")), "InvalidOption", "refuses its configuration"),
        (terminated(log("write x: no space left on device")), "DiskFull", "volume is full"),
        (terminated("", reason="OOMKilled", code=137), "OutOfMemory", "more memory"),
        (terminated("gibberish", code=2), "EtcdExited", "exit code 2"),
    ],
)
def test_a_container_that_does_not_run(state: dict[str, Any], reason: str, told: str) -> None:
    trouble = pod_trouble(pod("a-1", state=state, ready=False), (), NOW)
    assert trouble is not None
    assert trouble.reason == reason
    assert told in trouble.message
    assert trouble.message.startswith("a-1")


@pytest.mark.parametrize(
    "state", [{"running": {"startedAt": "2026-11-21T09:00:00Z"}}, {"waiting": {}}, terminated(code=0)]
)
def test_no_trouble(state: dict[str, Any]) -> None:
    assert pod_trouble(pod("a-1", state=state), (), NOW) is None


@pytest.mark.parametrize("started", [False, True])
def test_a_crash_is_told_until_etcd_has_come_up_again(started: bool) -> None:
    """What crashes on each start runs for a moment each time: that moment is no cure."""
    again = pod("a-1", ready=started)
    last = terminated(log("expected --x", "failed to verify flags"))
    again["status"]["containerStatuses"][0] |= {"lastState": last, "started": started}
    assert (pod_trouble(again, (), NOW) is None) is started


def test_a_pod_without_a_place() -> None:
    """Not at once: the scheduler may have heard of the pod before it heard of its claim."""
    condition = {"type": "PodScheduled", "status": "False", "message": "0/3 nodes are available"}
    new = pod("a-1", state={"waiting": {}}, conditions=[condition], created="2026-11-21T11:59:58Z")
    assert pod_trouble(new, (), NOW) is None
    trouble = pod_trouble(pod("a-1", state={"waiting": {}}, conditions=[condition]), (), NOW)
    assert trouble is not None
    assert (trouble.reason, trouble.message) == ("Unschedulable", "a-1 cannot be placed: 0/3 nodes are available")


def test_a_pod_that_waits_for_its_volume_on_the_node_that_it_was_given_has_a_place() -> None:
    """The scheduler takes back what it said only with the binding, and a disk of a cloud takes a while to be made."""
    condition = {"type": "PodScheduled", "status": "False", "message": 'persistentvolumeclaim "data-a-1" not found'}
    told = Complaint(kind="Pod", name="a-1", reason="FailedScheduling", message=condition["message"])
    waits = pod("a-1", state={"waiting": {}}, conditions=[condition])
    assert pod_trouble(waits, (told,), NOW) is not None
    waits["status"]["nominatedNodeName"] = "n1"
    assert pod_trouble(waits, (told,), NOW) is None
    refused = Complaint(kind="Pod", name="a-1", reason="FailedMount", message="no such secret")
    assert pod_trouble(waits, (told, refused), NOW) is not None


COMPLAINTS = (
    Complaint(kind="Pod", name="a-1", reason="FailedMount", message="no such secret"),
    Complaint(kind="PersistentVolumeClaim", name="data-a-1", reason="ProvisioningFailed", message="no class"),
    Complaint(kind="StatefulSet", name="a", reason="FailedCreate", message="exceeded quota"),
)


def test_kubernetes_complaints_are_believed_after_a_while() -> None:
    waiting: dict[str, Any] = {"state": {"waiting": {}}}
    old, new = pod("a-1", **waiting), pod("a-1", created="2026-11-21T11:59:58Z", **waiting)
    trouble = pod_trouble(old, COMPLAINTS, NOW)
    assert trouble is not None
    assert trouble.message == "a-1: no such secret"
    assert pod_trouble(new, COMPLAINTS, NOW) is None
    assert pod_trouble(pod("a-2", **waiting), COMPLAINTS, NOW) is None


def test_a_volume_that_cannot_be_made() -> None:
    trouble = claim_trouble(claim(blueprint(), "a-1", phase="Pending"), COMPLAINTS, NOW)
    assert trouble is not None
    assert (trouble.reason, trouble.message) == ("VolumeUnavailable", "PersistentVolumeClaim data-a-1: no class")
    assert claim_trouble(claim(blueprint(), "a-1"), COMPLAINTS, NOW) is None
    assert claim_trouble(claim(blueprint(), "a-2", phase="Pending"), COMPLAINTS, NOW) is None


def test_pods_that_are_refused() -> None:
    trouble = refused_pods(COMPLAINTS)
    assert trouble is not None
    assert trouble.message == "StatefulSet a: exceeded quota"
    assert refused_pods(COMPLAINTS[:2]) is None
