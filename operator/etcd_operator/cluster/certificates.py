"""Which certificates are due, and why.

Pure. An authority is made once and replaced only by a rotation (`rotation_rules`): a lost key is first restored from
what was remembered, and a key that is truly lost leaves the certificates in place that it signed, as members that trust
the old authority would refuse those of a new one.
"""

from datetime import datetime, timedelta
from functools import lru_cache

from etcd_operator.cluster.authority import HeldAuthority, Phase, authority_problem, held
from etcd_operator.cluster.observation import Observation
from etcd_operator.cluster.provided import provided, secret_of
from etcd_operator.cluster.records import annotations, timestamp
from etcd_operator.cluster.steps import Apply, IssueAuthority, IssueLeaf, Step
from etcd_operator.pki import PKIError, inspect, key_matches, needs_renewal, signed_by, split_bundle
from etcd_operator.resources.blueprint import Blueprint
from etcd_operator.resources.compare import is_satisfied
from etcd_operator.resources.names import ISSUED_AT, PROVIDED_BY, ROTATE_CLIENT, ROTATE_PEER, Manifest
from etcd_operator.resources.secrets import (
    LeafRequest,
    Side,
    authority_name,
    client_endpoints,
    client_leaf,
    content,
    peer_leaf,
    rotate_annotation,
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
        elif (own := provided(seen, side)) and _is_trusted(own.cert_pem, _trusted(seen, plan, side)):
            steps.append(provided_step(seen, plan, HeldAuthority(side=side, signer=own)))
        elif not _trusted(seen, plan, side) and not secret_of(seen, side):
            steps.append(
                IssueAuthority(
                    blueprint=plan,
                    side=side,
                    rotation=rotation_asked_for(seen, side),
                    reason=f"the {side} authority is needed",
                )
            )
    return tuple(steps)


def provided_step(seen: Observation, plan: Blueprint, then: HeldAuthority) -> Apply:
    """The step that makes the user's authority one of the cluster's, alone or beside the one that signs."""
    name, source = authority_name(plan, then.side), secret_of(seen, then.side)
    marks = {PROVIDED_BY: source}
    if asked := rotation_asked_for(seen, then.side):
        marks[rotate_annotation(then.side)] = asked
    manifest = secret(plan, name, then.data, issued_at=timestamp(seen.at), rotation=marks)
    absent = name not in seen.objects.secrets
    return Apply(manifest=manifest, absent=absent, reason=f"the {then.side} authority is that of Secret {source}")


def _usable(seen: Observation, plan: Blueprint, side: Side) -> bool:
    """Whether the authority's Secret holds one that can sign, and the one that is trusted already, if any is."""
    data = content(seen.objects.secrets.get(authority_name(plan, side)))
    trusted = _trusted(seen, plan, side)
    return not authority_problem(data) and _is_trusted(data["tls.crt"], trusted)


def _is_trusted(certificate: bytes, trusted: bytes) -> bool:
    """Whether it is among those that are trusted, or none is."""
    return not trusted or certificate in _each(trusted)


@lru_cache(maxsize=4096)
def _each(certificates: bytes) -> tuple[bytes, ...]:
    try:
        return split_bundle(certificates)
    except PKIError:
        return ()


def rotation_asked_for(seen: Observation, side: Side) -> str:
    """The value of the user's annotation that asks for a rotation; empty for none."""
    return seen.cluster.metadata.annotations.get(rotate_annotation(side), "")


def authority(seen: Observation, plan: Blueprint, side: Side) -> HeldAuthority | None:
    """The authority that signs certificates of that side now; `None` while none can."""
    if not _usable(seen, plan, side):
        return None
    return held(side, content(seen.objects.secrets.get(authority_name(plan, side))))


def _remembered(seen: Observation, plan: Blueprint, side: Side) -> Manifest | None:
    """The authority from before it was deleted or changed, if it is the one that is trusted."""
    remembered = seen.remembered.get(authority_name(plan, side))
    trusted = _trusted(seen, plan, side)
    if remembered is None or not _is_trusted(content(remembered)["tls.crt"], trusted):
        return None
    return remembered


def _trusted(seen: Observation, plan: Blueprint, side: Side) -> bytes:
    """The authorities that members and clients of that side trust now, by their own Secret; empty for none."""
    if not plan.bootstrapped:
        return b""
    for request in _requests(plan, side):
        data = content(seen.objects.secrets.get(request.secret))
        trusted = data.get("ca.crt", b"")
        if trusted and not _pair_problem(data.get("tls.crt", b""), data.get("tls.key", b""), trusted):
            return trusted
    return b""


def _restored(plan: Blueprint, name: str, remembered: Manifest) -> Apply:
    manifest = restated(plan, name, remembered)
    return Apply(
        manifest=manifest, absent=True, reason=f"Secret {name} was deleted or changed; its content was remembered"
    )


def restated(plan: Blueprint, name: str, live: Manifest) -> Manifest:
    """A Secret of the cluster as it should be, with the content that it has."""
    found = annotations(live)
    rotation = {key: found[key] for key in (ROTATE_PEER, ROTATE_CLIENT, PROVIDED_BY) if key in found}
    return secret(plan, name, content(live), issued_at=found.get(ISSUED_AT, ""), rotation=rotation)


def _requests(plan: Blueprint, side: Side) -> list[LeafRequest]:
    return [peer_leaf(plan)] if side == "peer" else [server_leaf(plan)]


def access_due(seen: Observation, plan: Blueprint) -> tuple[Step, ...]:
    """The step for the Secret that applications mount: certificate and address, or the address alone without TLS."""
    extra = {"endpoints": client_endpoints(plan).encode()}
    if plan.client_tls:
        return leaf_due(seen, plan, client_leaf(plan), extra)
    manifest, live = secret(plan, plan.names.client_access, extra, issued_at=""), seen.objects.secrets
    if is_satisfied(manifest, live.get(plan.names.client_access)):
        return ()
    absent = plan.names.client_access not in live
    return (Apply(manifest=manifest, absent=absent, reason=f"Secret {plan.names.client_access} tells the address"),)


def _leaves_due(seen: Observation, plan: Blueprint) -> tuple[Step, ...]:
    requests = [request for side in wanted_authorities(plan) for request in _requests(plan, side)]
    return tuple(step for request in requests for step in leaf_due(seen, plan, request, {}))


def leaf_due(seen: Observation, plan: Blueprint, request: LeafRequest, extra: dict[str, bytes]) -> tuple[Step, ...]:
    """The step for a certificate that is missing, wrong or old, or for what stands beside it in its Secret."""
    signer = authority(seen, plan, request.side)
    if signer is None:
        return ()
    live = seen.objects.secrets.get(request.secret)
    beside = {"ca.crt": signer.trusted, **extra}
    if reason := _why_due(plan, request, live, signer, seen.at):
        return (IssueLeaf(blueprint=plan, request=request, authority=signer.signer, beside=beside, reason=reason),)
    data = content(live)
    if all(data.get(key) == value for key, value in beside.items()):
        return ()
    manifest = secret(plan, request.secret, {**data, **beside}, issued_at=timestamp(seen.at))
    reason = f"Secret {request.secret} does not hold what it should"
    if signer.phase is Phase.TRUST:
        reason = f"Secret {request.secret} is to tell of the new {request.side} authority too"
    elif signer.phase is Phase.DROP:
        reason = f"Secret {request.secret} is to tell of the old {request.side} authority no more"
    return (Apply(manifest=manifest, absent=False, reason=reason),)


def _why_due(plan: Blueprint, request: LeafRequest, live: Manifest | None, signer: HeldAuthority, now: datetime) -> str:
    """Why the certificate is to be issued; empty when the one in the Secret serves."""
    if live is None:
        return f"Secret {request.secret} is needed"
    data = content(live)
    if problem := _pair_problem(data.get("tls.crt", b""), data.get("tls.key", b""), signer.signer.cert_pem):
        if signer.previous and not _pair_problem(data["tls.crt"], data["tls.key"], signer.previous):
            return f"Secret {request.secret} is to hold a certificate of the new {request.side} authority"
        return f"Secret {request.secret}: {problem}"
    renewal = needs_renewal(
        inspect(data["tls.crt"]),
        names_wanted={*request.dns_names, *request.ip_addresses},
        now=now,
        renew_before=timedelta(seconds=plan.spec.tls.renew_before.total_seconds()),
        authority=signer.signer.cert_pem,
    )
    return f"the certificate in Secret {request.secret} {renewal}" if renewal else ""


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
        wanted = restated(plan, name, live)
        if not is_satisfied(wanted, live):
            steps.append(Apply(manifest=wanted, absent=False, reason=f"Secret {name} lost its labels or owner"))
    return tuple(steps)
