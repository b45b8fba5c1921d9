"""Which certificates are due, and why.

Pure. An authority is made once and never replaced here: a lost key is first restored from what was remembered,
and a key that is truly lost leaves the certificates in place that it signed, as members that trust the old
authority would refuse those of a new one.
"""

from collections.abc import Mapping
from datetime import datetime, timedelta
from functools import lru_cache

from etcd_operator.cluster.observation import Observation
from etcd_operator.cluster.records import annotations
from etcd_operator.cluster.steps import Apply, IssueAuthority, IssueLeaf, Step
from etcd_operator.pki import PKIError, inspect, key_matches, needs_renewal, signed_by
from etcd_operator.resources.blueprint import Blueprint
from etcd_operator.resources.compare import is_satisfied
from etcd_operator.resources.names import ISSUED_AT, Manifest
from etcd_operator.resources.secrets import (
    LeafRequest,
    Side,
    authority_name,
    client_endpoints,
    client_leaf,
    content,
    peer_leaf,
    secret,
    server_leaf,
    wanted_authorities,
)


def due(seen: Observation, plan: Blueprint) -> tuple[Step, ...]:
    """Steps for the authorities that are missing, else for the certificates that are missing, wrong or old."""
    if authorities := _authorities_due(seen, plan):
        return authorities
    return _leaves_due(seen, plan)


def lost_authorities(seen: Observation, plan: Blueprint) -> tuple[str, ...]:
    """Authorities that are gone, broken or replaced while certificates of the old one are in use.

    Only a rotation mends that: a new authority at once would cut off whoever trusts the old one.
    """
    return tuple(
        authority_name(plan, side)
        for side in wanted_authorities(plan)
        if _trusted(seen, plan, side) and not _usable(seen, plan, side) and _remembered(seen, plan, side) is None
    )


def _authorities_due(seen: Observation, plan: Blueprint) -> tuple[Step, ...]:
    steps: list[Step] = []
    for side in wanted_authorities(plan):
        if _usable(seen, plan, side):
            continue
        if remembered := _remembered(seen, plan, side):
            steps.append(_restored(plan, authority_name(plan, side), remembered))
        elif not _trusted(seen, plan, side):
            steps.append(IssueAuthority(blueprint=plan, side=side, reason=f"the {side} authority is needed"))
    return tuple(steps)


def _usable(seen: Observation, plan: Blueprint, side: Side) -> bool:
    """Whether the authority's Secret holds one that can sign, and the one that is trusted already, if any is."""
    data = content(seen.objects.secrets.get(authority_name(plan, side)))
    trusted = _trusted(seen, plan, side)
    return not authority_problem(data) and (not trusted or data["tls.crt"] == trusted)


def _remembered(seen: Observation, plan: Blueprint, side: Side) -> Manifest | None:
    """The authority from before it was deleted or changed, if it is the one that is trusted."""
    remembered = seen.remembered.get(authority_name(plan, side))
    trusted = _trusted(seen, plan, side)
    if remembered is None or (trusted and content(remembered)["tls.crt"] != trusted):
        return None
    return remembered


def _trusted(seen: Observation, plan: Blueprint, side: Side) -> bytes:
    """The authority that members and clients of that side trust now, by their own Secret; empty where none do."""
    if not plan.bootstrapped:
        return b""
    for request in _requests(plan, side):
        data = content(seen.objects.secrets.get(request.secret))
        authority = data.get("ca.crt", b"")
        if authority and not _pair_problem(data.get("tls.crt", b""), data.get("tls.key", b""), authority):
            return authority
    return b""


def _restored(plan: Blueprint, name: str, remembered: Manifest) -> Apply:
    issued_at = annotations(remembered).get(ISSUED_AT, "")
    manifest = secret(plan, name, content(remembered), issued_at=issued_at)
    return Apply(
        manifest=manifest, absent=True, reason=f"Secret {name} was deleted or changed; its content was remembered"
    )


def _requests(plan: Blueprint, side: Side) -> list[LeafRequest]:
    return [peer_leaf(plan)] if side == "peer" else [server_leaf(plan)]


def access_due(seen: Observation, plan: Blueprint) -> tuple[Step, ...]:
    """The step for the Secret that applications mount: certificate and address, or the address alone without TLS."""
    extra = {"endpoints": client_endpoints(plan).encode()}
    if plan.client_tls:
        return _leaf_due(seen, plan, client_leaf(plan), extra)
    manifest, live = secret(plan, plan.names.client_access, extra, issued_at=""), seen.objects.secrets
    if is_satisfied(manifest, live.get(plan.names.client_access)):
        return ()
    absent = plan.names.client_access not in live
    return (Apply(manifest=manifest, absent=absent, reason=f"Secret {plan.names.client_access} tells the address"),)


def _leaves_due(seen: Observation, plan: Blueprint) -> tuple[Step, ...]:
    requests = [request for side in wanted_authorities(plan) for request in _requests(plan, side)]
    return tuple(step for request in requests for step in _leaf_due(seen, plan, request, {}))


def _leaf_due(seen: Observation, plan: Blueprint, request: LeafRequest, extra: dict[str, bytes]) -> tuple[Step, ...]:
    authority = seen.objects.secrets.get(authority_name(plan, request.side))
    if authority is None or not _usable(seen, plan, request.side):
        return ()
    reason = _why_due(plan, request, seen.objects.secrets.get(request.secret), authority, extra, seen.at)
    if not reason:
        return ()
    return (IssueLeaf(blueprint=plan, request=request, authority=authority, extra=extra, reason=reason),)


def _why_due(
    plan: Blueprint,
    request: LeafRequest,
    live: Manifest | None,
    authority: Manifest,
    extra: dict[str, bytes],
    now: datetime,
) -> str:
    """Why the certificate is to be issued; empty when the one in the Secret serves."""
    if live is None:
        return f"Secret {request.secret} is needed"
    data, signer = content(live), content(authority)["tls.crt"]
    if data.get("ca.crt") != signer or any(data.get(key) != value for key, value in extra.items()):
        return f"Secret {request.secret} does not hold what it should"
    if problem := _pair_problem(data.get("tls.crt", b""), data.get("tls.key", b""), signer):
        return f"Secret {request.secret}: {problem}"
    renewal = needs_renewal(
        inspect(data["tls.crt"]),
        names_wanted={*request.dns_names, *request.ip_addresses},
        now=now,
        renew_before=timedelta(seconds=plan.spec.tls.renew_before.total_seconds()),
        authority=signer,
    )
    return f"the certificate in Secret {request.secret} {renewal}" if renewal else ""


def authority_problem(data: Mapping[str, bytes]) -> str:
    """Why the content of a Secret is no authority that can sign; empty when it is one."""
    return _authority_problem(data.get("tls.crt", b""), data.get("tls.key", b""))


@lru_cache(maxsize=4096)
def _authority_problem(cert: bytes, key: bytes) -> str:
    try:
        if not inspect(cert).is_authority:
            return "the certificate is no authority's"
        return "" if key_matches(cert, key) else "the key does not belong to the certificate"
    except PKIError as error:
        return str(error)


@lru_cache(maxsize=4096)
def _pair_problem(cert: bytes, key: bytes, authority: bytes) -> str:
    try:
        if not signed_by(cert, authority):
            return "the certificate is not signed by the authority"
        return "" if key_matches(cert, key) else "the key does not belong to the certificate"
    except PKIError as error:
        return str(error)


def secret_steps(seen: Observation, plan: Blueprint) -> tuple[Step, ...]:
    """Corrections of labels, owners and types of Secrets whose content is right."""
    names = [authority_name(plan, side) for side in wanted_authorities(plan)]
    names += [request.secret for side in wanted_authorities(plan) for request in _requests(plan, side)]
    names += [plan.names.client_access] if plan.client_tls else []
    steps: list[Step] = []
    for name in names:
        live = seen.objects.secrets.get(name)
        if live is None:
            continue
        issued_at = annotations(live).get(ISSUED_AT, "")
        wanted = secret(plan, name, content(live), issued_at=issued_at)
        if not is_satisfied(wanted, live):
            steps.append(Apply(manifest=wanted, absent=False, reason=f"Secret {name} lost its labels or owner"))
    return tuple(steps)
