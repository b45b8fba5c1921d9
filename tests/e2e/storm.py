"""A storm: failures and changes of an EtcdCluster at the same time, at random from a seed, until every kind occurred.

Failures (faults.FAILURES) and changes (faults.CHANGES) come in two threads, each shuffled anew when it is through, with
pauses in which the operator can act. `faults` says what they do; this module only deals them out and keeps the record.
"""

import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from e2e.faults import CHANGES, FAILURES, MISSES, Fault, Scene
from e2e.support import Etcd

#: Seconds between two faults of a thread, at the least and at the most.
PAUSE = (3.0, 8.0)
#: Seconds that the storm may go on beyond its time, while a kind of fault has not occurred yet.
OVERTIME = 300.0


@dataclass(kw_only=True, slots=True)
class Storm:
    """Faults by a seed, and the record of them.

    counts: how often each kind took effect. missed: how often one did not, and so does not count.
    """

    scene: Scene
    seed: str
    log: Path
    counts: Counter[str] = field(default_factory=Counter)
    missed: Counter[str] = field(default_factory=Counter)
    _began: float = 0.0
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _failure: BaseException | None = None

    def rage(self, seconds: float) -> None:
        """Strike for that long, and longer while kinds are missing; returns when all faults have ended."""
        self._began = time.monotonic()
        threads = [
            threading.Thread(target=self._strike_all, args=(faults, seconds), name=faults[0].name, daemon=True)
            for faults in (FAILURES, CHANGES)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if self._failure:
            raise self._failure

    @property
    def lacking(self) -> list[str]:
        """The kinds of faults that have not occurred."""
        return [fault.name for fault in (*FAILURES, *CHANGES) if not self.counts[fault.name]]

    def __str__(self) -> str:
        told = ", ".join(f"{fault.name} {self.counts[fault.name]}" for fault in (*FAILURES, *CHANGES))
        return f"{told}; without effect: {dict(self.missed)}"

    def _strike_all(self, faults: Sequence[Fault], seconds: float) -> None:
        try:
            own = self._own_scene()
            dice = Random(f"{self.seed} {faults[0].name}")
            for fault in endless(faults, dice):
                late = time.monotonic() - self._began - seconds
                if (
                    self._failure
                    or late > OVERTIME
                    or (late > 0 and not {each.name for each in faults} & {*self.lacking})
                ):
                    return
                if late <= 0 or fault.name in self.lacking:
                    self._strike(fault, own, dice)
                    time.sleep(dice.uniform(*PAUSE))
        except BaseException as error:  # noqa: BLE001 - raised by `rage`, in the thread of the test
            self._failure = error

    def _own_scene(self) -> Scene:
        """The scene with a connection to Kubernetes that no other thread uses."""
        seen = self.scene
        cluster = seen.etcd.cluster.apart()
        etcd = Etcd(cluster=cluster, namespace=seen.etcd.namespace, name=seen.etcd.name)
        return Scene(etcd=etcd, local=seen.local, endpoints=seen.endpoints, bereft=seen.bereft)

    def _strike(self, fault: Fault, scene: Scene, dice: Random) -> None:
        began = time.monotonic()
        self._note(f"{fault.name} ...")
        try:
            told = fault.strike(scene, dice)
        except MISSES as error:
            self.missed[fault.name] += 1
            why = f"{type(error).__name__}: {error}".splitlines()[0][:300]
            self._note(f"{fault.name}: NOT SEEN TO TAKE EFFECT: {why}")
        else:
            self.counts[fault.name] += 1
            self._note(f"{fault.name}: {told} ({time.monotonic() - began:.1f} s)")

    def _note(self, text: str) -> None:
        line = f"{time.strftime('%H:%M:%S')} {time.monotonic() - self._began:6.1f} s  {text}"
        with self._lock, self.log.open("a") as file:
            print(line, flush=True)
            file.write(line + "\n")


def endless(faults: Sequence[Fault], dice: Random) -> Iterator[Fault]:
    """All faults, shuffled, again and again; one that scales up always comes before the next that scales down."""
    while True:
        deck = dice.sample(faults, len(faults))
        scales = [place for place, fault in enumerate(deck) if fault.name.startswith("scaled")]
        for place, name in zip(scales, ("scaled up", "scaled down"), strict=False):
            deck[place] = next(fault for fault in faults if fault.name == name)
        yield from deck
