"""Reading certificates: what they say, who signed them, and bundles of them."""

from dataclasses import dataclass
from datetime import datetime

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

SigningKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey


class PKIError(ValueError):
    """A certificate or key that cannot be read or made; the message says which and why, and holds no secret."""


@dataclass(frozen=True, kw_only=True, slots=True)
class CertInfo:
    """What a certificate says. Times are UTC; identifiers and the SHA-256 fingerprint are hex.

    authority_key_id names the key that signed it, key_id its own; both are empty where the certificate does not say.
    They are claims: `signed_by` proves.
    """

    pem: bytes
    common_name: str
    not_before: datetime
    not_after: datetime
    dns_names: tuple[str, ...]
    ip_addresses: tuple[str, ...]
    issuer: str
    key_id: str
    authority_key_id: str
    fingerprint: str
    is_authority: bool
    server: bool
    client: bool

    @property
    def names(self) -> frozenset[str]:
        """DNS names and IP addresses together."""
        return frozenset(self.dns_names + self.ip_addresses)


def inspect(cert_pem: bytes) -> CertInfo:
    """What the first certificate of the PEM text says; `PKIError` when there is none."""
    certificate = load_certificate(cert_pem)
    try:
        extensions = {extension.value.__class__: extension.value for extension in certificate.extensions}
    except ValueError as failed:
        raise PKIError(f"the certificate's extensions cannot be read: {failed}") from None
    names = extensions.get(x509.SubjectAlternativeName)
    key_id = extensions.get(x509.SubjectKeyIdentifier)
    authority_key_id = extensions.get(x509.AuthorityKeyIdentifier)
    constraints = extensions.get(x509.BasicConstraints)
    usages = extensions.get(x509.ExtendedKeyUsage)
    return CertInfo(
        pem=certificate.public_bytes(serialization.Encoding.PEM),
        common_name=_common_name(certificate),
        not_before=certificate.not_valid_before_utc,
        not_after=certificate.not_valid_after_utc,
        dns_names=tuple(names.get_values_for_type(x509.DNSName)) if names else (),
        ip_addresses=tuple(str(address) for address in names.get_values_for_type(x509.IPAddress)) if names else (),
        issuer=certificate.issuer.rfc4514_string(),
        key_id=key_id.digest.hex() if key_id else "",
        authority_key_id=(authority_key_id.key_identifier or b"").hex() if authority_key_id else "",
        fingerprint=certificate.fingerprint(hashes.SHA256()).hex(),
        is_authority=bool(constraints and constraints.ca),
        server=bool(usages and ExtendedKeyUsageOID.SERVER_AUTH in usages),
        client=bool(usages and ExtendedKeyUsageOID.CLIENT_AUTH in usages),
    )


def signed_by(leaf_pem: bytes, authority_pem: bytes) -> bool:
    """Whether any certificate of the authority's bundle signed the leaf: the signature itself is verified."""
    leaf = load_certificate(leaf_pem)
    for authority in _load_all(authority_pem):
        try:
            leaf.verify_directly_issued_by(authority)
        except (InvalidSignature, UnsupportedAlgorithm, ValueError, TypeError):
            continue
        return True
    return False


def key_matches(cert_pem: bytes, key_pem: bytes) -> bool:
    """Whether the key is the certificate's; False also when either cannot be read."""
    try:
        certificate, key = load_certificate(cert_pem), load_key(key_pem)
        return _spki(certificate.public_key()) == _spki(key.public_key())
    except PKIError:
        return False


def split_bundle(pem: bytes) -> tuple[bytes, ...]:
    """The certificates of a PEM bundle, one PEM text each; empty for a text without any."""
    if b"-----BEGIN CERTIFICATE-----" not in pem:
        return ()
    return tuple(certificate.public_bytes(serialization.Encoding.PEM) for certificate in _load_all(pem))


def bundle(*pems: bytes) -> bytes:
    """One PEM bundle of all certificates in the given texts, in that order, each once."""
    return b"".join(dict.fromkeys(certificate for pem in pems for certificate in split_bundle(pem)))


def load_certificate(pem: bytes) -> x509.Certificate:
    """The first certificate of a PEM text; `PKIError` when there is none."""
    return _load_all(pem)[0]


def load_key(pem: bytes) -> SigningKey:
    """The unencrypted private key of a PEM text; `PKIError` when there is none that can sign."""
    try:
        key = serialization.load_pem_private_key(pem, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise PKIError("not an unencrypted private key in PEM form") from None
    if not isinstance(key, ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey):
        raise PKIError(f"a key of this kind cannot sign certificates: {type(key).__name__}")
    return key


def _load_all(pem: bytes) -> list[x509.Certificate]:
    try:
        return x509.load_pem_x509_certificates(pem)
    except ValueError:
        raise PKIError("not a certificate in PEM form") from None


def _common_name(certificate: x509.Certificate) -> str:
    found = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    return str(found[0].value) if found else ""


def _spki(key: object) -> bytes:
    public: bytes = key.public_bytes(  # type: ignore[attr-defined]
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return public
