"""The open-loop writers of `devtools.writers` on an EtcdCluster of a test, and what must hold when they end."""

from collections.abc import Iterator
from contextlib import contextmanager

from devtools import writers
from e2e.support import Etcd

#: Seconds without an acknowledged write that no planned procedure may come to, on however slow a machine.
WORST_GAP = 10.0


class Writers(writers.Writers):
    """Writers that can judge themselves."""

    def check(self) -> None:
        """Nothing was lost, and there was always somebody who served."""
        assert len(self.acknowledged) > 100
        assert not self.lost()
        assert self.longest_gap < WORST_GAP

    def check_each(self) -> None:
        """What `check` asks, of every one that was written to: for those that stay, as proxies do.

        Writes that no answer came to in time are not counted: how many those are is the machine's speed.
        """
        self.check()
        assert max(self.longest_gaps.values()) < WORST_GAP, self.longest_gaps
        broken = sum(count for kind, count in self.refused.items() if kind != "timeout")
        assert broken < len(self.acknowledged) / 20, self.refused


@contextmanager
def writing(etcd: Etcd, *, application: str = "etcd") -> Iterator[Writers]:
    """Write to all members of this etcd, or to the proxies (`etcd-proxy`), and tell in the end how it went."""
    with Writers(cluster=etcd.cluster, namespace=etcd.namespace, name=etcd.name, application=application) as made:
        yield made
    gaps = ", ".join(f"{member} {gap:.2f} s" for member, gap in sorted(made.longest_gaps.items()))
    print(
        f"{len(made.acknowledged)} writes, longest gap {made.longest_gap:.2f} s (of each: {gaps}), "
        f"refused: {made.refused}"
    )
