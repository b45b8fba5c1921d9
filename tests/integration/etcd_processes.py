"""Real etcd processes on loopback, run from the very configuration files that the operator writes.

A file is taken as `member_file` wrote it, but for its folders and ports, which a test cannot have for itself. Every
process is ended by its id when the context ends.
"""

import asyncio
import contextlib
import itertools
import os
import signal
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from etcd_operator.etcd.client import EtcdClient
from etcd_operator.etcd.config import Options, member_file
from etcd_operator.etcd.model import Answer, Endpoint, MemberList, TLSIdentity
from etcd_operator.etcd.probe import ask
from etcd_operator.pki import Authority, issue, new_authority

NEWEST = "3.7.3"
VERSIONS = (NEWEST, "3.6.16", "3.5.35")

FAST = Options(heartbeat_ms=50, election_ms=500)


def etcd_program(version: str, name: str = "etcd") -> Path:
    """The program of that version, built where it is missing; `EXTERNAL_ETCD_PROGRAMS/<version>` takes precedence."""
    if given := os.environ.get("EXTERNAL_ETCD_PROGRAMS"):
        return Path(given, version, name)
    from localcluster.artifacts import ensure_etcd_programs  # only here: given programs need no builder
    from localcluster.progress import Progress

    return ensure_etcd_programs(version, Progress()) / name


def _candidates() -> Iterator[int]:
    """Ports below those that the kernel gives to connections, round and round; other workers of a run have others."""
    first = 20_000 + 2_000 * int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    return itertools.cycle(range(first, first + 2_000))


_CANDIDATES = _candidates()


def free_ports(count: int) -> list[int]:
    """Ports of loopback that nobody uses, and that stay free while their process is stopped for a while."""
    return list(itertools.islice(filter(_is_free, _CANDIDATES), count))


def _is_free(port: int) -> bool:
    with socket.socket() as tried:
        try:
            tried.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


@dataclass(slots=True)
class MemberProcess:
    """One member: where it lives, and its process when it runs."""

    name: str
    folder: Path
    version: str
    ports: tuple[int, int, int, int] = field(default_factory=lambda: _four(free_ports(4)))
    process: asyncio.subprocess.Process | None = None

    @property
    def client_address(self) -> str:
        return f"127.0.0.1:{self.ports[0]}"

    @property
    def peer_url(self) -> str:
        return f"https://127.0.0.1:{self.ports[1]}"

    @property
    def client_url(self) -> str:
        return f"https://{self.client_address}"

    @property
    def log(self) -> Path:
        return self.folder / "log"

    def last_log(self, limit: int = 2048) -> str:
        """The log's tail, cut as the kubelet cuts a termination message: 2048 bytes or 80 lines."""
        tail = self.log.read_bytes()[-limit:].decode(errors="replace")
        return "\n".join(tail.splitlines()[-80:])

    def write(self, tls: Path, **file: Any) -> None:
        """Write the member's file with what the operator's builder makes of the arguments."""
        defaults: dict[str, Any] = {
            "name": self.name,
            "incarnation": "i1",
            "version": self.version,
            "peer_url": self.peer_url,
            "client_url": self.client_url,
            "token": "lab-i1",
            "tls_peer": True,
            "tls_client": True,
            "options": FAST,
        }
        text = member_file(**(defaults | file))
        for port, real in zip((2379, 2380, 2381, 2382), self.ports, strict=True):
            text = text.replace(f"0.0.0.0:{port}", f"127.0.0.1:{real}")
        text = text.replace('"/var/lib/etcd/', f'"{self.folder}/').replace('"/tls/', f'"{tls}/')
        (self.folder / "etcd.yaml").write_text(text)

    async def start(self) -> None:
        with self.log.open("ab") as log:
            self.process = await asyncio.create_subprocess_exec(
                etcd_program(self.version), f"--config-file={self.folder / 'etcd.yaml'}", stdout=log, stderr=log
            )

    async def stop(self, how: signal.Signals = signal.SIGKILL) -> None:
        if self.process is not None and self.process.returncode is None:
            self._signal(how)
            await self.process.wait()

    async def exit_code(self, within: float = 20) -> int:
        """Wait for the process to end by itself."""
        assert self.process is not None
        return await asyncio.wait_for(self.process.wait(), within)

    def freeze(self) -> None:
        """Stop it, and wait until all of its threads stand still: a signal takes its time."""
        assert self.process is not None
        self._signal(signal.SIGSTOP)
        os.waitid(os.P_PID, self.process.pid, os.WSTOPPED)

    def thaw(self) -> None:
        self._signal(signal.SIGCONT)

    def _signal(self, which: signal.Signals) -> None:
        assert self.process is not None
        os.kill(self.process.pid, which)  # asyncio's own method may reap the child behind its watcher's back


def _four(ports: list[int]) -> tuple[int, int, int, int]:
    first, second, third, fourth = ports
    return first, second, third, fourth


@dataclass(slots=True)
class Lab:
    """An etcd cluster with TLS both ways, its authorities, and a client."""

    folder: Path
    client: EtcdClient
    version: str = NEWEST
    members: dict[str, MemberProcess] = field(default_factory=dict)
    authority: Authority = field(default_factory=lambda: new_authority("lab clients", datetime.now(UTC)))
    peers: Authority = field(default_factory=lambda: new_authority("lab peers", datetime.now(UTC)))
    identity: TLSIdentity | None = None

    def __post_init__(self) -> None:
        for side, authority in (("server", self.authority), ("peer", self.peers)):
            self.write_certificate(side, authority)
        leaf = leaf_of(self.authority, "root", server=False)
        self.identity = TLSIdentity(ca=self.authority.cert_pem, cert=leaf.cert_pem, key=leaf.key_pem)

    @property
    def tls(self) -> Path:
        return self.folder / "certificates"

    def write_certificate(self, side: str, authority: Authority) -> None:
        leaf = leaf_of(authority, side, server=True)
        folder = self.tls / side
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in (("ca.crt", authority.cert_pem), ("tls.crt", leaf.cert_pem), ("tls.key", leaf.key_pem)):
            (folder / name).write_bytes(content)

    def add(self, name: str, version: str | None = None) -> MemberProcess:
        folder = self.folder / name
        folder.mkdir()
        member = self.members[name] = MemberProcess(name, folder, version or self.version)
        return member

    def endpoint(self, name: str) -> Endpoint:
        """As the operator dials: by address, the certificate checked against the member's own name."""
        return Endpoint(address=self.members[name].client_address, server_name=f"{name}.lab.test", tls=self.identity)

    def endpoints(self) -> dict[str, Endpoint]:
        return {name: self.endpoint(name) for name in self.members}

    def urls(self) -> dict[str, str]:
        return {name: member.peer_url for name, member in self.members.items()}

    async def bootstrap(self, size: int, **file: Any) -> None:
        """Start that many members at once and wait until every one confirms the list through a quorum."""
        for index in range(size):
            self.add(f"m{index}")
        for member in self.members.values():
            member.write(self.tls, initial_cluster=self.urls(), state="new", **file)
        await asyncio.gather(*(member.start() for member in self.members.values()))
        await self.all_well()

    async def all_well(self, within: float = 30) -> dict[str, Answer]:
        """Wait until all members answer, through a quorum, and name each other."""
        async with asyncio.timeout(within):
            while True:
                answers = await ask(self.client, self.endpoints())
                if all(answer.linearizable and _named(answer.members) for answer in answers.values()):
                    return answers
                for name, answer in answers.items():  # a member that ended will never be well
                    if answer.error and answer.error.kind == "refused":
                        process = self.members[name].process
                        assert process is None or process.returncode is None, self.members[name].last_log()
                        await asyncio.sleep(0.05)

    async def leader(self) -> str:
        reports = {name: await self.client.status(self.endpoint(name)) for name in self.members}
        return next(name for name, report in reports.items() if report.is_leader)


def _named(members: MemberList | None) -> bool:
    return members is not None and all(member.started for member in members.members)


def leaf_of(authority: Authority, name: str, *, server: bool) -> Any:
    return issue(
        authority,
        common_name=name,
        dns_names=["*.lab.test", "localhost"] if server else ["root"],
        ip_addresses=["127.0.0.1"] if server else [],
        now=datetime.now(UTC),
        lifetime=timedelta(days=1),
        server=server,
        client=True,
    )


async def until(ready: Callable[[], bool], *, within: float) -> None:
    """Wait for what nothing announces."""
    async with asyncio.timeout(within):
        while not ready():  # noqa: ASYNC110
            await asyncio.sleep(0.02)


@contextlib.asynccontextmanager
async def lab(folder: Path, version: str = NEWEST, **given: Any) -> AsyncIterator[Lab]:
    """An empty lab; every member that a test started has ended when it is left."""
    async with EtcdClient(**given) as client:
        opened = Lab(folder=folder, client=client, version=version)
        try:
            yield opened
        finally:
            await asyncio.gather(*(member.stop() for member in opened.members.values()))
