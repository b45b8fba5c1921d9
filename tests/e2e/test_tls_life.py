"""Certificates and authorities are replaced under load: what expires never takes a member or a client along."""

import asyncio
import threading

from devtools import environment
from e2e.support import Cluster, Etcd, identity, kill_operator
from e2e.test_restart import Restarts, uids
from e2e.writers import writing
from etcd_operator.etcd.handshake import shake_hands
from etcd_operator.etcd.model import TLSIdentity
from etcd_operator.pki import inspect, signed_by, split_bundle

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

    def over(seen: dict[str, object]) -> bool:
        data = seen.get("data", {})
        return isinstance(data, dict) and set(data) == {"tls.crt", "tls.key"}

    etcd.wait_told("Rotating", timeout=30)
    etcd.cluster.wait_for_one(
        lambda seen: over(seen) and etcd.secret(f"{side}-ca")["tls.crt"] != before,
        "secrets",
        etcd.namespace,
        f"a-{side}-ca",
        what=f"the {side} authority rotated",
        timeout=180,
    )
    etcd.wait_settled()


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
        assert (restarts.most_down, restarts.most_unready) == (1, 1)
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
    writers.check()
    assert writers.longest_gap < PLANNED_GAP * etcd.cluster.patience()
    assert identity(etcd) == before
    assert etcd.read("kept") == "yes"
