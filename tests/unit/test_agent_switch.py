"""An API server is brought to another etcd: killed anywhere, refused, or not coming back, no node is left worse."""

import itertools
import stat
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import yaml
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from etcd_operator.agent import manifest
from etcd_operator.agent.judgement import Answers
from etcd_operator.agent.node_files import Disk
from etcd_operator.agent.plan import FILES, MANIFEST, PKI_FOLDER, Plan, Result
from etcd_operator.agent.record import SAVED, STATE, Records
from etcd_operator.agent.switch import Switch
from etcd_operator.binding.comparison import Comparison, Content
from etcd_operator.binding.content import Side
from support.node import (
    CERTIFICATE,
    NEW_FLAGS,
    NEW_SERVERS,
    OLD_FLAGS,
    OLD_SERVERS,
    Accepts,
    Killed,
    Node,
    plan,
    pod,
    read_manifest,
    short_pod,
)

SAME = Answers(wanted={NEW_SERVERS: "c"}, present={OLD_SERVERS: "c"})
READY, READY_AS_BEFORE = (
    f"kube-apiserver is ready with --etcd-servers={servers}" for servers in (NEW_SERVERS, OLD_SERVERS)
)
AUTHORITY = "externaletcd.io/etcd-authority"


def switch(node: Node, told: Plan | None = None, answers: Answers = SAME, **given: object) -> Result:
    """One run; the etcds say what `answers` holds."""
    options = {"certificate": CERTIFICATE, "ask": lambda wanted, present: answers} | given
    return Switch(plan=told or plan(), files=node.files, watch=node.watch, **options).run()  # type: ignore[arg-type]


@pytest.fixture
def node(tmp_path: Path) -> Node:
    made = Node(folder=tmp_path)
    made.run_with(pod(OLD_FLAGS))
    return made


def only_old(flags: object, authority: bytes | None) -> bool:
    return isinstance(flags, dict) and flags["etcd-servers"] == OLD_SERVERS


# What a run does


def test_the_api_server_uses_the_wanted_etcd(node: Node) -> None:
    former = node.manifest
    node.files.path(MANIFEST).chmod(0o640)
    assert switch(node) == Result(result="Applied", message=READY)
    assert node.flags == NEW_FLAGS
    for flag, file in FILES.items():
        path = node.files.path(str(NEW_FLAGS[flag]))
        assert path.read_bytes() == CERTIFICATE[file]
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(node.files.path(PKI_FOLDER).stat().st_mode) == 0o700
    assert stat.S_IMODE(node.files.path(MANIFEST).stat().st_mode) == 0o640
    assert node.files.read(SAVED) == former
    assert stat.S_IMODE(node.files.path(SAVED).stat().st_mode) == 0o600


def test_nothing_else_of_the_manifest_changes(node: Node) -> None:
    before = manifest.read(node.manifest)
    switch(node)
    after = manifest.read(node.manifest)
    assert after["metadata"]["annotations"].pop("externaletcd.io/bound-by") == "ns/name"
    words = [word for word in after["spec"]["containers"][0].pop("command") if "--etcd" not in word]
    assert words == [word for word in before["spec"]["containers"][0].pop("command") if "--etcd" not in word]
    assert after == before


def test_a_second_run_changes_nothing_and_renews_the_certificate(node: Node) -> None:
    switch(node)
    manifest, pid = node.manifest, node.pid
    renewed = CERTIFICATE | {"tls.crt": b"renewed"}
    assert switch(node, certificate=renewed) == Result(result="Unchanged", message=READY)
    assert (node.manifest, node.pid) == (manifest, pid)
    assert node.files.read(f"{PKI_FOLDER}/tls.crt") == b"renewed"


def test_the_former_arguments_are_put_back_without_asking_any_etcd(node: Node) -> None:
    former = manifest.read(node.manifest)
    switch(node)
    back = plan(
        flags={name: OLD_FLAGS.get(name) for name in NEW_FLAGS},
        annotations={"externaletcd.io/bound-by": None},
        before=NEW_FLAGS,
        check=False,
    )
    assert switch(node, back, certificate={}, ask=None) == Result(result="Applied", message=READY_AS_BEFORE)
    assert node.flags == OLD_FLAGS
    after = manifest.read(node.manifest)
    for each in (former, after):
        each["spec"]["containers"][0]["command"].sort()
    assert after == former


def test_an_api_server_that_is_ill_later_keeps_its_manifest(node: Node) -> None:
    switch(node)
    wanted, node.accepts = node.manifest, only_old
    ended = switch(node)
    assert (ended.result, ended.reason) == ("Unchanged", "NotReady")
    assert "[-]etcd failed" in ended.message
    assert node.manifest == wanted


def test_a_manifest_that_somebody_else_wrote_as_wanted_is_not_put_back(node: Node) -> None:
    switch(node)
    node.files.path(STATE).unlink()
    node.accepts = only_old
    assert switch(node).result == "Unchanged"


# When the API server does not come


@pytest.mark.parametrize(
    ("crashes", "said"), [(False, "runs, started once, but /readyz answers 500"), (True, "and has ended")]
)
def test_an_api_server_that_does_not_come_gets_its_manifest_back(node: Node, crashes: bool, said: str) -> None:
    held, node.accepts, node.crashes = node.held(), only_old, crashes
    ended = switch(node)
    assert (ended.result, ended.reason) == ("RolledBack", "NotReady")
    assert said in ended.message
    assert node.held() == held
    assert node.flags == OLD_FLAGS


def test_a_kubelet_that_does_nothing_is_told(node: Node) -> None:
    held, node.deaf = node.held(), True
    ended = switch(node)
    assert (ended.result, ended.reason) == ("RolledBack", "NotReady")
    assert "the kubelet has started no kube-apiserver" in ended.message
    assert node.held() == held


def test_an_api_server_that_does_not_even_come_back_is_told(node: Node) -> None:
    held, node.accepts = node.held(), lambda flags, authority: False
    ended = switch(node)
    assert (ended.result, ended.reason) == ("RolledBack", "NotRestored")
    assert node.held() == held


def test_a_process_of_before_does_not_count_though_its_arguments_are_the_wanted_ones(node: Node) -> None:
    switch(node)
    node.deaf = True
    again = plan(annotations={AUTHORITY: "2"}, before=NEW_FLAGS, ours=(NEW_SERVERS,))
    assert switch(node, again).reason == "NotReady"


# What is refused, with everything as it was

REFUSALS = {
    "EndpointUnreachable": Answers(silent={NEW_SERVERS: "no answer in time"}),
    "DataUnknown": Answers(comparison=Comparison(servers="", problem="compacted")),
    "DifferentData": Answers(
        comparison=Comparison(
            servers="",
            before=Content(keys=2, revision=3, digest="a"),
            wanted=Content(keys=0, revision=1, digest="b"),
        ),
    ),
    "WritesNotStopped": Answers(
        comparison=Comparison(
            servers="",
            before=Content(keys=2, revision=3, digest="a"),
            wanted=Content(keys=2, revision=9, digest="a"),
        ),
    ),
}


@pytest.mark.parametrize("reason", REFUSALS)
def test_what_the_etcds_say_against_it_is_refused(node: Node, reason: str) -> None:
    held = node.held()
    ended = switch(node, answers=REFUSALS[reason])
    assert (ended.result, ended.reason) == ("Refused", reason)
    assert node.held() == held
    assert node.files.read(STATE) is None


def test_how_much_both_hold_is_told(node: Node) -> None:
    ended = switch(node, answers=REFUSALS["DifferentData"])
    assert ended.before
    assert ended.wanted
    assert (ended.before.keys, ended.wanted.keys) == (2, 0)


def test_the_present_etcd_is_asked_with_the_present_certificate(node: Node) -> None:
    asked: list[tuple[Side, Side | None]] = []

    def ask(wanted: Side, present: Side | None) -> Answers:
        asked.append((wanted, present))
        return SAME

    switch(node, ask=ask)
    ((wanted, present),) = asked
    assert present
    assert (wanted.servers, present.servers) == ((NEW_SERVERS,), (OLD_SERVERS,))
    assert wanted.tls
    assert wanted.tls.cert == b"new certificate"
    assert present.tls
    assert present.tls.key == b"old /etc/kubernetes/pki/apiserver-etcd-client.key"


def test_data_is_not_compared_where_it_does_not_matter(node: Node) -> None:
    seen: list[Side | None] = []

    def ask(wanted: Side, present: Side | None) -> Answers:
        seen.append(present)
        return Answers()

    assert switch(node, plan(accept_different_data=True), ask=ask).result == "Applied"
    assert seen == [None]


# Which etcd it is

BOTH = f"{OLD_SERVERS},{NEW_SERVERS}"
NOTE = "externaletcd.io/bound-by"
#: For a node that uses the wanted etcd by one address, and is to use it by two.
FOLLOWS: dict[str, Any] = {
    "flags": NEW_FLAGS | {"etcd-servers": BOTH},
    "ours": (OLD_SERVERS, NEW_SERVERS),
    "cluster_id": "c",
}
HALF = Answers(silent={NEW_SERVERS: "no answer"}, wanted={OLD_SERVERS: "c"}, present={OLD_SERVERS: "c"})
UNHEARD = Answers(wanted={OLD_SERVERS: "c", NEW_SERVERS: "c"}, present_silent={OLD_SERVERS: "refused"})
HALF_UNHEARD = Answers(silent={OLD_SERVERS: "no answer"}, wanted={NEW_SERVERS: "c"})


@pytest.mark.parametrize("accepts", [True, False])
def test_an_address_of_another_etcd_is_refused_whatever_else_is_known_of_it(node: Node, accepts: bool) -> None:
    node.run_with(pod(OLD_FLAGS, {NOTE: "ns/name"}))
    held = node.held()
    said = Answers(wanted={OLD_SERVERS: "c", NEW_SERVERS: "abc"}, present={OLD_SERVERS: "c"})
    ended = switch(node, plan(**FOLLOWS, accept_different_data=accepts), said)
    assert (ended.result, ended.reason) == ("Refused", "AnotherEtcd")
    assert f"{NEW_SERVERS}: is another etcd cluster (abc), not c; " in ended.message
    assert OLD_SERVERS not in ended.message
    assert node.held() == held


@pytest.mark.parametrize(
    ("noted", "changes", "said", "reason"),
    [
        ("", {}, SAME, ""),
        ("", {"cluster_id": ""}, SAME, ""),
        ("", {}, HALF, ""),
        ("", {"ours": ()}, HALF, ""),
        ("ns/name", {"cluster_id": ""}, HALF, "EndpointUnreachable"),
        ("ns/name", {}, UNHEARD, ""),
        ("ns/name", {}, HALF_UNHEARD, ""),
        ("ns/name", {}, Answers(silent=dict.fromkeys((OLD_SERVERS, NEW_SERVERS), "no answer")), "EndpointUnreachable"),
        ("ns/name", {"cluster_id": ""}, UNHEARD, "DataUnknown"),
        ("ns/name", {"ours": (NEW_SERVERS,)}, UNHEARD, "DataUnknown"),
        ("ns/other", {}, UNHEARD, "DataUnknown"),
        ("", {}, UNHEARD, "DataUnknown"),
        ("", {}, HALF_UNHEARD, "EndpointUnreachable"),
        ("ns/name", {"flags": FOLLOWS["flags"] | {"etcd-prefix": "/other"}}, HALF, "EndpointUnreachable"),
        ("ns/name", {"flags": FOLLOWS["flags"] | {"etcd-prefix": "/other"}}, SAME, "DataUnknown"),
        ("ns/name", {}, Answers(wanted={NEW_SERVERS: "c"}, present={OLD_SERVERS: "d"}), "DataUnknown"),
        ("ns/name", {}, Answers(wanted={NEW_SERVERS: "c"}, present={OLD_SERVERS: "c", "x": "d"}), "DataUnknown"),
    ],
)
def test_only_an_etcd_that_proves_to_be_the_wanted_one_is_followed(
    node: Node, noted: str, changes: dict[str, Any], said: Answers, reason: str
) -> None:
    node.run_with(pod(OLD_FLAGS, {NOTE: noted} if noted else {}))
    assert switch(node, plan(**FOLLOWS | changes), said).reason == reason


def test_certificate_files_that_are_gone_come_back_where_the_binding_wrote_them(node: Node) -> None:
    node.run_with(pod(OLD_FLAGS, {NOTE: "ns/name"}))
    node.files.path(OLD_FLAGS["etcd-keyfile"]).unlink()
    assert switch(node, plan(**FOLLOWS), UNHEARD).result == "Applied"


def test_a_manifest_that_somebody_changed_is_refused(node: Node) -> None:
    node.run_with(pod(OLD_FLAGS | {"etcd-servers": "https://third:2379"}))
    held = node.held()
    ended = switch(node)
    assert (ended.result, ended.reason) == ("Refused", "ManifestChanged")
    assert "https://third:2379" in ended.message
    assert node.held() == held


def test_a_node_without_the_manifest_is_refused(node: Node) -> None:
    node.files.path(MANIFEST).unlink()
    assert switch(node).reason == "ManifestMissing"
    assert node.files.read(MANIFEST) is None


@pytest.mark.parametrize("text", ["[]", "{", "a: 1\n---\nb: 2", "spec: {containers: [{name: other}]}", ""])
def test_what_is_no_manifest_of_an_api_server_is_refused(node: Node, text: str) -> None:
    node.files.path(MANIFEST).write_text(text)
    ended = switch(node)
    assert (ended.result, ended.reason) == ("Refused", "ArgumentsUnreadable")


def test_certificate_files_that_cannot_be_read_are_told(node: Node) -> None:
    node.files.path(OLD_FLAGS["etcd-keyfile"]).unlink()
    ended = switch(node)
    assert ended.reason == "FilesUnreadable"
    assert "--etcd-keyfile" in ended.message


def test_files_that_the_api_server_would_not_see_are_told(node: Node) -> None:
    unmounted = pod(OLD_FLAGS)
    unmounted["spec"]["volumes"][0]["hostPath"]["path"] = "/elsewhere"
    node.run_with(unmounted)
    assert switch(node).reason == "FilesUnreadable"
    assert not node.files.path(PKI_FOLDER).exists()


@pytest.mark.parametrize(
    ("told", "certificate"),
    [
        (plan(), {}),
        (plan(), {"ca.crt": b"ca"}),
        (plan(flags=NEW_FLAGS | {"etcd-cafile": None}), CERTIFICATE),
        (plan(flags=NEW_FLAGS | {"etcd-cafile": "/etc/kubernetes/pki/ca.crt"}), CERTIFICATE),
        (plan(flags=NEW_FLAGS | {"etcd-cafile": f"{PKI_FOLDER}/../ca.crt"}), CERTIFICATE),
    ],
)
def test_plans_that_do_not_hold_together_are_refused(node: Node, told: Plan, certificate: dict[str, bytes]) -> None:
    held = node.held()
    assert switch(node, told, certificate=certificate).reason == "PlanInvalid"
    assert node.held() == held


# Killed anywhere


class DyingDisk(Disk):
    """Dies before, in the midst of, or after one of its steps; `moments`: how many may pass before that.

    Nothing is brought to a real disk. `check` is called at each moment.
    """

    def __init__(self, moments: int, check: Callable[[], None]) -> None:
        self.left, self.check = moments, check

    def write(self, path: Path, data: bytes, mode: int, owner: tuple[int, int] | None) -> None:
        self._moment()
        path.write_bytes(data[: len(data) // 2])
        self._moment()
        path.write_bytes(data)
        path.chmod(mode)
        self._moment()

    def rename(self, old: Path, new: Path) -> None:
        self._moment()
        super().rename(old, new)
        self._moment()

    def unlink(self, path: Path) -> None:
        self._moment()
        super().unlink(path)
        self._moment()

    def make_folder(self, path: Path, mode: int) -> None:
        self._moment()
        super().make_folder(path, mode)
        self._moment()

    def sync(self, folder: Path) -> None:
        assert folder.is_dir()

    def _moment(self) -> None:
        self.check()
        if self.left == 0:
            raise Killed
        self.left -= 1


@dataclass(frozen=True, kw_only=True)
class Story:
    """A replacement of `former` by what `told` says; `ill`: accepts nothing but what ran before."""

    former: dict[str, Any]
    told: Plan
    ill: Accepts


#: How a node is bound first, led to another etcd with the same files, and given another authority.
STORIES = {
    "first": Story(
        former=short_pod(OLD_FLAGS), told=plan(), ill=lambda flags, ca: flags["etcd-servers"] == OLD_SERVERS
    ),
    "other etcd": Story(
        former=short_pod(NEW_FLAGS | {"etcd-servers": OLD_SERVERS}),
        told=plan(before=NEW_FLAGS | {"etcd-servers": OLD_SERVERS}),
        ill=lambda flags, ca: flags["etcd-servers"] == OLD_SERVERS and ca == b"former ca.crt",
    ),
    "other authority": Story(
        former=short_pod(NEW_FLAGS, {AUTHORITY: "1"}),
        told=plan(before=NEW_FLAGS, ours=(NEW_SERVERS,), annotations={AUTHORITY: "2"}),
        ill=lambda flags, ca: ca == b"former ca.crt",
    ),
}


def opened(folder: Path, story: Story, *, well: bool, crashes: bool) -> Node:
    """A node that runs as before the story, with the files that its manifest names."""
    node = Node(folder=folder, crashes=crashes)
    if story.former != STORIES["first"].former:
        node.files.path(PKI_FOLDER).mkdir()
        for file in CERTIFICATE:
            node.files.path(f"{PKI_FOLDER}/{file}").write_bytes(f"former {file}".encode())
    node.run_with(story.former)
    if not well:
        node.accepts = story.ill
    return node


def killed_at(node: Node, story: Story, moments: int, *, waits: float | None = None, eager: bool = True) -> bool:
    """Run until it is killed at that moment, or has waited for so long; whether it was, or else came to an end.

    eager: the kubelet looks at every moment, instead of only when the run waits.

    At every moment the manifests' folder holds one manifest, whole, and the wanted one finds the files that it names,
    unless it is just put back.
    """
    old, new = yaml.safe_load(yaml.safe_dump(story.former)), manifest.changed(story.former, story.told)

    def check() -> None:
        shown = [each for each in node.files.path(MANIFEST).parent.iterdir() if not each.name.startswith(".")]
        assert [each.name for each in shown] == ["kube-apiserver.yaml"]
        assert read_manifest(shown[0].read_bytes()) in (old, new)
        if eager:
            node.kubelet()

    node.disk = DyingDisk(moments, check)
    node.dies = None if waits is None else node.time + waits
    try:
        switch(node, story.told)
    except Killed:
        return True
    finally:
        check()
        node.disk, node.dies = DyingDisk(10**6, check), None
    return False


def assert_ends_well(node: Node, story: Story) -> None:
    assert switch(node, story.told).result in ("Applied", "Unchanged")
    assert manifest.read(node.manifest) == manifest.changed(story.former, story.told)
    assert node.flags == NEW_FLAGS
    assert node.authority == CERTIFICATE["ca.crt"]
    assert {file: node.files.read(f"{PKI_FOLDER}/{file}") for file in CERTIFICATE} == CERTIFICATE
    record = Records(files=node.files).read()
    assert record
    assert record.done
    assert not [path for path in node.held() if "/." in path]


def assert_ends_as_before(node: Node, story: Story, before: dict[str, bytes]) -> None:
    ended = switch(node, story.told)
    assert (ended.result, ended.reason) == ("RolledBack", "NotReady")
    assert node.held() == before
    assert node.text == before[MANIFEST]
    assert node.accepts(node.flags, node.authority)


@pytest.mark.parametrize("story", STORIES.values(), ids=STORIES)
@pytest.mark.parametrize("well", [True, False])
def test_a_run_that_is_killed_at_any_moment_is_finished_or_undone(tmp_path: Path, story: Story, well: bool) -> None:
    for moments in itertools.count():
        node = opened(tmp_path / str(moments), story, well=well, crashes=False)
        before = node.held()
        killed = killed_at(node, story, moments)
        node.end()  # as a process does that finds no etcd; the next one reads the files as they are now
        node.kubelet()
        if killed or well:
            assert_ends_well(node, story) if well else assert_ends_as_before(node, story, before)
        if not killed:
            assert moments > 30
            return


@given(
    story=st.sampled_from(list(STORIES.values())),
    well=st.booleans(),
    crashes=st.booleans(),
    eager=st.booleans(),
    kills=st.lists(
        st.tuples(st.integers(0, 80), st.none() | st.floats(0, 15), st.booleans(), st.booleans()),
        min_size=1,
        max_size=4,
    ),
)
@settings(max_examples=40, phases=[Phase.generate])  # what it finds is short, and making it shorter takes minutes
def test_runs_that_are_killed_again_and_again_end_the_same(
    story: Story, well: bool, crashes: bool, eager: bool, kills: list[tuple[int, float | None, bool, bool]]
) -> None:
    """`kills`: after how many moments, or how long a wait; does the kubelet look then, does the node restart."""
    with TemporaryDirectory() as folder:
        node = opened(Path(folder), story, well=well, crashes=crashes)
        before = node.held()
        for moments, waits, looks, restarts in kills:
            killed_at(node, story, moments, waits=waits, eager=eager)
            if restarts:
                node.restart()
            if looks:
                node.kubelet()
        assert_ends_well(node, story) if well else assert_ends_as_before(node, story, before)


def test_what_never_proved_itself_is_not_gone_back_to(node: Node) -> None:
    """A run dies while it waits, the plan changes, and the API server comes with neither of the two."""
    held, node.accepts, node.dies = node.held(), only_old, 2.0
    with pytest.raises(Killed):
        switch(node)
    assert node.held() != held
    node.dies = None
    assert (
        switch(node, plan(flags=NEW_FLAGS | {"etcd-prefix": "/other"}, accept_different_data=True)).result
        == "RolledBack"
    )
    assert node.held() == held


def test_what_was_begun_is_undone_before_anything_is_refused(tmp_path: Path) -> None:
    story = STORIES["other etcd"]
    for moments in itertools.count():
        node = opened(tmp_path / str(moments), story, well=True, crashes=False)
        before = node.held()
        assert killed_at(node, story, moments)
        if node.manifest != before[MANIFEST]:
            return
        assert switch(node, story.told, REFUSALS["EndpointUnreachable"]).result == "Refused"
        assert node.held() == before
