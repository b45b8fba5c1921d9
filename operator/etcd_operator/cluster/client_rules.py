"""Giving the clients of the spec their Secrets, and taking them back.

Pure. Late in the order of rules: nothing of the etcd itself ever waits for a client. An EtcdCluster with copies in
other namespaces has a finalizer, which is there before the first copy and stays until none is left.
"""

from collections.abc import Iterable

from etcd_operator.cluster.certificates import leaf_due, restated
from etcd_operator.cluster.clients import client_names, is_held, is_ours, stray_spots, wanted_spots
from etcd_operator.cluster.judged import Judged
from etcd_operator.cluster.observation import Spot
from etcd_operator.cluster.records import is_terminating, owner_uids
from etcd_operator.cluster.steps import Apply, ClientStep, Delete, Deliver, Plan, SetFinalizers, Step, TakeBack
from etcd_operator.resources.compare import is_satisfied
from etcd_operator.resources.names import CLIENTS_ELSEWHERE
from etcd_operator.resources.secrets import client_copy, client_endpoints, content, named_client_leaf

#: What a copy has of the Secret that it is a copy of.
KEYS = ("ca.crt", "tls.crt", "tls.key", "endpoints")


def keep_client_secrets(judged: Judged) -> Plan | None:
    """Issue and renew each client's certificate in the cluster's own namespace; take away whose client is gone."""
    seen, plan = judged.seen, judged.blueprint
    if not plan.bootstrapped or plan.names.client_access not in seen.objects.secrets:
        return None
    clients = client_names(judged)
    steps = [step for client in clients for step in _secret_due(judged, client)]
    for name, live in seen.objects.secrets.items():
        client = plan.names.client_of_secret(name)
        owned = plan.uid in owner_uids(live) and not is_terminating(live)
        if client is not None and client not in clients and owned:
            steps.append(Delete.of("Secret", live, f"spec.clients does not name {client} any more"))
    return Plan(steps=tuple(steps)) if steps else None


def _secret_due(judged: Judged, client: str) -> Iterable[Step]:
    seen, plan = judged.seen, judged.blueprint
    request = named_client_leaf(plan, client)
    live = seen.objects.secrets.get(request.secret)
    if request.secret in seen.elsewhere.taken:
        return ()
    if steps := leaf_due(seen, plan, request, {"endpoints": client_endpoints(plan).encode()}):
        return steps
    if live is None or is_satisfied(wanted := restated(plan, request.secret, live), live):
        return ()
    return (Apply(manifest=wanted, absent=False, reason=f"Secret {request.secret} lost its labels or owner"),)


def hold_for_copies(judged: Judged) -> Plan | None:
    """Have the EtcdCluster wait for its copies when it is deleted, before there is the first one."""
    if is_held(judged.seen) or not judged.blueprint.bootstrapped or not wanted_spots(judged):
        return None
    finalizers = (*judged.seen.cluster.metadata.finalizers, CLIENTS_ELSEWHERE)
    return _finalizers(judged, finalizers, "clients in other namespaces are to get Secrets")


def deliver_copies(judged: Judged) -> Plan | None:
    """Write the copies that are missing or differ from the Secrets that they are copies of, and take back the rest."""
    seen, plan = judged.seen, judged.blueprint
    if not plan.bootstrapped or not is_held(seen):
        return None
    steps: list[ClientStep] = []
    for spot, client in wanted_spots(judged).items():
        data, live = (
            content(seen.objects.secrets.get(plan.names.client_secret(client))),
            seen.elsewhere.copies.get(spot),
        )
        if not set(KEYS) <= data.keys() or _is_out_of_bounds(judged, spot):
            continue
        copy = client_copy(plan, client, spot[0], {key: data[key] for key in KEYS})
        if not is_satisfied(copy, live):
            reason = f"client {client} is to have Secret {spot[1]} in namespace {spot[0]}"
            steps.append(Deliver(manifest=copy, uid=live["metadata"]["uid"] if live else "", reason=reason))
    for spot, reason in stray_spots(judged).items():
        if not _is_out_of_bounds(judged, spot):
            uid = seen.elsewhere.copies[spot]["metadata"]["uid"]
            steps.append(TakeBack(spot=spot, uid=uid, reason=reason))
    return Plan(steps=tuple(steps)) if steps else None


def _is_out_of_bounds(judged: Judged, spot: Spot) -> bool:
    """Whether nothing may be done there now: a stranger's Secret is there, one that goes, or it was just refused."""
    seen, live = judged.seen, judged.seen.elsewhere.copies.get(spot)
    if live is not None and (not is_ours(seen, live) or is_terminating(live)):
        return True
    refusal = seen.elsewhere.refusals.get(spot)
    return refusal is not None and seen.at < refusal.again_at


def let_go_without_copies(judged: Judged) -> Plan | None:
    """Hold the EtcdCluster no longer once it is known that nothing of it is elsewhere, nor is to be."""
    seen = judged.seen
    copies = [live for live in seen.elsewhere.copies.values() if is_ours(seen, live)]
    if not is_held(seen) or copies or seen.elsewhere.unlisted or wanted_spots(judged):
        return None
    finalizers = tuple(each for each in seen.cluster.metadata.finalizers if each != CLIENTS_ELSEWHERE)
    return _finalizers(judged, finalizers, "no client in another namespace has a Secret any more")


def _finalizers(judged: Judged, finalizers: tuple[str, ...], reason: str) -> Plan:
    metadata = judged.seen.cluster.metadata
    step = SetFinalizers(
        uid=metadata.uid, finalizers=finalizers, resource_version=metadata.resource_version, reason=reason
    )
    return Plan(steps=(step,))
