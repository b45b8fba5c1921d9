"""Looking up where members can run: their PersistentVolumes, and the nodes that those and their pods are tied to.

Reads only, and only for members whose pods are not well: a cluster at rest costs nothing here. What was read a moment
ago serves all clusters, as one dead node makes many members ill; before anything is changed it is read anew. Where the
operator may not read nodes or volumes (an install for single namespaces), nothing is known, and nothing is said of it.
"""

import asyncio
import itertools
from collections.abc import Awaitable, Callable, Iterator
from time import monotonic

import structlog

from etcd_operator.cluster.observation import MOST_NAMED, Node, Nodes, Objects, Place
from etcd_operator.cluster.records import annotations, is_terminating
from etcd_operator.cluster.trouble import is_ready
from etcd_operator.kube import Forbidden, Kube, KubeError
from etcd_operator.kube.resources import NODES, PVS
from etcd_operator.resources.names import ABANDONED, Manifest, Names

log = structlog.get_logger(__name__)

#: Seconds for which an answer serves looks that change nothing.
FRESH = 3.0
#: Nodes that are asked for of those that a volume can be mounted on: so many are no single place that could be lost.
FEW = 4
#: Combinations of labels that are looked up for one volume.
MOST_SELECTORS = 8
#: Seconds until the operator tries again to read what it was forbidden: permissions are given, and break for a while.
FORBIDDEN_FOR = 600.0

Labels = tuple[tuple[str, str], ...]


class Places:
    """Looks up places for all clusters of one operator; `allowed`: it may read what is not in any namespace."""

    def __init__(self, kube: Kube, *, allowed: bool) -> None:
        self._kube = kube
        self._allowed = allowed
        self._forbidden_until = float("-inf")
        self._read: dict[tuple[str, str], tuple[float, list[Manifest]]] = {}

    async def of(self, names: Names, objects: Objects, *, anew: bool) -> dict[str, Place]:
        """The places of the members that are not well, by member; `anew`: read now."""
        members = _in_question(names, objects) if self._may_read() else []
        found = await asyncio.gather(*(self._place(names, objects, member, anew=anew) for member in members))
        return {member: place for member, place in zip(members, found, strict=True) if place is not None}

    async def nodes(self) -> tuple[Node, ...] | None:
        """All nodes by name, or one more than `MOST_NAMED` where there are more; `None`: nobody knows."""
        if not self._may_read():
            return None
        read = lambda: self._kube.list(NODES, None, most=MOST_NAMED + 1)  # noqa: E731
        try:
            nodes = await self._cached(("nodes", "all"), read, anew=False)
        except Forbidden as error:
            self._forbid(error)
            return None
        except KubeError as error:
            log.info("places.unknown_nodes", error=str(error))
            return None
        return tuple(sorted(map(_addresses, nodes), key=lambda each: each.name))

    def _may_read(self) -> bool:
        return self._allowed and monotonic() >= self._forbidden_until

    def _forbid(self, error: Forbidden) -> None:
        log.info("places.forbidden", error=error.message)
        self._forbidden_until = monotonic() + FORBIDDEN_FOR

    async def _place(self, names: Names, objects: Objects, member: str, *, anew: bool) -> Place | None:
        pod, claim = objects.pods.get(member), objects.claims.get(names.claim(member))
        node = (pod or {}).get("spec", {}).get("nodeName")
        volume = (claim or {}).get("spec", {}).get("volumeName")
        try:
            of_pod = await self._node(node, anew=anew) if node else None
            live = await self._volume(volume, anew=anew) if volume else None
            if live is None:
                return Place(node=of_pod)
            home, homes = await self._home(live, anew=anew)
        except Forbidden as error:
            self._forbid(error)
            return None
        except KubeError as error:
            log.info("places.unknown", member=member, error=str(error))
            return None
        return Place(
            volume=live["metadata"]["name"],
            uid=live["metadata"]["uid"],
            retained=live["spec"].get("persistentVolumeReclaimPolicy") == "Retain",
            home=home,
            homes=homes,
            node=of_pod,
        )

    async def _node(self, name: str, *, anew: bool) -> Nodes:
        async def read() -> list[Manifest]:
            found = await self._kube.get(NODES, None, name)
            return [] if found is None else [found]

        return _state(await self._cached(("node", name), read, anew=anew))

    async def _volume(self, name: str, *, anew: bool) -> Manifest | None:
        async def read() -> list[Manifest]:
            found = await self._kube.get(PVS, None, name)
            return [] if found is None else [found]

        return next(iter(await self._cached(("volume", name), read, anew=anew)), None)

    async def _home(self, volume: Manifest, *, anew: bool) -> tuple[Nodes | None, str]:
        """What there is of the nodes that a volume is tied to, and their names; one tied to none is at home anywhere.

        Affinities that are no plain list of values are not judged.
        """
        required = ((volume["spec"].get("nodeAffinity") or {}).get("required") or {}).get("nodeSelectorTerms")
        if required is None:
            return Nodes.READY, ""
        selectors = list(_selectors(required))
        if not selectors or None in selectors or len(selectors) > MOST_SELECTORS:
            return None, ""
        nodes: list[Manifest] = []
        for labels in filter(None, selectors):
            nodes += await self._labelled(labels, anew=anew)
        told = ", ".join(dict.fromkeys(value for labels in filter(None, selectors) for _, value in labels))
        return (Nodes.READY if len(nodes) > FEW else _state(nodes)), told

    async def _labelled(self, labels: Labels, *, anew: bool) -> list[Manifest]:
        if labels[0][0] == "metadata.name":
            fields = f"metadata.name={labels[0][1]}"
            read = lambda: self._kube.list(NODES, None, fields=fields, most=FEW + 1)  # noqa: E731
        else:
            read = lambda: self._kube.list(NODES, None, labels=dict(labels), most=FEW + 1)  # noqa: E731
        return await self._cached(("nodes", str(labels)), read, anew=anew)

    async def _cached(
        self, key: tuple[str, str], read: Callable[[], Awaitable[list[Manifest]]], *, anew: bool
    ) -> list[Manifest]:
        at, found = self._read.get(key, (float("-inf"), []))
        if not anew and monotonic() - at < FRESH:
            return found
        begun = monotonic()
        self._read = {old: kept for old, kept in self._read.items() if begun - kept[0] < FRESH}
        found = await read()
        self._read[key] = (begun, found)
        return found


def _in_question(names: Names, objects: Objects) -> list[str]:
    """Members whose pod is not there or not ready, and those whose volume was given up."""
    made = objects.stateful_sets.get(names.stateful_set)
    members = {*names.members((made or {}).get("spec", {}).get("replicas") or 0), *objects.pods}
    abandoned = {
        member
        for claim, manifest in objects.claims.items()
        if (member := names.member_of_claim(claim)) and annotations(manifest).get(ABANDONED)
    }
    pods = {member: objects.pods.get(member) for member in members}
    ill = {member for member, pod in pods.items() if pod is None or is_terminating(pod) or not is_ready(pod)}
    return sorted(ill | abandoned)


def _addresses(node: Manifest) -> Node:
    """Internal addresses first: they are reached from the same network, at no cost and behind no firewall."""
    told = node.get("status", {}).get("addresses") or []
    kinds = ("InternalIP", "ExternalIP")
    found = sorted((each for each in told if each["type"] in kinds), key=lambda each: kinds.index(each["type"]))
    addresses = tuple(dict.fromkeys(each["address"] for each in found))
    return Node(name=node["metadata"]["name"], addresses=addresses, ready=_state([node]) is Nodes.READY)


def _state(nodes: list[Manifest]) -> Nodes:
    if not nodes:
        return Nodes.GONE
    ready = any(
        condition["type"] == "Ready" and condition["status"] == "True"
        for node in nodes
        for condition in node.get("status", {}).get("conditions") or []
    )
    return Nodes.READY if ready else Nodes.NOT_READY


def _selectors(terms: list[Manifest]) -> Iterator[Labels | None]:
    """Every set of labels that one of the terms asks a node for; `None` for a term that says it otherwise."""
    for term in terms:
        expressions, fields = term.get("matchExpressions") or [], term.get("matchFields") or []
        every = [*expressions, *fields]
        if not every or any(each.get("operator") != "In" for each in every) or (fields and len(every) > 1):
            yield None
            continue
        pairs = ([(each["key"], value) for value in each.get("values") or []] for each in every)
        yield from itertools.product(*pairs)
