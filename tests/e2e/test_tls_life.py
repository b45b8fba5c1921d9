"""Certificates and authorities are replaced under load: what expires never takes a member or a client along."""

import asyncio
import threading
from datetime import UTC, datetime, timedelta

from devtools import environment
from e2e.support import Cluster, Etcd, identity, kill_operator
from e2e.test_restart import Restarts, uids
from e2e.writers import Writers, writing
from etcd_operator.etcd.handshake import shake_hands
from etcd_operator.etcd.model import TLSIdentity
from etcd_operator.pki import Authority, inspect, new_authority, signed_by, split_bundle

PEER, CLIENT = 2380, 2382
#: Seconds: one election timeout, and one more.
PLANNED_GAP = 2.0
#: The shortest life that the API takes; renewed after a quarter of it.
SHORT = {"certificateDuration": "10m", "renewBefore": "9m", "client": {"rotationGrace": "5s"}}


def shown(etcd: Etcd, port: int) -> dict[str, str]:
    """The fingerprints of the certificates that the members show on that port."""
    access = etcd.secret("client")
    who = TLSIdentity(ca=access["ca.crt"], cert=access["tls.crt"], key=access["tls.key"])
    targets = {name: (f"{pod['status']['podIP']}:{port}", who) for name, pod in etcd.pods().items()}
    seen = asyncio.run(shake_hands(targets, timeout=2.0))
    return {name: inspect(each.certificate).fingerprint for name, each in seen.items()}


def wait_shown(etcd: Etcd, port: int, fingerprint: str) -> None:
    """Wait until all members show that certificate: nobody tells, so they are asked."""
    done = threading.Event()
    for _ in range(120):
        if list(shown(etcd, port).values()) == [fingerprint] * len(etcd.pods()):
            return
        done.wait(1)
    raise AssertionError(f"members show {shown(etcd, port)}, not {fingerprint}")


def rotate(etcd: Etcd, side: str, value: str) -> None:
    etcd.cluster.kubectl("-n", etcd.namespace, "annotate", "etcd/a", f"externaletcd.io/rotate-{side}={value}")


def wait_rotated(etcd: Etcd, side: str, before: bytes) -> None:
    """Wait until the other authority is the only one, and all is at rest."""
    etcd.wait_told("Rotating", timeout=30)
    wait_replaced(etcd, side, before)
    etcd.wait_settled()


def wait_replaced(etcd: Etcd, side: str, before: bytes) -> None:
    """Wait until the other authority is the only one."""

    def over(seen: dict[str, object]) -> bool:
        data = seen.get("data", {})
        return isinstance(data, dict) and set(data) == {"tls.crt", "tls.key"}

    etcd.cluster.wait_for_one(
        lambda seen: over(seen) and etcd.secret(f"{side}-ca")["tls.crt"] != before,
        "secrets",
        etcd.namespace,
        f"a-{side}-ca",
        what=f"the {side} authority rotated",
        timeout=180,
    )


def check_unharmed(etcd: Etcd, writers: Writers, before: object) -> None:
    """Nobody noticed: no write was lost or had to wait, and it is the same etcd."""
    writers.check()
    assert writers.longest_gap < PLANNED_GAP * etcd.cluster.patience()
    assert identity(etcd) == before
    assert etcd.read("kept") == "yes"


def test_an_authority_and_certificates_are_replaced_under_load(cluster: Cluster, etcd: Etcd) -> None:
    etcd.create(tls=SHORT)
    etcd.put("kept", "yes")
    before, old, peer = identity(etcd), etcd.secret("client-ca")["tls.crt"], etcd.secret("peer")["tls.crt"]
    with writing(etcd) as writers:
        with Restarts(etcd=etcd) as restarts:
            rotate(etcd, "client", "now")
            etcd.wait_event("Deleting", "the client authority is rotated")
            kill_operator(cluster)
            environment.wait_for_operator(cluster)
            etcd.wait_event("Applying", "certificates are issued by it from now on")
            kill_operator(cluster)
            wait_rotated(etcd, "client", old)
        assert len(restarts.order) == 6, restarts.order
        assert restarts.most_down == 1
        access, server = etcd.secret("client"), etcd.secret("server")
        new = etcd.secret("client-ca")["tls.crt"]
        assert split_bundle(access["ca.crt"]) == split_bundle(server["ca.crt"]) == (new,)
        assert signed_by(access["tls.crt"], new)
        wait_shown(etcd, CLIENT, inspect(server["tls.crt"]).fingerprint)
        # No restart for what etcd takes up by itself: the certificate between members is soon in its last minutes.
        pods = uids(etcd)
        etcd.cluster.wait_for_one(
            lambda seen: etcd.secret("peer")["tls.crt"] != peer,
            "secrets",
            etcd.namespace,
            "a-peer",
            what="the members' certificate renewed",
            timeout=240,
        )
        wait_shown(etcd, PEER, inspect(etcd.secret("peer")["tls.crt"]).fingerprint)
        assert uids(etcd) == pods
    check_unharmed(etcd, writers, before)


def wait_for_half_its_life(certificate: bytes) -> None:
    """Wait until shortly before an authority is due: not before half of its life, and the shortest is ten minutes."""
    info = inspect(certificate)
    due = info.not_before + (info.not_after - info.not_before) / 2
    threading.Event().wait((due - datetime.now(UTC)).total_seconds() - 10)


def test_authorities_near_their_end_are_replaced_under_load(etcd: Etcd) -> None:
    etcd.create(tls={"authorityDuration": "10m", "authorityRenewBefore": "9m", "client": {"rotationGrace": "5s"}})
    etcd.put("kept", "yes")
    before, old = identity(etcd), {side: etcd.secret(f"{side}-ca")["tls.crt"] for side in ("client", "peer")}
    # The next ones are to last.
    etcd.patch({"spec": {"tls": {"authorityDuration": "1000h", "authorityRenewBefore": "1h"}}})
    wait_for_half_its_life(old["peer"])
    with writing(etcd) as writers:
        with Restarts(etcd=etcd) as restarts:
            for side, certificate in old.items():
                wait_replaced(etcd, side, certificate)
            etcd.wait_settled()
        assert restarts.most_down == 1
        assert len(restarts.order) == 12, restarts.order
    for side in old:
        valid = inspect(etcd.secret(f"{side}-ca")["tls.crt"]).not_after - datetime.now(UTC)
        assert timedelta(hours=999) < valid <= timedelta(hours=1000)
    wait_shown(etcd, PEER, inspect(etcd.secret("peer")["tls.crt"]).fingerprint)
    check_unharmed(etcd, writers, before)


def keep(etcd: Etcd, name: str, authority: Authority) -> None:
    """A user's Secret with an authority."""
    metadata = {"name": name, "namespace": etcd.namespace}
    data = {"tls.crt": authority.cert_pem.decode(), "tls.key": authority.key_pem.decode()}
    etcd.cluster.apply({"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "stringData": data})


def provide(etcd: Etcd, side: str, secret: str) -> None:
    etcd.patch({"spec": {"tls": {side: {"mode": "Provided", "secretRef": {"name": secret}}}}})


def test_an_authority_of_the_users_takes_the_place_of_the_operators_under_load(etcd: Etcd) -> None:
    etcd.create(tls={"client": {"rotationGrace": "5s"}})
    etcd.put("kept", "yes")
    before, old, pods = identity(etcd), etcd.secret("peer-ca")["tls.crt"], uids(etcd)
    now = datetime.now(UTC)
    keep(etcd, "dying", new_authority("dying", now - timedelta(days=1), timedelta(days=1, minutes=5)))
    ours = new_authority("ours", now - timedelta(minutes=1), timedelta(days=100))
    with writing(etcd) as writers:
        provide(etcd, "peer", "missing")
        etcd.wait_told("AuthorityRefused", "Secret missing (spec.tls.peer.secretRef): it does not exist")
        provide(etcd, "peer", "dying")
        etcd.wait_told("AuthorityRefused", "put one there that lasts longer; the members keep the authority")
        assert etcd.secret("peer-ca")["tls.crt"] == old
        assert uids(etcd) == pods
        keep(etcd, "ours", ours)
        with Restarts(etcd=etcd) as restarts:
            provide(etcd, "peer", "ours")
            wait_rotated(etcd, "peer", old)
        assert len(restarts.order) == 6, restarts.order
        assert restarts.most_down == 1
    assert split_bundle(etcd.secret("peer-ca")["tls.crt"]) == split_bundle(ours.cert_pem)
    assert signed_by(etcd.secret("peer")["tls.crt"], ours.cert_pem)
    wait_shown(etcd, PEER, inspect(etcd.secret("peer")["tls.crt"]).fingerprint)
    check_unharmed(etcd, writers, before)
