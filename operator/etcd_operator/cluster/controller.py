"""One reconcile of one EtcdCluster: observe, plan, act, status.

Holds nothing that matters: the pictures kept between rounds spare reads while a cluster rests and are re-read
before anything is changed. Losing them costs a read.
"""

import asyncio
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from time import monotonic

import structlog

from etcd_operator.api import EtcdClusterStatus
from etcd_operator.cluster.act import Accepted, Hands, NameTakenError, act, status_manifest
from etcd_operator.cluster.client_farewell import Farewell
from etcd_operator.cluster.client_observe import ClientObserver
from etcd_operator.cluster.conditions import Outcome
from etcd_operator.cluster.judged import Judged
from etcd_operator.cluster.members import Quorum
from etcd_operator.cluster.observation import ResizeRefusal
from etcd_operator.cluster.observe import Observer, Picture
from etcd_operator.cluster.plan import plan
from etcd_operator.cluster.status import has_changed, status
from etcd_operator.cluster.steps import EtcdStep, Plan, Step
from etcd_operator.cluster.story import Tale, tales_of_status, tales_of_steps
from etcd_operator.cluster.trouble import Trouble, is_running
from etcd_operator.etcd.client import EtcdClient
from etcd_operator.etcd.errors import EtcdError
from etcd_operator.etcd.model import Answer
from etcd_operator.kube import Conflict, EventRecorder, Forbidden, Kube, KubeError, NotFound
from etcd_operator.kube.agent_image import AgentImage
from etcd_operator.kube.domain import cluster_domain
from etcd_operator.kube.errors import Fenced
from etcd_operator.pki import PKIError
from etcd_operator.resources.names import Manifest
from etcd_operator.runtime.controller import Key, Result
from etcd_operator.runtime.settings import Settings

log = structlog.get_logger(__name__)

#: Seconds until etcd is asked again while its processes run and it is about to be ready.
SOON = 0.1
#: Seconds between two looks at a cluster that something keeps from being well, beside the watch events.
AILING = 1.0
#: Seconds between two looks at a resting cluster, and by how much each further cluster stretches them: a few clusters
#: are watched closely, a thousand cost no more than a call a minute each (design: at rest).
RESTING, RESTING_PER_CLUSTER = 4.0, 0.06
#: Seconds until the very same steps are taken once more: they did not have the effect that they should have had.
REPEATED = 5.0
#: Seconds for which what Kubernetes said is good enough to ask only etcd, while something is amiss: at first, and
#: when nothing has happened for long.
PICTURE_IN_TROUBLE = (2.0, 30.0)
#: Seconds until etcd is asked again for a change of its members that it refused: it asks for patience for 5 s after
#: voters have connected.
REFUSED = 0.5
#: Of the time for which nothing has happened, the part to wait until the next look: 0.1 s after a second, RESTING
#: after most of a minute. A cluster that stays broken costs hardly more than one that rests.
PATIENCE = 0.1

#: Told the cluster's key and its conditions' states after every round, or `None` when it is gone; for metrics.
ConditionObserver = Callable[[Key, Mapping[str, str] | None], None]


class EtcdClusterController:
    """Brings EtcdClusters to what their specs ask for."""

    kind = "EtcdCluster"

    def __init__(
        self,
        *,
        kube: Kube,
        events: EventRecorder,
        settings: Settings,
        on_etcd_call: Callable[[str, str], None],
        on_conditions: ConditionObserver,
    ) -> None:
        self._kube = kube
        self._events = events
        domain = settings.cluster_domain or cluster_domain()
        self._etcd = EtcdClient(count=on_etcd_call)
        image, own = settings.agent_image, settings.pod_name
        images = AgentImage(kube, given=image, namespace=settings.pod_namespace, pod=own)
        self._observer = Observer(
            kube=kube,
            etcd=self._etcd,
            domain=domain,
            served=settings.watch_namespaces,
            images=images,
            namespace=settings.pod_namespace,
        )
        self._clients = ClientObserver(kube, namespaces=settings.watch_namespaces)
        self._farewell = Farewell(kube, events, self._clients)
        self._told = on_conditions
        self._pictures: dict[Key, tuple[float, Picture]] = {}
        self._at_rest: set[Key] = set()
        self._last_steps: dict[Key, tuple[Step, ...]] = {}
        self._accepted: dict[Key, Accepted] = {}
        #: What etcd answered to a change that it refused, and until when it is not asked again.
        self._refusals: dict[Key, tuple[float, str]] = {}
        #: What the API server answered to claims that were to grow, by the claim's UID.
        self._resizes: dict[Key, dict[str, ResizeRefusal]] = {}
        #: Since when nothing has happened to a cluster: no watch event, no step, no change of status.
        self._quiet_since: dict[Key, float] = {}

    def followers(self, key: Key) -> Iterable[Key]:
        """None: an EtcdCluster depends on no object of another kind of the operator's."""
        return ()

    async def reconcile(self, key: Key, *, changed: bool) -> Result:
        """One round; raises what kept it from being carried out, after the status has told it."""
        if changed:
            self._quiet_since.pop(key, None)
        kept = None if changed else self._kept(key)
        picture = kept or await self._look(key)
        if picture is None:
            return await self._see_off(key)
        judged, decided = await self._judge(key, picture, anew=kept is None)
        if kept and (decided.steps or self._differs(picture, judged, Outcome(plan=decided))):
            picture = await self._look(key)
            if picture is None:
                return await self._see_off(key)
            # Kubernetes may have changed meanwhile; what the members just said has not: to ask a silent one again would
            # only tell of it later.
            judged, decided = await self._judge(key, picture, _still_true(judged.seen.answers, kept, picture))
        return await self._carry_out(key, picture, judged, decided)

    async def _carry_out(self, key: Key, picture: Picture, judged: Judged, decided: Plan) -> Result:
        structlog.contextvars.bind_contextvars(step=decided.rule)
        failure: Exception | None = None
        outcome = Outcome(plan=decided)
        if decided.steps:
            log.info("cluster.acting", reasons=list(dict.fromkeys(step.reason for step in decided.steps)))
            try:
                endpoints, resizes = self._observer.endpoints(picture), self._resizes.setdefault(key, {})
                refusals = self._clients.refusals(key.namespace, key.name)
                hands = Hands(self._kube, self._etcd, endpoints, judged.blueprint.cluster_id, resizes, refusals)
                await act(hands, picture.cluster, picture.raw, decided.steps, self._accepted.setdefault(key, {}))
            except Fenced:
                raise
            except EtcdError as error:
                # Another look first: it may have been done all the same, and etcd's reasons for "not now" pass.
                log.info("cluster.etcd_refused", kind=error.kind, error=error.message, detail=error.detail)
                # The next look may find it done, and then nobody would tell it; as what was done beside it.
                done = tuple(step for step in decided.steps if error.uncertain or not isinstance(step, EtcdStep))
                self._tell(picture, tales_of_steps(replace(decided, steps=done), published=judged.published))
                self._refusals[key] = (monotonic() + REFUSED, error.message)
                self._pictures[key] = (0.0, self._pictures[key][1])
                return Result(requeue_after=0.0)
            except Conflict as error:
                log.info("cluster.conflict", error=str(error))  # somebody was faster: look again
                self._pictures[key] = (0.0, self._pictures[key][1])
                return Result(requeue_after=SOON)
            except (NameTakenError, PKIError, KubeError) as error:
                if isinstance(error, Forbidden) and error.namespace_terminating:
                    # The EtcdCluster goes with its namespace; what was taken away before it is not to be put back.
                    log.info("cluster.namespace_terminating")
                    return Result()
                failure, outcome = error, Outcome(plan=decided, error=_as_trouble(error))
            else:
                done = tuple(step for step in decided.steps if getattr(step, "spot", None) not in refusals)
                self._tell(picture, tales_of_steps(replace(decided, steps=done), published=judged.published))
        await self._write_status(key, picture, judged, outcome)
        if failure is not None:
            raise failure
        return self._next_look(key, judged, decided)

    async def _judge(
        self, key: Key, picture: Picture, answers: Mapping[str, Answer] | None = None, *, anew: bool = True
    ) -> tuple[Judged, Plan]:
        until, refusal = self._refusals.get(key, (0.0, ""))
        refusal = refusal if monotonic() < until else ""
        accepted, resizes = self._accepted.get(key, {}), self._resizes.get(key, {})
        seen, elsewhere = await asyncio.gather(
            self._observer.observation(picture, accepted, answers, refusal, resizes, anew=anew),
            self._clients.elsewhere(picture.cluster, picture.objects.secrets, anew=anew),
        )
        judged = Judged.of(replace(seen, elsewhere=elsewhere))
        return judged, plan(judged)

    async def _look(self, key: Key) -> Picture | None:
        _, before = self._pictures.get(key, (0.0, None))
        picture = await self._observer.picture(key.namespace, key.name, before)
        if picture is not None:
            self._pictures[key] = (monotonic(), picture)
        return picture

    def _kept(self, key: Key) -> Picture | None:
        """The last picture, while no watch event has come since and it is fresh enough for the cluster's state."""
        taken_at, picture = self._pictures.get(key, (0.0, None))
        stale_after = max(PICTURE_IN_TROUBLE[0], min(PICTURE_IN_TROUBLE[1], self._quiet(key) / 5))
        fresh = key in self._at_rest or monotonic() - taken_at < stale_after
        return picture if fresh else None

    async def _see_off(self, key: Key) -> Result:
        """Of an EtcdCluster that is gone, or going: what it has in other namespaces goes first."""
        try:
            gone = await self._farewell.said(key.namespace, key.name)
        except Conflict as error:
            log.info("cluster.conflict", error=str(error))
            return Result(requeue_after=SOON)
        return self._forget(key) if gone else Result(requeue_after=AILING)

    def _forget(self, key: Key) -> Result:
        self._clients.forget(key.namespace, key.name)
        self._pictures.pop(key, None)
        self._last_steps.pop(key, None)
        self._accepted.pop(key, None)
        self._quiet_since.pop(key, None)
        self._refusals.pop(key, None)
        self._resizes.pop(key, None)
        self._at_rest.discard(key)
        self._told(key, None)
        return Result()

    def _next_look(self, key: Key, judged: Judged, decided: Plan) -> Result:
        rests = not decided.steps and not decided.waiting and judged.blueprint.bootstrapped
        (self._at_rest.add if rests else self._at_rest.discard)(key)
        repeated = bool(decided.steps) and decided.steps == self._last_steps.get(key)
        self._last_steps[key] = decided.steps
        if decided.steps:
            self._quiet_since.pop(key, None)
            self._pictures[key] = (0.0, self._pictures[key][1])
            return Result(requeue_after=REPEATED if repeated else 0.0)
        if rests or judged.seen.cluster.spec.paused:
            return Result(requeue_after=max(RESTING, RESTING_PER_CLUSTER * len(self._pictures)))
        running = [member for member in judged.membership.members if member.pod and is_running(member.pod)]
        about_to = any(not member.healthy for member in running) or not judged.blueprint.bootstrapped
        about_to |= bool(judged.membership.learners) or decided.rule == "wait_for_membership"
        base = SOON if running and about_to else AILING
        return Result(requeue_after=min(RESTING, max(base, PATIENCE * self._quiet(key))))

    def _quiet(self, key: Key) -> float:
        """Seconds since anything happened to the cluster, as far as the operator saw."""
        now = monotonic()
        return now - self._quiet_since.setdefault(key, now)

    def _differs(self, picture: Picture, judged: Judged, outcome: Outcome) -> bool:
        return has_changed(_as_json(status(judged, outcome)), picture.raw.get("status"))

    async def _write_status(self, key: Key, picture: Picture, judged: Judged, outcome: Outcome) -> None:
        new = status(judged, outcome)
        self._told(key, {condition.type: condition.status for condition in new.conditions})
        told = _as_json(new)
        if outcome.plan.rule == "record_bootstrap" or not has_changed(told, picture.raw.get("status")):
            return  # the proof was just written; the next round tells the rest
        try:
            raw = await self._kube.apply_status(status_manifest(picture.raw, told))
        except NotFound:
            return
        self._quiet_since.pop(key, None)
        self._tell(picture, tales_of_status(picture.cluster.status, new))
        well = judged.membership.quorum is Quorum.HEALTHY or not judged.published
        (log.info if well else log.warning)("cluster.status", summary=new.summary, quorum=new.quorum)
        self._pictures[key] = (self._pictures[key][0], picture.with_raw(raw))

    def _tell(self, picture: Picture, tales: list[Tale]) -> None:
        for tale in tales:
            self._events.emit(picture.raw, tale.type, tale.reason, tale.message)


def _still_true(answers: Mapping[str, Answer], before: Picture, now: Picture) -> dict[str, Answer]:
    """What members answered whose pods are still the same ones and run."""
    old, new = before.objects.pods, now.objects.pods
    return {
        name: answer
        for name, answer in answers.items()
        if name in old and name in new and _uid(old[name]) == _uid(new[name]) and is_running(new[name])
    }


def _uid(manifest: Manifest) -> str:
    return str(manifest["metadata"]["uid"])


def _as_json(told: EtcdClusterStatus) -> dict[str, object]:
    full: dict[str, object] = told.model_dump(by_alias=True, exclude_none=True, mode="json")
    return {key: value for key, value in full.items() if value not in ([], {})}


def _as_trouble(error: NameTakenError | PKIError | KubeError) -> Trouble | None:
    """What a person can do something about; `None` for what the next try may well cure."""
    match error:
        case NameTakenError():
            return Trouble(reason="NameTaken", message=str(error))
        case PKIError():
            return Trouble(reason="AuthorityUnusable", message=f"no certificate can be issued: {error}")
        case KubeError() if error.retryable or isinstance(error, NotFound):
            return None
        case Forbidden():
            return Trouble(reason="Forbidden", message=f"the operator may not do this: {error.message}")
        case _:
            return Trouble(reason="Refused", message=f"the API server refused an object: {error.message}")
