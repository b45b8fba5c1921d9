"""HAProxy in front of the members: one address, members in turn, and no reload whatever becomes of them."""

import asyncio
import base64
import csv
import io
import time
from collections.abc import Iterator
from pathlib import Path

import aiohttp
import pytest
import requests

from e2e.support import Cluster, Etcd, Manifest, Snapshot, fresh_namespace, is_ready_pod
from e2e.watches import Watches
from e2e.writers import writing
from localcluster.cluster import Cluster as LocalCluster

#: It needs not be asked for.
PROXY = {"resources": {"requests": {"cpu": "10m", "memory": "32Mi"}}}
#: Idle watches, each on a connection of its own, and how long those may last.
WATCHES, LASTING = 1000, aiohttp.ClientTimeout(total=300)
PROXIES = "app.kubernetes.io/name=etcd-proxy"


@pytest.fixture(scope="module")
def front(installed: Cluster) -> Iterator[Etcd]:
    """An etcd behind two proxies, with a key; each test leaves it so."""
    with fresh_namespace(installed) as namespace:
        etcd = Etcd(cluster=installed, namespace=namespace, name="a")
        etcd.create(proxy=PROXY)
        wait_led_to(etcd, "etcd-proxy")
        wait_proxies(etcd, ready=2)
        etcd.put("kept", "yes")
        yield etcd


def proxies(etcd: Etcd) -> dict[str, Manifest]:
    """The proxies' pods by name."""
    return {pod["metadata"]["name"]: pod for pod in etcd.cluster.list("pods", etcd.namespace, labels=PROXIES)}


def wait_proxies(etcd: Etcd, *, ready: int) -> None:
    def there(seen: Snapshot) -> bool:
        return len(seen) == ready and all(map(is_ready_pod, seen.values()))

    etcd.cluster.wait_for(there, "pods", etcd.namespace, labels=PROXIES, what=f"{ready} proxies ready", timeout=90)


def wait_led_to(etcd: Etcd, application: str) -> None:
    """Wait until the Service of the EtcdCluster's name leads to these pods."""
    etcd.cluster.wait_for_one(
        lambda seen: bool(seen["spec"]["selector"]["app.kubernetes.io/name"] == application),
        "services",
        etcd.namespace,
        etcd.name,
        what=f"the Service leads to {application}",
        timeout=60,
    )


def statistics(etcd: Etcd, pod: Manifest, backend: str = "members") -> dict[str, dict[str, str]]:
    """What a proxy says of the members' places behind it, as anybody with the password can read it."""
    access = etcd.secret("proxy")
    page = f"http://{pod['status']['podIP']}:9000/haproxy_stats"
    who = (access["username"].decode(), access["password"].decode())
    assert requests.get(page, timeout=5).status_code == 401
    assert "member1" in requests.get(page, auth=who, timeout=5).text
    told = requests.get(f"{page};csv", auth=who, timeout=5).text.removeprefix("# ")
    rows = csv.DictReader(io.StringIO(told))
    return {row["svname"]: row for row in rows if row["pxname"] == backend and row["svname"].startswith("member")}


def sessions(etcd: Etcd, backend: str = "members") -> list[int]:
    """How many connections each member that is well was given, by one proxy after the other."""
    told = [statistics(etcd, pod, backend) for pod in proxies(etcd).values()]
    return [int(row["stot"]) for each in told for row in each.values() if row["status"].startswith("UP")]


def test_each_connection_goes_to_the_next_member(front: Etcd) -> None:
    before = sessions(front)
    assert len(before) == 6
    for _ in range(18):
        assert front.read("kept") == "yes"
    taken = [after - earlier for earlier, after in zip(before, sessions(front), strict=True)]
    assert sum(taken) >= 18
    by_proxy = (taken[:3], taken[3:])
    assert all(max(each) - min(each) <= 1 for each in by_proxy), taken


def test_metrics_for_prometheus(front: Etcd) -> None:
    pod = next(iter(proxies(front).values()))
    told = requests.get(f"http://{pod['status']['podIP']}:9000/metrics", timeout=5).text
    assert 'haproxy_backend_active_servers{proxy="members"} 3' in told


def test_members_come_and_go_without_a_reload(front: Etcd) -> None:
    before = containers(front)
    front.apply(members=5, proxy=PROXY)
    front.wait_settled()
    front.wait_available()
    wait_members(front, 5)
    front.apply(members=3, proxy=PROXY)
    front.wait_settled()
    wait_members(front, 3)
    assert front.read("kept") == "yes"
    assert {
        name: pod["status"]["containerStatuses"][0]["containerID"] for name, pod in proxies(front).items()
    } == before


def containers(etcd: Etcd) -> dict[str, str]:
    """Which process each proxy is."""
    return {name: pod["status"]["containerStatuses"][0]["containerID"] for name, pod in proxies(etcd).items()}


def wait_members(etcd: Etcd, count: int) -> None:
    """Wait until every proxy has so many members that are well; HAProxy has nothing to watch, so ask again."""
    deadline = time.monotonic() + 60
    while (now := [up(etcd, pod) for pod in proxies(etcd).values()]) != [count] * 2:
        assert time.monotonic() < deadline, f"members behind the proxies: {now}"
        time.sleep(0.5)


def up(etcd: Etcd, pod: Manifest) -> int:
    return sum(row["status"].startswith("UP") for row in statistics(etcd, pod).values())


def test_clients_behind_the_proxies_hardly_notice_that_members_restart(front: Etcd) -> None:
    """etcd's graceful stop ends what is under way, and new connections go to members that take them."""
    with writing(front, application="etcd-proxy") as writers:
        front.apply(members=3, proxy=PROXY, options={"snapshotCount": 5000})
        front.wait_settled()
    writers.check_each()
    front.apply(members=3, proxy=PROXY)
    front.wait_settled()


def test_clients_from_outside_find_every_nodes_address_in_the_certificate(
    front: Etcd, local: LocalCluster, tmp_path: Path
) -> None:
    """Put and range through etcd's JSON gateway, as with curl; the members get their turns."""
    front.apply(members=3, proxy={**PROXY, "service": {"type": "NodePort"}})
    service = front.cluster.wait_for_one(
        lambda seen: all("nodePort" in port for port in seen["spec"]["ports"]), "services", front.namespace, "a"
    )
    port = next(port["nodePort"] for port in service["spec"]["ports"] if port["name"] == "http")
    client = gateway_client(front, tmp_path)
    deadline = time.monotonic() + 120  # kubelets bring a new certificate to running pods when they like
    for node in local.nodes:
        gateway = f"https://{node.address}:{port}/v3/kv"
        while not verifies(client, gateway):
            assert time.monotonic() < deadline, f"no certificate for {node.address}"
            time.sleep(0.5)
        key, value = base64.b64encode(b"from/outside").decode(), base64.b64encode(node.name.encode()).decode()
        client.post(f"{gateway}/put", json={"key": key, "value": value}, timeout=5).raise_for_status()
        found = client.post(f"{gateway}/range", json={"key": key}, timeout=5).json()
        assert [each["value"] for each in found["kvs"]] == [value]
    before = sessions(front, "members-http")
    for _ in range(90):
        client.post(f"{gateway}/range", json={"key": key}, timeout=5).raise_for_status()
    taken = [after - earlier for earlier, after in zip(before, sessions(front, "members-http"), strict=True)]
    assert sum(taken) == 90
    assert all(max(each) - min(each) <= 1 for each in (taken[:3], taken[3:])), taken
    front.apply(members=3, proxy=PROXY)
    front.cluster.wait_for_one(
        lambda seen: seen["spec"]["type"] == "ClusterIP", "services", front.namespace, "a", what="no node port"
    )
    front.wait_settled()


def gateway_client(etcd: Etcd, folder: Path) -> requests.Session:
    """A client of the JSON gateway with the client Secret, which takes a new connection for each request."""
    for name, content in etcd.secret("client").items():
        (folder / name).write_bytes(content)
    client = requests.Session()
    client.trust_env = False  # another bundle of authorities there would take the place of ours
    client.verify, client.cert = str(folder / "ca.crt"), (str(folder / "tls.crt"), str(folder / "tls.key"))
    client.headers["Connection"] = "close"
    return client


def verifies(client: requests.Session, gateway: str) -> bool:
    """Whether each of the next requests, of which every member gets some, finds a certificate for that address."""
    try:
        for _ in range(6):
            client.post(f"{gateway}/range", json={"key": "AA=="}, timeout=5).raise_for_status()
    except requests.ConnectionError:
        return False
    return True


def test_clients_do_without_one_proxy(front: Etcd) -> None:
    victim = next(iter(proxies(front)))
    front.cluster.delete("pods", front.namespace, victim, gracePeriodSeconds=0)
    front.put("without", "one")
    wait_proxies(front, ready=2)
    assert victim not in proxies(front)


def test_a_thousand_idle_watches_on_a_proxy_that_is_killed_are_opened_once_more(front: Etcd, tmp_path: Path) -> None:
    victim, other = proxies(front).values()
    first, second = victim["status"]["podIP"], other["status"]["podIP"]

    async def lose_the_proxy() -> Watches:
        watches = Watches(front, "idle", tmp_path)
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), timeout=LASTING) as session:
            running = [asyncio.create_task(watches.watch(session, first, second)) for _ in range(WATCHES)]
            await reached(watches, WATCHES)
            front.cluster.delete("pods", front.namespace, victim["metadata"]["name"], gracePeriodSeconds=0)
            await reached(watches, 2 * WATCHES)
            await asyncio.to_thread(front.put, "idle", "no more")
            await asyncio.gather(*running)
        return watches

    watches = asyncio.run(lose_the_proxy())
    assert (watches.opened, watches.failed, watches.told) == (2 * WATCHES, 0, WATCHES)
    wait_proxies(front, ready=2)


async def reached(watches: Watches, opened: int) -> None:
    """Wait until so many watches have been opened; there is no event of that, so look again."""
    async with asyncio.timeout(120):
        while watches.opened < opened:
            assert not watches.failed, f"{watches.failed} watches could not be opened"
            await asyncio.sleep(0.1)


def test_proxies_that_cannot_start_are_told_and_cost_nobody_anything(front: Etcd) -> None:
    front.apply(members=3, proxy={**PROXY, "image": "registry.invalid/haproxy:1", "pullPolicy": "IfNotPresent"})
    told = front.wait_told("ProxiesUnhealthy", "registry.invalid/haproxy:1 cannot be used", timeout=60)
    assert "2 of 2 proxies are ready" in told
    front.put("meanwhile", "written")
    front.apply(members=3, proxy=PROXY)
    wait_proxies(front, ready=2)
    front.wait(lambda seen: "ProxiesUnhealthy" not in str(seen["status"]), what="nothing told any more", timeout=30)


def test_a_proxy_that_is_switched_off_leaves_nothing(front: Etcd) -> None:
    address = front.cluster.get("services", front.namespace, "a")
    front.apply(members=3, proxy={"enabled": False})
    wait_led_to(front, "etcd")
    front.cluster.wait_until_gone("pods", front.namespace, labels=PROXIES, timeout=90)
    for plural, name in (
        ("deployments", "a-proxy"),
        ("configmaps", "a-proxy"),
        ("secrets", "a-proxy"),
        ("poddisruptionbudgets", "a-proxy"),
        ("networkpolicies", "a-proxy"),
        ("services", "a-members"),
    ):
        front.cluster.wait_until_gone(plural, front.namespace, name=name, timeout=30)
    assert front.read("kept") == "yes"
    now = front.cluster.get("services", front.namespace, "a")
    assert address is not None
    assert now is not None
    assert now["spec"]["clusterIP"] == address["spec"]["clusterIP"]
