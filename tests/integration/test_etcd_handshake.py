"""Handshakes with a real member: what it shows, whom it takes, and that nothing of a refusal is left behind."""

import asyncio
import ssl
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from etcd_operator.etcd.handshake import shake_hands
from etcd_operator.etcd.model import TLSIdentity
from etcd_operator.pki import inspect, new_authority
from integration.etcd_processes import Lab, lab, leaf_of

CLIENT, PEER = 3, 1


@pytest.fixture
async def one(tmp_path: Path) -> AsyncIterator[Lab]:
    async with lab(tmp_path) as opened:
        await opened.bootstrap(1)
        yield opened


def stranger() -> TLSIdentity:
    authority = new_authority("somebody else", datetime.now(UTC))
    leaf = leaf_of(authority, "root", server=False)
    return TLSIdentity(ca=authority.cert_pem, cert=leaf.cert_pem, key=leaf.key_pem)


async def test_a_member_shows_its_certificates_and_takes_whom_its_authority_vouches_for(one: Lab) -> None:
    assert one.identity is not None
    ports = one.members["m0"].ports
    address = {side: f"127.0.0.1:{ports[side]}" for side in (CLIENT, PEER)}
    known, unknown = one.identity, stranger()
    seen = await shake_hands(
        {
            "client": (address[CLIENT], known),
            "stranger": (address[CLIENT], unknown),
            "client among peers": (address[PEER], known),
        },
        timeout=5,
    )
    assert {name: hand.accepted for name, hand in seen.items()} == {
        "client": True,
        "stranger": False,
        "client among peers": False,
    }
    shown = {name: inspect(hand.certificate).fingerprint for name, hand in seen.items()}
    server, peer = (inspect((one.tls / side / "tls.crt").read_bytes()).fingerprint for side in ("server", "peer"))
    assert shown == {"client": server, "stranger": server, "client among peers": peer}


async def test_nobody_there_is_no_answer(one: Lab) -> None:
    await one.members["m0"].stop()
    assert await shake_hands({"m0": (one.members["m0"].client_address, stranger())}, timeout=5) == {}


async def test_a_refusal_is_no_trouble_of_the_next_connection_of_the_thread(one: Lab) -> None:
    """However early a handshake is given up: of 300, some were given up right when they were done (8 of 400 seen)."""
    assert one.identity is not None
    member, who = one.members["m0"], stranger()
    reader, writer = await asyncio.open_connection("127.0.0.1", member.ports[CLIENT], ssl=context(one.identity, one))
    for step in range(300):
        peers = dict.fromkeys(range(3), (f"127.0.0.1:{member.ports[PEER]}", who))
        await shake_hands(peers, timeout=0.001 + 0.00005 * step)
        writer.write(b"GET /version HTTP/1.1\r\nHost: m0\r\n\r\n")
        assert (await reader.readuntil(b"}")).startswith(b"HTTP/1.1 200")
    writer.close()


def context(identity: TLSIdentity, opened: Lab) -> ssl.SSLContext:
    made = ssl.create_default_context(cadata=identity.ca.decode() if identity.ca else None)
    made.check_hostname = False
    files = opened.folder / "identity.pem"
    files.write_bytes((identity.cert or b"") + b"\n" + (identity.key or b""))
    made.load_cert_chain(files)
    return made
