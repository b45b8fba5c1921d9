"""etcd's own settings in an EtcdCluster.

Pure. See `etcdcluster` for the kind that this is a part of.
"""

from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Field, WithJsonSchema

from etcd_operator.api.base import ApiModel, Rule
from etcd_operator.api.owned_options import extra_schema
from etcd_operator.api.rules import at_least, is_duration, when_durations
from etcd_operator.api.units import QUANTITY_SCHEMA, Duration, Quantity


class AutoCompaction(ApiModel):
    """etcd's own compaction of its history."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            f"self.mode != 'Periodic' || ({is_duration('string(self.retention)')}"
            " && duration(string(self.retention)) > duration('0s'))",
            "retention must be a duration such as 1h where mode is Periodic; to switch compaction off, leave"
            " autoCompaction out",
        ),
        Rule(
            "self.mode != 'Revision' || string(self.retention).matches('^[1-9][0-9]{0,17}$')",
            "retention must be a number of revisions such as 1000 where mode is Revision; to switch compaction off,"
            " leave autoCompaction out",
        ),
    )

    mode: Literal["Periodic", "Revision"] = "Periodic"
    """Periodic keeps the history of a span of time, Revision keeps a number of revisions."""
    retention: Annotated[str, BeforeValidator(str), WithJsonSchema(QUANTITY_SCHEMA)]
    """How much history to keep: a duration such as 1h with Periodic, a number such as 1000 with Revision."""


class EtcdOptions(ApiModel):
    """etcd's own settings. The defaults suit a kube-apiserver with members in one region."""

    rules: ClassVar[tuple[Rule, ...]] = (
        when_durations(
            "self.heartbeatInterval",
            "self.electionTimeout",
            rule="duration(self.electionTimeout) >= " + " + ".join(["duration(self.heartbeatInterval)"] * 5),
            message="electionTimeout must be at least five times heartbeatInterval: etcd does not start otherwise,"
            " as one late heartbeat would cost the leader its place",
        ),
    )

    quota_backend_bytes: Annotated[
        Quantity,
        Rule(at_least("1Mi"), "must be a quantity of at least 1Mi, such as 2Gi"),
    ] = Quantity("2Gi")
    """The size of the database at which etcd stops taking writes until space is freed.

    Keep it well below storage.size, and below 8Gi: etcd's authors advise against more.
    """
    heartbeat_interval: Annotated[
        Duration,
        Rule(
            f"{is_duration('self')} && duration(self) >= duration('10ms')",
            "must be a duration of at least 10ms in whole numbers, such as 100ms",
        ),
    ] = Duration("100ms")
    """How often the leader tells the others that it is there: about the slowest round trip between two members."""
    election_timeout: Annotated[
        Duration,
        Rule(
            f"{is_duration('self')} && duration(self) <= duration('50s')",
            "must be a duration in whole numbers of at most 50s, which is etcd's own limit, such as 1s or 1500ms",
        ),
    ] = Duration("1s")
    """How long the others wait for a heartbeat before they elect a new leader; at least five heartbeatIntervals.

    Shorter means that a lost leader is replaced sooner, and that a slow disk or network is taken for a lost leader.
    """
    snapshot_count: Annotated[int, Field(ge=1, le=10_000_000)] = 10000
    """After how many writes etcd saves a snapshot and drops the log before it. More of them cost memory."""
    auto_compaction: AutoCompaction | None = None
    """etcd's own compaction of its history. Leave it out for a kube-apiserver, which compacts for itself."""
    extra: Annotated[dict[str, Any], WithJsonSchema(extra_schema())] = Field(default_factory=dict)
    """Any other setting, by its key in etcd's configuration file for the version in use.

        extra:
          max-request-bytes: 3145728
          log-level: debug

    A key that is the operator's business is refused with what to use instead. A key that this version of etcd
    does not know is not applied; the condition Degraded tells so.
    """
