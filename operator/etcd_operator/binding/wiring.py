"""How a kube-apiserver is to be wired: its arguments, the files that they name, and the patch that brings both.

Pure. Says nothing of whether it may be done; see `rules`.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

from etcd_operator.agent import plan
from etcd_operator.agent.plan import PKI_FOLDER
from etcd_operator.api import EtcdCluster
from etcd_operator.binding import arguments
from etcd_operator.binding.observation import Seen
from etcd_operator.resources.compare import is_satisfied
from etcd_operator.resources.names import GROUP, Manifest, Names
from etcd_operator.resources.secrets import authority_digest

#: Where the client Secret is mounted in the API server's container, and the volume's name.
FOLDER = "/etc/external-etcd"
VOLUME = "external-etcd"
#: On the pod template: a digest of the authorities that the API server trusts. It reads that file only when it starts
#: (k8s.io/apiserver, storage/storagebackend/factory/etcd3.go), so that another digest restarts it, in turn.
AUTHORITY = f"{GROUP}/etcd-authority"
#: On the workload: the etcd arguments that it had before it was bound, as JSON; null for one that it did not have.
ORIGINAL = plan.ORIGINAL
#: On the workload: the binding that wired it, for people, and a digest of what it was given: another hand shows by it.
BOUND_BY = plan.BOUND_BY
WIRED = f"{GROUP}/etcd-wiring"

_FILES = {"etcd-cafile": "ca.crt", "etcd-certfile": "tls.crt", "etcd-keyfile": "tls.key"}


@dataclass(frozen=True, kw_only=True, slots=True)
class Wiring:
    """What a kube-apiserver is to run with.

    flags: etcd's flags without dashes; `None`: not to be there. secret: holds ca.crt, tls.crt and tls.key for pods,
    `None` without TLS, and for API servers that have the files on their node. authority: digest of ca.crt.
    """

    servers: tuple[str, ...]
    flags: Mapping[str, str | None]
    secret: str | None
    authority: str

    @property
    def digest(self) -> str:
        """Of all of it."""
        told = json.dumps([dict(self.flags), self.secret, self.authority], sort_keys=True)
        return hashlib.sha256(told.encode()).hexdigest()[:16]

    @property
    def arguments(self) -> tuple[str, ...]:
        """For a person to type."""
        return tuple(f"--{name}={value}" for name, value in self.flags.items() if value is not None)


def wiring(seen: Seen) -> Wiring | None:
    """What the binding asks for; `None` while the EtcdCluster cannot say where it is reached."""
    cluster = seen.cluster
    servers = _servers(seen) if cluster else ()
    if cluster is None or not servers:
        return None
    encrypted = all(server.startswith("https://") for server in servers)
    if encrypted and not {"ca.crt", "tls.crt", "tls.key"} <= set(seen.access):
        return None
    on_nodes = seen.binding.spec.target.kubeadm is not None
    folder = PKI_FOLDER if on_nodes else FOLDER
    return Wiring(
        servers=servers,
        flags={
            "etcd-servers": ",".join(servers),
            **{flag: f"{folder}/{file}" if encrypted else None for flag, file in _FILES.items()},
            "etcd-prefix": seen.binding.spec.prefix,
        },
        secret=secret_name(seen) if encrypted and not on_nodes else None,
        authority=authority_digest(seen.access["ca.crt"]) if encrypted else "",
    )


def secret_name(seen: Seen) -> str:
    """The Secret that the API server's pods mount: the EtcdCluster's own, or a copy beside the binding."""
    reference, metadata = seen.binding.spec.cluster_ref, seen.binding.metadata
    if is_elsewhere(seen):
        return copy_name(metadata.name)
    return Names(name=reference.name, namespace=metadata.namespace, domain="").client_access


def copy_name(binding: str) -> str:
    """The Secret beside a binding that holds a copy of another namespace's client Secret."""
    return f"{binding}-etcd-client"


def is_elsewhere(seen: Seen) -> bool:
    """Whether the EtcdCluster is in another namespace than the binding."""
    return seen.binding.spec.cluster_ref.namespace not in (None, seen.binding.metadata.namespace)


def _servers(seen: Seen) -> tuple[str, ...]:
    """Where the API server is to send its requests: to no member before it votes, as learners refuse them.

    A member that is listed stays so as long as it is one of the etcd's: one that is replaced keeps its address, and no
    API server is to restart because a member is ill, or nobody knows its role.
    """
    cluster = seen.cluster
    told = cluster.status.endpoints if cluster else None
    if cluster is None or told is None or cluster.status.bootstrap is None:
        return ()
    from_outside = seen.binding.spec.target.kubeadm is not None
    if seen.binding.spec.endpoints == "Proxy":
        inside = (told.client,) if told.client else ()
        return (told.external or ()) if from_outside else inside
    former = set(told_servers(seen))
    voters = {member.name for member in cluster.status.members if member.role == "Voter"}
    if from_outside:
        each = ((member.external, member.name) for member in cluster.status.members if member.external)
        return tuple(url for url, name in each if url in former or name in voters)
    return tuple(url for url in told.members if url in former or _host(url).split(".")[0] in voters)


def told_servers(seen: Seen) -> list[str]:
    """The addresses that the API server was told before."""
    told = next((each for each in seen.binding.status.arguments if each.startswith("--etcd-servers=")), "")
    return told.partition("=")[2].split(",")


def _host(url: str) -> str:
    try:
        return (urlsplit(url.strip()).hostname or "").rstrip(".")
    except ValueError:  # no address at all
        return ""


def is_ours(server: str, cluster: EtcdCluster) -> bool:
    """Whether an address in --etcd-servers is this EtcdCluster's, with or without the domain of this Kubernetes."""
    told, metadata = cluster.status.endpoints, cluster.metadata
    if server.strip() in external_servers(cluster):
        return True
    known = {_host(url) for url in (told.client, *told.members) if url} if told else set[str]()
    domains = {host.partition(".svc.")[2] for host in known} - {""}
    host = _host(server)
    for domain in domains:
        known |= {each.removesuffix(f".{domain}") for each in known}
        host = host.removesuffix(f".{domain}")
    return host in known | {f"{metadata.name}.{metadata.namespace}.svc"}


def uses_another(container: Manifest, cluster: EtcdCluster, prefix: str) -> bool:
    """Whether an API server is told of something else than this EtcdCluster below that prefix. Raises as `current`."""
    servers, present = arguments.current(container)
    named = arguments.split_servers(servers)
    ours = all(is_ours(server, cluster) for server in named)
    return bool(named) and not (ours and present == arguments.normal_prefix(prefix))


def external_servers(cluster: EtcdCluster) -> frozenset[str]:
    """Every address by which this EtcdCluster says that it is reached from outside."""
    told = cluster.status.endpoints
    members = (member.external for member in cluster.status.members)
    return frozenset(url for url in (*((told and told.external) or ()), *members) if url)


def wiring_patch(seen: Seen, wanted: Wiring) -> Manifest | None:
    """The JSON merge patch that wires the workload, `None` where it is wired so. Raises `UnreadableArgumentsError`.

    It notes once what the arguments were, and by which binding they are set.
    """
    assert seen.container is not None
    changes = _rewired(seen, wanted.flags, wanted.secret, wanted.authority or None)
    if not changes:
        return None
    before = arguments.flags(seen.container)
    original = json.dumps({flag: before.get(flag) for flag in wanted.flags}, sort_keys=True)
    noted, name = annotations(seen.workload or {}), seen.binding.metadata.name
    former = noted.get(ORIGINAL, original) if noted.get(BOUND_BY) == name else original
    return _patch(seen, changes, {ORIGINAL: former, BOUND_BY: name, WIRED: wanted.digest})


def unwiring_patch(seen: Seen) -> Manifest | None:
    """The JSON merge patch that puts the arguments back which the workload had before; `None` where none are noted
    by this binding.

    Raises `UnreadableArgumentsError`, and ValueError for a note that somebody spoiled.
    """
    noted = annotations(seen.workload or {})
    if seen.container is None or ORIGINAL not in noted or not is_wired_by_it(seen):
        return None
    former = _rewired(seen, noted_flags(noted[ORIGINAL]), None, None)
    return _patch(seen, former, dict.fromkeys((ORIGINAL, BOUND_BY, WIRED)))


def is_wired_by_it(seen: Seen) -> bool:
    """Whether the workload has its arguments from this binding."""
    return wired_by(seen) == seen.binding.metadata.name


def wired_by(seen: Seen) -> str:
    """The binding that the workload has its arguments from, by name; empty where from none."""
    return annotations(seen.workload or {}).get(BOUND_BY, "")


def holds_foreign_volume(seen: Seen) -> bool:
    """Whether the workload had a volume of our name before any binding wired it."""
    pod = (seen.workload or {}).get("spec", {}).get("template", {}).get("spec", {})
    there = any(each["name"] == VOLUME for each in pod.get("volumes") or ())
    return there and WIRED not in annotations(seen.workload or {})


def noted_flags(noted: str) -> dict[str, str | None]:
    """The flags that an `ORIGINAL` tells; raises ValueError for one that somebody spoiled."""
    flags = json.loads(noted)
    if not isinstance(flags, dict) or not set(flags) <= arguments.ETCD_FLAGS:
        raise ValueError(f"annotation {ORIGINAL} does not hold etcd's flags")
    return {str(name): value if value is None else str(value) for name, value in flags.items()}


def was_given(seen: Seen, wanted: Wiring) -> bool:
    """Whether the workload was given just this wiring before, so that what differs now is somebody else's doing."""
    return annotations(seen.workload or {}).get(WIRED) == wanted.digest


def _patch(seen: Seen, template: Manifest, annotations: Mapping[str, str | None]) -> Manifest:
    """With the version that was read, so that no edit in between is lost: a list is one value in a merge patch."""
    assert seen.workload is not None
    version = seen.workload["metadata"]["resourceVersion"]
    metadata = {"resourceVersion": version, "annotations": dict(annotations)}
    return {"metadata": metadata, **({"spec": {"template": template}} if template else {})}


def _rewired(seen: Seen, flags: Mapping[str, str | None], secret: str | None, authority: str | None) -> Manifest:
    """What differs in the workload's template once the API server's container has these arguments and files."""
    assert seen.workload is not None
    assert seen.container is not None
    template = seen.workload["spec"]["template"]
    mount = {"name": VOLUME, "mountPath": FOLDER, "readOnly": True}
    container = _with_element(arguments.changed(seen.container, flags), "volumeMounts", mount if secret else None)
    containers = [container if each is seen.container else each for each in template["spec"]["containers"]]
    volume = {"name": VOLUME, "secret": {"secretName": secret}}
    pod = _with_element({**template["spec"], "containers": containers}, "volumes", volume if secret else None)
    changes: Manifest = {}
    if pod != template["spec"]:
        changes["spec"] = {"containers": containers, "volumes": pod.get("volumes")}
    if annotations(template).get(AUTHORITY) != authority:
        changes["metadata"] = {"annotations": {AUTHORITY: authority}}
    return changes


def annotations(holder: Manifest) -> dict[str, str]:
    """Of an object, or of a template; none where it has none."""
    return dict((holder.get("metadata") or {}).get("annotations") or {})


def _with_element(holder: Manifest, field: str, wanted: Manifest | None) -> Manifest:
    """The holder with our element of a list as wanted, or without it; what Kubernetes filled into it is left."""
    listed = list(holder.get(field) or ())
    at = next((index for index, each in enumerate(listed) if each["name"] == VOLUME), len(listed))
    if wanted is not None and at < len(listed) and is_satisfied({"it": wanted}, {"it": listed[at]}):
        return holder
    changed = [*listed[:at], *([wanted] if wanted else []), *listed[at + 1 :]]
    return holder if changed == listed else {**holder, field: changed}
