"""Replacing an authority by another one under running members and clients.

Pure. etcd reads the authorities that it trusts only when it starts, but its certificate at every handshake. So a
rotation is two restarts in order with new certificates between them, and each of its phases is one write of the
authority's Secret (`authority`); what follows from that (bundles, certificates, restarts) is other rules' work. The
next phase begins when the members themselves have shown in handshakes that the one before has arrived: they accept
the new authority, or show a certificate of it. Clients cannot be asked; they are given time.
"""

from datetime import datetime, timedelta

from etcd_operator.cluster import certificates
from etcd_operator.cluster.authority import HeldAuthority, Phase
from etcd_operator.cluster.clients import client_names
from etcd_operator.cluster.judged import Judged
from etcd_operator.cluster.members import SeenMember
from etcd_operator.cluster.membership_rules import change_of_membership
from etcd_operator.cluster.provided import provided, secret_of
from etcd_operator.cluster.records import annotations
from etcd_operator.cluster.restart_rules import members_to_restart
from etcd_operator.cluster.steps import Apply, IssueAuthority, Plan
from etcd_operator.cluster.trouble import is_ready
from etcd_operator.etcd.model import Handshake
from etcd_operator.pki import PKIError, inspect, signed_by
from etcd_operator.resources import names as n
from etcd_operator.resources.secrets import Side, authority_name, content, rotate_annotation, secret, wanted_authorities

#: In which order authorities are rotated that are both due.
ORDER: tuple[Side, ...] = ("client", "peer")
PHASES = {
    Phase.TRUST: "all members trust the new one: certificates are issued by it from now on",
    Phase.REISSUE: "no member shows a certificate of the old one any more: it is trusted no more",
    Phase.DROP: "all members have forgotten the old one: the rotation is complete",
}


def rotate_authorities(judged: Judged) -> Plan | None:
    """The next phase of the rotation that is under way, or the first one of one that is due."""
    seen, plan = judged.seen, judged.blueprint
    if not plan.bootstrapped:
        return None
    rotating = judged.rotating
    if rotating is None:
        return _begin(judged)
    if waits_for(judged, rotating):
        return None
    name = authority_name(plan, rotating.side)
    found = annotations(seen.objects.secrets.get(name))
    rotation = {key: found[key] for key in (rotate_annotation(rotating.side), n.PROVIDED_BY) if key in found}
    issued_at = seen.at.isoformat(timespec="seconds")
    manifest = secret(plan, name, rotating.advanced().data, issued_at=issued_at, rotation=rotation)
    reason = f"the {rotating.side} authority is rotated: {PHASES[rotating.phase]}"
    return Plan(steps=(Apply(manifest=manifest, absent=False, reason=reason),))


def _begin(judged: Judged) -> Plan | None:
    if unsettled(judged):
        return None
    for side in ORDER:
        current = certificates.authority(judged.seen, judged.blueprint, side)
        reason = due(judged, side)
        if current is None or not reason:
            continue
        if own := provided(judged.seen, side):
            return Plan(steps=(certificates.provided_step(judged.seen, judged.blueprint, current.beside(own)),))
        step = IssueAuthority(
            blueprint=judged.blueprint,
            side=side,
            beside=current,
            rotation=_begun(judged, side) if not _asked(judged, side) else _asked(judged, side),
            reason=f"the {side} authority is rotated: {reason}; all members restart to trust a new one beside it",
        )
        return Plan(steps=(step,))
    return None


def due(judged: Judged, side: Side) -> str:
    """Why the authority of that side is to be replaced; empty when it is not."""
    current = certificates.authority(judged.seen, judged.blueprint, side)
    if current is None or side not in wanted_authorities(judged.blueprint) or not judged.blueprint.bootstrapped:
        return ""
    live = judged.seen.objects.secrets.get(authority_name(judged.blueprint, side))
    if source := secret_of(judged.seen, side):
        own = provided(judged.seen, side)
        return f"Secret {source} has another one" if own and own.cert_pem != current.signer.cert_pem else ""
    if former := annotations(live).get(n.PROVIDED_BY):
        return f"the one of Secret {former} is no longer asked for"
    if _asked(judged, side):
        return "a rotation was asked for"
    info, wanted = inspect(current.signer.cert_pem), judged.blueprint.spec.tls.authority_renew_before
    before = min(timedelta(seconds=wanted.total_seconds()), (info.not_after - info.not_before) / 2)
    return f"it expires at {info.not_after:%Y-%m-%d %H:%M} UTC" if judged.seen.at >= info.not_after - before else ""


def _asked(judged: Judged, side: Side) -> str:
    """The request for a rotation that has not been begun; empty for none."""
    asked = certificates.rotation_asked_for(judged.seen, side)
    return asked if asked != _begun(judged, side) else ""


def _begun(judged: Judged, side: Side) -> str:
    live = judged.seen.objects.secrets.get(authority_name(judged.blueprint, side))
    return annotations(live).get(rotate_annotation(side), "")


def unsettled(judged: Judged) -> str:
    """What has to come to its end before a rotation goes on; empty when nothing does."""
    if told := change_of_membership(judged):
        return told
    if waiting := members_to_restart(judged):
        return f"{waiting[0].name} is to restart"
    if judged.blueprint.target_revision not in ("", judged.blueprint.revision):
        return "the members restart for a change of the spec"
    if not judged.membership.confirmed:
        return "no quorum answers"
    for member in judged.membership.members:
        if not member.healthy:
            return f"{member.name}: {member.trouble.message if member.trouble else member.why}"
        if member.pod is None or not is_ready(member.pod):
            return f"{member.name} is not ready yet"
    return ""


def waits_for(judged: Judged, rotating: HeldAuthority) -> str:
    """What the next phase waits for; empty when it may begin."""
    if told := unsettled(judged):
        return told
    if rotating.phase is Phase.DROP:
        return ""
    if not _is_issued(judged, rotating):
        return "the Secrets are being written"
    arrived = [member for member in judged.membership.members if _has_arrived(judged, rotating, member)]
    members = judged.membership.members
    if len(arrived) < len(members):
        what = "trust it" if rotating.phase is Phase.TRUST else "show a certificate of it"
        late = ", ".join(member.name for member in members if member not in arrived)
        return f"{len(arrived)} of {len(members)} members {what}, not yet {late}"
    if rotating.side == "client" and judged.seen.api_servers_behind:
        return f"API servers restart to trust it: ApiServerBinding {', '.join(judged.seen.api_servers_behind)}"
    until = _clients_have_until(judged, rotating.side)
    if until and judged.seen.at < until:
        secret_name = judged.blueprint.names.client_access
        return (
            f"clients have until {until:%H:%M:%S} UTC to take up Secret {secret_name} (spec.tls.client.rotationGrace)"
        )
    return ""


def _is_issued(judged: Judged, rotating: HeldAuthority) -> bool:
    """Whether all Secrets of that side tell of the authorities of this phase, and hold certificates that it signed."""
    for live in _leaf_secrets(judged, rotating.side):
        data = content(live)
        if data.get("ca.crt") != rotating.trusted or not _signed(data.get("tls.crt", b""), rotating.signer.cert_pem):
            return False
    return True


def _leaf_secrets(judged: Judged, side: Side) -> list[n.Manifest | None]:
    names, secrets = judged.blueprint.names, judged.seen.objects.secrets
    wanted = [names.peer_certificate] if side == "peer" else [names.server_certificate, names.client_access]
    clients = [] if side == "peer" else map(names.client_secret, client_names(judged))
    return [*(secrets.get(name) for name in wanted), *(secrets[name] for name in clients if name in secrets)]


def _has_arrived(judged: Judged, rotating: HeldAuthority, member: SeenMember) -> bool:
    """Whether the member took the newest authority's word for the operator, and shows what it should in this phase."""
    seen = _handshake(judged, rotating.side, member)
    if seen is None or not seen.accepted:
        return False
    by = rotating.trusted if rotating.phase is Phase.TRUST else rotating.signer.cert_pem
    return _signed(seen.certificate, by)


def _handshake(judged: Judged, side: Side, member: SeenMember) -> Handshake | None:
    return judged.seen.handshakes.get((side, member.name))


def _signed(certificate: bytes, authorities: bytes) -> bool:
    try:
        return signed_by(certificate, authorities)
    except PKIError:
        return False


def _clients_have_until(judged: Judged, side: Side) -> datetime | None:
    """Until when clients may still read the Secret as it was; `None` where no client knows of that authority."""
    if side == "peer":
        return None
    written = [_issued_at(judged, each) for each in _leaf_secrets(judged, side)[1:]]
    grace = judged.blueprint.spec.tls.client.rotation_grace
    return max(written) + timedelta(seconds=grace.total_seconds())


def _issued_at(judged: Judged, secret: n.Manifest | None) -> datetime:
    """When it was written; now, where somebody spoiled the note of it: nobody is to lose the time to take it up."""
    try:
        written = datetime.fromisoformat(annotations(secret or {}).get(n.ISSUED_AT, ""))
    except ValueError:
        return judged.seen.at
    return written if written.tzinfo else judged.seen.at


def rotation_under_way(judged: Judged) -> str:
    """How far a rotation is, or what keeps one from beginning, in a sentence; empty when none is due."""
    if not judged.blueprint.bootstrapped:
        return ""
    if rotating := judged.rotating:
        doing = {
            Phase.TRUST: "a new one is to be trusted",
            Phase.REISSUE: "certificates are issued by the new one",
            Phase.DROP: "the old one is dropped",
        }[rotating.phase]
        waits = waits_for(judged, rotating)
        return f"Rotating the {rotating.side} authority: {doing}" + (f"; {waits}" if waits else "")
    for side in ORDER:
        if reason := due(judged, side):
            return f"The {side} authority is to be rotated, as {reason}; it waits: {unsettled(judged) or 'its turn'}"
    return ""


def wait_for_rotation(judged: Judged) -> Plan | None:
    told = rotation_under_way(judged)
    return Plan(waiting=told) if told else None


def expiry(judged: Judged) -> str:
    """What expires soon although it should long have been replaced, and what happens then; empty for nothing.

    Soon: less than half of the time is left that there was for replacing it.
    """
    seen, plan = judged.seen, judged.blueprint
    if not plan.bootstrapped:
        return ""
    tls = plan.spec.tls
    told = []
    for side in wanted_authorities(plan):
        own = certificates.authority(seen, plan, side)
        told += (
            [_late(own.signer.cert_pem, seen.at, tls.authority_renew_before.total_seconds(), f"the {side} authority")]
            if own
            else []
        )
        for live in _leaf_secrets(judged, side):
            certificate = content(live).get("tls.crt", b"")
            name = (live or {}).get("metadata", {}).get("name", "")
            told.append(
                _late(certificate, seen.at, tls.renew_before.total_seconds(), f"the certificate in Secret {name}")
            )
    late = next(filter(None, told), "")
    if not late:
        return ""
    waits = rotation_under_way(judged)
    return f"{late}; then members and clients refuse each other" + (f". {waits}" if waits else "")


def _late(certificate: bytes, now: datetime, renew_before: float, what: str) -> str:
    try:
        info = inspect(certificate)
    except PKIError:
        return ""
    before = min(timedelta(seconds=renew_before), (info.not_after - info.not_before) / 2)
    if now < info.not_after - before / 2:
        return ""
    did = "expired" if now >= info.not_after else "expires"
    return f"{what} {did} at {info.not_after:%Y-%m-%d %H:%M} UTC"
