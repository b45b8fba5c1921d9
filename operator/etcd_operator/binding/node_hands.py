"""Carrying out what the control plane of another cluster needs.

I/O with that cluster; decides nothing.
"""

from etcd_operator.binding.agent_pod import KUBE_SYSTEM, agent_pod, agent_secret
from etcd_operator.binding.control_plane import ControlPlanes
from etcd_operator.binding.kubeadm import DropAgent, DropSecret, StartAgent
from etcd_operator.binding.observation import Seen
from etcd_operator.kube import Kube, Manifest, Unavailable
from etcd_operator.kube.resources import CONFIGMAPS, PODS, SECRETS


class NodeHands:
    """What a binding's rounds may write in the cluster that it names."""

    def __init__(self, planes: ControlPlanes) -> None:
        self._planes = planes

    async def carry_out(self, seen: Seen, step: StartAgent | DropAgent | DropSecret) -> None:
        """One step; raises `Conflict` where somebody was faster, and other `KubeError`s."""
        kube = self._kube(seen)
        match step:
            case StartAgent(node=node, plan=plan, files=files):
                await kube.apply(agent_secret(node, plan, files))
                await kube.create(agent_pod(node, plan, files, binding=seen.identity, image=seen.agent_image))
            case DropAgent(pod=pod):
                metadata = pod["metadata"]
                await kube.delete(PODS, KUBE_SYSTEM, metadata["name"], uid=metadata["uid"])
            case DropSecret(name=name):
                await kube.delete(SECRETS, KUBE_SYSTEM, name)

    async def configure(self, seen: Seen, patch: Manifest) -> None:
        """Patch what kubeadm knows; raises `Conflict` when it was edited since it was read."""
        assert seen.control_plane is not None
        assert seen.control_plane.configuration is not None
        name = seen.control_plane.configuration["metadata"]["name"]
        await self._kube(seen).patch(CONFIGMAPS, KUBE_SYSTEM, name, patch, kind="merge")

    def _kube(self, seen: Seen) -> Kube:
        """The cluster that was judged, and no other one that the Secret may name by now; raises `Unavailable`."""
        assert seen.control_plane is not None
        metadata = seen.binding.metadata
        kube = self._planes.client_of(metadata.namespace, metadata.name, seen.control_plane.access)
        if kube is None:
            raise Unavailable(status=0, reason="KubeconfigChanged", message="another kubeconfig is read now")
        return kube
