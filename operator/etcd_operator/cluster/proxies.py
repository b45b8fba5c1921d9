"""What was seen of the proxies in front of the members, and whether clients are led to them.

Pure.
"""

from datetime import timedelta

from etcd_operator.cluster.judged import Judged
from etcd_operator.cluster.members import Quorum
from etcd_operator.cluster.records import is_terminating
from etcd_operator.cluster.trouble import age, is_ready, unschedulable, unusable_image
from etcd_operator.resources.names import Manifest, proxy_selector

#: How long a proxy may take to become ready before that is told.
STARTS_WITHIN = timedelta(seconds=20)


def ready_proxies(judged: Judged) -> list[Manifest]:
    """The proxies that have a member to lead to."""
    return [pod for pod in proxies(judged) if is_ready(pod)]


def proxies(judged: Judged) -> list[Manifest]:
    """The proxies' pods, without those that go."""
    wanted = proxy_selector(judged.blueprint.names.name).items()
    return [
        pod
        for pod in judged.seen.objects.other_pods.values()
        if wanted <= (pod["metadata"].get("labels") or {}).items() and not is_terminating(pod)
    ]


def leads_to_proxy(judged: Judged) -> bool:
    """Whether the Service of the cluster's name leads to the proxies now, or past them to the members.

    Past them until the first is ready, and when none is although there is a quorum: an image that is gone must not cost
    clients their etcd. Without a quorum no proxy is ready, and nothing is gained by a change.
    """
    plan = judged.blueprint
    if not plan.proxy.enabled:
        return False
    if ready_proxies(judged):
        return True
    live = judged.seen.objects.services.get(plan.names.client_service)
    led = (live or {}).get("spec", {}).get("selector") == proxy_selector(plan.names.name)
    members_ready = any(member.pod and is_ready(member.pod) for member in judged.membership.members)
    return led and not (judged.membership.quorum is Quorum.HEALTHY and members_ready)


def proxy_problem(judged: Judged) -> str:
    """Which proxies are not ready, why, and what that means; empty where all are, or have only just started."""
    plan = judged.blueprint
    if not plan.proxy.enabled or judged.membership.quorum is not Quorum.HEALTHY:
        return ""
    ready, wanted = len(ready_proxies(judged)), plan.proxy.replicas
    reasons = [reason for pod in proxies(judged) if not is_ready(pod) and (reason := _why(judged, pod))]
    reasons += _why_not_made(judged)
    if not reasons:
        return ""
    means = "" if ready else "; clients are led to the members themselves meanwhile"
    return f"{ready} of {wanted} proxies are ready: {'; '.join(reasons)}{means}"


def _why_not_made(judged: Judged) -> list[str]:
    """What keeps Kubernetes from making pods for proxies, such as a quota, in its own words."""
    deployment = judged.seen.objects.deployments.get(judged.blueprint.names.proxy) or {}
    conditions = deployment.get("status", {}).get("conditions") or []
    return [
        f"pods cannot be made: {each.get('message', '')}"
        for each in conditions
        if each["type"] == "ReplicaFailure" and each["status"] == "True"
    ]


def _why(judged: Judged, pod: Manifest) -> str:
    """Why a proxy is not ready; empty while it only starts."""
    name = pod["metadata"]["name"]
    if trouble := unschedulable(name, pod) or unusable_image(name, pod, "haproxy"):
        return trouble.message
    return f"{name} is not ready" if age(pod, judged.seen.at) > STARTS_WITHIN else ""
