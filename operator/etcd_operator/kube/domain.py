"""The DNS domain of this Kubernetes: `cluster.local` on most, and never assumed to be.

Reads one file. Every pod's resolver searches `<namespace>.svc.<domain>` first (Kubernetes: DNS for Services and Pods).
"""

from pathlib import Path

RESOLV_CONF = Path("/etc/resolv.conf")
#: What kubeadm and nearly everybody else uses; taken only where the resolver says nothing of Services.
USUAL = "cluster.local"


def cluster_domain(resolv_conf: Path = RESOLV_CONF) -> str:
    """The domain by this pod's own resolver; `USUAL` where the resolver is no pod's, as on a developer's machine."""
    try:
        lines = resolv_conf.read_text().splitlines()
    except OSError:
        return USUAL
    return domain_in(lines) or USUAL


def domain_in(lines: list[str]) -> str | None:
    """The domain in the search list of a pod's resolv.conf; the last `search` line counts (resolv.conf(5))."""
    searched: list[str] = []
    for line in lines:
        keyword, *names = line.split()[:32] or [""]
        if keyword == "search":
            searched = names
    for name in searched:
        head, _, domain = name.rstrip(".").partition(".svc.")
        if domain and "." not in head:
            return domain
    for name in searched:
        if name.startswith("svc.") and len(name) > 4:
            return name.rstrip(".").removeprefix("svc.")
    return None
