"""What a stopped etcd meant by its last words.

Pure. Judges the tail of etcd's log as Kubernetes keeps it in a container's termination message: the last 2048 bytes or
80 lines, so the first line is often cut, and where etcd panicked the trace may have pushed the reason out. The phrases
were collected from etcd 3.5, 3.6 and 3.7 run into each failure. A sentence tells what happened, not what follows: the
fuse's words, for one, are also those of a joiner without DNS. A foreign directory leaves no words: etcd serves it.
"""

import json
import re
from dataclasses import dataclass
from typing import Literal

Kind = Literal[
    "fuse",  # no data, and no other member told it about the cluster: an emptied directory, or a joiner without DNS
    "removed",  # the cluster has removed this member for good; mostly it shows as "stopped", see EXIT_CODES
    "member_list",  # the file's member list is not the cluster's
    "already_bootstrapped",  # told to found a cluster that exists
    "no_file",  # it was started before the operator wrote its file
    "bad_option",
    "tls",
    "address_in_use",
    "no_space",
    "storage",  # the volume is read-only, not accessible, or fails
    "lost_entries",  # the log ends before what this member had acknowledged: an older state of the disk
    "corrupt",
    "wrong_version",  # the data was written by, or the cluster runs, another minor version than this etcd takes
    "killed",
    "stopped",  # ended as told
    "unknown",
]


@dataclass(frozen=True, kw_only=True, slots=True)
class Failure:
    """Why an etcd ended: the kind to decide by, a sentence for people."""

    kind: Kind
    sentence: str


@dataclass(frozen=True, slots=True)
class _Sign:
    """A phrase of etcd's, and what it means; `{error}` in the sentence is etcd's own error text."""

    phrase: str
    kind: Kind
    sentence: str


#: The first phrase that occurs wins, so causes stand before the general words that etcd wraps them in.
SIGNS: tuple[_Sign, ...] = (
    _Sign(
        "permanently removed from the cluster", "removed", "the cluster has removed this member; its data is of no use"
    ),
    _Sign("no space left on device", "no_space", "the volume is full"),
    _Sign("disk quota exceeded", "no_space", "the volume's quota is used up"),
    _Sign("cannot allocate memory", "killed", "etcd had too little memory to start"),
    _Sign("too many open files", "storage", "etcd may open too few files: {error}"),
    _Sign("read-only file system", "storage", "the volume is read-only"),
    _Sign("input/output error", "storage", "the volume fails: {error}"),
    _Sign("cannot access data directory", "storage", "etcd cannot write to its data directory: {error}"),
    _Sign("failed to create WAL", "storage", "etcd could not create its log: the volume may be full or read-only"),
    _Sign(
        "cannot fetch cluster info from peer urls",
        "fuse",
        "the data directory is empty, and etcd refuses to begin anew in it",
    ),
    _Sign(
        "has already been bootstrapped",
        "already_bootstrapped",
        "the data directory is empty, but the cluster that this member is to found exists already",
    ),
    _Sign("error validating peerURLs", "member_list", "the member list in its file is not the cluster's: {error}"),
    _Sign("in the initial cluster configuration", "member_list", "its file does not list the member itself"),
    _Sign(
        "lastIndex(",
        "lost_entries",
        "its log ends before what it had acknowledged: its disk lost writes, or is an older copy",
    ),
    _Sign('" is not supported', "wrong_version", "its data was written by a newer etcd: {error}"),
    _Sign("invalid downgrade", "wrong_version", "its data or its cluster is of a newer etcd: {error}"),
    _Sign(
        "incompatible with current running cluster", "wrong_version", "the other members run a version it cannot join"
    ),
    _Sign("cannot detect storage schema version", "wrong_version", "its data is of an etcd too old for this version"),
    _Sign("address already in use", "address_in_use", "another program has its port: {error}"),
    _Sign("cannot assign requested address", "address_in_use", "its address is not one of this machine's: {error}"),
    _Sign("found data inconsistency with peers", "corrupt", "its keys differ from those of the other members"),
    _Sign("crc mismatch", "corrupt", "its log is corrupt: {error}"),
    _Sign("snapshot file doesn't exist", "corrupt", "a snapshot is missing from its data"),
    _Sign("failed to open database", "corrupt", "its database cannot be opened: {error}"),
    _Sign("failed to open WAL", "corrupt", "its log cannot be opened: {error}"),
    _Sign("failed to read WAL", "corrupt", "its log cannot be read: {error}"),
    _Sign("failed to recover", "corrupt", "its data cannot be read: {error}"),
    _Sign("file size too small", "corrupt", "its database is cut short"),
    _Sign("cannot use none as id", "corrupt", "its log is empty"),
    _Sign("freepages:", "corrupt", "its database is corrupt"),
    _Sign("private key does not match", "tls", "its certificate and key do not belong together"),
    _Sign("failed to find any PEM data", "tls", "its certificate or key cannot be read"),
    _Sign("x509:", "tls", "its certificate was refused: {error}"),
    _Sign("tls:", "tls", "its certificate or key cannot be used: {error}"),
    _Sign("/tls/", "tls", "its certificate files cannot be read: {error}"),
    _Sign("open /etc/etcd/", "no_file", "it has no configuration file yet: {error}"),
    _Sign("failed to verify flags", "bad_option", "etcd refuses its configuration: {error}"),
    _Sign("unrecognized level", "bad_option", "etcd refuses its configuration: {error}"),
    _Sign("unexpected TLS cipher suite", "bad_option", "etcd refuses its configuration: {error}"),
    _Sign("error setting up initial cluster", "bad_option", "etcd refuses its configuration: {error}"),
    _Sign("server is stopping", "stopped", "etcd ended while it started: told to stop, or removed from its cluster"),
    _Sign("unexpected error setting up", "bad_option", "etcd refuses its configuration: {error}"),
)

#: Signals by exit code, where the log says nothing: 128 + number.
EXIT_CODES: dict[int, Failure] = {
    0: Failure(
        kind="stopped",
        sentence="etcd ended without an error: told to stop, or removed from its cluster, which looks alike",
    ),
    137: Failure(kind="killed", sentence="etcd was killed (SIGKILL): out of memory, or by its node"),
    143: Failure(kind="stopped", sentence="etcd stopped as it was told to"),
}

#: Exit codes that etcd chooses itself, so that its last warning may tell why; 2 is Go's after a panic. Any other (255,
#: when a node lost power) has a cause outside, of which its log knows nothing.
OWN_EXITS = (None, 1, 2)

#: Of Go's after a panic. What it said is often cut off: Kubernetes keeps the end of the log, which is its trace.
PANIC = 2

#: Levels of etcd's log after which it ends, and what it says at lower levels when it ends all the same. Anything else
#: is daily life: a member that is killed has warned about lost peers and refused certificates before.
_FINAL_LEVELS = frozenset({"dpanic", "panic", "fatal"})
_FINAL_WORDS = ("failed to verify flags", "permanently removed from the cluster")
_LONGEST = 240


@dataclass(frozen=True, slots=True)
class _Line:
    text: str
    error: str
    final: bool


def judge(last_log: str, exit_code: int | None = None) -> Failure:
    """What ended an etcd, from its last log lines and, where they do not say, its exit code."""
    if exit_code == 0:
        return EXIT_CODES[0]
    said = [line for raw in last_log.splitlines() if (line := _read(raw))]
    final = [line for line in said if line.final]
    if not final and exit_code in EXIT_CODES:
        return EXIT_CODES[exit_code]
    reasons = final or (said if exit_code in OWN_EXITS else [])
    for sign in SIGNS:
        for line in reasons:
            if sign.phrase in line.text:
                return Failure(kind=sign.kind, sentence=sign.sentence.format(error=_short(line.error)))
    if reasons:
        return Failure(kind="unknown", sentence=f"etcd ended: {_short(reasons[-1].error)}")
    if exit_code == PANIC:
        return Failure(
            kind="unknown",
            sentence="etcd ended with exit code 2, as after a panic; `kubectl logs --previous` tells why",
        )
    ended = "" if exit_code is None else f" with exit code {exit_code}"
    return Failure(kind="unknown", sentence=f"etcd ended{ended} and left no message")


def _read(raw: str) -> _Line | None:
    """A line that can be a reason: etcd's own above level info, or Go's; lines of a trace cannot."""
    if raw.startswith(("panic: ", "fatal error: ")):
        return _Line(raw, raw.partition(": ")[2], final=True)
    if raw.startswith("unexpected error"):  # written before etcd has a log
        return _Line(raw, raw, final=True)
    if raw.startswith("{"):
        try:
            said = json.loads(raw)
        except ValueError:
            return None
        return None if said.get("level") in ("debug", "info") else _line(said)
    if '"stacktrace":' not in raw:  # part of a daily message, or of a trace of Go's
        return None
    return _line({"level": "fatal"} | {key: json.loads(f'"{value}"') for key, value in _VALUE.findall(raw)})


#: How the parts are found in a line whose beginning was cut off; only grave ones end with a stack trace.
_VALUE = re.compile(r'"(msg|error)":"((?:[^"\\]|\\.)*)"')


def _line(said: dict[str, object]) -> _Line | None:
    message, error = str(said.get("msg", "")), str(said.get("error", ""))
    text = f"{message}: {error}"
    final = said.get("level") in _FINAL_LEVELS or any(words in text for words in _FINAL_WORDS)
    return _Line(text, error or message, final) if message or error else None


def _short(text: str) -> str:
    """One line of bounded length, without Go's dump of a whole member list."""
    line = " ".join(re.sub(r" ?\{ClusterID:.*\}:", ":", text).split())
    return line if len(line) <= _LONGEST else f"{line[: _LONGEST // 2]} ... {line[-_LONGEST // 2 :]}"
