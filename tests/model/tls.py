"""TLS of the model: who trusts whom, by certificates that are real and files that are read when etcd reads them."""

from collections.abc import Iterable
from functools import lru_cache
from typing import Protocol

from etcd_operator.etcd.model import Handshake, TLSIdentity
from etcd_operator.pki import PKIError, signed_by


class Speaker(Protocol):
    """What of a process matters here: authorities are those of its start, certificates those of now; PEM."""

    address: str
    frozen: bool
    trusts_peers_of: bytes
    trusts_clients_of: bytes
    shows_peers: bytes
    shows_clients: bytes


@lru_cache(maxsize=4096)
def is_trusted(certificate: bytes, authorities: bytes) -> bool:
    """Whether one of the authorities signed it; without TLS there is neither."""
    try:
        return not (certificate or authorities) or signed_by(certificate, authorities)
    except PKIError:
        return False


def shake_hands(processes: Iterable[Speaker], address: str, who: TLSIdentity) -> Handshake | None:
    """What the process behind `host:port` shows, and whether it takes what it is shown."""
    host, _, port = address.rpartition(":")
    process = next((each for each in processes if each.address == host and not each.frozen), None)
    if process is None:
        return None
    if port == "2380":
        shown, trusted = process.shows_peers, process.trusts_peers_of
    else:
        shown, trusted = process.shows_clients, process.trusts_clients_of
    return Handshake(certificate=shown, accepted=is_trusted(who.cert or b"", trusted))
