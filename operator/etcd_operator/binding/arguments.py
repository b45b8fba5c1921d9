"""A kube-apiserver's etcd flags: read, and changed, where they stand in `command` and `args` of its container.

Pure. Flags are read as kube-apiserver does it, see `parseArgs` and `parseLongArg` in pflag's flag.go (1.0.10):
`--name=value` or two words; `_` in a name counts as `-` (WordSepNormalizeFunc, set by cli.Run of component-base);
`-name` is no long flag; `--` ends the flags. `command` and `args` are one line of words for that. kube-apiserver
refuses to start with a word that is neither flag nor value (Args in cmd/kube-apiserver/app/server.go), so that a
plain word behind a flag that is not known here is its value. A value that begins with `-` behind such a flag is taken
for a flag; that it looks like `--etcd-servers=...` is too absurd to count.
"""

import posixpath
import re
from collections.abc import Mapping
from dataclasses import dataclass

from etcd_operator.resources.names import Manifest

#: The etcd flags of kube-apiserver 1.37 (pkg/server/options/etcd.go in k8s.io/apiserver): all need a value.
ETCD_FLAGS = frozenset(
    {
        "etcd-servers",
        "etcd-servers-overrides",
        "etcd-prefix",
        "etcd-keyfile",
        "etcd-certfile",
        "etcd-cafile",
        "etcd-compaction-interval",
        "etcd-count-metric-poll-period",
        "etcd-db-metric-poll-interval",
        "etcd-healthcheck-timeout",
        "etcd-readycheck-timeout",
    }
)
#: The StringSlices among them: given twice, they hold the values of both (pflag's string_slice.go, `Set`).
LISTS = frozenset({"etcd-servers", "etcd-servers-overrides"})
PROGRAM = "kube-apiserver"
#: kube-apiserver's own, where --etcd-prefix is not given.
DEFAULT_PREFIX = "/registry"

#: A shell with a `-c` among its options, some of which (`-o pipefail`) have a word of their own behind them.
_SHELL = re.compile(r"(?:^|[\s/])(?:a|ba|da|k|z)?sh (?:[-+]\S*o \w+ |[-+]\S+ )*-[a-zA-Z]*c[a-zA-Z]* ")
#: Flags, or the program, with more behind or before them in one word.
_LINE = re.compile(rf"\s[\"']?--etcd[-_]|^--etcd[-_][^=\s]*\s|^(?!-)(?:.*[\s/])?{PROGRAM}\s", re.DOTALL)


class UnreadableArgumentsError(Exception):
    """Arguments in which the etcd flags cannot be told for sure; the text says what the user has to change."""

    def __init__(self, container: Manifest, problem: str) -> None:
        super().__init__(f"container {container.get('name', PROGRAM)} {problem}")


@dataclass(frozen=True, kw_only=True, slots=True)
class _Flag:
    """One occurrence of an etcd flag: `--name=value` at `start`, or `--name` there and its value behind it."""

    name: str
    value: str
    start: int
    end: int
    spelled: str


@dataclass(frozen=True, kw_only=True, slots=True)
class _Line:
    """The words of `command` and `args`; kube-apiserver's flags end before `end`, where further ones may go."""

    words: list[str]
    flags: list[_Flag]
    end: int


def flags(container: Manifest) -> dict[str, str]:
    """The values of the etcd flags that are in force, by name without dashes; also of those not in `ETCD_FLAGS`.

    The last one wins, but for `LISTS`, which add up. Values stand as they are written, `$(NAME)` too, for which
    Kubernetes puts in the environment. One that is not known and stands alone is "true", as pflag has it for
    switches. Raises `UnreadableArgumentsError`.
    """
    found: dict[str, str] = {}
    for flag in _read(container).flags:
        before = found.get(flag.name) if flag.name in LISTS else None
        found[flag.name] = ",".join(filter(None, (before, flag.value)))
    return found


def overrides(container: Manifest) -> str | None:
    """What `--etcd-servers-overrides` says, which sends single resources to an etcd of their own; `None`: nothing.

    Raises `UnreadableArgumentsError`.
    """
    return flags(container).get("etcd-servers-overrides") or None


def split_servers(value: str) -> tuple[str, ...]:
    """The addresses in the value of --etcd-servers."""
    return tuple(server.strip() for server in value.split(",") if server.strip())


def current(container: Manifest) -> tuple[str, str]:
    """The servers and the prefix that a container's arguments name. Raises `UnreadableArgumentsError`."""
    told = flags(container)
    return told.get("etcd-servers", ""), normal_prefix(told.get("etcd-prefix", DEFAULT_PREFIX))


def normal_prefix(prefix: str) -> str:
    """As kube-apiserver takes it (`path.Join`, etcd3/store.go in k8s.io/apiserver): `/registry` without more."""
    return posixpath.normpath(f"/{prefix.strip('/')}")


def changed(container: Manifest, wanted: Mapping[str, str | None]) -> Manifest:
    """The container with each flag of `wanted` given once, with that value; `None`: not at all.

    wanted: by name without dashes, of `ETCD_FLAGS`, with values as `flags` has them. The first occurrence is rewritten
    in its own style and further ones go; what is missing is added behind the last flag: in `args`, or in `command`
    where that is all there is. Where there is neither, `args` are made, and the image's CMD counts no more (core/v1,
    Container.args). All other words stay. Raises `UnreadableArgumentsError`, and ValueError for a name that is not in
    `ETCD_FLAGS`.
    """
    if unknown := sorted(set(wanted) - ETCD_FLAGS):
        raise ValueError(f"no etcd flags of {PROGRAM}: {', '.join(unknown)}")
    line = _read(container)
    old = {field: list(container.get(field) or ()) for field in ("command", "args")}
    new = _changed(line, wanted, in_command=len(old["command"]), in_args=len(old["args"]))
    if new == old:
        return container
    rest = {field: value for field, value in container.items() if field not in old}
    return {**rest, **{field: words for field, words in new.items() if words}}


def _changed(line: _Line, wanted: Mapping[str, str | None], *, in_command: int, in_args: int) -> dict[str, list[str]]:
    """The words of both lists as they should be."""
    changes: dict[int, list[str]] = {}
    given: set[str] = set()
    for flag in line.flags:
        if flag.name not in wanted:
            continue
        value = wanted[flag.name]
        if value is None or flag.name in given:
            changes |= {index: [] for index in range(flag.start, flag.end)}
        elif flag.end - flag.start == 1:
            changes[flag.start] = [f"{flag.spelled}={value}"]
        else:
            changes[flag.start + 1] = [value]
        given.add(flag.name)
    missing = [f"--{name}={value}" for name, value in wanted.items() if value is not None and name not in given]
    new: dict[str, list[str]] = {"command": [], "args": []}
    for index, word in enumerate(line.words):
        field = "command" if index < in_command else "args"
        new[field] += [*(missing if index == line.end else ()), *changes.get(index, [word])]
    if line.end == len(line.words):
        new["args" if in_args or not in_command else "command"] += missing
    return new


def _read(container: Manifest) -> _Line:
    """The container's words with the etcd flags among them; raises `UnreadableArgumentsError`."""
    command = list(container.get("command") or ())
    words = [*command, *(container.get("args") or ())]
    _refuse_lines(container, words)
    begin = _begin(words, 1 if command else 0)
    index, end, found = begin, len(words), []
    while index < end:
        word = words[index]
        if word == "--":
            end = index
            break
        spelled, equals, value = word.partition("=")
        behind = words[index + 1] if index + 1 < end else None
        if "$(" in spelled:
            raise UnreadableArgumentsError(
                container, f"takes an argument from its environment ({spelled}), which may be any flag: write it out"
            )
        taken = 1 if equals or not _has_value(container, spelled, behind) else 2
        if _is_etcd(spelled):
            value = value if equals else str(behind) if taken == 2 else "true"
            found.append(_Flag(name=_name(spelled), value=value, start=index, end=index + taken, spelled=spelled))
        index += taken
    _refuse_behind(container, words[end + 1 :])
    return _Line(words=words, flags=found, end=end)


def _begin(words: list[str], otherwise: int) -> int:
    """Where kube-apiserver's own flags begin: behind its name, so that those of a wrapper (`tini --`) do not count.

    An etcd flag before that name tells that it is but a value.
    """
    for index, word in enumerate(words):
        if _is_etcd(word):
            break
        if not word.startswith("-") and word.rpartition("/")[2] == PROGRAM:
            return index + 1
    return otherwise


def _has_value(container: Manifest, word: str, behind: str | None) -> bool:
    """Whether the next word is the value of this one, which has none in itself.

    pflag takes the next word for a value whatever it is; a flag there is a slip, though, and not what was meant.
    """
    if _is_etcd(word) and _name(word) in ETCD_FLAGS:
        if behind is None or behind.startswith("--"):
            raise UnreadableArgumentsError(
                container, f"gives {word} without a value: write {word}=VALUE, or take it out"
            )
        return True
    return word.startswith("-") and behind is not None and not behind.startswith("-")


def _refuse_lines(container: Manifest, words: list[str]) -> None:
    """Raise for a shell's line, and for several words written as one; nothing of it is told, as it may be secret."""
    remedy = "each flag in an item of its own, such as --etcd-servers=https://etcd:2379"
    if _SHELL.search(" ".join([*words, ""])):
        raise UnreadableArgumentsError(
            container,
            f"runs a shell line: write {PROGRAM} as command and its flags as args, {remedy}",
        )
    for field in ("command", "args"):
        for index, word in enumerate(container.get(field) or ()):
            if _LINE.search(word):
                raise UnreadableArgumentsError(
                    container, f"has several arguments in one item, {field}[{index}]: write {remedy}"
                )


def _refuse_behind(container: Manifest, words: list[str]) -> None:
    """Raise for flags behind `--`: they are none, or `--` is a wrapper's and the flags before it are."""
    for word in words:
        if word.startswith("-"):
            raise UnreadableArgumentsError(
                container,
                f"has {word.partition('=')[0]} behind --, where {PROGRAM} reads no flags: write flags before it, or "
                f"start {PROGRAM} without a wrapper",
            )


def _is_etcd(word: str) -> bool:
    return word.startswith(("--etcd-", "--etcd_"))


def _name(spelled: str) -> str:
    return spelled.removeprefix("--").replace("_", "-")
