"""Making the proxies, keeping them as they should be, and taking them away when they are switched off.

Pure. Late in the order of rules: nothing of the etcd itself ever waits for a proxy.
"""

from collections.abc import Iterator

from etcd_operator.cluster.judged import Judged
from etcd_operator.cluster.object_rules import applies
from etcd_operator.cluster.outside import is_listed
from etcd_operator.cluster.records import is_terminating
from etcd_operator.cluster.steps import Delete, Plan
from etcd_operator.resources.names import Manifest, proxy_selector
from etcd_operator.resources.network_policies import members_policy, proxy_policy
from etcd_operator.resources.proxy import (
    members_service,
    proxy_config_map,
    proxy_deployment,
    proxy_disruption_budget,
    proxy_secret,
)
from etcd_operator.resources.secrets import content
from etcd_operator.resources.services import member_services


def keep_proxy_right(judged: Judged) -> Plan | None:
    """Apply every object of the proxy that is missing or differs; the Deployment after all that its pods use."""
    seen, plan = judged.seen, judged.blueprint
    known = content(seen.objects.secrets.get(plan.names.proxy)).get("password", b"").decode(errors="replace")
    used = (
        *applies(judged, seen.objects.secrets, [proxy_secret(plan, known or seen.fresh_password)]),
        *applies(judged, seen.objects.config_maps, [proxy_config_map(plan)]),
        *applies(judged, seen.objects.services, [members_service(plan)]),
    )
    if used:
        return Plan(steps=used)
    steps = (
        *applies(judged, seen.objects.deployments, [proxy_deployment(plan)]),
        *applies(judged, seen.objects.disruption_budgets, [proxy_disruption_budget(plan)]),
    )
    return Plan(steps=steps) if steps else None


def keep_member_services(judged: Judged) -> Plan | None:
    """A Service for each member that is to be reached from outside, and none for any other.

    One whose port an API server still has in its list stays until it has not: the port would be anybody's, and with it
    that API server's requests. Once the member is gone nobody answers there.
    """
    plan, live = judged.blueprint, judged.seen.objects.services
    wanted = member_services(plan)
    names = {each["metadata"]["name"] for each in wanted}
    stray = (
        Delete.of("Service", each, "no member is to be reached by it any more")
        for name, each in live.items()
        if plan.names.member_of_service(name) and name not in names and _is_own(judged, each)
        if not is_listed(judged.seen, each)
    )
    steps = (*applies(judged, live, wanted), *stray)
    return Plan(steps=steps) if steps else None


def keep_network_policies(judged: Judged) -> Plan | None:
    """Last of all: where the API server takes none, nothing else waits for it."""
    plan = judged.blueprint
    steps = applies(judged, judged.seen.objects.network_policies, [members_policy(plan), proxy_policy(plan)])
    return Plan(steps=tuple(steps)) if steps else None


def remove_proxy(judged: Judged) -> Plan | None:
    """Take away what is not wanted any more, once clients are led past it."""
    plan = judged.blueprint
    live = judged.seen.objects.services.get(plan.names.client_service)
    if not plan.proxy.enabled and (live or {}).get("spec", {}).get("selector") == proxy_selector(plan.names.name):
        return None
    wanted = {
        (each["kind"], each["metadata"]["name"])
        for each in (
            proxy_secret(plan, "?"),
            proxy_config_map(plan),
            members_service(plan),
            proxy_deployment(plan),
            proxy_disruption_budget(plan),
            proxy_policy(plan),
            members_policy(plan),
        )
        if each is not None
    }
    steps = tuple(
        Delete.of(each["kind"], each, "the spec does not ask for it any more")
        for each in _made(judged)
        if (each["kind"], each["metadata"]["name"]) not in wanted
    )
    return Plan(steps=steps) if steps else None


def _made(judged: Judged) -> Iterator[Manifest]:
    """What there is of a proxy of this EtcdCluster, by the names that all of it has."""
    objects, names = judged.seen.objects, judged.blueprint.names
    places = (
        (objects.deployments, names.proxy),
        (objects.disruption_budgets, names.proxy),
        (objects.network_policies, names.proxy),
        (objects.network_policies, names.members_policy),
        (objects.config_maps, names.proxy),
        (objects.secrets, names.proxy),
        (objects.services, names.members_service),
    )
    for kind, name in places:
        found = kind.get(name)
        if found is not None and _is_own(judged, found):
            yield found


def _is_own(judged: Judged, found: Manifest) -> bool:
    """Whether it goes with this very EtcdCluster, and is not going already."""
    owners = found["metadata"].get("ownerReferences") or []
    return any(owner["uid"] == judged.blueprint.uid for owner in owners) and not is_terminating(found)
