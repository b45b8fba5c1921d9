"""One reconcile of one ApiServerBinding: observe, judge, act, status.

Holds nothing that matters: what it remembers between rounds (corrections of late, who follows which EtcdCluster)
comes back by itself.
"""

from collections import deque
from collections.abc import Callable, Iterable
from time import monotonic

import structlog

from etcd_operator.binding import kubeadm, rules, wiring
from etcd_operator.binding.act import FINALIZER, Hands, NotOursError
from etcd_operator.binding.arguments import UnreadableArgumentsError
from etcd_operator.binding.comparison import Comparison
from etcd_operator.binding.control_plane import ControlPlanes
from etcd_operator.binding.kubeadm import DropAgent, DropSecret, StartAgent, Wait
from etcd_operator.binding.kubeadm_config import configured, restored
from etcd_operator.binding.node_hands import NodeHands
from etcd_operator.binding.observation import Seen
from etcd_operator.binding.observe import Observer
from etcd_operator.binding.obstacle import Obstacle, target_name
from etcd_operator.binding.owners import manager_of_arguments
from etcd_operator.binding.status import has_changed, instances, status, status_manifest, verdict
from etcd_operator.binding.wiring import Wiring
from etcd_operator.etcd.client import EtcdClient
from etcd_operator.kube import Conflict, EventRecorder, Forbidden, Invalid, Kube, NotFound
from etcd_operator.kube.agent_image import AgentImage
from etcd_operator.runtime.controller import Key, Result
from etcd_operator.runtime.settings import Settings

log = structlog.get_logger(__name__)

#: Seconds until the next look: while instances restart, while something is in the way, and at rest, when only an edit
#: of the workload could have changed anything (the EtcdCluster's changes come by themselves).
UNDER_WAY, IN_THE_WAY, RESTING = 1.0, 5.0, 10.0
#: Seconds until a cluster that does not answer is asked again: each such look takes some seconds of a worker.
FAR_AWAY = 30.0
#: By how much each further binding stretches the rest: a thousand cost no more than one look a minute each.
RESTING_PER_BINDING = 0.06
#: Seconds until two etcds that held different things are read again.
AGAIN = 60.0
#: What to do about a deletion that goes on.
_GIVE_UP = "set spec.onDelete: Keep to leave the API servers as they are"
#: So many corrections within so many seconds are a quarrel with somebody, which is told instead of carried on.
CORRECTIONS, WITHIN = 3, 600.0


class ApiServerBindingController:
    """Brings API servers to use the etcds that their bindings name."""

    kind = "ApiServerBinding"

    def __init__(
        self, *, kube: Kube, events: EventRecorder, settings: Settings, on_etcd_call: Callable[[str, str], None]
    ) -> None:
        self._kube = kube
        self._events = events
        self._etcd = EtcdClient(count=on_etcd_call)
        self._planes = ControlPlanes(kube)
        images = AgentImage(kube, given=settings.agent_image, namespace=settings.pod_namespace, pod=settings.pod_name)
        self._observer = Observer(
            kube=kube, etcd=self._etcd, namespaces=settings.watch_namespaces, planes=self._planes, images=images
        )
        self._hands = Hands(kube)
        self._node_hands = NodeHands(self._planes)
        #: Which EtcdCluster each binding follows.
        self._followed: dict[Key, Key] = {}
        #: When a binding's API server, or that on a node, was last put right, and by whom it had been changed.
        self._corrections: dict[tuple[Key, str], deque[tuple[float, str]]] = {}
        #: What each workload was given last: whoever replaces it whole takes our notes on it away as well.
        self._given: dict[Key, str] = {}
        #: What two etcds held, when, and whether the API server was stopped then.
        self._compared: dict[Key, tuple[float, bool, Comparison]] = {}

    def followers(self, key: Key) -> Iterable[Key]:
        """The bindings of an EtcdCluster."""
        return [binding for binding, cluster in self._followed.items() if cluster == key]

    async def reconcile(self, key: Key, *, changed: bool) -> Result:
        """One round; raises what kept it from being carried out."""
        seen = await self._observer.seen(key.namespace, key.name)
        if seen is None:
            for memory in (self._followed, self._given, self._compared):
                memory.pop(key, None)
            self._corrections = {each: when for each, when in self._corrections.items() if each[0] != key}
            await self._planes.forget(key.namespace, key.name)
            return Result()
        reference = seen.binding.spec.cluster_ref
        self._followed[key] = Key("EtcdCluster", reference.namespace or key.namespace, reference.name)
        if seen.binding.metadata.deletion_timestamp:
            return await self._let_go(seen)
        wanted = wiring.wiring(seen)
        stands = rules.obstacle(seen, wanted)
        acted, waits = False, None
        if stands is None and wanted is not None:
            try:
                if seen.control_plane is not None:
                    stands, acted, waits = await self._wire_nodes(key, seen, wanted)
                else:
                    stands, acted = await self._bring_about(key, seen, wanted)
            except Conflict as error:
                log.info("binding.conflict", error=str(error))  # somebody was faster: look again
                return Result(requeue_after=0.1)
            except NotOursError as error:
                stands = Obstacle(reason="NameTaken", summary="A Secret is in the way", message=str(error))
            except (Forbidden, Invalid) as error:
                stands = Obstacle(reason="Refused", summary="The API server refused it", message=error.message)
        await self._tell(seen, wanted, stands, pending=acted, note=waits.message if waits else "")
        if waits:
            return Result(requeue_after=waits.seconds)
        return Result(requeue_after=0.0 if acted else self._next_look(seen, wanted, stands))

    async def _bring_about(self, key: Key, seen: Seen, wanted: Wiring) -> tuple[Obstacle | None, bool]:
        """Whatever the binding needs next: what is in the way of it, and whether something was done."""
        if await self._hands.keep_finalizer(seen) or await self._hands.keep_copy(seen, wanted):
            return None, True
        if seen.workload is None:
            answers = await self._observer.answers(seen, wanted) if _is_new(seen, wanted) else {}
            return rules.obstacle_by_etcd(seen, wanted, answers, None), False
        patch = wiring.wiring_patch(seen, wanted)
        if patch is None:
            return None, False
        if contender := self._contender(key):
            return rules.contested(seen, contender), False
        answers = await self._observer.answers(seen, wanted)
        comparison: Comparison | None = None
        if rules.needs_comparison(seen) and not seen.binding.spec.accept_different_data:
            comparison = await self._compare(key, seen, wanted)
        stands = rules.obstacle_by_etcd(seen, wanted, answers, comparison)
        # First the status tells which prefix it takes, then another look at who else tells that; see `rules`.
        if stands is None and seen.binding.status.arguments == wanted.arguments:
            again = wiring.was_given(seen, wanted) or self._given.get(key) == wanted.digest
            drifted_by = manager_of_arguments(seen) if again else ""
            await self._hands.patch(seen, patch)
            self._given[key] = wanted.digest
            self._note(key, seen, wanted, drifted_by)
        return stands, stands is None

    async def _wire_nodes(self, key: Key, seen: Seen, wanted: Wiring) -> tuple[Obstacle | None, bool, Wait | None]:
        """The next step on the nodes of another cluster: what is in its way, whether it was taken, what is waited for.

        What is told comes first here as well, see `_bring_about`.
        """
        if await self._hands.keep_finalizer(seen):
            return None, True, None
        step = kubeadm.move(seen, wanted)
        match step:
            case Obstacle():
                return step, False, None
            case Wait():
                return None, False, step
            case None:
                return None, await self._configure(seen, wanted), None
        node = "" if isinstance(step, DropSecret) else step.node
        if node and (contender := self._contender(key, node)):
            return rules.contested(seen, contender), False, None
        told = seen.binding.status
        if told.arguments == wanted.arguments and seen.control_plane and told.cluster_uid == seen.control_plane.uid:
            await self._node_hands.carry_out(seen, step)
            self._note_step(key, seen, wanted, step)
        return None, True, None

    async def _configure(self, seen: Seen, wanted: Wiring) -> bool:
        """Let kubeadm know which etcd its API servers use; whether it had to be told."""
        assert seen.control_plane is not None
        patch = configured(seen.control_plane.configuration or {}, wanted, seen.identity)
        if patch is None:
            return False
        await self._node_hands.configure(seen, patch)
        return True

    async def _compare(self, key: Key, seen: Seen, wanted: Wiring) -> Comparison:
        """Both etcds, read anew where that may allow a change, and at most once a minute where it may not."""
        stopped = rules.is_stopped(seen)
        at, before, kept = self._compared.get(key, (0.0, False, None))
        fresh = kept is not None and before == stopped and monotonic() - at < AGAIN
        if kept and fresh and rules.obstacle_by_etcd(seen, wanted, {}, kept) is not None:
            return kept
        comparison = await self._observer.comparison(seen, wanted)
        self._compared[key] = (monotonic(), stopped, comparison)
        return comparison

    async def _let_go(self, seen: Seen) -> Result:
        """The binding is deleted: put the old arguments back where that was asked for."""
        if FINALIZER not in seen.binding.metadata.finalizers:
            return Result()
        try:
            if seen.binding.spec.on_delete == "Restore":
                if seen.binding.spec.target.kubeadm and not await self._restore_nodes(seen):
                    return Result(requeue_after=UNDER_WAY)
                patch = wiring.unwiring_patch(seen)
                if patch is not None:
                    await self._hands.patch(seen, patch)
                    self._events.emit(
                        seen.raw, "Normal", "Restored", "the API server has its former etcd arguments again"
                    )
        except (UnreadableArgumentsError, ValueError, Forbidden, Invalid, NotFound) as error:
            # Nothing that another try would cure; a deletion, and maybe its namespace's, is not held for that.
            self._events.emit(seen.raw, "Warning", "NotRestored", f"the API server is left as it is: {error}")
        await self._hands.drop_finalizer(seen)
        return Result()

    async def _restore_nodes(self, seen: Seen) -> bool:
        """One step of giving the nodes of another cluster their former arguments; whether none is left to take.

        Where that cluster cannot be reached, or a node fails, it goes on until somebody sets spec.onDelete to Keep.
        """
        if seen.unreachable is not None:
            if not seen.unreachable.waits or seen.unreachable.reason == "KubeconfigNotFound":
                raise ValueError(seen.unreachable.message)
            self._events.emit(seen.raw, "Warning", "NotRestored", f"{seen.unreachable.message}; {_GIVE_UP}")
            return False
        step = kubeadm.move_back(seen)
        match step:
            case Obstacle():
                self._events.emit(seen.raw, "Warning", "NotRestored", f"{step.message}; {_GIVE_UP}")
                return False
            case Wait():
                return False
            case None:
                assert seen.control_plane is not None
                if patch := restored(seen.control_plane.configuration or {}, seen.identity):
                    await self._node_hands.configure(seen, patch)
                self._events.emit(
                    seen.raw, "Normal", "Restored", "all API servers have their former etcd arguments again"
                )
                return True
        await self._node_hands.carry_out(seen, step)
        return False

    def _note_step(self, key: Key, seen: Seen, wanted: Wiring, step: StartAgent | DropAgent | DropSecret) -> None:
        match step:
            case StartAgent(node=node):
                log.info("binding.node", node=node, servers=wanted.servers)
                told = f"node {node} gets --etcd-servers={','.join(wanted.servers)}"
                self._events.emit(seen.raw, "Normal", "Wiring", told)
            case DropAgent(node=node, drifted=True):
                who = f"somebody on node {node}"
                self._corrections.setdefault((key, node), deque(maxlen=CORRECTIONS)).append((monotonic(), who))
                told = f"{who} had changed the etcd arguments in its manifest"
                self._events.emit(seen.raw, "Warning", "DriftCorrected", told)

    def _note(self, key: Key, seen: Seen, wanted: Wiring, drifted_by: str) -> None:
        log.info("binding.wired", servers=wanted.servers, drifted_by=drifted_by)
        target = target_name(seen.binding)
        if drifted_by:
            self._corrections.setdefault((key, ""), deque(maxlen=CORRECTIONS)).append((monotonic(), drifted_by))
            self._events.emit(
                seen.raw, "Warning", "DriftCorrected", f"{drifted_by} had changed the etcd arguments of {target}"
            )
        else:
            self._events.emit(seen.raw, "Normal", "Wired", f"{target} gets --etcd-servers={','.join(wanted.servers)}")

    def _contender(self, key: Key, node: str = "") -> str:
        """Who undid the last corrections, if those were too many in too short a time."""
        lately = [who for at, who in self._corrections.get((key, node), ()) if monotonic() - at < WITHIN]
        return lately[-1] if len(lately) >= CORRECTIONS else ""

    async def _tell(
        self, seen: Seen, wanted: Wiring | None, stands: Obstacle | None, *, pending: bool, note: str
    ) -> None:
        pods = instances(seen, wanted)
        told = verdict(seen, wanted, stands, pods, pending=pending, note=note)
        new, before = status(seen, wanted, told, pods, allowed=stands is None), seen.binding.status
        if not has_changed(new, seen):
            return
        try:
            await self._kube.apply_status(status_manifest(seen, new))
        except NotFound:
            return
        log.info("binding.status", summary=told.summary, reason=told.reason)
        if told.reason not in {each.reason for each in before.conditions if each.type == "Bound"}:
            self._events.emit(seen.raw, "Warning" if told.needs_person else "Normal", told.reason, told.message)

    def _next_look(self, seen: Seen, wanted: Wiring | None, stands: Obstacle | None) -> float:
        if stands is not None:
            return FAR_AWAY if seen.unreachable else IN_THE_WAY
        told = verdict(seen, wanted, None, instances(seen, wanted), pending=False)
        return UNDER_WAY if told.bound == "False" else max(RESTING, RESTING_PER_BINDING * len(self._followed))


def _is_new(seen: Seen, wanted: Wiring) -> bool:
    """Whether a person is to be told other arguments than before."""
    return seen.binding.status.arguments != wanted.arguments
