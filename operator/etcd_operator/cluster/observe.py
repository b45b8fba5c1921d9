"""Reading one EtcdCluster: its objects from Kubernetes and its members from etcd, into one `Observation`.

Reads only. Kubernetes is read past the watch, so that no step is judged from a stale cache; etcd is asked
through the pods' addresses, so that no name service stands between a member and the truth about it.
"""

import asyncio
import re
import secrets
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from time import monotonic

from etcd_operator.api import EtcdCluster
from etcd_operator.api.base import LocalObjectReference
from etcd_operator.cluster import api_servers
from etcd_operator.cluster.authority import Phase, authority_problem, held, is_successor
from etcd_operator.cluster.identity import Identities
from etcd_operator.cluster.observation import Complaint, Named, Node, Objects, Observation, Place, ResizeRefusal
from etcd_operator.cluster.outside import needs_nodes
from etcd_operator.cluster.places import Places
from etcd_operator.cluster.records import annotations, is_terminating, owner_uids
from etcd_operator.cluster.trouble import etcd_container, is_running, told_change
from etcd_operator.etcd.client import EtcdClient
from etcd_operator.etcd.handshake import shake_hands
from etcd_operator.etcd.model import AlarmKind, Answer, Endpoint, Handshake, KeyHash
from etcd_operator.etcd.probe import ask, compare
from etcd_operator.kube import Kube, Resource
from etcd_operator.kube.agent_image import AgentImage
from etcd_operator.kube.resources import (
    CONFIGMAPS,
    DEPLOYMENTS,
    ETCDCLUSTERS,
    EVENTS,
    NETWORKPOLICIES,
    PDBS,
    PODS,
    PVCS,
    SECRETS,
    SERVICES,
    STATEFULSETS,
)
from etcd_operator.resources.names import (
    CLIENT_PORT,
    CLUSTER_LABEL,
    HTTP_PORT,
    MOST_MEMBERS,
    OLD_DATA,
    PEER_PORT,
    Manifest,
    Names,
)
from etcd_operator.resources.secrets import Side, content

#: Seconds for one question to a member, and for a whole round with its second tries: together with the pace of a
#: resting cluster they bound how long a member can hang unnoticed, which is to stay under ten seconds.
ANSWER_WITHIN, ROUND_WITHIN = 1.5, 3.5
#: Seconds that members may take to hash all their keys: gigabytes, from a disk.
COMPARED_WITHIN = 60.0
#: Seconds for which members that answer may be without a leader before that is told as a lost quorum: an election
#: after a leader's death takes one to two election timeouts, a second each by default.
ELECTION_WITHIN = 2.2
#: Seconds until bindings are asked again whether they still list a member that is gone, while nothing else happens.
LISTED_ANEW = 30.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Picture:
    """What Kubernetes has of one cluster at one moment; it stays right until a watch event says otherwise."""

    raw: Manifest
    cluster: EtcdCluster
    objects: Objects
    complaints: tuple[Complaint, ...]
    remembered: Named
    provided: Mapping[Side, Manifest]
    nodes: tuple[Node, ...] | None

    def with_raw(self, raw: Manifest) -> "Picture":
        """The same picture with the EtcdCluster as it is after its status was written."""
        return replace(self, raw=raw, cluster=EtcdCluster.model_validate(raw))


class Observer:
    """Reads clusters for one operator."""

    def __init__(
        self, *, kube: Kube, etcd: EtcdClient, domain: str, served: Sequence[str], images: AgentImage, namespace: str
    ) -> None:
        """`served`: the namespaces that the operator serves; empty: all, and then it may read what is in none.

        `namespace` is its own.
        """
        self._kube = kube
        self._etcd = etcd
        self._domain = domain
        self._namespace = namespace
        self._identities = Identities()
        self._images = images
        self._served = tuple(served)
        self._places = Places(kube, allowed=not self._served)
        #: When bindings were last asked for what they list, and what they said.
        self._listed: tuple[float, frozenset[str] | None] = (float("-inf"), None)
        #: By cluster: for which alarms and members the keys were compared, and what came of it.
        self._compared: dict[tuple[str, str], tuple[object, asyncio.Task[dict[str, KeyHash]]]] = {}

    async def picture(self, namespace: str, name: str, before: Picture | None) -> Picture | None:
        """Everything that Kubernetes has of the cluster; `None` when there is no such EtcdCluster, or it is going."""
        raw, objects = await asyncio.gather(
            self._kube.get(ETCDCLUSTERS, namespace, name), self._objects(namespace, name)
        )
        if raw is None or raw["metadata"].get("deletionTimestamp"):
            return None
        names = Names(name=name, namespace=namespace, domain=self._domain)
        cluster = EtcdCluster.model_validate(raw)
        in_memory = cluster.spec.storage.medium == "Memory"
        if in_memory:
            objects = await self._with_unlabelled_pods(names, objects)
        objects = await self._with_own_pods(raw, names, objects)
        wanted = () if in_memory else names.members(cluster.spec.members)
        objects = await self._with_unlabelled_claims(names, objects, wanted)
        if in_memory and (objects.config_maps or objects.stateful_sets):
            objects = replace(objects, claims={})  # it has none: whatever is named so is somebody else's
        return Picture(
            raw=raw,
            cluster=cluster,
            objects=objects,
            complaints=await self._complaints(namespace, name, objects),
            remembered=_remembered(raw, names, objects, before),
            provided=await self._provided(cluster),
            nodes=await self._places.nodes() if needs_nodes(cluster.spec, names, objects.services) else (),
        )

    async def _provided(self, cluster: EtcdCluster) -> dict[Side, Manifest]:
        """The Secrets with the user's own authorities."""
        tls, found = cluster.spec.tls, dict[Side, Manifest]()
        sides: tuple[tuple[Side, LocalObjectReference | None], ...] = (
            ("peer", tls.peer.secret_ref),
            ("client", tls.client.secret_ref),
        )
        for side, reference in sides:
            if reference and (secret := await self._kube.get(SECRETS, cluster.metadata.namespace, reference.name)):
                found[side] = secret
        return found

    async def observation(
        self,
        picture: Picture,
        accepted: Mapping[tuple[str, str], tuple[str, str]],
        answers: Mapping[str, Answer] | None = None,
        refusal: str = "",
        resizes: Mapping[str, ResizeRefusal] | None = None,
        *,
        anew: bool = True,
    ) -> Observation:
        """The picture together with what the members answer now, or with `answers` that they gave a moment ago.

        `anew`: the picture is of this very moment, and what else is read of Kubernetes is to be.
        """
        metadata, now = picture.cluster.metadata, datetime.now(UTC)
        names = Names(name=metadata.name, namespace=metadata.namespace, domain=self._domain)
        places, told, handshakes, behind, nodes, listed = await asyncio.gather(
            self._look_up(names, picture, anew=anew),
            self._told(picture, answers),
            self._handshakes(picture, now),
            self._api_servers_behind(names, picture),
            self._nodes(picture),
            self._listed_servers(names, picture, anew=anew),
        )
        return Observation(
            at=now,
            cluster=picture.cluster,
            names=names,
            objects=picture.objects,
            answers=told,
            handshakes=handshakes,
            api_servers_behind=behind,
            complaints=picture.complaints,
            places=places,
            hashes=await self._compare(picture, told),
            remembered=picture.remembered,
            provided=picture.provided,
            nodes=nodes,
            listed_servers=listed,
            operator_namespace=self._namespace,
            accepted=accepted,
            refusal=refusal,
            resizes=dict(resizes or {}),
            agent_image=await self._images.name() if _has_old_data(picture.objects) else "",
            fresh_incarnation=uuid.uuid4().hex[:10],
            fresh_password=secrets.token_urlsafe(18),
        )

    async def _objects(self, namespace: str, name: str) -> Objects:
        kinds = (STATEFULSETS, CONFIGMAPS, SERVICES, SECRETS, PDBS, DEPLOYMENTS, NETWORKPOLICIES, PODS, PVCS)
        lists = await asyncio.gather(*(self._labelled(kind, namespace, name) for kind in kinds))
        stateful_sets, config_maps, services, found, budgets, deployments, policies, pods, claims = lists
        return Objects(
            stateful_sets=stateful_sets,
            config_maps=config_maps,
            services=services,
            secrets=found,
            disruption_budgets=budgets,
            deployments=deployments,
            network_policies=policies,
            pods=pods,
            claims=claims,
        )

    async def _with_own_pods(self, raw: Manifest, names: Names, objects: Objects) -> Objects:
        """The objects with the pods of this cluster's members apart from all others.

        The lists are read side by side: pods that were orphaned when their StatefulSet was to be made anew may have
        been read before it, and still name it. Where some would not count they are read again, now surely after it.
        """
        uid, stateful_set, pods = raw["metadata"]["uid"], objects.stateful_sets.get(names.name), objects.pods
        own = _own_pods(names, pods, stateful_set, uid)
        if len(own) < len(pods):
            pods = {**pods, **await self._labelled(PODS, names.namespace, names.name)}
            own = _own_pods(names, pods, stateful_set, uid)
        others = {name: pod for name, pod in pods.items() if name not in own}
        return replace(objects, pods=own, other_pods=others)

    async def _with_unlabelled_pods(self, names: Names, objects: Objects) -> Objects:
        """The objects with pods whose label a stray hand took: a pod that is gone proves that its data in memory is."""
        stateful_set = objects.stateful_sets.get(names.stateful_set)
        members = names.members(((stateful_set or {}).get("spec") or {}).get("replicas") or 0)
        missing = sorted(set(members) - objects.pods.keys())
        found = await asyncio.gather(*(self._kube.get(PODS, names.namespace, member) for member in missing))
        pods = {member: manifest for member, manifest in zip(missing, found, strict=True) if manifest is not None}
        return replace(objects, pods={**objects.pods, **pods})

    async def _labelled(self, resource: Resource, namespace: str, name: str) -> dict[str, Manifest]:
        found = await self._kube.list(resource, namespace, labels={CLUSTER_LABEL: name})
        return {manifest["metadata"]["name"]: manifest for manifest in found}

    async def _with_unlabelled_claims(self, names: Names, objects: Objects, wanted: Iterable[str]) -> Objects:
        """Claims without our label, put back or stripped by hand: those of members, and what a founding would take.

        Nothing may be founded beside kept data, so before that every claim that a member could have is looked up.
        """
        founded = names.config_map in objects.config_maps or names.stateful_set in objects.stateful_sets
        members = {*objects.pods, *(wanted if founded else names.members(MOST_MEMBERS))}
        missing = sorted({names.claim(member) for member in members} - objects.claims.keys())
        if not missing:
            return objects
        found = await asyncio.gather(*(self._kube.get(PVCS, names.namespace, claim) for claim in missing))
        claims = {claim: manifest for claim, manifest in zip(missing, found, strict=True) if manifest is not None}
        return replace(objects, claims={**objects.claims, **claims})

    async def _complaints(self, namespace: str, name: str, objects: Objects) -> tuple[Complaint, ...]:
        """Kubernetes' own Warning events about what does not come up; asked only when something does not."""
        stateful_set = objects.stateful_sets.get(name)
        wanted = [stateful_set] if stateful_set and _lacks_pods(stateful_set, objects.pods) else []
        wanted += [pod for pod in objects.pods.values() if not is_running(pod)]
        wanted += [pod for pod in objects.other_pods.values() if pod.get("status", {}).get("phase") != "Running"]
        wanted += [claim for claim in objects.claims.values() if claim.get("status", {}).get("phase") == "Pending"]
        # What was said before the last pod was made is overcome: one could be made since.
        made = max((pod["metadata"]["creationTimestamp"] for pod in objects.pods.values()), default="")
        told = await asyncio.gather(
            *(
                self._complaints_about(namespace, about, made if about is stateful_set else _last_change(about))
                for about in wanted
            )
        )
        all_ = (complaint for complaints in told for complaint in complaints)
        return tuple(complaint for complaint in all_ if not _is_overcome(complaint, objects.claims))

    async def _complaints_about(self, namespace: str, about: Manifest, since: str) -> list[Complaint]:
        """Newest first, of this very object: one of the same name before it may have had other troubles."""
        kind, metadata = about["kind"], about["metadata"]
        fields = f"involvedObject.kind={kind},involvedObject.uid={metadata['uid']},type=Warning"
        events = await self._kube.list(EVENTS, namespace, fields=fields)
        dated = sorted(((_event_time(event), event) for event in events), key=lambda pair: pair[0], reverse=True)
        return [
            Complaint(
                kind=kind, name=metadata["name"], reason=event.get("reason", ""), message=event.get("message", "")
            )
            for at, event in dated
            if at >= since
        ]

    async def _look_up(self, names: Names, picture: Picture, *, anew: bool) -> Mapping[str, Place]:
        """Where the members that are not well could run; of a cluster that is still being made nobody asks."""
        if picture.cluster.status.bootstrap is None:
            return {}
        return await self._places.of(names, picture.objects, anew=anew)

    async def _told(self, picture: Picture, answers: Mapping[str, Answer] | None) -> Mapping[str, Answer]:
        return await self._answers(picture) if answers is None else answers

    async def _compare(self, picture: Picture, answers: Mapping[str, Answer]) -> Mapping[str, KeyHash] | None:
        """The hashes of the members' keys, while etcd's corruption alarm is raised; asked once for each such alarm.

        Nobody writes meanwhile. Hashing all keys may take longer than a look, and is not repeated before something
        changed.
        """
        key = (picture.cluster.metadata.namespace, picture.cluster.metadata.name)
        reports = {name: each.status for name, each in answers.items() if each.status and not each.status.is_learner}
        alarms = {alarm for each in reports.values() for alarm in each.alarms if alarm.kind is AlarmKind.CORRUPT}
        asked = (frozenset(alarms), frozenset(each.member_id for each in reports.values()))
        known = self._compared.get(key)
        if known is not None and known[0] != asked:
            known[1].cancel()
            del self._compared[key]
        if not alarms:
            return {}
        if key not in self._compared:
            revision = sorted(each.revision for each in reports.values())[(len(reports) - 1) // 2]
            endpoints = {name: each for name, each in self.endpoints(picture).items() if name in reports}
            hashing = compare(self._etcd, endpoints, revision, timeout=COMPARED_WITHIN)
            self._compared[key] = (asked, asyncio.create_task(hashing))
        task = self._compared[key][1]
        await asyncio.wait({task}, timeout=1.0)
        return task.result() if task.done() else None

    async def _answers(self, picture: Picture) -> Mapping[str, Answer]:
        starting = {name for name, pod in picture.objects.pods.items() if not etcd_container(pod).get("started")}
        return await ask(
            self._etcd,
            self.endpoints(picture),
            starting=starting,
            timeout=ANSWER_WITHIN,
            election=ELECTION_WITHIN,
            budget=ROUND_WITHIN,
        )

    async def _handshakes(self, picture: Picture, now: datetime) -> dict[tuple[Side, str], Handshake]:
        """Shake hands with every member while an authority is rotated, as one whom the newest one vouches for."""
        metadata = picture.cluster.metadata
        names = Names(name=metadata.name, namespace=metadata.namespace, domain=self._domain)
        sides: tuple[tuple[Side, str, int], ...] = (
            ("peer", names.peer_authority, PEER_PORT),
            ("client", names.client_authority, HTTP_PORT),
        )
        targets = {}
        for side, secret, port in sides:
            authority = held(side, content(picture.objects.secrets.get(secret)))
            if authority is None or authority.phase not in (Phase.TRUST, Phase.REISSUE):
                continue
            who = self._identities.signed(authority.newest, authority.trusted, now)
            for name, pod in picture.objects.pods.items():
                if is_running(pod) and (ip := pod.get("status", {}).get("podIP")):
                    targets[side, name] = (_address(ip, port), who)
        return await shake_hands(targets, timeout=ANSWER_WITHIN) if targets else {}

    async def _api_servers_behind(self, names: Names, picture: Picture) -> tuple[str, ...]:
        authority = held("client", content(picture.objects.secrets.get(names.client_authority)))
        if authority is None or authority.phase not in (Phase.TRUST, Phase.REISSUE):
            return ()
        return await api_servers.behind(self._kube, self._served, picture.raw, authority.trusted)

    async def _nodes(self, picture: Picture) -> tuple[Node, ...] | None:
        """As they were when the picture was taken; what was not known then may be now."""
        return await self._places.nodes() if picture.nodes is None else picture.nodes

    async def _listed_servers(self, names: Names, picture: Picture, *, anew: bool) -> frozenset[str] | None:
        """What bindings list, for a Service whose member may be gone; asked seldom where nothing is to be changed."""
        access, objects = picture.cluster.spec.access, picture.objects
        members = {member for service in objects.services if (member := names.member_of_service(service))}
        if not members or (access.members == "NodePort" and members <= objects.pods.keys()):
            return None
        if anew or monotonic() - self._listed[0] >= LISTED_ANEW:
            self._listed = monotonic(), await api_servers.listed(self._kube, self._served)
        return self._listed[1]

    def endpoints(self, picture: Picture) -> dict[str, Endpoint]:
        """Where the members whose etcd runs are reached, by name."""
        metadata = picture.cluster.metadata
        names = Names(name=metadata.name, namespace=metadata.namespace, domain=self._domain)
        identity = self._identities.identity(names, picture.objects.secrets, datetime.now(UTC))
        endpoints = {}
        for name, pod in picture.objects.pods.items():
            address, tls = pod.get("status", {}).get("podIP"), _speaks_tls(pod)
            if not is_running(pod) or not address or (tls and identity is None):
                continue
            server_name, who = (names.host(name), identity) if tls else (None, None)
            endpoints[name] = Endpoint(address=_address(address), server_name=server_name, tls=who)
        return endpoints


def _address(ip: str, port: int = CLIENT_PORT) -> str:
    return f"[{ip}]:{port}" if ":" in ip else f"{ip}:{port}"


def _own_pods(
    names: Names, pods: Mapping[str, Manifest], stateful_set: Manifest | None, uid: str
) -> dict[str, Manifest]:
    """The pods of this StatefulSet, and members' that no controller owns; none of an older EtcdCluster's."""
    mine = stateful_set is not None and (not (owners := owner_uids(stateful_set)) or uid in owners)
    controller = stateful_set["metadata"]["uid"] if stateful_set is not None and mine else None
    own = {}
    for name, pod in pods.items():
        controllers = [
            owner["uid"] for owner in pod["metadata"].get("ownerReferences") or [] if owner.get("controller")
        ]
        if names.ordinal(name) is not None and (not controllers or controllers == [controller]):
            own[name] = pod
    return own


def _speaks_tls(pod: Manifest) -> bool:
    """Whether the pod's etcd was started with a server certificate; what the spec says now may differ."""
    return any(volume["name"] == "server" for volume in pod["spec"].get("volumes") or [])


def _has_old_data(objects: Objects) -> bool:
    return any(annotations(claim).get(OLD_DATA) for claim in objects.claims.values())


def _is_overcome(complaint: Complaint, claims: Named) -> bool:
    """Whether it tells of a claim that was being deleted when a pod was to be made, and is not any more."""
    found = re.search(r"pvc (\S+) is being deleted", complaint.message)
    return found is not None and not is_terminating(claims.get(found[1]))


def _event_time(event: Manifest) -> str:
    return str(event.get("lastTimestamp") or event.get("eventTime") or event["metadata"]["creationTimestamp"])


def _last_change(about: Manifest) -> str:
    """When a pod last became ready or ceased to be; what was said of it before that is overcome. Empty for the rest."""
    return told_change(about) if about["kind"] == "Pod" else ""


def _lacks_pods(stateful_set: Manifest, pods: Named) -> bool:
    return len(pods) < (stateful_set["spec"].get("replicas") or 0)


def _remembered(raw: Manifest, names: Names, objects: Objects, before: Picture | None) -> Named:
    """The authorities of this EtcdCluster as they were first seen, and as a rotation changed them since.

    What a stray hand does to them is undone.
    """
    known = before.remembered if before and before.raw["metadata"]["uid"] == raw["metadata"]["uid"] else {}
    sound = {
        name: secret
        for name in (names.peer_authority, names.client_authority)
        if (secret := objects.secrets.get(name)) is not None and not authority_problem(content(secret))
    }
    followed = {
        name: secret
        for name, secret in sound.items()
        if name in known and is_successor(content(known[name]), content(secret))
    }
    return {**sound, **known, **followed}
