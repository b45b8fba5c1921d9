"""What a controller is to the runtime, and all that a controller knows of the runtime.

Pure. A controller is level-triggered: it is told *which* object to look at, never what happened to it, so a
lost or a doubled event changes nothing.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Key:
    """One object of one of the operator's own kinds."""

    kind: str
    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Result:
    """The end of a reconcile that went well."""

    #: Seconds after which to look again even if nothing happens; `None`: at the next event or slow resync.
    requeue_after: float | None = None


class Controller(Protocol):
    """Brings the objects of one kind to what their specs ask for."""

    @property
    def kind(self) -> str:
        """The kind of its keys, such as `EtcdCluster`."""
        ...

    def followers(self, key: Key) -> Iterable[Key]:
        """The controller's own objects that are to be looked at when an object of another kind changed."""
        ...

    async def reconcile(self, key: Key, *, changed: bool) -> Result:
        """Look at one object and take the next steps; called for an object that is gone as well.

        `changed` is `True` when a watch event for the object or something it owns, or a resync, came since the
        last reconcile that went well; `False` when only `requeue_after` elapsed. Never called twice at once for
        the same key. Any exception means: back off and call again with the same `changed`. May be cancelled at
        any await: after the hard timeout, and when the operator stops.
        """
        ...
