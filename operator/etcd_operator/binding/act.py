"""Carrying out what a binding needs, each write guarded against edits in between.

I/O with Kubernetes; decides nothing.
"""

import base64

from etcd_operator.binding.observation import Seen
from etcd_operator.binding.wiring import Wiring, is_elsewhere
from etcd_operator.kube import Kube, Manifest
from etcd_operator.kube.resources import APISERVERBINDINGS, resource_of
from etcd_operator.resources.compare import is_satisfied
from etcd_operator.resources.names import GROUP, MANAGED_BY_LABEL, MANAGER

#: Holds a binding that is being deleted until the API server has its former arguments again (spec.onDelete: Restore).
FINALIZER = f"{GROUP}/binding"
#: On the copy of a client Secret: the binding that it is for.
BINDING_LABEL = f"{GROUP}/binding"


class NotOursError(Exception):
    """A Secret of the name that a copy is to have is somebody else's."""


class Hands:
    """What a binding's rounds may write."""

    def __init__(self, kube: Kube) -> None:
        self._kube = kube

    async def keep_finalizer(self, seen: Seen) -> bool:
        """Have our finalizer on the binding just while it is to be restored; whether that was a change."""
        wanted = seen.binding.spec.on_delete == "Restore"
        if wanted == (FINALIZER in seen.binding.metadata.finalizers):
            return False
        if not wanted:
            await self.drop_finalizer(seen)
        else:
            await self._set_finalizers(seen, (*seen.binding.metadata.finalizers, FINALIZER))
        return True

    async def drop_finalizer(self, seen: Seen) -> None:
        """Let a binding go."""
        await self._set_finalizers(seen, tuple(each for each in seen.binding.metadata.finalizers if each != FINALIZER))

    async def _set_finalizers(self, seen: Seen, finalizers: tuple[str, ...]) -> None:
        metadata = seen.raw["metadata"]
        patch = {"metadata": {"resourceVersion": metadata["resourceVersion"], "finalizers": list(finalizers)}}
        await self._kube.patch(APISERVERBINDINGS, metadata["namespace"], metadata["name"], patch, kind="merge")

    async def keep_copy(self, seen: Seen, wanted: Wiring) -> bool:
        """Have the client Secret of an EtcdCluster elsewhere beside the binding; whether that was a change.

        It outlives the binding, as the API server does: without the Secret its pods could not start any more.
        Raises `NotOursError`.
        """
        if not is_elsewhere(seen) or wanted.secret is None:
            return False
        metadata = (seen.copy or {}).get("metadata", {})
        if seen.copy is not None and (metadata.get("labels") or {}).get(BINDING_LABEL) != seen.binding.metadata.name:
            raise NotOursError(f"Secret {wanted.secret} is not the operator's: delete or rename it")
        desired = _copy(seen, wanted.secret)
        if is_satisfied(desired, seen.copy):
            return False
        await self._kube.apply(desired)
        return True

    async def patch(self, seen: Seen, patch: Manifest) -> None:
        """Patch the workload; raises `Conflict` when somebody edited it since it was read."""
        assert seen.workload is not None
        metadata = seen.workload["metadata"]
        await self._kube.patch(resource_of(seen.workload), metadata["namespace"], metadata["name"], patch, kind="merge")


def _copy(seen: Seen, name: str) -> Manifest:
    metadata = seen.binding.metadata
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {
            "name": name,
            "namespace": metadata.namespace,
            "labels": {MANAGED_BY_LABEL: MANAGER, BINDING_LABEL: metadata.name},
        },
        "type": "Opaque",
        "data": {key: base64.b64encode(value).decode() for key, value in seen.access.items()},
    }
