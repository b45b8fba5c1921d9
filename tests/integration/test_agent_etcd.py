"""Before a node's API server is sent to another etcd, both are asked: two real ones, with TLS."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from etcd_operator.agent.plan import MANIFEST, Result
from etcd_operator.agent.switch import Switch
from integration.etcd_processes import Lab, lab
from support.node import NEW_FLAGS, OLD_FLAGS, Node, plan, pod


@pytest.fixture
async def present(tmp_path: Path) -> AsyncIterator[Lab]:
    folder = tmp_path / "present"
    folder.mkdir()
    async with lab(folder) as opened:
        await opened.bootstrap(1)
        for number in range(3):
            await opened.client.put(opened.endpoint("m0"), f"/registry/pods/{number}".encode(), b"x")
        yield opened


@pytest.fixture
async def wanted(tmp_path: Path) -> AsyncIterator[Lab]:
    folder = tmp_path / "wanted"
    folder.mkdir()
    async with lab(folder) as opened:
        await opened.bootstrap(1)
        yield opened


@pytest.fixture
def node(tmp_path: Path, present: Lab) -> Node:
    made = Node(folder=tmp_path / "node")
    held = certificate(present)
    for flag, file in (("etcd-cafile", "ca.crt"), ("etcd-certfile", "tls.crt"), ("etcd-keyfile", "tls.key")):
        made.files.path(OLD_FLAGS[flag]).write_bytes(held[file])
    made.run_with(pod(old_flags(present)))
    return made


def certificate(etcd: Lab) -> dict[str, bytes]:
    identity = etcd.identity
    assert identity
    assert identity.cert
    assert identity.key
    return {"ca.crt": identity.ca, "tls.crt": identity.cert, "tls.key": identity.key}


def old_flags(present: Lab) -> dict[str, str]:
    return OLD_FLAGS | {"etcd-servers": present.members["m0"].client_url}


async def switched(node: Node, present: Lab, servers: str, held: dict[str, bytes]) -> Result:
    told = plan(flags=NEW_FLAGS | {"etcd-servers": servers}, before=old_flags(present))
    run = Switch(plan=told, certificate=held, files=node.files, watch=node.watch).run
    return await asyncio.to_thread(run)


async def test_other_data_is_told_with_its_size(node: Node, present: Lab, wanted: Lab) -> None:
    former = node.manifest
    await wanted.client.put(wanted.endpoint("m0"), b"/registry/pods/0", b"x")
    ended = await switched(node, present, wanted.members["m0"].client_url, certificate(wanted))
    assert (ended.result, ended.reason) == ("Refused", "DifferentData")
    assert ended.before
    assert ended.wanted
    assert (ended.before.keys, ended.wanted.keys) == (3, 1)
    assert node.files.read(MANIFEST) == former


async def test_the_same_data_in_another_etcd_is_refused_as_it_is_written_to(
    node: Node, present: Lab, wanted: Lab
) -> None:
    for number in range(3):
        await wanted.client.put(wanted.endpoint("m0"), f"/registry/pods/{number}".encode(), b"x")
    ended = await switched(node, present, wanted.members["m0"].client_url, certificate(wanted))
    assert (ended.result, ended.reason) == ("Refused", "WritesNotStopped")


async def test_the_same_etcd_by_another_address_is_taken(node: Node, present: Lab) -> None:
    servers = present.members["m0"].client_url.replace("127.0.0.1", "localhost")
    assert await switched(node, present, servers, certificate(present)) == Result(
        result="Applied", message=f"kube-apiserver is ready with --etcd-servers={servers}"
    )
    assert node.flags["etcd-servers"] == servers


async def test_a_certificate_that_the_etcd_refuses_is_told(node: Node, present: Lab, wanted: Lab) -> None:
    server = wanted.members["m0"].client_url
    stranger = certificate(present) | {"ca.crt": certificate(wanted)["ca.crt"]}
    ended = await switched(node, present, server, stranger)
    assert ended.reason == "EndpointUnreachable"
    assert f"{server}: the member refused the certificate" in ended.message


async def test_a_present_etcd_that_is_silent_leaves_its_data_unknown(node: Node, present: Lab, wanted: Lab) -> None:
    await present.members["m0"].stop()
    ended = await switched(node, present, wanted.members["m0"].client_url, certificate(wanted))
    assert ended.reason == "DataUnknown"
    assert "connection refused" in ended.message
