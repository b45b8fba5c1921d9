"""When a certificate has to be issued anew, and why: the reason is what a user will read."""

import ipaddress
from collections.abc import Collection, Iterable
from datetime import datetime, timedelta

from etcd_operator.pki.inspection import CertInfo, signed_by


def needs_renewal(
    info: CertInfo, *, names_wanted: Collection[str], now: datetime, renew_before: timedelta, authority: bytes
) -> str | None:
    """Why the certificate must be replaced, or None when it serves.

    names_wanted: DNS names and IP addresses together; a name that is no longer wanted is a reason as well.
    renew_before: how long before its end; at most half its life, so that no certificate is due when it is new.
    authority: the certificate (PEM) of the authority that signs now; the signature is verified.
    """
    if now >= info.not_after:
        return f"expired at {info.not_after:%Y-%m-%d %H:%M} UTC"
    if now >= info.not_after - min(renew_before, (info.not_after - info.not_before) / 2):
        return f"expires at {info.not_after:%Y-%m-%d %H:%M} UTC"
    if now < info.not_before:
        return f"not valid before {info.not_before:%Y-%m-%d %H:%M} UTC"
    if not signed_by(info.pem, authority):
        return "signed by another authority"
    has, wanted = _normal(info.names), _normal(names_wanted)
    if missing := sorted(wanted - has):
        return f"does not name {', '.join(missing)}"
    if surplus := sorted(has - wanted):
        return f"still names {', '.join(surplus)}"
    return None


def _normal(names: Iterable[str]) -> frozenset[str]:
    """Names as they compare: addresses in their one canonical form, DNS names without regard to case."""
    return frozenset(_address(name) or name.lower() for name in names)


def _address(name: str) -> str | None:
    try:
        return str(ipaddress.ip_address(name))
    except ValueError:
        return None
