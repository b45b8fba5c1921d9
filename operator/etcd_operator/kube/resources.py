"""The Kubernetes kinds that the operator speaks of, and the paths under which the API server has them.

Pure. Written down instead of discovered: the operator knows what it was built for, and a path costs no request.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import quote

from etcd_operator.resources.names import GROUP, Manifest

VERSION = "v1alpha1"


@dataclass(frozen=True, kw_only=True, slots=True)
class Resource:
    """A kind together with the place where the API server serves it."""

    group: str
    version: str
    plural: str
    kind: str
    namespaced: bool = True

    @property
    def api_version(self) -> str:
        return f"{self.group}/{self.version}" if self.group else self.version

    def path(self, namespace: str | None = None, name: str | None = None, subresource: str | None = None) -> str:
        """The path of one object, or of the collection without a name.

        Raises `ValueError` for a single object of a namespaced kind without its namespace: left out, the
        request would reach another place than the caller means.
        """
        if name is not None and self.namespaced and not namespace:
            raise ValueError(f"{self.kind} {name}: a namespace is needed")
        parts = ["/apis", self.group, self.version] if self.group else ["/api", self.version]
        if self.namespaced and namespace:
            parts += ["namespaces", quote(namespace, safe="")]
        parts.append(self.plural)
        parts += [quote(part, safe="") for part in (name, subresource) if part]
        return "/".join(parts)


def _core(kind: str, plural: str, *, namespaced: bool = True) -> Resource:
    return Resource(group="", version="v1", plural=plural, kind=kind, namespaced=namespaced)


def _own(kind: str, plural: str) -> Resource:
    return Resource(group=GROUP, version=VERSION, plural=plural, kind=kind)


CONFIGMAPS = _core("ConfigMap", "configmaps")
EVENTS = _core("Event", "events")
NAMESPACES = _core("Namespace", "namespaces", namespaced=False)
NODES = _core("Node", "nodes", namespaced=False)
PODS = _core("Pod", "pods")
PVCS = _core("PersistentVolumeClaim", "persistentvolumeclaims")
PVS = _core("PersistentVolume", "persistentvolumes", namespaced=False)
SECRETS = _core("Secret", "secrets")
SERVICES = _core("Service", "services")

LEASES = Resource(group="coordination.k8s.io", version="v1", plural="leases", kind="Lease")
PDBS = Resource(group="policy", version="v1", plural="poddisruptionbudgets", kind="PodDisruptionBudget")
NETWORKPOLICIES = Resource(group="networking.k8s.io", version="v1", plural="networkpolicies", kind="NetworkPolicy")
ENDPOINTSLICES = Resource(group="discovery.k8s.io", version="v1", plural="endpointslices", kind="EndpointSlice")
DEPLOYMENTS = Resource(group="apps", version="v1", plural="deployments", kind="Deployment")
STATEFULSETS = Resource(group="apps", version="v1", plural="statefulsets", kind="StatefulSet")
CRDS = Resource(
    group="apiextensions.k8s.io",
    version="v1",
    plural="customresourcedefinitions",
    kind="CustomResourceDefinition",
    namespaced=False,
)

ETCDCLUSTERS = _own("EtcdCluster", "etcdclusters")
ETCDBACKUPS = _own("EtcdBackup", "etcdbackups")
ETCDBACKUPSCHEDULES = _own("EtcdBackupSchedule", "etcdbackupschedules")
ETCDRESTORES = _own("EtcdRestore", "etcdrestores")
APISERVERBINDINGS = _own("ApiServerBinding", "apiserverbindings")

#: The operator's own kinds by name.
OWN_KINDS: Mapping[str, Resource] = {
    each.kind: each for each in (ETCDCLUSTERS, ETCDBACKUPS, ETCDBACKUPSCHEDULES, ETCDRESTORES, APISERVERBINDINGS)
}

ALL: tuple[Resource, ...] = tuple(value for value in list(globals().values()) if isinstance(value, Resource))
_BY_KIND: Mapping[tuple[str, str], Resource] = {(each.api_version, each.kind): each for each in ALL}


def resource_of(manifest: Manifest) -> Resource:
    """The resource that a manifest's apiVersion and kind name; `LookupError` for one that is not listed here."""
    key = (manifest["apiVersion"], manifest["kind"])
    try:
        return _BY_KIND[key]
    except KeyError:
        raise LookupError(f"{key[0]} {key[1]} is not a kind that the operator handles") from None
