"""An authority as its Secret has it: who signs, who is trusted beside, and how far a rotation is.

Pure. etcd reads the authorities that it trusts only when it starts, so one is replaced in phases, each of them one
write of this Secret, and nothing but the Secret says which it is:

`next.crt`, `next.key`: the new one is trusted beside the one that signs, once all members have restarted.
`previous.crt`: the new one signs, and the one before is still trusted, until no member shows a certificate of it.
`dropped.crt`: it is trusted no more, once all members have restarted.
"""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import Enum
from functools import lru_cache
from typing import Self

from etcd_operator.pki import Authority, PKIError, bundle, inspect, key_matches, split_bundle
from etcd_operator.resources.blueprint import Blueprint
from etcd_operator.resources.names import CLIENT_AUTHORITY, PEER_AUTHORITY, Manifest
from etcd_operator.resources.secrets import Side


class Phase(Enum):
    """How far a rotation is."""

    REST = "rest"
    TRUST = "trust"
    REISSUE = "reissue"
    DROP = "drop"


@dataclass(frozen=True, kw_only=True, slots=True)
class HeldAuthority:
    """The authority of one side. `previous` and `dropped` are certificates (PEM), empty where there is none."""

    side: Side
    signer: Authority
    next: Authority | None = None
    previous: bytes = b""
    dropped: bytes = b""

    @property
    def phase(self) -> Phase:
        if self.next is not None:
            return Phase.TRUST
        if self.previous:
            return Phase.REISSUE
        return Phase.DROP if self.dropped else Phase.REST

    @property
    def newest(self) -> Authority:
        """Who signs when the rotation is over."""
        return self.next or self.signer

    @property
    def trusted(self) -> bytes:
        """All that members and clients are to trust now, the older one first: the same text before and after the new
        one begins to sign."""
        return _bundle(self.previous, self.signer.cert_pem, self.next.cert_pem if self.next else b"")

    @property
    def data(self) -> dict[str, bytes]:
        """The content of the Secret."""
        following = {"next.crt": self.next.cert_pem, "next.key": self.next.key_pem} if self.next else {}
        former = {"previous.crt": self.previous, "dropped.crt": self.dropped}
        signer = {"tls.crt": self.signer.cert_pem, "tls.key": self.signer.key_pem}
        return signer | following | {key: value for key, value in former.items() if value}

    def beside(self, following: Authority) -> Self:
        """Phase one: another one is to be trusted beside the one that signs."""
        return type(self)(side=self.side, signer=self.signer, next=following)

    def advanced(self) -> Self:
        """The next phase of the rotation that is under way."""
        if self.next is not None:
            return type(self)(side=self.side, signer=self.next, previous=self.signer.cert_pem)
        return type(self)(side=self.side, signer=self.signer, dropped=self.previous)


def held(side: Side, data: Mapping[str, bytes]) -> HeldAuthority | None:
    """The authority in a Secret; `None` where what signs cannot."""
    if authority_problem(data):
        return None
    following = Authority(cert_pem=data.get("next.crt", b""), key_pem=data.get("next.key", b""))
    return HeldAuthority(
        side=side,
        signer=Authority(cert_pem=data["tls.crt"], key_pem=data["tls.key"]),
        next=None if pair_problem(following.cert_pem, following.key_pem) else following,
        previous=_readable(data.get("previous.crt", b"")),
        dropped=_readable(data.get("dropped.crt", b"")),
    )


def authority_problem(data: Mapping[str, bytes]) -> str:
    """Why the content of a Secret is no authority that can sign; empty when it is one."""
    return pair_problem(data.get("tls.crt", b""), data.get("tls.key", b""))


@lru_cache(maxsize=4096)
def pair_problem(cert: bytes, key: bytes) -> str:
    """Why certificate and key are no authority; empty when they are."""
    try:
        if not inspect(cert).is_authority:
            return "the certificate is no authority's"
        return "" if key_matches(cert, key) else "the key does not belong to the certificate"
    except PKIError as error:
        return str(error)


def is_successor(before: Mapping[str, bytes], after: Mapping[str, bytes]) -> bool:
    """Whether a Secret's content can have come of the one before by a step of a rotation, and not by a stray hand."""
    return after.get("tls.crt") in (before.get("tls.crt"), before.get("next.crt", b"-"))


def trust_digest(certificates: bytes) -> str:
    """Short names of all certificates of a bundle, for an annotation; empty for none."""
    return _digest(certificates) if certificates else ""


@lru_cache(maxsize=4096)
def _digest(certificates: bytes) -> str:
    try:
        each: Iterable[bytes] = split_bundle(certificates) or (certificates,)
    except PKIError:
        each = (certificates,)
    return ".".join(hashlib.sha256(one).hexdigest()[:16] for one in each)


def sides_to_restart_for(plan: Blueprint, pod: Manifest) -> tuple[Side, ...]:
    """The sides of which the pod's etcd trusts other authorities than one that starts now, though some are the same.

    Where none is the same, or it is not known which it trusts, no restart in order mends that.
    """
    return tuple(side for side, trusts, wanted in _trust(plan, pod) if trusts != wanted and trusts & wanted)


def trusts_strangers(plan: Blueprint, pod: Manifest) -> bool:
    """Whether the pod's etcd trusts no authority of a side that one that starts now would."""
    return any(not trusts & wanted for _, trusts, wanted in _trust(plan, pod))


def _trust(plan: Blueprint, pod: Manifest) -> list[tuple[Side, set[str], set[str]]]:
    found = pod["metadata"].get("annotations") or {}
    sides: tuple[tuple[Side, str, str], ...] = (
        ("peer", PEER_AUTHORITY, plan.peer_authority),
        ("client", CLIENT_AUTHORITY, plan.client_authority),
    )
    return [(side, set(found.get(key, "").split(".")), set(wanted.split("."))) for side, key, wanted in sides if wanted]


@lru_cache(maxsize=4096)
def _bundle(*pems: bytes) -> bytes:
    return bundle(*pems)


def _readable(certificate: bytes) -> bytes:
    try:
        return _bundle(certificate)
    except PKIError:
        return b""
