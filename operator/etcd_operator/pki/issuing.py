"""Making certificate authorities and the certificates that they sign.

ECDSA P-256 throughout: every TLS stack in use speaks it, and a handshake costs a fraction of RSA's.
"""

import ipaddress
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from etcd_operator.pki.inspection import PKIError, load_certificate, load_key

#: Validity begins this long before "now", as clocks of nodes differ.
BACKDATED = timedelta(minutes=5)

#: A common name may have this many characters (RFC 5280, ub-common-name); it is for people only, so it is cut.
LONGEST_COMMON_NAME = 64

#: etcd and kube-apiserver read an authority only when they start, so replacing one means restarts: rarely.
AUTHORITY_LIFETIME = timedelta(days=3650)


@dataclass(frozen=True, kw_only=True, slots=True)
class Authority:
    """A certificate authority with its key; PEM."""

    cert_pem: bytes
    key_pem: bytes

    def __repr__(self) -> str:
        return "Authority(...)"


@dataclass(frozen=True, kw_only=True, slots=True)
class Leaf:
    """A certificate that an authority signed, with its key; PEM."""

    cert_pem: bytes
    key_pem: bytes

    def __repr__(self) -> str:
        return "Leaf(...)"


def new_authority(common_name: str, now: datetime, lifetime: timedelta = AUTHORITY_LIFETIME) -> Authority:
    """A new self-signed authority that may sign certificates, but no further authorities. `now` is aware."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = _name(common_name)
    identifier = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    certificate = (
        _builder(key, subject, issuer=subject, not_before=now - BACKDATED, not_after=now + lifetime)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_key_usage(signs_certificates=True), critical=True)
        .add_extension(identifier, critical=False)
        .sign(key, hashes.SHA256())
    )
    return Authority(cert_pem=_pem(certificate), key_pem=_key_pem(key))


def issue(
    authority: Authority,
    *,
    common_name: str,
    now: datetime,
    lifetime: timedelta,
    dns_names: Iterable[str] = (),
    ip_addresses: Iterable[str] = (),
    server: bool,
    client: bool,
) -> Leaf:
    """A certificate with a new key, for servers, clients or both; it never outlives its authority.

    etcd's own JSON gateway dials its server with the server's certificate, so a member's needs both usages. Raises
    `PKIError` for an authority that cannot be read or has expired, or a name that no certificate can carry.
    """
    signer, signer_key = load_certificate(authority.cert_pem), load_key(authority.key_pem)
    not_after = min(now + lifetime, signer.not_valid_after_utc)
    if not_after <= now:
        raise PKIError(f"the authority expired at {signer.not_valid_after_utc:%Y-%m-%d %H:%M} UTC")
    key = ec.generate_private_key(ec.SECP256R1())
    builder = (
        _builder(key, _name(common_name), issuer=signer.subject, not_before=now - BACKDATED, not_after=not_after)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_key_usage(signs_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage(_usages(server=server, client=client)), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(_authority_identifier(signer), critical=False)
    )
    if names := _alternative_names(dns_names, ip_addresses):
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    return Leaf(cert_pem=_pem(builder.sign(signer_key, hashes.SHA256())), key_pem=_key_pem(key))


def _builder(
    key: ec.EllipticCurvePrivateKey, subject: x509.Name, *, issuer: x509.Name, not_before: datetime, not_after: datetime
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(not_before)
        .not_valid_after(not_after)
    )


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name[:LONGEST_COMMON_NAME])])


def _usages(*, server: bool, client: bool) -> list[x509.ObjectIdentifier]:
    usages = [(server, ExtendedKeyUsageOID.SERVER_AUTH), (client, ExtendedKeyUsageOID.CLIENT_AUTH)]
    wanted = [usage for wanted, usage in usages if wanted]
    if not wanted:
        raise ValueError("a certificate is for servers, clients or both")
    return wanted


def _key_usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        encipher_only=False,
        decipher_only=False,
    )


def _authority_identifier(signer: x509.Certificate) -> x509.AuthorityKeyIdentifier:
    """The signer's own key identifier, which a user's authority may have made in any way; else one of its key."""
    try:
        found = signer.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    except x509.ExtensionNotFound:
        return x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key())  # type: ignore[arg-type]
    return x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(found)


def _alternative_names(dns_names: Iterable[str], ip_addresses: Iterable[str]) -> list[x509.GeneralName]:
    names: list[x509.GeneralName] = []
    try:
        names += [x509.DNSName(name) for name in dict.fromkeys(dns_names)]
        names += [x509.IPAddress(ipaddress.ip_address(address)) for address in dict.fromkeys(ip_addresses)]
    except ValueError as failed:
        raise PKIError(f"no certificate can carry that name: {failed}") from None
    return names


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def _key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
