"""Why a member's pod does not run: what Kubernetes and etcd's last words say, in a sentence a person can act on.

Pure. Judges pods and the Warning events about them; says nothing about whether etcd is healthy.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from etcd_operator.cluster.observation import Complaint
from etcd_operator.etcd.failures import judge
from etcd_operator.resources.names import Manifest

#: Reasons of a waiting container that mean its image cannot be had (kubelet's images and container managers).
IMAGE_REASONS = {"ErrImagePull", "ImagePullBackOff", "ErrImageNeverPull", "InvalidImageName", "ImageInspectError"}
#: Reasons that mean the container cannot be made from its spec.
CREATE_REASONS = {"CreateContainerConfigError", "CreateContainerError", "RunContainerError"}


#: How long Kubernetes may complain about an object before it is believed: mounts and volumes that only take their
#: turn leave Warning events behind as well.
PATIENCE = timedelta(seconds=8)
#: How long the scheduler may say that it finds no place before it is believed: it may have heard of the pod before it
#: heard of the pod's claim (seen: a member that was taken for one that cannot start).
SCHEDULED_WITHIN = timedelta(seconds=3)
#: The reason where etcd ended as its volume has no room.
DISK_FULL = "DiskFull"
#: The reason where etcd was started before its file was written.
NO_FILE = "FileMissing"


@dataclass(frozen=True, kw_only=True, slots=True)
class Trouble:
    """What keeps an object from working: a CamelCase reason for machines and a sentence for people."""

    reason: str
    message: str


def etcd_container(pod: Manifest) -> dict[str, Any]:
    """The status of the pod's etcd container; empty before the kubelet has reported any."""
    return container_of(pod, "etcd")


def container_of(pod: Manifest, name: str) -> dict[str, Any]:
    """The status of one of the pod's containers; empty before the kubelet has reported any."""
    for status in pod.get("status", {}).get("containerStatuses") or []:
        if status["name"] == name:
            return dict(status)
    return {}


def is_running(pod: Manifest) -> bool:
    return "running" in etcd_container(pod).get("state", {})


def is_ready(pod: Manifest) -> bool:
    return any(c["type"] == "Ready" and c["status"] == "True" for c in pod.get("status", {}).get("conditions") or [])


def is_unready_for_others(pod: Manifest) -> bool:
    """Whether a container of the user's keeps the pod from being ready, and etcd does not.

    The container's own word alone would not do: on a node that went away it stays as it was, and only Ready changes.
    """
    conditions = pod.get("status", {}).get("conditions") or []
    found = any(each["type"] == "ContainersReady" and each["status"] == "False" for each in conditions)
    return found and bool(etcd_container(pod).get("ready"))


def told_change(pod: Manifest) -> str:
    """When Kubernetes last changed its mind about whether the pod is ready, as it says it; empty where it does not."""
    conditions = pod.get("status", {}).get("conditions") or []
    return next((str(each.get("lastTransitionTime") or "") for each in conditions if each["type"] == "Ready"), "")


def ready_changed(pod: Manifest) -> datetime | None:
    """`told_change` as a time; None where it is not told."""
    told = told_change(pod)
    return datetime.fromisoformat(told) if told else None


def pod_trouble(pod: Manifest, complaints: tuple[Complaint, ...], now: datetime) -> Trouble | None:
    """The first reason in the order in which a pod comes up; `None` while it runs or simply starts."""
    name = pod["metadata"]["name"]
    if age(pod, now) > SCHEDULED_WITHIN and (trouble := unschedulable(name, pod)):
        return trouble
    for judgement in (_unusable_image, _uncreatable, _crashed):
        if trouble := judgement(name, pod):
            return trouble
    if not is_running(pod) and age(pod, now) > PATIENCE:
        overcome = {"FailedScheduling"} if has_place(pod) else set[str]()
        return _complained(name, tuple(each for each in complaints if each.reason not in overcome))
    return None


def claim_trouble(claim: Manifest, complaints: tuple[Complaint, ...], now: datetime) -> Trouble | None:
    """Why a volume is not there yet."""
    if claim.get("status", {}).get("phase") == "Bound" or age(claim, now) < PATIENCE:
        return None
    name = claim["metadata"]["name"]
    for complaint in complaints:
        if complaint.kind == "PersistentVolumeClaim" and complaint.name == name:
            return Trouble(reason="VolumeUnavailable", message=f"PersistentVolumeClaim {name}: {complaint.message}")
    return None


def refused_pods(complaints: tuple[Complaint, ...]) -> Trouble | None:
    """Why the StatefulSet controller cannot make pods: a quota, Pod Security, a missing service account."""
    for complaint in complaints:
        if complaint.kind == "StatefulSet" and complaint.reason == "FailedCreate":
            return Trouble(reason="PodsRefused", message=f"StatefulSet {complaint.name}: {complaint.message}")
    return None


def has_place(pod: Manifest) -> bool:
    """Whether the scheduler has a node for it, but waits for the volume: what it said before still stands there."""
    return bool(pod.get("status", {}).get("nominatedNodeName"))


def unschedulable(name: str, pod: Manifest) -> Trouble | None:
    """What the scheduler says of a pod that it finds no place for."""
    if has_place(pod):
        return None
    for condition in pod.get("status", {}).get("conditions") or []:
        if condition["type"] == "PodScheduled" and condition["status"] == "False":
            return Trouble(reason="Unschedulable", message=f"{name} cannot be placed: {condition.get('message', '')}")
    return None


def _unusable_image(name: str, pod: Manifest) -> Trouble | None:
    return unusable_image(name, pod, "etcd")


def unusable_image(name: str, pod: Manifest, container: str) -> Trouble | None:
    """Why the image of one of the pod's containers cannot be had; `None` where it can."""
    waiting = _waiting(pod, container)
    if waiting.get("reason") not in IMAGE_REASONS:
        return None
    image = next((c["image"] for c in pod["spec"]["containers"] if c["name"] == container), "?")
    told = _said(waiting)
    return Trouble(reason="ImageUnavailable", message=f"{name}: image {image} cannot be used: {told}")


def _uncreatable(name: str, pod: Manifest) -> Trouble | None:
    waiting = _waiting(pod)
    if waiting.get("reason") not in CREATE_REASONS:
        return None
    return Trouble(reason="ContainerRefused", message=f"{name} cannot start: {_said(waiting)}")


def _crashed(name: str, pod: Manifest) -> Trouble | None:
    """How it ended the last time, until it has come up again: what crashes on each start runs for a moment as well."""
    status = etcd_container(pod)
    if "running" in status.get("state", {}) and status.get("started"):
        return None
    ended = status.get("state", {}).get("terminated") or status.get("lastState", {}).get("terminated")
    if not ended:
        return None
    if ended.get("reason") == "OOMKilled":
        return Trouble(reason="OutOfMemory", message=f"{name} was killed for using more memory than its limit")
    if ended.get("exitCode", 0) == 0:
        return None
    failure = judge(ended.get("message", ""), ended.get("exitCode", 0))
    return Trouble(reason=_CRASH_REASONS.get(failure.kind, "EtcdExited"), message=f"{name}: {failure.sentence}")


def backs_off_without_file(pod: Manifest) -> bool:
    """Whether the kubelet starts it again only after a while, up to 5 min, as it found no file more than once."""
    found = _crashed("", pod)
    return found is not None and found.reason == NO_FILE and _waiting(pod).get("reason") == "CrashLoopBackOff"


_CRASH_REASONS = {
    "fuse": "DataMissing",
    "no_file": NO_FILE,
    "bad_option": "InvalidOption",
    "corrupt": "DataCorrupt",
    "foreign": "ForeignData",
    "already_bootstrapped": "DataMissing",
    "lost_entries": "DataCorrupt",
    "no_space": DISK_FULL,
    "storage": "VolumeFailed",
    "tls": "CertificateRefused",
    "address_in_use": "AddressInUse",
    "wrong_version": "WrongVersion",
    "removed": "MemberRemoved",
    "member_list": "MemberListRefused",
}


def _complained(name: str, complaints: tuple[Complaint, ...]) -> Trouble | None:
    for complaint in complaints:
        # A failed probe tells of the container that ran before, not of why none runs now.
        if complaint.kind == "Pod" and complaint.name == name and complaint.reason != "Unhealthy":
            return Trouble(reason=complaint.reason, message=f"{name}: {complaint.message}")
    return None


def age(manifest: Manifest, now: datetime) -> timedelta:
    """How long ago it was made."""
    return now - datetime.fromisoformat(manifest["metadata"]["creationTimestamp"])


def _waiting(pod: Manifest, container: str = "etcd") -> dict[str, Any]:
    return container_of(pod, container).get("state", {}).get("waiting") or {}


def _said(waiting: dict[str, Any]) -> str:
    return str(waiting.get("message") or waiting.get("reason", ""))
