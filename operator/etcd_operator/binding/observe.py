"""Reading what a binding is judged by: Kubernetes for every round, etcd only before something is changed.

I/O, no judgement.
"""

import asyncio
import base64
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime

from etcd_operator.api import ApiServerBinding, EtcdCluster
from etcd_operator.binding import arguments, content, wiring
from etcd_operator.binding.arguments import split_servers
from etcd_operator.binding.comparison import Comparison
from etcd_operator.binding.content import Side
from etcd_operator.binding.control_plane import ControlPlanes
from etcd_operator.binding.files import FileSource, file_source
from etcd_operator.binding.observation import Rival, Seen, Unreachable
from etcd_operator.binding.wiring import Wiring
from etcd_operator.etcd.client import EtcdClient
from etcd_operator.etcd.model import TLSIdentity
from etcd_operator.kube import Forbidden, Kube, Manifest, NotFound, Resource
from etcd_operator.kube.agent_image import AgentImage
from etcd_operator.kube.resources import (
    APISERVERBINDINGS,
    CONFIGMAPS,
    DEPLOYMENTS,
    ENDPOINTSLICES,
    ETCDCLUSTERS,
    PODS,
    SECRETS,
    STATEFULSETS,
)
from etcd_operator.resources.names import Names
from etcd_operator.resources.secrets import content as secret_content

#: The Service of Kubernetes' own API server (k8s.io/kubernetes, pkg/controlplane/controller/kubernetesservice).
_HOST_SERVICE = {"kubernetes.io/service-name": "kubernetes"}

#: Seconds that reading two etcds may take; a round ends after a minute.
LONGEST_READ = 40.0


class Observer:
    """Reads bindings; safe for any number of concurrent callers."""

    def __init__(
        self, *, kube: Kube, etcd: EtcdClient, namespaces: Sequence[str], planes: ControlPlanes, images: AgentImage
    ) -> None:
        """`namespaces`: those that the operator serves; empty: all."""
        self._kube = kube
        self._planes = planes
        self._images = images
        self._etcd = etcd
        self._served: tuple[str | None, ...] = tuple(namespaces) or (None,)

    async def seen(self, namespace: str, name: str) -> Seen | None:
        """What Kubernetes has of a binding and of all that it names; `None` when the binding is gone."""
        raw = await self._kube.get(APISERVERBINDINGS, namespace, name)
        if raw is None:
            return None
        binding = ApiServerBinding.model_validate(raw)
        workload, pods = await self._workload(binding)
        base = Seen(
            binding=binding,
            raw=raw,
            at=datetime.now(UTC),
            cluster=None,
            access={},
            copy=None,
            others=(),
            workload=workload,
            pods=pods,
            host_addresses=frozenset(),
        )
        if binding.spec.target.kubeadm:
            base = await self._with_control_plane(base)
        if binding.metadata.deletion_timestamp:
            return base  # all that letting go of it needs
        reference = binding.spec.cluster_ref
        home = reference.namespace or namespace
        cluster = await self._cluster(home, reference.name)
        names = Names(name=reference.name, namespace=home, domain="")
        access = await self._kube.get(SECRETS, home, names.client_access) if cluster else None
        copied = await self._kube.get(SECRETS, namespace, wiring.copy_name(name)) if home != namespace else None
        return replace(
            base,
            cluster=cluster,
            access=secret_content(access),
            copy=copied,
            others=await self._others(base.as_rival),
            host_addresses=await self._host_addresses(),
        )

    async def answers(self, seen: Seen, wanted: Wiring) -> dict[str, str]:
        """Of each address, why the API server's certificate does not read there; empty where it does."""
        return await content.answers(self._etcd, _wanted_side(seen, wanted))

    async def comparison(self, seen: Seen, wanted: Wiring) -> Comparison:
        """What the API server's etcd of now holds beside what the wanted one does."""
        assert seen.workload is not None
        assert seen.container is not None
        servers, prefix = arguments.current(seen.container)
        before = split_servers(servers)
        try:
            identity = await self._present_identity(seen) if any("https://" in each for each in before) else None
        except _UnreadableFileError as error:
            return Comparison(servers=servers, problem=str(error))
        present = Side(servers=before, tls=identity, prefix=prefix)
        compared = await content.compare(
            self._etcd, present=present, wanted=_wanted_side(seen, wanted), longest=LONGEST_READ
        )
        return replace(compared, servers=servers)

    async def _present_identity(self, seen: Seen) -> TLSIdentity:
        """The certificate that the API server uses now, by its arguments and its volumes."""
        assert seen.workload is not None
        assert seen.container is not None
        told, pod = arguments.flags(seen.container), seen.workload["spec"]["template"]["spec"]
        held = {}
        for flag in ("etcd-cafile", "etcd-certfile", "etcd-keyfile"):
            path = told.get(flag, "")
            source = file_source(pod, seen.container, path) if path else None
            if source is None:
                raise _UnreadableFileError(f"--{flag} ({path or 'not given'}) is on no Secret's or ConfigMap's volume")
            held[flag] = await self._file(seen.binding.metadata.namespace, source)
        return TLSIdentity(ca=held["etcd-cafile"], cert=held["etcd-certfile"], key=held["etcd-keyfile"])

    async def _file(self, namespace: str, source: FileSource) -> bytes:
        resource: Resource = SECRETS if source.kind == "Secret" else CONFIGMAPS
        found = await self._kube.get(resource, namespace, source.name) or {}
        held = (found.get("data") or {}).get(source.key)
        data: bytes | None = None
        if held is not None:
            data = str(held).encode() if source.kind == "ConfigMap" else base64.b64decode(held)
        if data is None:
            raise _UnreadableFileError(f"{source.kind} {source.name} has no {source.key}")
        return data

    async def _with_control_plane(self, base: Seen) -> Seen:
        """With what there is of another cluster's API servers."""
        image, found = await asyncio.gather(self._images.name(), self._planes.seen(base.binding))
        if isinstance(found, Unreachable):
            return replace(base, unreachable=found, agent_image=image)
        pods = tuple(node.api_server for node in found.nodes if node.api_server)
        return replace(base, control_plane=found, pods=pods, agent_image=image)

    async def _cluster(self, namespace: str, name: str) -> EtcdCluster | None:
        """It, unless there is none, or none that the operator may see."""
        try:
            raw = await self._kube.get(ETCDCLUSTERS, namespace, name)
        except Forbidden:
            return None
        return EtcdCluster.model_validate(raw) if raw else None

    async def _workload(self, binding: ApiServerBinding) -> tuple[Manifest | None, tuple[Manifest, ...]]:
        namespace, target = binding.metadata.namespace, binding.spec.target
        resource = DEPLOYMENTS if target.deployment else STATEFULSETS
        named = target.deployment or target.stateful_set
        workload = await self._kube.get(resource, namespace, named.name) if named else None
        if workload is None:
            return None, ()
        listed = await self._kube.list(PODS, namespace, selector=_selector(workload["spec"]["selector"]))
        ended = ("Succeeded", "Failed")
        return workload, tuple(pod for pod in listed if pod.get("status", {}).get("phase") not in ended)

    async def _others(self, mine: Rival) -> tuple[Rival, ...]:
        """Those that name the same EtcdCluster or the same workload, in every namespace that is served.

        With a kubeconfig, every other one that has one: two may open the same cluster.
        """
        listed = await asyncio.gather(*(self._kube.list(APISERVERBINDINGS, each) for each in self._served))
        every = (Rival.of(raw) for some in listed for raw in some)
        return tuple(
            each
            for each in every
            if (each.namespace, each.name) != (mine.namespace, mine.name)
            and (each.cluster == mine.cluster or _may_share(each, mine))
        )

    async def _host_addresses(self) -> frozenset[str]:
        """Where this Kubernetes' API server answers; empty where the operator may not know."""
        try:
            slices = await self._kube.list(ENDPOINTSLICES, "default", labels=_HOST_SERVICE)
        except (Forbidden, NotFound):
            return frozenset()
        return frozenset(
            address for each in slices for end in each.get("endpoints") or () for address in end.get("addresses") or ()
        )


def _may_share(one: Rival, other: Rival) -> bool:
    """Whether two bindings may be about the same API servers."""
    on_nodes = "kubeadm" in one.target and "kubeadm" in other.target
    return on_nodes or (one.workload is not None and one.workload == other.workload)


class _UnreadableFileError(Exception):
    """The API server's own certificate cannot be read; the text tells why."""


def _identity(access: Mapping[str, bytes]) -> TLSIdentity | None:
    """Who to be; `None` for an etcd without TLS, whose Secret holds nothing but its address."""
    if not {"ca.crt", "tls.crt", "tls.key"} <= access.keys():
        return None
    return TLSIdentity(ca=access["ca.crt"], cert=access["tls.crt"], key=access["tls.key"])


def _wanted_side(seen: Seen, wanted: Wiring) -> Side:
    return Side(servers=wanted.servers, tls=_identity(seen.access), prefix=seen.binding.spec.prefix)


def _selector(selector: Manifest) -> str:
    """A label selector as the API takes it in a query (k8s.io/apimachinery, meta/v1/helpers.go)."""
    words = [f"{key}={value}" for key, value in sorted((selector.get("matchLabels") or {}).items())]
    for each in selector.get("matchExpressions") or ():
        key, values = each["key"], ",".join(each.get("values") or ())
        words.append(
            {"In": f"{key} in ({values})", "NotIn": f"{key} notin ({values})", "Exists": key}.get(
                each["operator"], f"!{key}"
            )
        )
    return ",".join(words)
