"""One reconcile of one ApiServerBinding: observe, judge, act, status.

Holds nothing that matters: what it remembers between rounds (corrections of late, who follows which EtcdCluster)
comes back by itself.
"""

from collections import deque
from collections.abc import Callable, Iterable
from time import monotonic

import structlog

from etcd_operator.binding import rules, wiring
from etcd_operator.binding.act import FINALIZER, Hands, NotOursError
from etcd_operator.binding.arguments import UnreadableArgumentsError
from etcd_operator.binding.comparison import Comparison
from etcd_operator.binding.observation import Seen
from etcd_operator.binding.observe import Observer
from etcd_operator.binding.owners import manager_of_arguments
from etcd_operator.binding.rules import Obstacle
from etcd_operator.binding.status import has_changed, instances, status, status_manifest, verdict
from etcd_operator.binding.wiring import Wiring
from etcd_operator.etcd.client import EtcdClient
from etcd_operator.kube import Conflict, EventRecorder, Forbidden, Invalid, Kube, NotFound
from etcd_operator.runtime.controller import Key, Result
from etcd_operator.runtime.settings import Settings

log = structlog.get_logger(__name__)

#: Seconds until the next look: while instances restart, while something is in the way, and at rest, when only an edit
#: of the workload could have changed anything (the EtcdCluster's changes come by themselves).
UNDER_WAY, IN_THE_WAY, RESTING = 1.0, 5.0, 10.0
#: By how much each further binding stretches the rest: a thousand cost no more than one look a minute each.
RESTING_PER_BINDING = 0.06
#: Seconds until two etcds that held different things are read again.
AGAIN = 60.0
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
        self._observer = Observer(kube=kube, etcd=self._etcd, namespaces=settings.watch_namespaces)
        self._hands = Hands(kube)
        #: Which EtcdCluster each binding follows.
        self._followed: dict[Key, Key] = {}
        #: When a binding's API server was last put right, and by whom it had been changed.
        self._corrections: dict[Key, deque[tuple[float, str]]] = {}
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
            for memory in (self._followed, self._corrections, self._given, self._compared):
                memory.pop(key, None)
            return Result()
        reference = seen.binding.spec.cluster_ref
        self._followed[key] = Key("EtcdCluster", reference.namespace or key.namespace, reference.name)
        if seen.binding.metadata.deletion_timestamp:
            await self._let_go(seen)
            return Result()
        wanted = wiring.wiring(seen)
        stands = rules.obstacle(seen, wanted)
        acted = False
        if stands is None and wanted is not None:
            try:
                stands, acted = await self._bring_about(key, seen, wanted)
            except Conflict as error:
                log.info("binding.conflict", error=str(error))  # somebody was faster: look again
                return Result(requeue_after=0.1)
            except NotOursError as error:
                stands = Obstacle(reason="NameTaken", summary="A Secret is in the way", message=str(error))
            except (Forbidden, Invalid) as error:
                stands = Obstacle(reason="Refused", summary="The API server refused it", message=error.message)
        await self._tell(seen, wanted, stands, pending=acted)
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

    async def _let_go(self, seen: Seen) -> None:
        """The binding is deleted: put the old arguments back where that was asked for."""
        if FINALIZER not in seen.binding.metadata.finalizers:
            return
        try:
            patch = wiring.unwiring_patch(seen) if seen.binding.spec.on_delete == "Restore" else None
            if patch is not None:
                await self._hands.patch(seen, patch)
                self._events.emit(seen.raw, "Normal", "Restored", "the API server has its former etcd arguments again")
        except (UnreadableArgumentsError, ValueError, Forbidden, Invalid, NotFound) as error:
            # Nothing that another try would cure; a deletion, and maybe its namespace's, is not held for that.
            self._events.emit(seen.raw, "Warning", "NotRestored", f"the API server is left as it is: {error}")
        await self._hands.drop_finalizer(seen)

    def _note(self, key: Key, seen: Seen, wanted: Wiring, drifted_by: str) -> None:
        log.info("binding.wired", servers=wanted.servers, drifted_by=drifted_by)
        target = rules.target_name(seen.binding)
        if drifted_by:
            self._corrections.setdefault(key, deque(maxlen=CORRECTIONS)).append((monotonic(), drifted_by))
            self._events.emit(
                seen.raw, "Warning", "DriftCorrected", f"{drifted_by} had changed the etcd arguments of {target}"
            )
        else:
            self._events.emit(seen.raw, "Normal", "Wired", f"{target} gets --etcd-servers={','.join(wanted.servers)}")

    def _contender(self, key: Key) -> str:
        """Who undid the last corrections, if those were too many in too short a time."""
        lately = [who for at, who in self._corrections.get(key, ()) if monotonic() - at < WITHIN]
        return lately[-1] if len(lately) >= CORRECTIONS else ""

    async def _tell(self, seen: Seen, wanted: Wiring | None, stands: Obstacle | None, *, pending: bool) -> None:
        pods = instances(seen, wanted)
        told = verdict(seen, wanted, stands, pods, pending=pending)
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
            return IN_THE_WAY
        told = verdict(seen, wanted, None, instances(seen, wanted), pending=False)
        return UNDER_WAY if told.bound == "False" else max(RESTING, RESTING_PER_BINDING * len(self._followed))


def _is_new(seen: Seen, wanted: Wiring) -> bool:
    """Whether a person is to be told other arguments than before."""
    return seen.binding.status.arguments != wanted.arguments
