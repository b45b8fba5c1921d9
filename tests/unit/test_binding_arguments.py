"""The etcd flags of a kube-apiserver: what is in force, and a change that sets them and nothing else."""

import copy
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from etcd_operator.binding.arguments import ETCD_FLAGS, LISTS, UnreadableArgumentsError, changed, flags, overrides

URL = "https://etcd.ns.svc:2379"


def container(command: list[str] | None = None, args: list[str] | None = None) -> dict[str, Any]:
    lists = {"command": command, "args": args}
    return {"name": "kube-apiserver", "image": "i", **{field: words for field, words in lists.items() if words}}


def patched(before: dict[str, Any], wanted: dict[str, str | None]) -> dict[str, Any]:
    """The container as it is after the change; that which it was made from stays as it was."""
    kept = copy.deepcopy(before)
    after = changed(before, wanted)
    assert before == kept
    return after


@pytest.mark.parametrize(
    ("command", "args", "found"),
    [
        pytest.param(["kube-apiserver"], [f"--etcd-servers={URL}"], {"etcd-servers": URL}, id="one word"),
        pytest.param(["kube-apiserver"], ["--etcd-servers", URL], {"etcd-servers": URL}, id="two words"),
        pytest.param(["kube-apiserver", "--etcd-prefix=/a"], [], {"etcd-prefix": "/a"}, id="in the command"),
        pytest.param([], ["--etcd-prefix=/a"], {"etcd-prefix": "/a"}, id="args for the image's entrypoint"),
        pytest.param(["hyperkube"], ["kube-apiserver", "--etcd-prefix=/a"], {"etcd-prefix": "/a"}, id="hyperkube"),
        pytest.param(["kube-apiserver", "--etcd-prefix"], ["/a"], {"etcd-prefix": "/a"}, id="across both lists"),
        pytest.param(["a", "--etcd_servers=x"], [], {"etcd-servers": "x"}, id="underscores are dashes"),
        pytest.param(["a", "--etcd-prefix=x=y"], [], {"etcd-prefix": "x=y"}, id="the first = divides"),
        pytest.param(["a", "--etcd-prefix=1", "--etcd-prefix", "2"], [], {"etcd-prefix": "2"}, id="the last one wins"),
        pytest.param(["a", "--etcd-prefix=1", "--etcd-prefix="], [], {"etcd-prefix": ""}, id="an empty one as well"),
        pytest.param(
            ["a", "--etcd-servers=1,2", "--etcd_servers", "3"], [], {"etcd-servers": "1,2,3"}, id="servers add up"
        ),
        pytest.param(
            ["a", "--etcd-servers=", "--etcd-servers=1", "--etcd-servers="], [], {"etcd-servers": "1"}, id="empty: none"
        ),
        pytest.param(["a", "-etcd-servers=x"], [], {}, id="a single dash is no long flag"),
        pytest.param(["a", "--storage-backend=etcd3"], [], {}, id="others do not count"),
        pytest.param(["a", "--etcd-prefix", "-x"], [], {"etcd-prefix": "-x"}, id="a value may begin with a dash"),
        pytest.param(["a", "--etcd-prefix", ""], [], {"etcd-prefix": ""}, id="a value may be empty"),
        pytest.param(
            ["a", "--profiling", "--etcd-prefix=/a", "-v", "2"], [], {"etcd-prefix": "/a"}, id="switches take no word"
        ),
        pytest.param(["a", "--etcd-quorum-read", "--x"], [], {"etcd-quorum-read": "true"}, id="an unknown switch"),
        pytest.param(["a", "--etcd-new", "5s"], [], {"etcd-new": "5s"}, id="an unknown flag with a value"),
        pytest.param(["a", "--etcd-prefix=$(P)"], [], {"etcd-prefix": "$(P)"}, id="references stand as they are"),
        pytest.param(["a", "--audience", "$(A)"], [], {}, id="a reference as another flag's value"),
        pytest.param(["a", "--etcd-prefix=/a", "--", "b"], [], {"etcd-prefix": "/a"}, id="-- ends the flags"),
        pytest.param(
            ["tini", "--", "/bin/kube-apiserver", "--etcd-prefix=/a"], [], {"etcd-prefix": "/a"}, id="-- of a wrapper"
        ),
        pytest.param(
            ["/go-runner", "--log-file=/l", "kube-apiserver"],
            ["--etcd-prefix=/a"],
            {"etcd-prefix": "/a"},
            id="go-runner",
        ),
        pytest.param(
            ["a", "--etcd-prefix=/a", "--audience", "kube-apiserver"],
            [],
            {"etcd-prefix": "/a"},
            id="its name as a value",
        ),
        pytest.param(
            ["/bin/sh", "/start.sh"], ["--etcd-prefix=/a"], {"etcd-prefix": "/a"}, id="a script with arguments"
        ),
        pytest.param(
            ["a", "--x=a kube-apiserver b", "--etcd-prefix=/a"], [], {"etcd-prefix": "/a"}, id="spaces in a value"
        ),
        pytest.param([], [], {}, id="nothing"),
    ],
)
def test_flags_are_read_as_kube_apiserver_reads_them(
    command: list[str], args: list[str], found: dict[str, str]
) -> None:
    assert flags(container(command, args)) == found


def test_overrides_are_told() -> None:
    assert (
        overrides(container(["kube-apiserver"], ["--etcd-servers-overrides", "/events#http://e"])) == "/events#http://e"
    )


@pytest.mark.parametrize("args", [["--etcd-servers=x"], ["--etcd-servers-overrides="]], ids=["absent", "empty"])
def test_there_may_be_no_overrides(args: list[str]) -> None:
    assert overrides(container(["kube-apiserver"], args)) is None


LINE = f"exec kube-apiserver --etcd-servers={URL}"


@pytest.mark.parametrize(
    ("command", "args", "text"),
    [
        pytest.param(["sh", "-c", LINE], [], "runs a shell line", id="sh -c"),
        pytest.param(["/bin/bash", "-ec", LINE], [], "runs a shell line", id="bash -ec"),
        pytest.param(["bash", "-euo", "pipefail", "-c", LINE], [], "runs a shell line", id="bash -o pipefail -c"),
        pytest.param(["/bin/busybox", "ash", "-c"], [LINE], "runs a shell line", id="busybox, the line in args"),
        pytest.param(["sh", "-c", "/start.sh"], [], "runs a shell line", id="a shell line that shows no flags"),
        pytest.param(
            ["sh", "-c", 'exec kube-apiserver "$@"', "--"],
            ["--etcd-prefix=/a"],
            "runs a shell line",
            id="a line with $@",
        ),
        pytest.param([], ["-c", LINE], r"several arguments in one item, args\[1\]", id="the shell is the image's"),
        pytest.param(["kube-apiserver --v=2"], [], r"in one item, command\[0\]", id="a command line in one item"),
        pytest.param(["a"], ["--etcd-cafile=a --etcd-prefix=b"], r"in one item, args\[0\]", id="two flags in one item"),
        pytest.param(["a"], [f"--etcd-servers {URL}"], r"in one item, args\[0\]", id="flag and value in one item"),
        pytest.param(
            ["a", "--etcd-servers"], [], "gives --etcd-servers without a value: write", id="no value at the end"
        ),
        pytest.param(
            ["a", "--etcd_servers", "--v=2"], [], "gives --etcd_servers without a value", id="a flag for a value"
        ),
        pytest.param(["a", "--etcd-prefix", "--"], [], "gives --etcd-prefix without a value", id="-- for a value"),
        pytest.param(["a", "$(MORE)"], [], r"from its environment \(\$\(MORE\)\)", id="a flag from the environment"),
        pytest.param(["a", "--etcd-$(X)=b"], [], "from its environment", id="a name from the environment"),
        pytest.param(["a", "--", "--etcd-prefix=b"], [], "--etcd-prefix behind --", id="flags behind --"),
        pytest.param(
            ["tini", "--", "/hyperkube"], ["apiserver", "-v"], "without a wrapper", id="an unknown program behind --"
        ),
    ],
)
def test_what_cannot_be_read_is_refused_with_a_remedy(command: list[str], args: list[str], text: str) -> None:
    before = container(command, args)
    with pytest.raises(UnreadableArgumentsError, match=text) as refused:
        flags(before)
    assert str(refused.value).startswith("container kube-apiserver ")
    with pytest.raises(UnreadableArgumentsError, match=text):
        changed(before, {"etcd-servers": URL})


@pytest.mark.parametrize(
    ("command", "args", "wanted", "after"),
    [
        pytest.param(
            ["a"], ["--v=2", "--etcd-prefix=x", "-z"], "y", (["a"], ["--v=2", "--etcd-prefix=y", "-z"]), id="one word"
        ),
        pytest.param(["a"], ["--etcd-prefix", "x", "z"], "y", (["a"], ["--etcd-prefix", "y", "z"]), id="two words"),
        pytest.param(["a", "--etcd_prefix=x"], [], "y", (["a", "--etcd_prefix=y"], []), id="underscores stay"),
        pytest.param(
            ["a", "--etcd-prefix=x", "--v=2"],
            ["--etcd-prefix", "w"],
            "y",
            (["a", "--etcd-prefix=y", "--v=2"], []),
            id="once",
        ),
        pytest.param(["a", "--etcd-prefix"], ["x"], "y", (["a", "--etcd-prefix"], ["y"]), id="across both lists"),
        pytest.param(["a", "--v=2"], ["--x"], "y", (["a", "--v=2"], ["--x", "--etcd-prefix=y"]), id="missing: to args"),
        pytest.param(["a", "--v=2"], [], "y", (["a", "--v=2", "--etcd-prefix=y"], []), id="missing: to the command"),
        pytest.param([], [], "y", ([], ["--etcd-prefix=y"]), id="missing: to new args"),
        pytest.param(
            ["a", "--", "b"], ["c"], "y", (["a", "--etcd-prefix=y", "--", "b"], ["c"]), id="missing: before --"
        ),
        pytest.param(["a"], ["--", "b"], "y", (["a"], ["--etcd-prefix=y", "--", "b"]), id="missing: before -- in args"),
        pytest.param(
            ["tini", "--", "kube-apiserver"],
            ["--v=2"],
            "y",
            (["tini", "--", "kube-apiserver"], ["--v=2", "--etcd-prefix=y"]),
            id="missing: not before a wrapper's --",
        ),
        pytest.param(
            ["a", "--etcd-prefix", "x", "--v=2", "--etcd_prefix="], [], None, (["a", "--v=2"], []), id="removed"
        ),
        pytest.param(["a"], ["--etcd-prefix=x"], None, (["a"], []), id="removed: the last one of the list"),
    ],
)
def test_a_flag_is_set_where_it_stands(
    command: list[str], args: list[str], wanted: str | None, after: tuple[list[str], list[str]]
) -> None:
    assert patched(container(command, args), {"etcd-prefix": wanted}) == container(*after)


def test_servers_given_twice_become_one_even_where_they_add_up_to_what_is_wanted() -> None:
    before = container(["a", "--etcd-servers=1", "--etcd-servers=2"])
    assert patched(before, {"etcd-servers": "1,2"}) == container(["a", "--etcd-servers=1,2"])


def test_a_flag_that_stands_nowhere_needs_no_removal() -> None:
    before = container(["a"], ["--v=2"])
    assert patched(before, {"etcd-prefix": None}) == before


@pytest.mark.parametrize("name", ["--etcd-servers", "etcd_servers", "audience"])
def test_only_etcd_flags_are_set(name: str) -> None:
    with pytest.raises(ValueError, match=name):
        changed(container(["a"]), {name: "x"})


NOISE = (
    ["--profiling"],
    ["--profiling=false"],
    ["--v=2"],
    ["-v", "2"],
    ["--audience", "kube-apiserver"],
    ["--audience", "$(AUDIENCE)"],
    ["--issuer=https://i?a=1&b=2"],
    ["--storage-backend=etcd3"],
    ["--etcd-quorum-read"],
    ["-etcd-servers=x"],
    ["--tls-cert-file", "/etcd-servers/x"],
)
PROGRAMS = (
    ["kube-apiserver"],
    ["/go-runner", "--log=/l", "/bin/kube-apiserver"],
    ["tini", "--", "kube-apiserver"],
    ["a"],
)
VALUES = st.sampled_from(["", "/a", "/etc/tls/ca.crt", URL, f"{URL},https://b:2379", "x=y", "-x"])
NAMES = st.sampled_from(sorted(ETCD_FLAGS))


@dataclass(frozen=True)
class Piece:
    """One or two words that belong together, with what etcd flag they are."""

    words: list[str]
    name: str = ""
    value: str = ""


@st.composite
def etcd_flags(draw: st.DrawFn) -> Piece:
    name, value = draw(NAMES), draw(VALUES)
    spelled = "--" + (name.replace("etcd-", "etcd_") if draw(st.booleans()) else name)
    return Piece([f"{spelled}={value}"] if draw(st.booleans()) else [spelled, value], name, value)


PIECES = st.lists(st.sampled_from(NOISE).map(Piece) | etcd_flags(), max_size=8)
WANTED = st.dictionaries(NAMES, st.none() | VALUES, max_size=5)


@dataclass(frozen=True)
class Made:
    """A container with what it was put together from: its flags, divided between both lists anywhere, and the rest."""

    container: dict[str, Any]
    program: list[str]
    pieces: list[Piece]
    tail: list[str]


@st.composite
def containers(draw: st.DrawFn) -> Made:
    pieces = draw(PIECES)
    tail = draw(st.sampled_from([[], ["--"], ["--", "b", "c"]]))
    words = [*(word for piece in pieces for word in piece.words), *tail]
    program = draw(st.sampled_from([[], *PROGRAMS]))
    cut = draw(st.integers(min_value=0, max_value=len(words))) if program else 0
    return Made(container(program + words[:cut], words[cut:]), program, pieces, tail)


@given(containers())
def test_every_flag_is_found_with_its_value(made: Made) -> None:
    expected: dict[str, list[str]] = {}
    for piece in made.pieces:
        expected.setdefault(piece.name, []).append(piece.value)
    found = flags(made.container)
    found.pop("etcd-quorum-read", None)
    assert found == {
        name: ",".join(value for value in values if value) if name in LISTS else values[-1]
        for name, values in expected.items()
        if name
    }


@given(containers(), WANTED)
def test_a_change_sets_what_is_wanted_and_changes_nothing_else(made: Made, wanted: dict[str, str | None]) -> None:
    after = patched(made.container, wanted)
    found = flags(after)
    assert {name: found.get(name) for name in wanted} == wanted
    rest, given_times = taken_out([*after.get("command", []), *after.get("args", [])], list(wanted))
    assert given_times == {name: int(value is not None) for name, value in wanted.items()}
    others = [word for piece in made.pieces if piece.name not in wanted for word in piece.words]
    assert rest == [*made.program, *others, *made.tail]
    assert changed(after, wanted) == after


def taken_out(words: list[str], names: list[str]) -> tuple[list[str], dict[str, int]]:
    """The words but for these flags, and how often each was there: told in the way that the words made here allow."""
    rest, times = list(words), dict.fromkeys(names, 0)
    for name in names:
        for spelled in (f"--{name}", f"--{name.replace('etcd-', 'etcd_')}"):
            while at := next((i for i, word in enumerate(rest) if word.partition("=")[0] == spelled), -1) + 1:
                del rest[at - 1 : at + (rest[at - 1] == spelled)]
                times[name] += 1
    return rest, times
