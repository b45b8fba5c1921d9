"""Real members of which one has other keys: what etcd does by itself, and what takes its alarm back."""

import asyncio
import signal
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path

import pytest

from etcd_operator.etcd.errors import EtcdError
from etcd_operator.etcd.model import Alarm, AlarmKind
from etcd_operator.etcd.options import minor
from etcd_operator.etcd.probe import compare
from integration.etcd_processes import FAST, VERSIONS, Lab, etcd_program, lab

RIGHT, WRONG = b"the-RIGHT-value", b"the-WRONG-value"


def check_often(version: str) -> dict[str, str]:
    prefix = "experimental-" if minor(version) == "3.5" else ""
    return {f"{prefix}compact-hash-check-time": "1s"}


async def compact(opened: Lab, revision: int) -> None:
    tls = opened.tls / "server"
    process = await asyncio.create_subprocess_exec(
        etcd_program(opened.version, "etcdctl"),
        *(f"--endpoints={opened.members['m0'].client_url}", f"--cacert={tls / 'ca.crt'}"),
        *(f"--cert={tls / 'tls.crt'}", f"--key={tls / 'tls.key'}"),
        *("compaction", str(revision)),
    )
    assert await process.wait() == 0


async def wait_for(question: Callable[[], Awaitable[bool]], within: float = 30) -> None:
    async with asyncio.timeout(within):
        while not await question():  # noqa: ASYNC110 - nothing announces it
            await asyncio.sleep(0.1)


@pytest.mark.parametrize("version", VERSIONS)
async def test_a_member_with_other_keys_is_removed_then_its_alarm_then_writes_go_on(
    tmp_path: Path, version: str
) -> None:
    async with lab(tmp_path, version) as opened:
        client = opened.client
        await opened.bootstrap(3, options=replace(FAST, extra=check_often(version)))
        leader = await opened.leader()
        victim = next(name for name in opened.members if name != leader)
        right = [name for name in opened.members if name != victim]
        await client.put(opened.endpoint(leader), b"differs", RIGHT)
        await client.put(opened.endpoint(leader), b"more", b"1")
        member = opened.members[victim]
        own = (await client.status(opened.endpoint(victim))).member_id
        await member.stop(signal.SIGTERM)  # all is in its database then
        database = member.folder / "i1/member/snap/db"
        content = database.read_bytes()
        assert RIGHT in content
        database.write_bytes(content.replace(RIGHT, WRONG))
        await member.start()
        await opened.all_well()

        revision = await client.put(opened.endpoint(leader), b"more", b"2")

        async def all_have_it() -> bool:
            return len(await compare(client, opened.endpoints(), revision, timeout=5)) == 3

        await wait_for(all_have_it)
        hashes = await compare(client, opened.endpoints(), revision, timeout=5)
        assert hashes[right[0]].hash == hashes[right[1]].hash
        assert hashes[right[0]].compact_revision == hashes[victim].compact_revision
        assert hashes[right[0]].hash != hashes[victim].hash

        async def alarmed() -> bool:
            return bool((await client.status(opened.endpoint(leader))).alarms)

        await compact(opened, revision)
        await wait_for(alarmed)
        named = 0 if minor(version) == "3.5" else own
        alarm = Alarm(member_id=named, kind=AlarmKind.CORRUPT)
        assert (await client.status(opened.endpoint(leader))).alarms == (alarm,)
        assert await client.alarms(opened.endpoint(leader)) == (alarm,)
        again = await compare(client, opened.endpoints(), revision, timeout=5)
        assert {name for name in again if again[name].hash != again[right[0]].hash} == {victim}, "told all the same"
        with pytest.raises(EtcdError) as refused:
            await client.put(opened.endpoint(leader), b"more", b"3")
        assert refused.value.kind == "corrupt"

        # etcd takes a removal for 5 s after voters connected only from those that leave enough others.
        async def is_removed() -> bool:
            try:
                return len((await client.member_remove(opened.endpoint(leader), own)).members) == 2
            except EtcdError as error:
                if error.kind != "unhealthy_cluster":
                    raise
                return False

        await wait_for(is_removed)
        assert await member.exit_code() == 0
        assert (await client.status(opened.endpoint(leader))).alarms == (alarm,), "it outlives its member"
        with pytest.raises(EtcdError):
            await client.put(opened.endpoint(leader), b"more", b"3")
        await client.disarm(opened.endpoint(leader), alarm)
        assert not await alarmed()
        await client.put(opened.endpoint(leader), b"more", b"3")
