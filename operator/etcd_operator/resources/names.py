"""Names, labels and annotations: every string by which one part of the operator finds what another made.

Pure. A name that two modules must agree on stands here and nowhere else.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

#: A Kubernetes object as the API server gives and takes it.
Manifest = dict[str, Any]

GROUP = "externaletcd.io"
MANAGER = "external-etcd-operator"

#: On every object and pod: the EtcdCluster that it belongs to.
CLUSTER_LABEL = f"{GROUP}/cluster"
MANAGED_BY_LABEL = "app.kubernetes.io/managed-by"
#: On pods, "true" in the template; the operator sets "false" on a member that proved to be another cluster's.
SERVING_LABEL = f"{GROUP}/serving"
#: On pods, set by the StatefulSet controller: their own name.
POD_NAME = "statefulset.kubernetes.io/pod-name"

#: On StatefulSet and ConfigMap: what was founded, see `cluster.facts`.
INCARNATION = f"{GROUP}/incarnation"
APPLIED_SPEC = f"{GROUP}/applied-spec"
#: On StatefulSet and ConfigMap: every member's data directory and, once it is known, its member ID; see `Seat`.
ROSTER = f"{GROUP}/roster"
#: On StatefulSet and ConfigMap: the specs, by revision, that members run beside the applied one while they restart.
REVISIONS = f"{GROUP}/revisions"
#: On StatefulSet and ConfigMap: the revision of the applied spec. On pods: the one that they were made from.
REVISION = f"{GROUP}/revision"
#: On an EtcdCluster: any new value asks for a restart of all members, in order. On StatefulSet and ConfigMap: the one
#: that is done.
RESTART = f"{GROUP}/restart"
#: The older minor version of etcd that may have written what the members would replay when they start.
LOG_VERSION = f"{GROUP}/log-version"
#: The index to which the members have to apply their logs before all that it wrote is in snapshots.
LOG_INDEX = f"{GROUP}/log-index"
#: On StatefulSet and ConfigMap: the last rebuild from one member's data, see `Recovery`. On the pod that makes that
#: member the only one: the loss that it is for.
RECOVERY = f"{GROUP}/recovery"
#: On StatefulSet, ConfigMap and PersistentVolumeClaims once bootstrap was recorded: hex, as etcdctl prints it.
CLUSTER_ID = f"{GROUP}/cluster-id"
RECORDED_AT = f"{GROUP}/recorded-at"
#: On PersistentVolumeClaims: whose data is on the volume.
MEMBER_ID = f"{GROUP}/member-id"
MEMBER_STATE = f"{GROUP}/member-state"
MEMBERS = f"{GROUP}/members"
ETCD_VERSION = f"{GROUP}/etcd-version"
TLS_MODES = f"{GROUP}/tls"
#: On PersistentVolumeClaims: which member, and which pod, was given up because its node is away; see `Abandoned`.
ABANDONED = f"{GROUP}/abandoned"
#: On PersistentVolumeClaims: the directories of former members that are kept on the volume, and since when.
OLD_DATA = f"{GROUP}/old-data"
#: On the pod that deletes such directories: which, separated by commas.
CLEANS = f"{GROUP}/cleans"
#: On pods: cluster ID and incarnation of the member when its fuse file was written; setting it makes the kubelet
#: refresh the file, and tells for good as which member this pod ran.
#: Not in the pod template, whose every change would make the pods that run outdated.
FILES_REFRESHED = f"{GROUP}/files-refreshed"
#: On the StatefulSet: when its controller was last made to look at it again.
NUDGED_AT = f"{GROUP}/nudged-at"
#: On pods: a digest of the authorities that their etcd trusts, which it reads only when it starts.
PEER_AUTHORITY = f"{GROUP}/peer-authority"
CLIENT_AUTHORITY = f"{GROUP}/client-authority"
#: On an EtcdCluster: any new value asks for a rotation of that authority. On the authority's Secret: the one that was
#: begun last.
ROTATE_PEER = f"{GROUP}/rotate-peer"
ROTATE_CLIENT = f"{GROUP}/rotate-client"
#: On an authority's Secret: the user's Secret that it was copied from.
PROVIDED_BY = f"{GROUP}/provided-by"
#: On pods: the certificate that the kubelet was last made to bring into them; setting it makes it look at once.
CERTIFICATES_REFRESHED = f"{GROUP}/certificates-refreshed"
#: On Secrets: when their content was issued, and for what (a digest of the request).
ISSUED_AT = f"{GROUP}/issued-at"
#: On proxies: a digest of the configuration that they were started with.
CONFIG_DIGEST = f"{GROUP}/config"
#: On copies of a client's Secret in other namespaces: name and namespace of the EtcdCluster that it opens (labels, by
#: which copies are found; never CLUSTER_LABEL, which would make them another EtcdCluster's), and its UID (an
#: annotation), which alone proves that the copy is this EtcdCluster's.
CLIENT_CLUSTER = f"{GROUP}/client-cluster"
CLIENT_NAMESPACE = f"{GROUP}/client-namespace"
CLIENT_UID = f"{GROUP}/client-uid"
#: On namespaces, set by who owns them: the namespaces whose EtcdClusters may put clients' Secrets there.
ACCEPTS_CLIENTS = f"{GROUP}/accept-clients-from"
#: What separates several in that label; no namespace's name has it.
ACCEPTS_SEPARATOR = "_"
#: On an EtcdCluster that has such copies: it is not gone before they are.
CLIENTS_ELSEWHERE = f"{GROUP}/clients-elsewhere"
#: On every applied object: a digest of all that the operator wants of it.
DIGEST = f"{GROUP}/digest"

CLIENT_PORT = 2379
PEER_PORT = 2380
METRICS_PORT = 2381
HTTP_PORT = 2382

#: More members than this cost etcd more in replication than they give in safety (etcd's FAQ); the API refuses more.
MOST_MEMBERS = 7


@dataclass(frozen=True, kw_only=True, slots=True)
class Names:
    """Every name that follows from a cluster's own name, namespace and the cluster domain of its Kubernetes."""

    name: str
    namespace: str
    domain: str

    @property
    def stateful_set(self) -> str:
        return self.name

    @property
    def client_service(self) -> str:
        return self.name

    @property
    def disruption_budget(self) -> str:
        return self.name

    @property
    def peer_service(self) -> str:
        return f"{self.name}-peers"

    @property
    def config_map(self) -> str:
        return f"{self.name}-config"

    @property
    def peer_authority(self) -> str:
        return f"{self.name}-peer-ca"

    @property
    def client_authority(self) -> str:
        return f"{self.name}-client-ca"

    @property
    def peer_certificate(self) -> str:
        return f"{self.name}-peer"

    @property
    def server_certificate(self) -> str:
        return f"{self.name}-server"

    @property
    def client_access(self) -> str:
        return f"{self.name}-client"

    def client_secret(self, client: str) -> str:
        """The Secret of one of `spec.clients`, in the cluster's own namespace."""
        return f"{self.client_access}-{client}"

    def client_copy(self, client: str) -> str:
        """Its copy in other namespaces; the dot, which no namespace has, keeps those of two namespaces apart."""
        return f"{self.namespace}.{self.client_secret(client)}"

    def client_of_secret(self, secret: str) -> str | None:
        """The client whose Secret in the cluster's own namespace has that name; `None` for all other Secrets."""
        client = secret.removeprefix(f"{self.client_access}-")
        return client if client != secret and secret != self.client_authority else None

    @property
    def members_service(self) -> str:
        """Headless, for the proxy."""
        return f"{self.name}-members"

    @property
    def members_policy(self) -> str:
        """The members' NetworkPolicy."""
        return f"{self.name}-members"

    @property
    def proxy(self) -> str:
        """The proxy's Deployment, PodDisruptionBudget and ConfigMap, and the Secret of its statistics page."""
        return f"{self.name}-proxy"

    @property
    def members_domain(self) -> str:
        """The domain in which the proxy finds the members."""
        return f"{self.members_service}.{self.namespace}.svc.{self.domain}"

    @property
    def peer_domain(self) -> str:
        """The domain in which the headless Service names every member."""
        return f"{self.peer_service}.{self.namespace}.svc.{self.domain}"

    def member(self, ordinal: int) -> str:
        return f"{self.name}-{ordinal}"

    def members(self, count: int) -> tuple[str, ...]:
        return tuple(self.member(ordinal) for ordinal in range(count))

    def ordinal(self, member: str) -> int | None:
        """The ordinal in a member's name, `None` for a name that is no member's of this cluster."""
        prefix, _, number = member.rpartition("-")
        return int(number) if prefix == self.name and number.isdecimal() else None

    def claim(self, member: str) -> str:
        """The PersistentVolumeClaim that the StatefulSet controller makes for a member."""
        return f"data-{member}"

    def member_service(self, member: str) -> str:
        """The Service by which one member is reached from outside."""
        return f"{member}-node-port"

    def member_of_service(self, service: str) -> str | None:
        member = service.removesuffix("-node-port")
        return member if member != service and self.ordinal(member) is not None else None

    def recovery_pod(self, member: str) -> str:
        """The pod that makes a member the only one; no StatefulSet gives a pod such a name."""
        return f"{member}-recovery"

    def cleaning_pod(self, member: str) -> str:
        """The pod that deletes old data from a member's volume."""
        return f"{member}-cleaning"

    def member_of_claim(self, claim: str) -> str | None:
        member = claim.removeprefix("data-")
        return member if member != claim and self.ordinal(member) is not None else None

    def host(self, member: str) -> str:
        return f"{member}.{self.peer_domain}"

    def client_host(self) -> str:
        """The one host name that clients learn; short of the cluster domain, as every pod's search list has that."""
        return f"{self.client_service}.{self.namespace}.svc"

    def sorted(self, members: Iterable[str]) -> tuple[str, ...]:
        """Member names in the order of their ordinals (`a-2` before `a-10`)."""
        return tuple(
            sorted(members, key=lambda member: (self.ordinal(member) is None, self.ordinal(member) or 0, member))
        )


def selector_labels(cluster: str) -> dict[str, str]:
    """What selects the members' pods: immutable in a StatefulSet, so never more than this."""
    return {
        "app.kubernetes.io/name": "etcd",
        "app.kubernetes.io/instance": cluster,
        CLUSTER_LABEL: cluster,
    }


def helper_labels(cluster: str, purpose: str) -> dict[str, str]:
    """What a pod beside the members carries: the watches find it, and nothing takes it for a member."""
    return {
        "app.kubernetes.io/name": f"etcd-{purpose}",
        "app.kubernetes.io/instance": cluster,
        CLUSTER_LABEL: cluster,
        MANAGED_BY_LABEL: MANAGER,
    }


def proxy_selector(cluster: str) -> dict[str, str]:
    """What selects the proxies: immutable in a Deployment, so never more than this."""
    return {"app.kubernetes.io/name": "etcd-proxy", "app.kubernetes.io/instance": cluster, CLUSTER_LABEL: cluster}


def object_labels(cluster: str) -> dict[str, str]:
    """What every object carries: the watches select on these."""
    return {**selector_labels(cluster), MANAGED_BY_LABEL: MANAGER}
