"""Who of `spec.clients` gets a Secret where, and what keeps somebody from it.

Pure. A client's Secret is in the cluster's own namespace; other namespaces get copies where they agree to it, by a
label that only who owns a namespace can set. What cannot be read is not known: neither is a copy made for it nor taken
back.
"""

from collections.abc import Iterator, Mapping

from etcd_operator.cluster.judged import Judged
from etcd_operator.cluster.observation import Observation, Spot
from etcd_operator.cluster.records import annotations, is_terminating
from etcd_operator.resources.names import (
    ACCEPTS_CLIENTS,
    ACCEPTS_SEPARATOR,
    CLIENT_UID,
    CLIENTS_ELSEWHERE,
    Manifest,
)


def client_names(judged: Judged) -> tuple[str, ...]:
    """The clients that get certificates; none where an etcd was adopted that runs without TLS."""
    return tuple(each.name for each in judged.seen.cluster.spec.clients) if judged.blueprint.client_tls else ()


def named_spots(judged: Judged) -> dict[Spot, str]:
    """Where the spec asks for copies, and of which client's Secret."""
    names, clients = judged.seen.names, client_names(judged)
    return {
        (namespace, names.client_copy(each.name)): each.name
        for each in judged.seen.cluster.spec.clients
        for namespace in each.namespaces
        if each.name in clients and namespace != names.namespace
    }


def wanted_spots(judged: Judged) -> dict[Spot, str]:
    """Where copies are to be: those of the spec whose namespaces are there and agree."""
    spots = named_spots(judged)
    return {spot: client for spot, client in spots.items() if not obstacle(judged.seen, spot[0])}


def is_ours(seen: Observation, live: Manifest) -> bool:
    """Whether a Secret elsewhere is one of this very EtcdCluster's copies."""
    return annotations(live).get(CLIENT_UID) == seen.cluster.metadata.uid


def is_held(seen: Observation) -> bool:
    """Whether the EtcdCluster stays until what it has elsewhere is gone."""
    return CLIENTS_ELSEWHERE in seen.cluster.metadata.finalizers


def stray_spots(judged: Judged) -> dict[Spot, str]:
    """Where copies of this EtcdCluster's are to be taken back, and why."""
    seen, named, wanted = judged.seen, named_spots(judged), wanted_spots(judged)
    strays = {}
    for spot, live in seen.elsewhere.copies.items():
        if not is_ours(seen, live) or is_terminating(live) or spot in wanted:
            continue
        if spot not in named:
            strays[spot] = "spec.clients does not ask for it any more"
        elif _refuses(seen, spot[0]):
            strays[spot] = f"the namespace does not agree any more, as its label {ACCEPTS_CLIENTS} tells"
    return strays


def obstacle(seen: Observation, namespace: str) -> str:
    """Why a namespace that the spec names gets no copies, and what to do; empty where it gets them."""
    if why := seen.elsewhere.unreadable.get(namespace):
        return (
            f"namespace {namespace} is not the operator's to serve ({why}): let it read and write there, or take the "
            "namespace out of spec.clients"
        )
    live = seen.elsewhere.namespaces.get(namespace)
    if live is None:
        return f"namespace {namespace} does not exist: create it, or take it out of spec.clients"
    if is_terminating(live):
        return f"namespace {namespace} is being deleted"
    if _refuses(seen, namespace):
        return (
            f"namespace {namespace} does not agree to get clients' Secrets from here; to agree: {_command(seen, live)}"
        )
    return ""


def _refuses(seen: Observation, namespace: str) -> bool:
    """Whether it is known that a namespace does not agree."""
    live = seen.elsewhere.namespaces.get(namespace)
    if live is None or is_terminating(live) or namespace in seen.elsewhere.unreadable:
        return False
    return not accepts(live, seen.names.namespace)


def accepts(namespace: Manifest | None, own: str) -> bool:
    """Whether a namespace is there and agrees to get Secrets of clients of EtcdClusters in `own`."""
    return namespace is not None and own in _accepted(namespace).split(ACCEPTS_SEPARATOR)


def _accepted(namespace: Manifest) -> str:
    return str((namespace["metadata"].get("labels") or {}).get(ACCEPTS_CLIENTS, ""))


def _command(seen: Observation, live: Manifest) -> str:
    before, name = _accepted(live), live["metadata"]["name"]
    value = ACCEPTS_SEPARATOR.join(filter(None, (before, seen.names.namespace)))
    return f"kubectl label {'--overwrite ' if before else ''}namespace {name} {ACCEPTS_CLIENTS}={value}"


def client_problems(judged: Judged) -> str:
    """What keeps clients from their Secrets, or Secrets from being taken back, and what to do; empty for nothing."""
    return "; ".join(_problems(judged)) if judged.blueprint.bootstrapped else ""


def _problems(judged: Judged) -> Iterator[str]:
    seen, spots = judged.seen, named_spots(judged)
    if seen.cluster.spec.clients and not judged.blueprint.client_tls:
        yield "spec.clients: no certificates are issued, as this etcd runs without TLS for clients"
    for client in client_names(judged):
        if (name := seen.names.client_secret(client)) in seen.elsewhere.taken:
            yield (
                f"Secret {name} exists and does not belong to this EtcdCluster: delete or rename it, or give client "
                f"{client} another name"
            )
    if why := seen.elsewhere.unlisted:
        yield f"Secrets in other namespaces cannot be listed, so that none is taken back there: {why}"
    yield from dict.fromkeys(filter(None, (obstacle(seen, namespace) for namespace, _ in spots)))
    yield from _at_spots(judged, wanted_spots(judged), stray_spots(judged))


def _at_spots(judged: Judged, wanted: Mapping[Spot, str], strays: Mapping[Spot, str]) -> Iterator[str]:
    seen = judged.seen.elsewhere
    for spot in (*wanted, *strays):
        namespace, name = spot
        live, refusal = seen.copies.get(spot), seen.refusals.get(spot)
        if live is not None and not is_ours(judged.seen, live):
            yield f"Secret {name} in namespace {namespace} exists and does not belong to this EtcdCluster: delete it"
        elif refusal:
            does = "written to" if spot in wanted else "removed from"
            yield f"Secret {name} cannot be {does} namespace {namespace}: {refusal.message}"
