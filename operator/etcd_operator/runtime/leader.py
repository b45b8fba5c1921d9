"""Leader election by a Lease: of several replicas, the one that holds it acts.

The rules are those of Kubernetes' own components. A candidate takes the Lease over only after it has seen it
unchanged for the whole lease duration on its *own* clock: clocks of other machines are not trusted. The holder
renews about five times in that time, gives up after three quarters of it, and may not write after four fifths of
it (`may_write`), so that it is silent before anybody else can have taken over, even when its event loop stood
still meanwhile. A holder that stops in good order empties the Lease, and a standby takes it at its next look.

Who loses leadership must end the process: there may be anything half done in it.
"""

import asyncio
import datetime
import random
import secrets
import time
from collections.abc import Callable
from typing import Any

import structlog

from etcd_operator.kube.client import Kube
from etcd_operator.kube.errors import Conflict, KubeError, NotFound
from etcd_operator.kube.resources import LEASES
from etcd_operator.resources.names import Manifest

#: Parts of the lease duration: between renewals; for one request of a renewal, so that one that hangs leaves time
#: for another; until the holder gives up; until it may not write.
RENEW_EVERY = 0.2
REQUEST_TIMEOUT = 0.3
GIVE_UP_AFTER = 0.75
FENCED_AFTER = 0.8
#: Seconds between a standby's looks at the Lease, and between attempts to renew after one failed.
LOOK_EVERY = 0.5

log = structlog.get_logger(__name__)


class LeadershipLostError(Exception):
    """Another replica may be acting now, or soon."""


def machine_clock() -> float:
    """Seconds since the machine started, its sleep included: a lease runs out while a laptop or a VM sleeps, too."""
    return time.clock_gettime(time.CLOCK_BOOTTIME) if hasattr(time, "CLOCK_BOOTTIME") else time.monotonic()


class Leader:
    """This replica's part in the election; `kube` must be one of its own, so that renewals queue behind nothing."""

    def __init__(
        self,
        kube: Kube,
        *,
        namespace: str,
        name: str,
        identity: str,
        duration: float,
        clock: Callable[[], float] = machine_clock,
    ) -> None:
        """`identity` says who we are, for people; a random part is added, as a restarted pod is another holder."""
        self._kube = kube
        self._namespace = namespace
        self._name = name
        self.identity = f"{identity}_{secrets.token_hex(4)}"
        self._duration = duration
        self._clock = clock
        #: What keeps this replica from taking part, in words; `None` when it does.
        self.problem: str | None = None
        #: The Lease's spec as last seen, and when on our clock it was first seen like that.
        self._seen: dict[str, Any] | None = None
        self._seen_at = 0.0
        #: When on our clock the last successful renewal was *sent*; `None`: not the leader.
        self._renewed_at: float | None = None

    @property
    def leads(self) -> bool:
        return self._renewed_at is not None

    def may_write(self) -> bool:
        """Whether it is certain that nobody else acts; the guard of every write."""
        return self._renewed_at is not None and self._clock() - self._renewed_at < FENCED_AFTER * self._duration

    async def acquire(self) -> None:
        """Wait until this replica leads; an API server that is away only delays that."""
        lease = f"{self._namespace}/{self._name}"
        told: str | None = None
        while True:
            try:
                holder = await self._try_to_take()
                self.problem = None
            except KubeError as error:
                holder = ""
                self.problem = f"the Lease {lease} cannot be read or written: {error}"
            if holder == self.identity:
                log.info("election.leading", lease=lease, identity=self.identity)
                return
            if told != (self.problem or holder):
                told = self.problem or holder
                log.info("election.standby", lease=lease, leader=holder or None, problem=self.problem)
            # Jitter, so that two standbys do not meet in the same instant for ever.
            await asyncio.sleep(LOOK_EVERY * random.uniform(0.8, 1.2))

    async def keep(self) -> None:
        """Renew until cancelled; raises `LeadershipLostError` when that did not work for too long."""
        assert self._renewed_at is not None, "acquire() comes first"
        while True:
            # From when the last one was sent: an API server that is slow must not make the next one late as well.
            await asyncio.sleep(max(0.0, self._renewed_at + RENEW_EVERY * self._duration - self._clock()))
            deadline = self._renewed_at + GIVE_UP_AFTER * self._duration
            await self._renew_until(deadline)

    async def release(self) -> None:
        """Hand over in good order: empty the Lease. Only once nothing acts any more."""
        if self._renewed_at is None:
            return
        self._renewed_at = None
        try:
            async with asyncio.timeout(2.0):
                lease = await self._kube.get(LEASES, self._namespace, self._name)
                if lease is not None and lease["spec"].get("holderIdentity") == self.identity:
                    lease["spec"] |= {"holderIdentity": "", "leaseDurationSeconds": 1, "renewTime": _now()}
                    await self._kube.replace(lease)
                    log.info("election.released", lease=f"{self._namespace}/{self._name}")
        except (KubeError, TimeoutError) as error:
            log.warning("election.not_released", error=str(error), note="a standby takes over when the Lease expires")

    async def _renew_until(self, deadline: float) -> None:
        error: Exception | None = None
        while (left := deadline - self._clock()) > 0:
            try:
                async with asyncio.timeout(left):
                    holder = await self._try_to_take()
                if holder == self.identity:
                    return
                self._renewed_at = None
                raise LeadershipLostError(f"{holder or 'somebody'} holds the Lease {self._namespace}/{self._name} now")
            except (KubeError, TimeoutError) as failure:
                if error is None:
                    log.warning("election.renewal_failed", error=str(failure), give_up_in_seconds=round(left, 1))
                error = failure
                await asyncio.sleep(min(LOOK_EVERY, max(0.0, deadline - self._clock())))
        self._renewed_at = None
        raise LeadershipLostError(f"the Lease {self._namespace}/{self._name} could not be renewed in time: {error}")

    async def _try_to_take(self) -> str:
        """Take or renew the Lease if it is ours, free or expired; who holds it then. Raises `KubeError`."""
        sent_at = self._clock()
        lease = await self._kube.get(LEASES, self._namespace, self._name)
        try:
            if lease is None:
                await self._kube.create(self._new_lease())
            elif (holder := self._holder(lease)) and holder != self.identity:
                return holder
            else:
                await self._kube.replace(self._ours(lease))
        except (Conflict, NotFound):
            # Somebody was faster, or the Lease was just deleted. Who, shows at the next look; if we led, the
            # next attempt to renew tells.
            if self._renewed_at is None:
                return ""
            raise
        self._renewed_at = sent_at
        return self.identity

    def _holder(self, lease: Manifest) -> str:
        """Who holds the Lease, empty when nobody or when it has expired by our own clock."""
        spec = lease.get("spec") or {}
        if spec != self._seen:
            self._seen, self._seen_at = spec, self._clock()
        holder = str(spec.get("holderIdentity") or "")
        duration = float(spec.get("leaseDurationSeconds") or self._duration)
        return holder if holder == self.identity or self._clock() - self._seen_at < duration else ""

    def _new_lease(self) -> Manifest:
        return {
            "apiVersion": LEASES.api_version,
            "kind": LEASES.kind,
            "metadata": {"name": self._name, "namespace": self._namespace},
            "spec": self._spec(acquired=_now(), transitions=0),
        }

    def _ours(self, lease: Manifest) -> Manifest:
        spec = lease.get("spec") or {}
        renewal = spec.get("holderIdentity") == self.identity
        acquired = spec.get("acquireTime") if renewal else None
        transitions = int(spec.get("leaseTransitions") or 0) + (0 if renewal else 1)
        # The metadata's resourceVersion makes the write a Conflict if anybody wrote since our look.
        return {**lease, "spec": self._spec(acquired=acquired or _now(), transitions=transitions)}

    def _spec(self, *, acquired: str, transitions: int) -> dict[str, Any]:
        return {
            "holderIdentity": self.identity,
            "leaseDurationSeconds": max(1, round(self._duration)),
            "acquireTime": acquired,
            "renewTime": _now(),
            "leaseTransitions": transitions,
        }


def _now() -> str:
    """The wall clock as a MicroTime; for people, as no replica judges by another's clock."""
    return datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
