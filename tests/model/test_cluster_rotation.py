"""Rotating an authority: nobody is ever refused, whatever comes in between; in the end only the new one is trusted."""

import base64
from collections.abc import Callable, Iterator

import pytest

from etcd_operator.api import ClientAccess, EtcdClusterSpec
from etcd_operator.etcd.model import TLSIdentity
from etcd_operator.pki import new_authority, split_bundle
from etcd_operator.resources.secrets import content
from model.tls import is_trusted
from model.world import World

GRACE = 5.0
#: Writes that a rotation of three members takes at the least.
MANY = 15
SECRETS = {"peer": ("a-peer",), "client": ("a-server", "a-client")}


class Onlooker:
    """A client that reads its Secret anew as slowly as it may, and sees whether anybody refuses anybody."""

    def __init__(self, world: World, secret: str = "a-client") -> None:
        self.world = world
        self.secret = secret
        self.read_at = world.now
        self.who = self._read()

    def _read(self) -> TLSIdentity:
        data = content(self.world.store.get("Secret", self.secret))
        return TLSIdentity(ca=data["ca.crt"], cert=data["tls.crt"], key=data["tls.key"])

    def look(self) -> None:
        if (self.world.now - self.read_at).total_seconds() >= GRACE - 1:
            self.who, self.read_at = self._read(), self.world.now
        processes = list(self.world.etcd.processes.values())
        for one in processes:
            assert is_trusted(one.shows_clients, self.who.ca), f"the client refuses {one.name}"
            assert is_trusted(self.who.cert or b"", one.trusts_clients_of), f"{one.name} refuses the client"
            for other in processes:
                assert is_trusted(one.shows_peers, other.trusts_peers_of), f"{other.name} refuses {one.name}"


def spec(members: int = 3, **tls: str) -> EtcdClusterSpec:
    client = {"rotationGrace": f"{GRACE:.0f}s"}
    return EtcdClusterSpec.model_validate({"members": members, "tls": {"client": client, **tls}})


def ask(world: World, side: str, value: str = "now") -> None:
    world.edit("EtcdCluster", "a", {"metadata": {"annotations": {f"externaletcd.io/rotate-{side}": value}}})


def authority(world: World, side: str) -> bytes:
    return content(world.store.get("Secret", f"a-{side}-ca"))["tls.crt"]


@pytest.fixture
def world() -> Iterator[World]:
    made = World()
    made.apply(spec())
    made.settle()
    yield made
    made.close()


def rotate(
    world: World, *, rounds: int = 160, between: Callable[[int], None] = lambda number: None, secret: str = "a-client"
) -> None:
    """Let it all happen, until nothing does any more."""
    onlooker, quiet = Onlooker(world, secret), 0
    for number in range(rounds):
        quiet = 0 if world.round() else quiet + 1
        onlooker.look()
        world.tick()
        onlooker.look()
        between(number)
        if quiet > GRACE and world.told("AsSpecified"):
            return


def check_rotated(world: World, side: str, before: bytes) -> None:
    now = authority(world, side)
    assert now != before
    assert set(content(world.store.get("Secret", f"a-{side}-ca"))) == {"tls.crt", "tls.key"}
    for name in SECRETS[side]:
        data = content(world.store.get("Secret", name))
        assert split_bundle(data["ca.crt"]) == (now,)
        assert is_trusted(data["tls.crt"], now)
    for process in world.etcd.processes.values():
        assert (process.trusts_peers_of if side == "peer" else process.trusts_clients_of) == now


@pytest.mark.parametrize("side", ["peer", "client"])
def test_nobody_is_refused_while_an_authority_is_replaced(world: World, side: str) -> None:
    before = authority(world, side)
    ask(world, side)
    rotate(world)
    check_rotated(world, side, before)
    assert world.told("AsSpecified")
    assert world.operator.kube.writes == []


def test_no_client_of_another_namespace_is_refused_either(world: World) -> None:
    labels = {"externaletcd.io/accept-clients-from": "ns"}
    world.store.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop", "labels": labels}})
    world.apply(spec().model_copy(update={"clients": (ClientAccess(name="web", namespaces=("shop",)),)}))
    world.settle()
    before, copy = authority(world, "client"), "ns.a-client-web"
    ask(world, "client")
    rotate(world, secret=copy)
    check_rotated(world, "client", before)
    assert split_bundle(content(world.store.get("Secret", copy))["ca.crt"]) == (authority(world, "client"),)


def test_both_are_rotated_one_after_the_other(world: World) -> None:
    before = {side: authority(world, side) for side in ("peer", "client")}
    ask(world, "peer")
    ask(world, "client")

    def one_at_a_time(number: int) -> None:
        under_way = [
            side for side in before if len(content(world.store.get("Secret", f"a-{side}-ca"))) > len(("crt", "key"))
        ]
        assert len(under_way) <= 1

    rotate(world, rounds=300, between=one_at_a_time)
    for side in before:
        check_rotated(world, side, before[side])


@pytest.mark.parametrize("side", ["peer", "client"])
def test_the_same_request_is_fulfilled_once(world: World, side: str) -> None:
    ask(world, side)
    world.settle()
    once = authority(world, side)
    world.operator.restart()
    world.edit("EtcdCluster", "a", {"metadata": {"labels": {"team": "a"}}})
    world.settle()
    assert authority(world, side) == once
    ask(world, side, "again")
    world.settle()
    assert authority(world, side) != once


@pytest.mark.parametrize(
    ("side", "members", "at"), [("peer", 5, 0), ("client", 5, 6), ("peer", 1, 12), ("peer", 5, 25), ("client", 1, 35)]
)
def test_scaling_in_the_middle_gives_the_new_members_what_they_need(
    world: World, side: str, at: int, members: int
) -> None:
    before = authority(world, side)
    ask(world, side)
    rotate(world, rounds=260, between=lambda number: world.apply(spec(members)) if number == at else None)
    check_rotated(world, side, before)
    assert len(world.etcd.processes) == members


@pytest.mark.parametrize("side", ["peer", "client"])
def test_the_operator_may_die_after_any_write_of_a_rotation(side: str) -> None:
    """One world in which it dies after each write: nothing is remembered between any two."""
    world = World()
    world.apply(spec())
    world.settle()
    before = authority(world, side)
    ask(world, side)
    onlooker, writes = Onlooker(world), 0
    for _ in range(160):
        writes += len(world.round({1: "crash after"}))
        onlooker.look()
        world.tick()
        onlooker.look()
    world.settle()
    check_rotated(world, side, before)
    world.close()
    assert writes > MANY


@pytest.mark.parametrize(("side", "pod"), [("peer", "a-0"), ("client", "a-2")])
def test_pods_killed_all_the_time_do_not_stop_it(world: World, side: str, pod: str) -> None:
    before = authority(world, side)
    ask(world, side)
    rotate(world, rounds=300, between=lambda number: world.delete("Pod", pod) if number % 40 == 13 else None)
    world.settle()
    check_rotated(world, side, before)


def test_an_authority_near_its_end_is_rotated_unasked(world: World) -> None:
    before = {side: authority(world, side) for side in ("peer", "client")}
    world.now = world.now.replace(year=world.now.year + 9, month=3)
    world.settle()
    for side in before:
        check_rotated(world, side, before[side])


def test_an_authority_of_the_user_is_taken_over_and_given_back(world: World) -> None:
    own, before = new_authority("ours", world.now), authority(world, "client")
    data = {"tls.crt": own.cert_pem, "tls.key": own.key_pem}
    encoded = {key: base64.b64encode(value).decode() for key, value in data.items()}
    world.store.create({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "our-ca"}, "data": encoded})
    client = {"mode": "Provided", "secretRef": {"name": "our-ca"}, "rotationGrace": f"{GRACE:.0f}s"}
    world.apply(EtcdClusterSpec.model_validate({"members": 3, "tls": {"client": client}}))
    rotate(world)
    check_rotated(world, "client", before)
    assert authority(world, "client") == own.cert_pem
    world.apply(spec())
    rotate(world)
    check_rotated(world, "client", own.cert_pem)
