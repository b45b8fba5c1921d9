"""Encryption and authentication in an EtcdCluster.

Pure. See `etcdcluster` for the kind that this is a part of.
"""

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from etcd_operator.api.base import SET, ApiModel, LocalObjectReference, Rule
from etcd_operator.api.rules import is_duration, when_durations
from etcd_operator.api.units import Duration

#: A DNS name, for RE2; the first label may be a wildcard.
_DNS_NAME = "^([*][.])?[a-z0-9]([-a-z0-9]*[a-z0-9])?([.][a-z0-9]([-a-z0-9]*[a-z0-9])?)*$"


#: Between Managed and Provided lies a rotation of the authority; there is no way from or to Off.
_STAYS_ON_OR_OFF = "(self == 'Off') == (oldSelf == 'Off')"
_NAMES_ITS_SECRET = Rule(
    "(self.mode == 'Provided') == has(self.secretRef)", "secretRef is needed where mode is Provided, and only there"
)


class PeerTLS(ApiModel):
    """TLS between members."""

    rules: ClassVar[tuple[Rule, ...]] = (_NAMES_ITS_SECRET,)

    mode: Annotated[
        Literal["Managed", "Provided", "Off"],
        Rule(
            _STAYS_ON_OR_OFF,
            "is immutable: members with TLS and members without cannot talk to each other; create a new EtcdCluster"
            " instead",
        ),
    ] = "Managed"
    """Managed: the operator issues and renews the certificates, from an authority of this EtcdCluster alone.

    Provided: from an authority of yours, see secretRef. "Off", in quotes as YAML takes a bare Off for false: no
    encryption and no authentication between members; for experiments only.
    """
    secret_ref: LocalObjectReference | None = None
    """A Secret with your authority: its certificate in tls.crt, self-signed, and its key in tls.key, both PEM.

    That of a cert-manager Certificate with isCA is one. Another one in its place is taken over by a rotation.
    """


class ClientTLS(ApiModel):
    """TLS between clients and members."""

    rules: ClassVar[tuple[Rule, ...]] = (_NAMES_ITS_SECRET,)

    mode: Annotated[
        Literal["Managed", "Provided", "Off"],
        Rule(
            _STAYS_ON_OR_OFF,
            "is immutable: clients with and without TLS cannot be told apart, so that a change would cut one of them"
            " off; create a new EtcdCluster instead",
        ),
    ] = "Managed"
    """Managed: the operator issues and renews the certificates; clients use those of the Secret <name>-client.

    Provided: from an authority of yours, see secretRef; whoever has a client certificate of it may do everything.
    "Off", in quotes as YAML takes a bare Off for false: everybody who reaches the Service may read and write
    everything; for experiments only.
    """
    secret_ref: LocalObjectReference | None = None
    """A Secret with your authority: its certificate in tls.crt, self-signed, and its key in tls.key, both PEM.

    That of a cert-manager Certificate with isCA is one. Another one in its place is taken over by a rotation.
    """
    extra_sans: Annotated[
        tuple[
            Annotated[
                str,
                Field(min_length=1, max_length=253),
                Rule(
                    f"isIP(self) || self.matches('{_DNS_NAME}')",
                    "must be an IP address or a DNS name in lower case, such as etcd.example.com or *.example.com",
                ),
            ],
            ...,
        ],
        Field(alias="extraSANs", max_length=32, json_schema_extra=SET),
    ] = ()
    """More DNS names and IP addresses for the server certificates, for clients that come by another way
    than the Service, such as a load balancer.
    """

    rotation_grace: Annotated[
        Duration,
        Rule(is_duration("self"), "must be a duration such as 5m"),
    ] = Duration("5m")
    """How long clients are given to take up the Secret <name>-client, twice while their authority is rotated.

    First when it tells of the new authority beside the old one, then when it has a certificate of the new one. Mounted
    Secrets lag by up to two minutes; clients that read it only when they start need to be restarted meanwhile.
    """


class TLSSpec(ApiModel):
    """Encryption and authentication, on unless switched off."""

    rules: ClassVar[tuple[Rule, ...]] = (
        when_durations(
            "self.certificateDuration",
            "self.renewBefore",
            rule="duration(self.renewBefore) < duration(self.certificateDuration)",
            message="renewBefore must be shorter than certificateDuration: certificates would be renewed without end",
        ),
        when_durations(
            "self.authorityDuration",
            "self.authorityRenewBefore",
            rule="duration(self.authorityRenewBefore) < duration(self.authorityDuration)",
            message="authorityRenewBefore must be shorter than authorityDuration: it would be rotated without end",
        ),
    )

    peer: PeerTLS = Field(default_factory=PeerTLS)
    client: ClientTLS = Field(default_factory=ClientTLS)
    certificate_duration: Annotated[
        Duration,
        Rule(
            f"{is_duration('self')} && duration(self) >= duration('10m')",
            "must be a duration of at least 10m, such as 2160h: a renewed certificate takes minutes to reach the pods",
        ),
    ] = Duration("2160h")
    """How long server, peer and client certificates are valid."""
    renew_before: Annotated[
        Duration,
        Rule(
            f"{is_duration('self')} && duration(self) >= duration('5m')",
            "must be a duration of at least 5m, such as 720h: a renewed certificate takes minutes to reach the pods",
        ),
    ] = Duration("720h")
    """How long before its end a certificate is renewed. etcd takes a renewed one up without a restart."""
    authority_duration: Annotated[
        Duration,
        Rule(
            f"{is_duration('self')} && duration(self) >= duration('10m')",
            "must be a duration of at least 10m, such as 87600h: a rotation restarts every member twice",
        ),
    ] = Duration("87600h")
    """How long the authorities are valid that the operator makes: those of new clusters, and of the next rotation."""
    authority_renew_before: Annotated[
        Duration,
        Rule(
            f"{is_duration('self')} && duration(self) >= duration('5m')",
            "must be a duration of at least 5m, such as 8760h: a rotation restarts every member twice",
        ),
    ] = Duration("8760h")
    """How long before its end an authority is rotated: another one takes its place, in two restarts in order."""
