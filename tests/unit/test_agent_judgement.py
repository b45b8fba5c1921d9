"""What the etcds are asked before a node's API server is sent to one of them: which they are, and what they hold."""

from types import SimpleNamespace
from typing import Any

import pytest

from etcd_operator.agent import judgement
from etcd_operator.agent.judgement import Answers, ask_etcd
from etcd_operator.binding.content import Side
from etcd_operator.etcd.errors import EtcdError
from etcd_operator.etcd.model import Endpoint


class Etcds:
    """An etcd cluster's ID by address; what is not there does not answer. Each holds nothing, at revision 1."""

    ids: dict[str, int] = {}  # noqa: RUF012 - each test sets its own

    async def __aenter__(self) -> "Etcds":
        return self

    async def __aexit__(self, *_: object) -> None:
        pass

    async def status(self, endpoint: Endpoint) -> Any:
        if endpoint.address not in self.ids:
            raise EtcdError("refused", "nothing listens there")
        return SimpleNamespace(cluster_id=self.ids[endpoint.address])

    async def get(self, endpoint: Endpoint, key: bytes) -> None:
        await self.status(endpoint)

    async def range(self, endpoint: Endpoint, *_: object, **__: object) -> Any:
        await self.status(endpoint)
        return SimpleNamespace(revision=1, pairs=(), more=False)


@pytest.fixture(autouse=True)
def etcds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(judgement, "EtcdClient", Etcds)


def side(*servers: str, prefix: str = "/registry") -> Side:
    return Side(servers=tuple(f"http://{each}:1" for each in servers), tls=None, prefix=prefix)


def ask(present: Side | None, monkeypatch: pytest.MonkeyPatch, **ids: int) -> Answers:
    """Of the wanted a and b."""
    monkeypatch.setattr(Etcds, "ids", {f"{name}:1": number for name, number in ids.items()})
    return ask_etcd(side("a", "b"), present)


def test_each_address_says_which_etcd_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    said = ask(side("x", "y"), monkeypatch, a=0xC0FFEE, b=0xC0FFEE, x=0xC0FFEE)
    assert said.wanted == dict.fromkeys(("http://a:1", "http://b:1"), "c0ffee")
    assert said.present == {"http://x:1": "c0ffee"}
    assert said.present_silent == {"http://y:1": "nothing listens there"}
    assert said.same_cluster
    assert said.comparison is None
    assert not ask(side("x", "y"), monkeypatch, a=1, b=1, x=1, y=2).same_cluster
    assert not ask(side("x"), monkeypatch, a=1, b=1).same_cluster


def test_two_etcds_are_compared_and_so_are_two_prefixes(monkeypatch: pytest.MonkeyPatch) -> None:
    for other in (
        ask(side("x"), monkeypatch, a=1, b=1, x=2),
        ask(side("x", prefix="/other"), monkeypatch, a=1, b=1, x=1),
        ask(side("x", "y"), monkeypatch, a=1, b=1, x=1, y=2),
    ):
        assert other.comparison
        assert not other.comparison.same_etcd
        assert other.comparison.before == other.comparison.wanted


def test_what_is_silent_is_not_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    said = ask(side("x"), monkeypatch, a=1, x=2)
    assert said.silent == {"http://b:1": "nothing listens there"}
    assert said.present == {"http://x:1": "2"}
    assert said.comparison is None
    assert ask(side("x"), monkeypatch, a=1, b=1).comparison is None
    assert ask(side("x"), monkeypatch, x=1).present == {}
    assert ask(None, monkeypatch, a=1, b=1, x=1).present == {}
