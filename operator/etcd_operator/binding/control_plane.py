"""Reading the control plane of another cluster, which kubeadm made, by the kubeconfig that a binding names.

I/O, no judgement. Connections are kept: a kubeconfig is read into a client once for each version of its Secret.
"""

import asyncio
from dataclasses import dataclass

import structlog

from etcd_operator.api import ApiServerBinding, KubeadmTarget
from etcd_operator.binding.agent_pod import AGENT_LABELS, KUBE_SYSTEM, agent_name
from etcd_operator.binding.observation import ControlPlane, ControlPlaneNode, Unreachable
from etcd_operator.binding.status import is_ready
from etcd_operator.kube import Connection, Forbidden, Kube, KubeError, Manifest, Unauthorized
from etcd_operator.kube.kubeconfig import KubeconfigError
from etcd_operator.kube.resources import CONFIGMAPS, NAMESPACES, NODES, PODS, SECRETS
from etcd_operator.resources.secrets import content

log = structlog.get_logger(__name__)

#: By which kubeadm labels the static pods of API servers (kubeadm, app/phases/controlplane/manifests.go).
_API_SERVERS = {"component": "kube-apiserver", "tier": "control-plane"}
#: What kubeadm upgrades and joins by (kubeadm, app/constants/constants.go).
_CONFIGURATION = "kubeadm-config"
#: Seconds for one request: another cluster may be far away, or gone.
_TIMEOUT = 5.0


@dataclass(frozen=True, slots=True)
class _Known:
    version: tuple[str, str]
    kube: Kube


class ControlPlanes:
    """The clusters of all bindings that name one by its kubeconfig."""

    def __init__(self, kube: Kube) -> None:
        """`kube`: the cluster that the operator runs in."""
        self._kube = kube
        self._known: dict[tuple[str, str], _Known] = {}
        self._host = ""

    async def forget(self, namespace: str, name: str) -> None:
        """Close the connection of a binding that is gone."""
        if known := self._known.pop((namespace, name), None):
            await known.kube.close()

    async def client(self, binding: ApiServerBinding) -> Kube | Unreachable:
        """The client for the binding's cluster, or why there is none."""
        target, metadata = binding.spec.target.kubeadm, binding.metadata
        assert target is not None
        reference = target.kubeconfig_ref
        secret = await self._kube.get(SECRETS, metadata.namespace, reference.name)
        if secret is None:
            return Unreachable(
                reason="KubeconfigNotFound",
                message=f"there is no Secret {reference.name} in namespace {metadata.namespace}",
                waits=True,
            )
        text = content(secret).get(reference.key)
        if text is None:
            return Unreachable(
                reason="KubeconfigInvalid",
                message=f"Secret {reference.name} has no {reference.key}: add it, or set kubeconfigRef.key",
                waits=False,
            )
        key = metadata.namespace, metadata.name
        version = str(secret["metadata"]["uid"]), str(secret["metadata"]["resourceVersion"])
        if (known := self._known.get(key)) and known.version == version:
            return known.kube
        await self.forget(*key)
        try:
            connection = Connection.of_kubeconfig(text, origin=f"Secret {metadata.namespace}/{reference.name}")
        except KubeconfigError as error:
            message = f"the kubeconfig in Secret {reference.name} cannot be used: {error}"
            return Unreachable(reason="KubeconfigInvalid", message=message, waits=False)
        made = Kube(connection, timeout=_TIMEOUT, retry_delays=(), may_write=self._kube.may_write)
        self._known[key] = _Known(version, made)
        return made

    def client_of(self, namespace: str, name: str, access: tuple[str, str]) -> Kube | None:
        """The very client by which a control plane was seen; `None` when there is another one by now."""
        known = self._known.get((namespace, name))
        return known.kube if known and known.version == access else None

    async def seen(self, binding: ApiServerBinding) -> ControlPlane | Unreachable:
        """What there is now, or why that is not known."""
        target = binding.spec.target.kubeadm
        assert target is not None
        kube = await self.client(binding)
        if isinstance(kube, Unreachable):
            return kube
        version = self._known[binding.metadata.namespace, binding.metadata.name].version
        try:
            return await self._read(kube, target, version)
        except (Forbidden, Unauthorized) as error:
            message = (
                f"the kubeconfig in Secret {target.kubeconfig_ref.name} may not do what is needed: {error.message}"
            )
            return Unreachable(reason="KubeconfigForbidden", message=message, waits=False)
        except KubeError as error:
            message = f"the API server that Secret {target.kubeconfig_ref.name} names does not answer: {error}"
            return Unreachable(reason="ApiServerUnreachable", message=message, waits=True)

    async def _read(self, kube: Kube, target: KubeadmTarget, access: tuple[str, str]) -> ControlPlane:
        uid, nodes, servers, agents, secrets, configuration = await asyncio.gather(
            _uid(kube),
            kube.list(NODES, None, labels=target.node_selector),
            kube.list(PODS, KUBE_SYSTEM, labels=_API_SERVERS),
            kube.list(PODS, KUBE_SYSTEM, labels=AGENT_LABELS),
            kube.list(SECRETS, KUBE_SYSTEM, labels=AGENT_LABELS, metadata_only=True),
            kube.get(CONFIGMAPS, KUBE_SYSTEM, _CONFIGURATION),
        )
        by_node = {pod["spec"].get("nodeName"): pod for pod in servers}
        by_name = {pod["metadata"]["name"]: pod for pod in agents}
        ready = {node["metadata"]["name"]: is_ready(node) for node in nodes}
        return ControlPlane(
            uid=uid,
            access=access,
            is_host=uid == host if (host := await self._host_uid()) else None,
            nodes=tuple(
                ControlPlaneNode(
                    name=name, ready=ready[name], api_server=by_node.get(name), agent=by_name.get(agent_name(name))
                )
                for name in sorted(ready)
            ),
            secrets=frozenset(each["metadata"]["name"] for each in secrets),
            configuration=configuration,
        )

    async def _host_uid(self) -> str:
        """What tells the operator's own cluster from others; empty where it may not be known."""
        if not self._host:
            try:
                self._host = await _uid(self._kube)
            except Forbidden as error:
                log.info("control_plane.host_unknown", error=error.message)
        return self._host


async def _uid(kube: Kube) -> str:
    """The UID of kube-system, which no other cluster has."""
    found: Manifest | None = await kube.get(NAMESPACES, None, KUBE_SYSTEM)
    return str(found["metadata"]["uid"]) if found else ""
