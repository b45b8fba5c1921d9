"""The network between nodes: a bridge in a namespace of its own, the switch, and one cable per node (and balancer).

The switch forwards between nodes, pods and this machine, and knows no way out: it has no default route and no
link to any real network, so nothing that a cluster sends can leave. Nodes have one route, to the switch; the
switch knows which node holds which pods. A node that is cut off (`cut`) has its cable unplugged at the switch.
"""

from __future__ import annotations

import json
from pathlib import Path

from localcluster.addresses import HOST, NODES, PODS, SWITCH, clashing, hardware_address
from localcluster.errors import ClusterError
from localcluster.shell import run

SWITCH_NETNS = "external-etcd-switch"
#: This machine's end of its cable to the switch.
HOST_LINK = "ext-etcd"
NETNS_FOLDER = Path("/run/netns")


def ensure_switch() -> None:
    """Make whatever part of the switch is missing. The caller holds the machine lock."""
    if SWITCH_NETNS not in namespaces():
        _refuse_clashes()
        run(["ip", "netns", "add", SWITCH_NETNS])
    if "bridge" not in _links(SWITCH_NETNS):
        _ip_switch("link", "set", "lo", "up")
        # With an address of its own: else it takes the lowest of its cables', another one with each that is added.
        _ip_switch("link", "add", "bridge", "address", hardware_address(str(SWITCH)), "type", "bridge")
        _ip_switch("addr", "add", f"{SWITCH}/{NODES.prefixlen}", "dev", "bridge")
        _ip_switch("link", "set", "bridge", "up")
        _set(SWITCH_NETNS, "net/ipv4/ip_forward", "1")
        for scope in ("all", "bridge"):  # the switch and its nodes share a link, so it would tell them of detours
            _set(SWITCH_NETNS, f"net/ipv4/conf/{scope}/send_redirects", "0")
    if HOST_LINK not in _links(None):
        run(["ip", "link", "add", HOST_LINK, "type", "veth", "peer", "name", "host", "netns", SWITCH_NETNS])
        _ip_switch("link", "set", "host", "master", "bridge", "up")
        run(["ip", "addr", "add", f"{HOST}/{NODES.prefixlen}", "dev", HOST_LINK])
        run(["ip", "link", "set", HOST_LINK, "up"])
        run(["ip", "route", "replace", str(PODS), "via", str(SWITCH)])


def remove_switch() -> None:
    """Remove the switch; this machine's end of the cable and the routes over it go with it."""
    if HOST_LINK in _links(None):
        run(["ip", "link", "del", HOST_LINK])
    remove_namespace(SWITCH_NETNS)
    if NETNS_FOLDER.is_mount() and not namespaces():  # `ip netns add` had mounted it, and will again when needed
        run(["umount", NETNS_FOLDER], check=False)


def plug_in(*, netns: str, link: str, address: str, pods: str | None) -> None:
    """Give a node its namespace, its cable (named `link` at the switch) and its way to the others; idempotent.

    `pods`: the range of the pods behind it; None where there are none.
    """
    if netns not in namespaces():
        run(["ip", "netns", "add", netns])
        run(["ip", "-n", netns, "link", "set", "lo", "up"])
    if link not in _links(SWITCH_NETNS):
        peer = ["peer", "name", "eth0", "address", hardware_address(address), "netns", netns]
        _ip_switch("link", "add", link, "type", "veth", *peer)
        run(["ip", "-n", netns, "addr", "add", f"{address}/{NODES.prefixlen}", "dev", "eth0"])
        run(["ip", "-n", netns, "link", "set", "eth0", "up"])
        run(["ip", "-n", netns, "route", "replace", "default", "via", str(SWITCH)])
    _ip_switch("link", "set", link, "master", "bridge", "up")
    if pods:
        _ip_switch("route", "replace", pods, "via", address)


def unplug(*, netns: str, link: str, pods: str | None) -> None:
    """Take a node's cable, route and namespace away, as far as they are there."""
    if SWITCH_NETNS in namespaces():
        if link in _links(SWITCH_NETNS):
            _ip_switch("link", "del", link)  # both ends, at once; the namespace alone would be cleared up later
        if pods:
            run(["ip", "-n", SWITCH_NETNS, "route", "del", pods], check=False)
    remove_namespace(netns)


def cut(link: str, *, off: bool) -> None:
    """Pull the cable at the switch's side, or put it back."""
    _ip_switch("link", "set", link, "down" if off else "up")


def plugged_links() -> set[str]:
    """The cables at the switch that are plugged in and up."""
    if SWITCH_NETNS not in namespaces() or HOST_LINK not in _links(None):
        return set()
    return {name for name, flags in _links(SWITCH_NETNS).items() if "UP" in flags}


def namespaces() -> set[str]:
    """Names of the network namespaces on this machine."""
    return {path.name for path in NETNS_FOLDER.iterdir()} if NETNS_FOLDER.exists() else set()


def remove_namespace(name: str) -> None:
    """Remove a network namespace, if it is there."""
    if name in namespaces():
        run(["ip", "netns", "del", name])


def _links(netns: str | None) -> dict[str, list[str]]:
    """Name and flags of each link in a namespace (None: this machine's own)."""
    where = ["-n", netns] if netns else []
    return {link["ifname"]: link["flags"] for link in json.loads(run(["ip", *where, "-j", "link"]).stdout or "[]")}


def _refuse_clashes() -> None:
    routes = json.loads(run(["ip", "-4", "-j", "route"]).stdout or "[]")
    taken = clashing(route["dst"] for route in routes if route["dst"] != "default" and route.get("dev") != HOST_LINK)
    if taken:
        raise ClusterError(
            f"this machine has routes to {', '.join(taken)}, which overlap with what local clusters use "
            f"({NODES} for nodes, {PODS} for pods)"
        )


def _ip_switch(*words: str) -> None:
    run(["ip", "-n", SWITCH_NETNS, *words])


def _set(netns: str, name: str, value: str) -> None:
    """Set a kernel parameter of a network namespace; /proc/sys/net shows the namespace of whoever opens it."""
    script = f"echo {value} > /proc/sys/{name}"
    run(["nsenter", f"--net={NETNS_FOLDER / netns}", "sh", "-c", script])
