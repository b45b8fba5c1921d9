"""Applications that get access to an EtcdCluster, each with a certificate of its own.

Pure. See `etcdcluster` for the kind that this is a part of.
"""

from typing import Annotated

from pydantic import Field

from etcd_operator.api.base import SET, ApiModel, Rule

#: A DNS label, for RE2.
_LABEL = "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"
#: Names that are taken: those in certificates of the operator's own, and that of a Secret, `<cluster>-client-ca`.
RESERVED_CLIENTS = ("root", "external-etcd-operator", "ca")

_Namespace = Annotated[str, Field(min_length=1, max_length=63, pattern=_LABEL)]


class ClientAccess(ApiModel):
    """An application with a certificate of its own, in a Secret that holds all that it needs to reach this etcd."""

    name: Annotated[
        str,
        Field(min_length=1, max_length=63),
        Rule(
            f"self.matches('{_LABEL}')",
            "must be lower case letters, digits and hyphens, such as web: Secrets are named after it, and it is the"
            " certificate's common name",
        ),
        Rule(
            f"!(self in [{', '.join(repr(name) for name in RESERVED_CLIENTS)}])",
            f"must be none of {', '.join(RESERVED_CLIENTS)}: these are the operator's own; choose another name",
        ),
    ]
    """Name of the client: the common name of its certificate, which is how etcd knows a user.

    Its Secret is <cluster>-client-<name>, with ca.crt, tls.crt, tls.key and endpoints, and is renewed in time.
    """
    namespaces: Annotated[tuple[_Namespace, ...], Field(max_length=32, json_schema_extra=SET)] = ()
    """Other namespaces that get a copy of the Secret, named <namespace of the cluster>.<cluster>-client-<name>.

    Only where the namespace agrees, by a label that names this EtcdCluster's namespace:

        kubectl label namespace NAME externaletcd.io/accept-clients-from=NAMESPACE

    Several are joined by an underscore. A copy goes when the label, the entry here, or the EtcdCluster goes. The
    EtcdCluster's own namespace has the Secret in any case, and needs no label.
    """
