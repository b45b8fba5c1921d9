"""The one error that talking to etcd raises, and how a gRPC outcome becomes one.

Judged from etcd's own sentences (api/v3rpc/rpctypes/error.go, the same in 3.5, 3.6 and 3.7) first, then from what
gRPC tells about the connection. Pure: takes codes and texts, no gRPC types. Unknown must stay unknown: only
`refused` says that nothing listens there; a timeout says nothing at all.
"""

from typing import Literal

Kind = Literal[
    "timeout",  # no answer in time: the member may be well, the command may have been carried out
    "refused",  # connection refused: the address is up and nothing listens
    "unreachable",  # no route to the address; as unknown as a timeout
    "tls",  # either side refused the other's certificate, or one of them speaks no TLS
    "unavailable",  # the connection broke, or the member is stopping
    "no_leader",  # etcd answered that it found no leader or no consensus in time
    "unhealthy_cluster",  # strict reconfiguration check, also for 5 s after voters connected; retry
    "not_enough_started",  # the change would leave too few started voters
    "not_found",  # no such member (or lease)
    "already_exists",  # a member with that ID or peer URL is in the list
    "learner_not_ready",  # not in sync with the leader yet
    "not_a_learner",  # promotion of a voter: done before
    "too_many_learners",
    "is_learner",  # a learner does not serve this call
    "not_leader",  # only the leader serves this call
    "bad_transferee",  # leadership cannot move to that member
    "no_space",  # the quota is used up
    "corrupt",  # a corruption alarm is raised
    "compacted",
    "auth",  # a user and password, or more rights, are needed
    "other",
]

#: etcd's sentences, matched anywhere in the text and in this order: the first that fits wins.
SENTENCES: tuple[tuple[str, Kind], ...] = (
    ("which is in sync with leader", "learner_not_ready"),
    ("can only promote a learner member", "not_a_learner"),
    ("too many learner members", "too_many_learners"),
    ("rpc not supported for learner", "is_learner"),
    ("unhealthy cluster", "unhealthy_cluster"),
    ("not enough started members", "not_enough_started"),
    ("member not found", "not_found"),
    ("requested lease not found", "not_found"),
    ("member ID already exist", "already_exists"),
    ("Peer URLs already exists", "already_exists"),
    ("no leader", "no_leader"),
    ("etcdserver: request timed out", "no_leader"),
    ("not leader", "not_leader"),
    ("bad leader transferee", "bad_transferee"),
    ("database space exceeded", "no_space"),
    ("corrupt cluster", "corrupt"),
    ("has been compacted", "compacted"),
    ("permission denied", "auth"),
    ("invalid auth token", "auth"),
    ("user name is empty", "auth"),
    ("authentication failed", "auth"),
    ("leader changed", "unavailable"),
    ("server stopped", "unavailable"),
)

#: What gRPC's core writes about a connection that did not come up or broke.
CONNECTION: tuple[tuple[str, Kind], ...] = (
    ("Connection refused", "refused"),
    ("handshake failed", "tls"),
    ("TSI_", "tls"),  # also how a refused client certificate shows: TLS 1.3 tells it after the handshake
    ("Hostname Verification Check failed", "tls"),
    ("SSL_ERROR", "tls"),
    ("No route to host", "unreachable"),
    ("Network is unreachable", "unreachable"),
    ("Host is unreachable", "unreachable"),
    ("DNS resolution failed", "unreachable"),
    ("Domain name not found", "unreachable"),
    ("timed out", "timeout"),
    ("FD shutdown", "timeout"),
    ("Timeout occurred", "timeout"),
)

PLAIN_WORDS: dict[Kind, str] = {
    "timeout": "no answer",
    "refused": "connection refused: nothing listens there",
    "unreachable": "no route to that address",
    "tls": "the TLS handshake failed",  # refined by `_tls_words`
    "unavailable": "the connection broke",
    "no_leader": "no leader",
    "unhealthy_cluster": "etcd asks to wait until all voters have been connected for 5 s",
    "not_enough_started": "too few voters have started for this change",
    "not_found": "no such member",
    "already_exists": "such a member exists already",
    "learner_not_ready": "the learner is not in sync with the leader yet",
    "not_a_learner": "the member is a voter already",
    "too_many_learners": "etcd accepts no further learner now",
    "is_learner": "a learner does not answer this",
    "not_leader": "only the leader does this",
    "bad_transferee": "that member cannot take over the lead",
    "no_space": "the space quota is used up",
    "corrupt": "etcd holds its data for corrupt",
    "compacted": "that revision has been compacted",
    "auth": "etcd refused this user",
}


class EtcdError(Exception):
    """A question or command that etcd did not answer as hoped.

    kind: what to decide by; message: plain words for people; detail: what etcd or gRPC wrote, for logs.
    """

    def __init__(self, kind: Kind, message: str, *, detail: str = "") -> None:
        super().__init__(message)
        self.kind: Kind = kind
        self.message = message
        self.detail = detail

    @property
    def answered(self) -> bool:
        """Whether etcd itself said so: the member lives and was reached."""
        return self.kind not in ("timeout", "refused", "unreachable", "tls", "unavailable", "other")

    @property
    def uncertain(self) -> bool:
        """Whether a command that ended so may have been carried out all the same (etcd's own timeouts too)."""
        return self.kind in ("timeout", "unavailable", "other") or (
            self.kind == "no_leader" and "timed out" in self.detail
        )

    def __repr__(self) -> str:
        return f"EtcdError({self.kind!r}, {self.message!r})"


def error_from(code: str, detail: str) -> EtcdError:
    """The error that a gRPC outcome stands for; code by name (`UNAVAILABLE`)."""
    kind = _kind(code, detail)
    words = PLAIN_WORDS.get(kind)
    if kind == "timeout":
        words = "no answer in time"
    elif kind == "tls":
        words = _tls_words(detail)
    elif words is None:
        words = f"etcd answered: {detail.removeprefix('etcdserver: ')}" if detail else f"the call failed ({code})"
    return EtcdError(kind, words, detail=detail)


def _kind(code: str, detail: str) -> Kind:
    for text, kind in SENTENCES:
        if text in detail:
            return kind
    if code == "DEADLINE_EXCEEDED":
        return "timeout"
    if code in ("UNAUTHENTICATED", "PERMISSION_DENIED"):
        return "auth"
    if code in ("UNAVAILABLE", "INTERNAL", "UNKNOWN"):
        for text, kind in CONNECTION:
            if text in detail:
                return kind
    return "unavailable" if code in ("UNAVAILABLE", "CANCELLED") else "other"


def _tls_words(detail: str) -> str:
    """Which side refused what, as far as gRPC's core tells (its texts, seen with grpcio 1.85)."""
    reasons = (
        (
            "CERTIFICATE_VERIFY_FAILED",
            "the member's certificate has expired or is not signed by the expected authority",
        ),
        ("Hostname Verification", "the member's certificate does not carry its name"),
        ("WRONG_VERSION_NUMBER", "the member does not speak TLS there"),
        ("TSI_DATA_CORRUPTED", "the member refused the certificate that it was shown"),
    )
    return next((words for text, words in reasons if text in detail), PLAIN_WORDS["tls"])
