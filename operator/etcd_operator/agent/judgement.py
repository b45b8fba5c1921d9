"""Whether a node's API server may be sent to the wanted etcd, which is dialled from that node.

The rules are those of `binding.rules`, for an API server that cannot be stopped meanwhile.
"""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from etcd_operator.agent.manifest import container, host_path
from etcd_operator.agent.node_files import NodeFiles
from etcd_operator.agent.plan import Amount, Plan, Reason, Result
from etcd_operator.binding import arguments
from etcd_operator.binding.comparison import Comparison
from etcd_operator.binding.content import Side, answers, compare, split_servers
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
    """What the etcds said. silent: of each wanted address, why it does not read; comparison: where asked for."""

    silent: Mapping[str, str]
    comparison: Comparison | None = None


#: Asks the wanted etcd and, if it is given and the wanted one answers, compares it with the present one.
Ask = Callable[[Side, Side | None], Answers]


def ask_etcd(wanted: Side, present: Side | None) -> Answers:
    """`Ask`, over the network."""
    return asyncio.run(_ask(wanted, present))


async def _ask(wanted: Side, present: Side | None) -> Answers:
    async with EtcdClient() as etcd:
        silent = {server: problem for server, problem in (await answers(etcd, wanted)).items() if problem}
        if silent or present is None:
            return Answers(silent=silent)
        compared = await compare(etcd, present=present, wanted=wanted, longest=LONGEST_READ)
        return Answers(silent=silent, comparison=compared)


def judge(
    plan: Plan, pod: Manifest, wanted: Manifest, *, identity: TLSIdentity | None, files: NodeFiles, ask: Ask
) -> None:
    """Raise `RefusedError` unless the wanted etcd answers and holds what the present one does, or is the same.

    pod, wanted: with the manifest of now and the wanted one. Raises `ManifestError` and `UnreadableArgumentsError`.
    """
    servers, prefix = arguments.current(container(wanted, plan.container))
    side = Side(servers=split_servers(servers), tls=identity, prefix=prefix)
    told, present_prefix = arguments.current(container(pod, plan.container))
    named = split_servers(told)
    follows = bool(named) and set(named) <= set(plan.ours) and present_prefix == prefix
    present = None
    if named and not follows and not plan.accept_different_data:
        present = Side(servers=named, tls=_present_identity(plan, pod, named, files), prefix=present_prefix)
    said = ask(side, present)
    _refuse_silence(side, said.silent, follows=follows)
    if present is not None:
        _refuse_different_data(present, side, said.comparison)


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


def _refuse_silence(wanted: Side, silent: Mapping[str, str], *, follows: bool) -> None:
    """All must answer before the API server is sent there; one is enough to follow an etcd that it uses already."""
    if not silent or (follows and len(silent) < len(wanted.servers)):
        return
    told = "; ".join(f"{server}: {problem}" for server, problem in sorted(silent.items()))
    raise RefusedError("EndpointUnreachable", f"from this node, with the client certificate, {told}")


def _refuse_different_data(present: Side, wanted: Side, comparison: Comparison | None) -> None:
    if comparison is not None and comparison.same_etcd:
        return
    there = f"the API server uses another etcd now ({','.join(present.servers)})"
    if comparison is None or comparison.before is None or comparison.wanted is None:
        why = comparison.problem if comparison else "it was not read"
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
