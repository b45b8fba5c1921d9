"""Certificate authorities, the certificates that they sign, and when to issue anew.

Pure but for the randomness of keys and serial numbers: time is passed in, nothing is read or written. Certificates and
keys are PEM bytes at this edge, so that no type of the cryptography library leaves.
"""

from etcd_operator.pki.inspection import CertInfo, PKIError, bundle, inspect, key_matches, signed_by, split_bundle
from etcd_operator.pki.issuing import Authority, Leaf, issue, new_authority
from etcd_operator.pki.renewal import needs_renewal

__all__ = [
    "Authority",
    "CertInfo",
    "Leaf",
    "PKIError",
    "bundle",
    "inspect",
    "issue",
    "key_matches",
    "needs_renewal",
    "new_authority",
    "signed_by",
    "split_bundle",
]
