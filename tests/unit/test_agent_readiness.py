"""Which kube-apiservers run, and whether the right one is ready."""

import http.server
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from etcd_operator.agent.manifest import Probe
from etcd_operator.agent.processes import ProcessID, has_flags, running
from etcd_operator.agent.readiness import ask
from support.node import OLD_FLAGS, Node, pod


@pytest.fixture
def node(tmp_path: Path) -> Node:
    made = Node(folder=tmp_path)
    made.run_with(pod(OLD_FLAGS))
    return made


def test_a_kube_apiserver_is_told_by_boot_number_and_start(node: Node) -> None:
    assert node.pid
    assert running(node.folder / "proc") == {ProcessID("boot-1", node.pid, node.started): OLD_FLAGS}


@pytest.mark.parametrize(
    "words",
    [
        ["etcd", "--data-dir=/x"],
        ["sh", "-c", "kube-apiserver --etcd-servers=x"],
        ["kube-apiserver", "--etcd-servers"],
        [],
    ],
)
def test_what_is_none_does_not_count(node: Node, words: list[str]) -> None:
    before = running(node.folder / "proc")
    node.start_process(words)
    assert running(node.folder / "proc") == before


def test_a_process_that_ends_meanwhile_does_not_count(node: Node) -> None:
    (node.folder / "proc" / str(node.pid) / "stat").unlink()
    assert running(node.folder / "proc") == {}


@pytest.mark.parametrize(
    ("told", "wanted", "same"),
    [
        ({"a": "1"}, {"a": "1"}, True),
        ({"a": "1"}, {"a": "2"}, False),
        ({"a": "1", "b": "1"}, {"a": "1"}, False),
        ({}, {"a": "1"}, False),
        ({"a": "1"}, {"a": "$(A)"}, True),
    ],
)
def test_flags_are_the_same_but_for_what_kubernetes_fills_in(
    told: dict[str, str], wanted: dict[str, str], same: bool
) -> None:
    assert has_flags(told, wanted) is same


class _Handler(http.server.BaseHTTPRequestHandler):
    answer = (200, "ok")

    def do_GET(self) -> None:
        status, body = self.answer
        self.send_response(status)
        self.end_headers()
        self.wfile.write(body.encode())

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - its name
        pass


@pytest.fixture
def server() -> Iterator[http.server.HTTPServer]:
    with http.server.HTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {})) as made:
        thread = threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield made
        made.shutdown()
        thread.join()


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ((200, "ok"), ""),
        ((401, ""), ""),
        ((403, ""), ""),
        ((500, "[+]ping ok\n[-]etcd failed: reason withheld\n"), "/readyz answers 500: [-]etcd failed"),
        ((404, "nothing"), "/readyz answers 404: nothing"),
    ],
)
def test_what_an_api_server_says_of_itself(server: http.server.HTTPServer, answer: tuple[int, str], said: str) -> None:
    server.RequestHandlerClass.answer = answer  # type: ignore[attr-defined]
    told = ask(Probe(port=server.server_port, scheme="HTTP"))
    assert told.startswith(said)
    assert bool(told) is bool(said)


def test_an_api_server_that_does_not_listen_is_told(server: http.server.HTTPServer) -> None:
    port = server.server_port
    assert "does not answer" in ask(Probe(port=port))  # no TLS there
    server.shutdown()
    server.server_close()
    assert "refused" in ask(Probe(port=port))
