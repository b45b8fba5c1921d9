"""Whether a node's API server may be sent to the wanted etcd, which is dialled from that node.

The rules are those of `binding.rules`, for an API server that cannot be stopped meanwhile.
"""

import asyncio
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace

from etcd_operator.agent.manifest import container, host_path
from etcd_operator.agent.node_files import NodeFiles
from etcd_operator.agent.plan import BOUND_BY, Amount, Plan, Reason, Result
from etcd_operator.binding import arguments
from etcd_operator.binding.arguments import normal_prefix, split_servers
from etcd_operator.binding.comparison import Comparison
from etcd_operator.binding.content import Side, answers, cluster_ids, compare
from etcd_operator.etcd.client import EtcdClient
from etcd_operator.etcd.model import TLSIdentity
from etcd_operator.resources.names import Manifest

#: Seconds that reading two etcds may take.
LONGEST_READ = 120.0


class RefusedError(Exception):
    """The API server is left as it is; the text says why."""

    def __init__(self, reason: Reason, message: str, comparison: Comparison | None = None) -> None:
        super().__init__(message)
        self.reason: Reason = reason
        self.comparison = comparison

    def result(self) -> Result:
        """As the operator is told."""
        before, wanted = (self.comparison.before, self.comparison.wanted) if self.comparison else (None, None)
        return Result(
            result="Refused",
            reason=self.reason,
            message=f"{self}; the API server is left as it is",
            before=Amount(keys=before.keys, revision=before.revision) if before else None,
            wanted=Amount(keys=wanted.keys, revision=wanted.revision) if wanted else None,
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Answers:
    """What the etcds said.

    silent: of each wanted address, why it does not read. wanted, present: of each address that answers, the ID of its
    etcd cluster. present_silent: why the others of now do not. comparison: where both answer and are two.
    """

    silent: Mapping[str, str] = field(default_factory=dict)
    wanted: Mapping[str, str] = field(default_factory=dict)
    present: Mapping[str, str] = field(default_factory=dict)
    present_silent: Mapping[str, str] = field(default_factory=dict)
    comparison: Comparison | None = None

    @property
    def same_cluster(self) -> bool:
        """Whether both answer, and nothing but one cluster."""
        return bool(self.wanted and self.present) and len({*self.wanted.values(), *self.present.values()}) == 1


#: Asks the wanted etcd and, if it is given and the wanted one answers, the present one too, and compares them.
Ask = Callable[[Side, Side | None], Answers]


def ask_etcd(wanted: Side, present: Side | None) -> Answers:
    """`Ask`, over the network."""
    return asyncio.run(_ask(wanted, present))


async def _ask(wanted: Side, present: Side | None) -> Answers:
    async with EtcdClient() as etcd:
        (ids, nameless), told = await asyncio.gather(cluster_ids(etcd, wanted), answers(etcd, wanted))
        silent = nameless | {server: problem for server, problem in told.items() if problem}
        said = Answers(silent=silent, wanted=ids)
        if present is None or len(silent) == len(wanted.servers):
            return said
        there, problems = await cluster_ids(etcd, present)
        said = replace(said, present=there, present_silent=problems)
        if silent or not there or (said.same_cluster and _is_one_place(present.prefix, wanted.prefix)):
            return said
        return replace(said, comparison=await compare(etcd, present=present, wanted=wanted, longest=LONGEST_READ))


def judge(
    plan: Plan, pod: Manifest, wanted: Manifest, *, identity: TLSIdentity | None, files: NodeFiles, ask: Ask
) -> None:
    """Raise `RefusedError` unless the wanted etcd answers, is the one meant, and is the present one or holds the same.

    pod, wanted: with the manifest of now and the wanted one. Raises `ManifestError` and `UnreadableArgumentsError`.
    """
    servers, prefix = arguments.current(container(wanted, plan.container))
    side = Side(servers=split_servers(servers), tls=identity, prefix=prefix)
    told, present_prefix = arguments.current(container(pod, plan.container))
    named = split_servers(told)
    trusted = _is_bound_to_it(plan, pod, named) and _is_one_place(present_prefix, prefix)
    present = None
    if named and not plan.accept_different_data:
        present = _present(plan, pod, Side(servers=named, tls=None, prefix=present_prefix), files, trusted=trusted)
    said = ask(side, present)
    _refuse_another_etcd(plan, said.wanted)
    unheard = trusted and not said.present
    follows = unheard or (said.same_cluster and _is_one_place(present_prefix, prefix))
    _refuse_silence(side, said.silent, follows=follows and bool(plan.cluster_id))
    if present is not None and not follows:
        _refuse_different_data(present, side, said)


def _is_one_place(one: str, other: str) -> bool:
    return normal_prefix(one) == normal_prefix(other)


def _is_bound_to_it(plan: Plan, pod: Manifest, servers: Collection[str]) -> bool:
    """Whether the API server is one that this binding has brought to the wanted etcd already.

    An etcd that does not answer cannot say which it is. Its addresses alone prove nothing: they may have been another
    one's before. With the binding's own note beside them they are what the binding itself has written.
    """
    noted = ((pod.get("metadata") or {}).get("annotations") or {}).get(BOUND_BY)
    mine = noted is not None and noted == plan.annotations.get(BOUND_BY)
    return bool(plan.cluster_id) and mine and bool(servers) and set(servers) <= set(plan.ours)


def _present(plan: Plan, pod: Manifest, side: Side, files: NodeFiles, *, trusted: bool) -> Side | None:
    """The etcd of now, with the certificate of now; `None` where that cannot be read, and need not be."""
    try:
        return replace(side, tls=_present_identity(plan, pod, side.servers, files))
    except RefusedError:
        if trusted:
            return None
        raise


def _present_identity(plan: Plan, pod: Manifest, servers: tuple[str, ...], files: NodeFiles) -> TLSIdentity | None:
    """The certificate that the API server uses now; `None` where it needs none. Raises `RefusedError`."""
    if not any(server.startswith("https://") for server in servers):
        return None
    told = arguments.flags(container(pod, plan.container))
    held: dict[str, bytes | None] = {}
    for flag in ("etcd-cafile", "etcd-certfile", "etcd-keyfile"):
        path = told.get(flag, "")
        if not path and flag != "etcd-cafile":
            held[flag] = None  # an etcd that asks no client for a certificate
            continue
        held[flag] = _read(plan, pod, flag, path, files)
    return TLSIdentity(ca=held["etcd-cafile"] or b"", cert=held["etcd-certfile"], key=held["etcd-keyfile"])


def _read(plan: Plan, pod: Manifest, flag: str, path: str, files: NodeFiles) -> bytes:
    on_host = host_path(pod, plan.container, path) if path else None
    if on_host is None:
        raise RefusedError("FilesUnreadable", f"--{flag} ({path or 'not given'}) is on no folder of the node")
    try:
        held = files.read(on_host)
    except OSError as error:
        raise RefusedError("FilesUnreadable", f"--{flag} ({path}) cannot be read: {error.strerror or error}") from None
    if held is None:
        raise RefusedError("FilesUnreadable", f"--{flag} ({path}): there is no {on_host} on the node")
    return held


def _refuse_another_etcd(plan: Plan, ids: Mapping[str, str]) -> None:
    """A port of a node may be another etcd's by now, whose certificate names the same node."""
    others = sorted((server, each) for server, each in ids.items() if each != plan.cluster_id)
    if plan.cluster_id and others:
        told = "; ".join(f"{server}: is another etcd cluster ({each})" for server, each in others)
        raise RefusedError("AnotherEtcd", f"{told}, not {plan.cluster_id}")


def _refuse_silence(wanted: Side, silent: Mapping[str, str], *, follows: bool) -> None:
    """All must answer before the API server is sent there; one is enough to follow an etcd that it uses already."""
    if not silent or (follows and len(silent) < len(wanted.servers)):
        return
    told = "; ".join(f"{server}: {problem}" for server, problem in sorted(silent.items()))
    raise RefusedError("EndpointUnreachable", f"from this node, with the client certificate, {told}")


def _refuse_different_data(present: Side, wanted: Side, said: Answers) -> None:
    comparison = said.comparison
    if comparison is not None and comparison.same_etcd:
        return
    there = f"the API server uses another etcd now ({','.join(present.servers)})"
    if comparison is None or comparison.before is None or comparison.wanted is None:
        silence = "; ".join(f"{server}: {problem}" for server, problem in sorted(said.present_silent.items()))
        why = comparison.problem if comparison else silence or "it was not read"
        raise RefusedError("DataUnknown", f"{there}, whose content cannot be compared: {why}")
    before, after = comparison.before, comparison.wanted
    numbers = (
        f"{before.keys} keys there at revision {before.revision}, {after.keys} below {wanted.prefix} of the wanted one"
        f" at revision {after.revision}"
    )
    if before.digest != after.digest:
        raise RefusedError("DifferentData", f"{there}, and the two hold different objects: {numbers}", comparison)
    raise RefusedError(
        "WritesNotStopped", f"{there} with the same objects ({numbers}), but it goes on writing there", comparison
    )
