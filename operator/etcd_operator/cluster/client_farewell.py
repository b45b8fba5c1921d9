"""An EtcdCluster that is deleted takes its clients' Secrets in other namespaces along.

Its finalizer holds it until they are gone. Not for ever: where the operator may not, or cannot, take one back for a
minute, an event tells so and the EtcdCluster goes all the same. A Secret, or a namespace, that is gone has been taken
back; so has one that somebody else's finalizer keeps.
"""

import asyncio
from time import monotonic

import structlog

from etcd_operator.cluster.client_observe import ClientObserver
from etcd_operator.cluster.observation import Spot
from etcd_operator.kube import EventRecorder, Kube, KubeError, NotFound
from etcd_operator.kube.errors import Fenced
from etcd_operator.kube.resources import ETCDCLUSTERS, SECRETS
from etcd_operator.resources.names import CLIENT_UID, CLIENTS_ELSEWHERE, Manifest

log = structlog.get_logger(__name__)

#: Seconds for which a Secret that cannot be taken back holds an EtcdCluster that was deleted.
PATIENCE = 60.0


class Farewell:
    """Sees EtcdClusters of one operator off."""

    def __init__(self, kube: Kube, events: EventRecorder, clients: ClientObserver) -> None:
        self._kube = kube
        self._events = events
        self._clients = clients
        #: By UID, since when something could not be taken back.
        self._since: dict[str, float] = {}

    async def said(self, namespace: str, name: str) -> bool:
        """Take back what an EtcdCluster that is gone or going has elsewhere; whether nothing holds it any more."""
        raw = await self._kube.get(ETCDCLUSTERS, namespace, name)
        metadata = raw["metadata"] if raw else {}
        held = metadata.get("finalizers") or []
        if raw is None or not metadata.get("deletionTimestamp") or CLIENTS_ELSEWHERE not in held:
            return True
        uid = str(metadata["uid"])
        if left := await self._take_back(namespace, name, uid):
            if monotonic() - self._since.setdefault(uid, monotonic()) < PATIENCE:
                return False
            told = f"these were left when the EtcdCluster was deleted; delete them by hand: {'; '.join(left)}"
            self._events.emit(raw, "Warning", "ClientSecretsLeft", told)
        self._since.pop(uid, None)
        await self._release(raw, [each for each in held if each != CLIENTS_ELSEWHERE])
        return True

    async def _take_back(self, namespace: str, name: str, uid: str) -> list[str]:
        """What could not be taken back, and why."""
        copies, unlisted = await self._clients.copies(namespace, name)
        ours = {
            spot: live
            for spot, live in copies.items()
            if (live["metadata"].get("annotations") or {}).get(CLIENT_UID) == uid
        }
        outcomes = await asyncio.gather(*(self._delete(spot, live) for spot, live in ours.items()))
        blind = [f"Secrets with the annotation {CLIENT_UID}: {uid} ({unlisted})"] if unlisted else []
        return [*filter(None, outcomes), *blind]

    async def _delete(self, spot: Spot, live: Manifest) -> str:
        try:
            await self._kube.delete(SECRETS, *spot, uid=live["metadata"]["uid"])
        except Fenced:
            raise
        except KubeError as error:
            log.warning("clients.not_taken_back", namespace=spot[0], secret=spot[1], error=str(error))
            return f"Secret {spot[1]} in namespace {spot[0]} ({error.message})"
        log.info("clients.taken_back", namespace=spot[0], secret=spot[1])
        return ""

    async def _release(self, raw: Manifest, finalizers: list[str]) -> None:
        """Hold it no longer; raises `Conflict` where somebody else wrote to it, for another round."""
        metadata = raw["metadata"]
        change = {"uid": metadata["uid"], "resourceVersion": metadata["resourceVersion"], "finalizers": finalizers}
        try:
            await self._kube.patch(
                ETCDCLUSTERS, metadata["namespace"], metadata["name"], {"metadata": change}, kind="merge"
            )
        except NotFound:
            log.info("clients.cluster_gone", cluster=metadata["name"])
