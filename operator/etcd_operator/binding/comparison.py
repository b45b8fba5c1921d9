"""What two etcds hold, side by side.

Pure: only the numbers; `content` reads them, `rules` judges them.
"""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class Content:
    """What an etcd holds below a prefix, at one revision; keys that a lease will take away are left out.

    digest: of all keys, without the prefix, and their values, in order.
    """

    keys: int
    revision: int
    digest: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Comparison:
    """What the API server's etcd of now holds, and what the wanted one does; or why that is not known."""

    servers: str
    before: Content | None = None
    wanted: Content | None = None
    same_etcd: bool = False
    #: Whether the etcd of now was written to while it was read.
    moving: bool = False
    problem: str = ""
