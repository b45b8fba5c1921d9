"""Reading what `spec.clients` needs beside the cluster's own objects: other namespaces, and copies of Secrets there.

Reads only, and nothing where no client wants anything elsewhere. No watch tells of a namespace's label, nor of a
stranger's Secret: so namespaces, and what stands in the way of a Secret, are read again from time to time while a
cluster rests, each once for all clusters. Copies are ours, and the watches tell of them.
"""

import asyncio
from collections.abc import Iterable
from dataclasses import replace
from time import monotonic

import structlog

from etcd_operator.api import EtcdCluster
from etcd_operator.cluster.clients import accepts
from etcd_operator.cluster.observation import DeliveryRefusal, Elsewhere, Named, Spot
from etcd_operator.kube import Forbidden, Kube, KubeError
from etcd_operator.kube.resources import NAMESPACES, SECRETS, Resource
from etcd_operator.resources.names import CLIENT_CLUSTER, CLIENT_NAMESPACE, CLIENTS_ELSEWHERE, Manifest, Names

log = structlog.get_logger(__name__)

#: Seconds for which what was read serves looks that change nothing.
FRESH = 30.0

Key = tuple[str, str]


class ClientObserver:
    """Reads for all clusters of one operator; `namespaces` are those that it watches, empty for all."""

    def __init__(self, kube: Kube, *, namespaces: tuple[str, ...]) -> None:
        self._kube = kube
        self._listed: tuple[str | None, ...] = namespaces or (None,)
        self._kept: dict[Key, Elsewhere] = {}
        self._refusals: dict[Key, dict[Spot, DeliveryRefusal]] = {}
        #: When a single object was read, and what came of it.
        self._read: dict[tuple[str, str | None, str], tuple[float, Manifest | KubeError | None]] = {}

    def refusals(self, namespace: str, name: str) -> dict[Spot, DeliveryRefusal]:
        """What the API server refused of one cluster's; whoever acts writes into it."""
        return self._refusals.setdefault((namespace, name), {})

    def forget(self, namespace: str, name: str) -> None:
        self._kept.pop((namespace, name), None)
        self._refusals.pop((namespace, name), None)

    async def elsewhere(self, cluster: EtcdCluster, secrets: Named, *, anew: bool) -> Elsewhere:
        """What there is now, or, unless `anew`, as far as the watches do not tell. `secrets` are the cluster's own."""
        names = Names(name=cluster.metadata.name, namespace=cluster.metadata.namespace, domain="")
        key = (names.namespace, names.name)
        wanted = _spots(cluster, names)
        if not cluster.spec.clients and not _is_held(cluster):
            self._kept.pop(key, None)
            return Elsewhere()
        kept = None if anew else self._kept.get(key)
        found = kept or Elsewhere()
        if kept is None and (wanted or _is_held(cluster)):
            copies, unlisted = await self.copies(names.namespace, names.name)
            found = replace(found, copies=copies, unlisted=unlisted)
        if wanted:
            found = await self._in_namespaces(found, wanted, names, anew=kept is None)
        found = replace(found, taken=await self._taken(cluster, names, secrets, anew=kept is None))
        self._kept[key] = found
        return replace(found, refusals=self._current(key, found, wanted))

    async def copies(self, namespace: str, name: str) -> tuple[dict[Spot, Manifest], str]:
        """The Secrets with labels of that EtcdCluster's copies; and why some are not known, empty where all are."""
        labels = _copy_labels(namespace, name)
        copies: dict[Spot, Manifest] = {}
        unlisted = ""
        for listed in self._listed:
            if listed == namespace:
                continue  # copies are in others
            try:
                found = await self._kube.list(SECRETS, listed, labels=labels)
            except Forbidden as error:
                unlisted = error.message
            else:
                copies |= {_spot(each): each for each in found}
        return copies, unlisted

    async def _in_namespaces(self, found: Elsewhere, wanted: Iterable[Spot], names: Names, *, anew: bool) -> Elsewhere:
        """With the namespaces that the spec names, and what else is there where a copy is to be."""
        named = sorted({namespace for namespace, _ in wanted})
        read = await asyncio.gather(*(self._one(NAMESPACES, None, name, anew=anew) for name in named))
        unreadable = {name: _why(each) for name, each in zip(named, read, strict=True) if isinstance(each, KubeError)}
        there = {name: each for name, each in zip(named, read, strict=True) if not isinstance(each, KubeError)}
        # Of copies that have their labels the watches tell; not of what stands in the way of one.
        labels = _copy_labels(names.namespace, names.name)
        copies = {spot: live for spot, live in found.copies.items() if labels.items() <= _labels(live).items()}
        unknown = [spot for spot in wanted if spot not in copies and accepts(there.get(spot[0]), names.namespace)]
        secrets = await asyncio.gather(*(self._one(SECRETS, *spot, anew=anew) for spot in unknown))
        for spot, live in zip(unknown, secrets, strict=True):
            if isinstance(live, KubeError):
                unreadable[spot[0]] = _why(live)
            elif live is not None:
                copies[spot] = live
        return replace(found, copies=copies, namespaces=there, unreadable=unreadable)

    async def _taken(self, cluster: EtcdCluster, names: Names, secrets: Named, *, anew: bool) -> frozenset[str]:
        """Secrets of others that have names of clients' Secrets; asked when those are due, and are not there."""
        if names.client_access not in secrets:
            return frozenset()
        missing = [name for each in cluster.spec.clients if (name := names.client_secret(each.name)) not in secrets]
        read = (self._one(SECRETS, names.namespace, name, anew=anew) for name in missing)
        found = zip(missing, await asyncio.gather(*read), strict=True)
        return frozenset(name for name, live in found if isinstance(live, dict) and not _owned(cluster, live))

    async def _one(
        self, resource: Resource, namespace: str | None, name: str, *, anew: bool
    ) -> Manifest | KubeError | None:
        """One object, or why it cannot be read; what was known before serves while the API server does not answer."""
        key = (resource.kind, namespace, name)
        at, before = self._read.get(key, (float("-inf"), None))
        now = monotonic()
        if not anew and now - at < FRESH:
            return before
        self._read = {old: kept for old, kept in self._read.items() if now - kept[0] < 10 * FRESH}
        try:
            found: Manifest | KubeError | None = await self._kube.get(resource, namespace, name)
        except KubeError as error:
            log.info("clients.unreadable", kind=resource.kind, namespace=namespace, name=name, error=str(error))
            found = before if key in self._read and error.retryable else error
        self._read[key] = (now, found)
        return found

    def _current(self, key: Key, found: Elsewhere, wanted: Iterable[Spot]) -> dict[Spot, DeliveryRefusal]:
        """What was refused where there still is something to do."""
        refusals = self._refusals.get(key, {})
        for spot in set(refusals) - set(wanted) - set(found.copies):
            del refusals[spot]
        return dict(refusals)


def _spots(cluster: EtcdCluster, names: Names) -> list[Spot]:
    return [
        (namespace, names.client_copy(each.name))
        for each in cluster.spec.clients
        for namespace in each.namespaces
        if namespace != names.namespace
    ]


def _spot(live: Manifest) -> Spot:
    return live["metadata"]["namespace"], live["metadata"]["name"]


def _is_held(cluster: EtcdCluster) -> bool:
    return CLIENTS_ELSEWHERE in cluster.metadata.finalizers


def _copy_labels(namespace: str, name: str) -> dict[str, str]:
    return {CLIENT_CLUSTER: name, CLIENT_NAMESPACE: namespace}


def _labels(live: Manifest) -> Manifest:
    return live["metadata"].get("labels") or {}


def _owned(cluster: EtcdCluster, live: Manifest) -> bool:
    owners = live["metadata"].get("ownerReferences") or []
    return any(owner["uid"] == cluster.metadata.uid for owner in owners)


def _why(error: KubeError) -> str:
    return "the API server does not answer" if error.retryable else error.message
