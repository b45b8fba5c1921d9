"""How the client treats its connections, against listeners on loopback that speak no etcd."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from etcd_operator.etcd.client import EtcdClient, _target
from etcd_operator.etcd.errors import EtcdError
from etcd_operator.etcd.model import Endpoint, MemberReport, TLSIdentity
from etcd_operator.etcd.probe import ask


@pytest.fixture
async def mute() -> AsyncIterator[Endpoint]:
    """Something that accepts connections and says nothing, as a stopped process does."""
    server = await asyncio.start_server(lambda _reader, _writer: None, "127.0.0.1", 0)
    async with server:
        yield Endpoint(address=f"127.0.0.1:{server.sockets[0].getsockname()[1]}")


@pytest.mark.parametrize(
    ("address", "target"),
    [
        ("10.244.1.5:2379", "ipv4:10.244.1.5:2379"),
        ("[fd00::5]:2379", "ipv6:[fd00::5]:2379"),
        ("localhost:2379", "dns:///localhost:2379"),
        ("a-0.a-peers.ns.svc:2379", "dns:///a-0.a-peers.ns.svc:2379"),
    ],
)
def test_addresses_are_dialled_as_what_they_are(address: str, target: str) -> None:
    assert _target(address) == target


async def test_a_mute_member_is_tried_twice_and_told_as_timeout(mute: Endpoint) -> None:
    counted: list[tuple[str, str]] = []
    async with EtcdClient(count=lambda method, outcome: counted.append((method, outcome))) as client:
        answers = await ask(client, {"a-0": mute}, timeout=0.1)
        assert client.open_connections == 0, "a connection that failed is not used again"
    assert answers["a-0"].error is not None
    assert answers["a-0"].error.kind == "timeout"
    assert answers["a-0"].status is None
    assert not answers["a-0"].linearizable
    assert counted == [("Status", "timeout")] * 2


async def test_closing_the_client_ends_calls_under_way_with_an_error(mute: Endpoint) -> None:
    client = EtcdClient()
    call = asyncio.create_task(client.status(mute, timeout=30))
    while not client.open_connections:  # noqa: ASYNC110
        await asyncio.sleep(0)
    await asyncio.sleep(0.05)
    await client.aclose()
    with pytest.raises(EtcdError) as raised:
        await call
    assert raised.value.kind == "unavailable"
    assert not call.cancelled()


async def test_a_cancelled_caller_stays_cancelled(mute: Endpoint) -> None:
    counted: list[tuple[str, str]] = []
    async with EtcdClient(count=lambda method, outcome: counted.append((method, outcome))) as client:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await client.status(mute, timeout=30)
    assert counted == [("Status", "cancelled")]


async def test_nobody_to_ask_is_no_answer() -> None:
    async with EtcdClient() as client:
        assert await ask(client, {}) == {}


def test_keys_stay_out_of_logs() -> None:
    identity = TLSIdentity(ca=b"ca", cert=b"cert", key=b"-----SECRET")
    assert "SECRET" not in repr(Endpoint(address="a:1", tls=identity))


@pytest.mark.parametrize(
    ("error", "alarms"),
    [
        ("memberID:10501334649042878790 alarm:CORRUPT ", [(10501334649042878790, "CORRUPT")]),  # 3.5 and 3.6
        ("memberID:17  alarm:NOSPACE", [(17, "NOSPACE")]),  # 3.7, whose white space is not fixed
        ("alarm:CORRUPT", [(0, "CORRUPT")]),
        ("memberID:17 alarm:7", [(17, "OTHER")]),
        ("etcdserver: no leader", []),
    ],
)
def test_alarms_are_read_from_what_a_member_says(error: str, alarms: list[tuple[int, str]]) -> None:
    report = MemberReport(
        cluster_id=1,
        member_id=2,
        version="3.7.3",
        leader_id=2,
        is_learner=False,
        raft_index=1,
        raft_applied_index=1,
        raft_term=1,
        revision=1,
        db_size=1,
        db_size_in_use=1,
        errors=(error,),
    )
    assert [(alarm.member_id, alarm.kind) for alarm in report.alarms] == alarms
