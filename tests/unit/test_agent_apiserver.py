"""The program on a node: from a folder with a plan to a result that the kubelet takes along."""

import fcntl
from pathlib import Path

import pytest

from etcd_operator.agent.apiserver import main
from etcd_operator.agent.plan import MANIFEST, PLAN_FILE, SAVED_FOLDER, Plan, Result
from support.node import CERTIFICATE, NEW_FLAGS, OLD_FLAGS, Node, plan, pod


@pytest.fixture
def node(tmp_path: Path) -> Node:
    made = Node(folder=tmp_path / "node")
    made.run_with(pod(OLD_FLAGS))
    return made


def run(node: Node, told: Plan | str, certificate: dict[str, bytes], *more: str) -> tuple[int, Result]:
    folder, result = node.folder / "plan", node.folder / "result"
    folder.mkdir()
    (folder / PLAN_FILE).write_text(told if isinstance(told, str) else told.to_json())
    for name, held in certificate.items():
        (folder / name).write_bytes(held)
    code = main([str(folder), "--result", str(result), *more], files=node.files, watch=node.watch)
    return code, Result.parse(result.read_text())


def test_a_plan_is_carried_out(node: Node) -> None:
    ready = "kube-apiserver is ready with --etcd-servers=https://new:2379"
    assert run(node, plan(check=False), CERTIFICATE) == (0, Result(result="Applied", message=ready))
    assert node.flags == NEW_FLAGS


def test_without_a_certificate_none_is_written(node: Node) -> None:
    flags = dict.fromkeys(NEW_FLAGS) | {"etcd-servers": "http://new:2379"}
    assert run(node, plan(check=False, flags=flags), {})[1].result == "Applied"
    assert node.flags == {"etcd-servers": "http://new:2379"}


def test_a_plan_that_cannot_be_read_is_told(node: Node) -> None:
    code, result = run(node, "{}", {})
    assert (code, result.result, result.reason) == (0, "Refused", "PlanInvalid")


def test_an_etcd_that_nobody_finds_is_told(node: Node) -> None:
    servers = "https://nowhere.invalid:2379,https://127.0.0.1:1"
    code, result = run(node, plan(flags=NEW_FLAGS | {"etcd-servers": servers}), CERTIFICATE)
    assert (code, result.reason) == (0, "EndpointUnreachable")
    assert "https://nowhere.invalid:2379: " in result.message
    assert "https://127.0.0.1:1: " in result.message


def test_two_runs_at_a_time_are_one_too_many(node: Node) -> None:
    lock = node.files.path(f"{SAVED_FOLDER}/lock")
    lock.parent.mkdir()
    with lock.open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        code, result = run(node, plan(check=False), CERTIFICATE)
    assert (code, result.reason) == (0, "Failed")
    assert "another run is under way" in result.message


def test_what_the_node_refuses_is_told(node: Node) -> None:
    path = node.files.path(MANIFEST)
    path.unlink()
    path.mkdir()
    code, result = run(node, plan(check=False), CERTIFICATE)
    assert (code, result.reason) == (0, "Failed")
    assert "Is a directory" in result.message


@pytest.mark.parametrize("changed", [{}, {"tls.crt": b"other"}])
def test_a_plan_that_somebody_has_replaced_is_refused(node: Node, changed: dict[str, bytes]) -> None:
    told, held = plan(check=False), node.held()
    code, result = run(node, told, CERTIFICATE | changed, f"--digest={told.digest(CERTIFICATE)}")
    assert code == 0
    assert result.reason == ("PlanInvalid" if changed else "")
    assert (node.held() == held) is bool(changed)


def test_a_result_that_cannot_be_told_is_a_failure(node: Node) -> None:
    (node.folder / "result").mkdir()
    with pytest.raises(IsADirectoryError):
        run(node, plan(check=False), CERTIFICATE)
