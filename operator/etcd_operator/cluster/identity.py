"""The operator's own way into etcd: a client certificate, made from the cluster's client authority.

Pure but for the clock that is handed in. It is kept in memory only; where the authority's key is lost, the
certificate that applications use, or the members' own, serves as well.
"""

from datetime import datetime, timedelta

from etcd_operator.cluster.authority import held
from etcd_operator.cluster.observation import Named
from etcd_operator.etcd.model import TLSIdentity
from etcd_operator.pki import Authority, issue
from etcd_operator.resources.names import MANAGER, Names
from etcd_operator.resources.secrets import content

#: How long a certificate of the operator's own is used before it makes a new one.
LIFETIME = timedelta(days=1)


class Identities:
    """One TLS identity per authority and whom it trusts, made when first needed, and anew after half its life."""

    def __init__(self) -> None:
        self._made: dict[tuple[bytes, bytes], tuple[datetime, TLSIdentity]] = {}

    def identity(self, names: Names, secrets: Named, now: datetime) -> TLSIdentity | None:
        """The identity for a cluster, from its live Secrets; `None` while there is nothing to make it from."""
        if authority := held("client", content(secrets.get(names.client_authority))):
            return self.signed(authority.signer, authority.trusted, now)
        for name in (names.client_access, names.server_certificate):
            leaf = content(secrets.get(name))
            if {"ca.crt", "tls.crt", "tls.key"} <= leaf.keys():
                return TLSIdentity(ca=leaf["ca.crt"], cert=leaf["tls.crt"], key=leaf["tls.key"])
        return None

    def signed(self, authority: Authority, trusted: bytes, now: datetime) -> TLSIdentity:
        """An identity that this authority signed, and that trusts these (PEM)."""
        made_at, identity = self._made.get(key := (authority.cert_pem, trusted), (None, None))
        if identity is None or made_at is None or now - made_at > LIFETIME / 2:
            leaf = issue(authority, common_name=MANAGER, now=now, lifetime=LIFETIME, server=False, client=True)
            identity = TLSIdentity(ca=trusted, cert=leaf.cert_pem, key=leaf.key_pem)
            self._made = {of: made for of, made in self._made.items() if now - made[0] < LIFETIME}
            self._made[key] = (now, identity)
        return identity
