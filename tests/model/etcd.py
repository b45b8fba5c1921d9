"""etcd of the model: what its processes do with a configuration file and a data directory, and when they have a quorum.

A miniature of the rules that the operator rests on, each seen on real etcd: data on disk makes the file's member
list void; `new` on an empty directory founds, unless the peers know this member as bootstrapped; `existing` with
only itself on an empty directory exits. Elections and commits follow Raft: a majority votes, never for a log that
is behind, and an entry that a majority holds is acknowledged.
"""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import yaml

from etcd_operator.etcd.errors import EtcdError
from etcd_operator.etcd.model import Answer, Endpoint, Member, MemberList, MemberReport

FUSE = '{"level":"fatal","msg":"discovery failed","error":"cannot fetch cluster info from peer urls: no answer"}'
BOOTSTRAPPED = '{"level":"fatal","msg":"discovery failed","error":"member %s has already been bootstrapped"}'
NO_FILE = '{"level":"fatal","msg":"failed to verify flags","error":"open /etc/etcd/%s.yaml: no such file or directory"}'


class EtcdExitedError(Exception):
    """etcd refused to start; the text is the end of its log."""


@dataclass
class Data:
    """A data directory. `hollow`: etcd was killed right after its first write, before the log had an entry."""

    cluster_id: int
    member_id: int
    members: dict[int, tuple[str, str, str]]
    hollow: bool = False
    term: int = 0
    log: list[tuple[int, str]] = field(default_factory=list)

    @property
    def entries(self) -> set[str]:
        return {entry for _, entry in self.log}

    @property
    def age(self) -> tuple[int, int]:
        """What Raft compares to find the log that is further: the term of the last entry, then the length."""
        return (self.log[-1][0] if self.log else 0, len(self.log))


@dataclass
class Volume:
    """A disk: data directories by path."""

    directories: dict[str, Data] = field(default_factory=dict)


@dataclass(eq=False)
class Process:
    """A running etcd. It trusts the authorities that it read when it started, and shows the certificates of now."""

    name: str
    address: str
    url: str
    version: str
    data: Data
    trusts_peers_of: bytes
    trusts_clients_of: bytes
    shows_peers: bytes
    shows_clients: bytes
    frozen: bool = False
    lagging: bool = False


def _id(text: bytes) -> int:
    """As etcd makes member and cluster IDs (membership.computeMemberID and RaftCluster.genID)."""
    return int.from_bytes(hashlib.sha1(text).digest()[:8], "big")


def _member_id(url: str, token: str) -> int:
    return _id((url + token).encode())


def _cluster_id(members: Iterable[int]) -> int:
    return _id(b"".join(member.to_bytes(8, "big") for member in sorted(members)))


class Etcd:
    """Every etcd process there is."""

    def __init__(self) -> None:
        self.processes: dict[str, Process] = {}
        self.leaders: dict[int, Process] = {}
        #: The next directory that is founded belongs to a process that is killed right after its first write.
        self.kill_at_first_write = False

    def start(self, pod: str, address: str, mounts: dict[str, Any], volume: Volume) -> None:
        """Start the member of that pod; raises `EtcdExitedError`."""
        text = mounts["config"].get(f"{pod}.yaml")
        if text is None:
            raise EtcdExitedError(NO_FILE % pod)
        try:
            file = yaml.safe_load(text)
            path = file["data-dir"]
        except (yaml.YAMLError, KeyError, TypeError):
            raise EtcdExitedError('{"level":"fatal","msg":"failed to verify flags","error":"yaml"}') from None
        peer, server = mounts.get("peer", {}).get("ca.crt", b""), mounts.get("server", {}).get("ca.crt", b"")
        url = file["initial-advertise-peer-urls"]
        if path not in volume.directories:
            data = self._found(file, url, peer)
            volume.directories[path] = data
            if self.kill_at_first_write:
                self.kill_at_first_write = False
                data.hollow = True
                raise EtcdExitedError("")
        self.processes[pod] = Process(
            name=pod,
            address=address,
            url=url,
            version="3.7.3",
            data=volume.directories[path],
            trusts_peers_of=peer,
            trusts_clients_of=server,
            shows_peers=peer,
            shows_clients=server,
        )

    def _found(self, file: dict[str, Any], url: str, peer_authority: bytes) -> Data:
        listed = dict(pair.split("=", 1) for pair in file["initial-cluster"].split(","))
        if file["initial-cluster-state"] == "existing":
            assert set(listed) == {file["name"]}, "no file of this release joins an existing cluster"
            raise EtcdExitedError(FUSE)
        token = file["initial-cluster-token"]
        members = {_member_id(to, token): (name, to, _client_url(to)) for name, to in listed.items()}
        own = _member_id(url, token)
        for peer in self.processes.values():
            reachable = not peer.frozen and peer.url in listed.values() and peer.trusts_peers_of == peer_authority
            if reachable and peer.url != url and f"publish {own}" in peer.data.entries:
                raise EtcdExitedError(BOOTSTRAPPED % file["name"])
        return Data(cluster_id=_cluster_id(members), member_id=own, members=members)

    def stop(self, pod: str) -> None:
        self.processes.pop(pod, None)

    def step(self) -> None:
        """Let every cluster elect a leader where it can, catch up, and publish its members."""
        ids = {process.data.cluster_id for process in self.processes.values()}
        for gone in self.leaders.keys() - ids:
            del self.leaders[gone]
        for cluster_id in ids:
            leader = self.leaders.get(cluster_id)
            if leader is None or not self._has_majority(leader, self.followers(leader)):
                self.leaders.pop(cluster_id, None)
                self._elect(cluster_id)
            if leader := self.leaders.get(cluster_id):
                self._replicate(leader)
                for member in self.followers(leader):
                    self._append(leader, f"publish {member.data.member_id}")

    def _elect(self, cluster_id: int) -> None:
        candidates = [each for each in self.processes.values() if each.data.cluster_id == cluster_id]
        for candidate in sorted(candidates, key=lambda each: (each.data.age, each.data.member_id), reverse=True):
            votes = [each for each in self.followers(candidate) if each.data.age <= candidate.data.age]
            if self._has_majority(candidate, [each for each in votes if not each.data.hollow]):
                term = max(each.data.term for each in votes) + 1
                for each in votes:
                    each.data.term = term
                self.leaders[cluster_id] = candidate
                candidate.data.log.append((term, f"leader {candidate.data.member_id} {term}"))
                return

    def followers(self, leader: Process) -> list[Process]:
        """The processes that hear this one and are heard, itself included; none where it does not run."""
        if self.processes.get(leader.name) is not leader or leader.frozen or leader.data.hollow:
            return []
        return [
            each
            for each in self.processes.values()
            if not each.frozen
            and each.data.cluster_id == leader.data.cluster_id
            and each.trusts_peers_of == leader.shows_peers
            and leader.trusts_peers_of == each.shows_peers
        ]

    def _has_majority(self, leader: Process, among: list[Process]) -> bool:
        return leader in among and len(among) > len(leader.data.members) // 2

    def _replicate(self, leader: Process) -> list[Process]:
        """Bring the followers that keep up to the leader's log; returns those that hold it now."""
        synced = [each for each in self.followers(leader) if each is leader or not each.lagging]
        for each in synced:
            each.data.log = list(leader.data.log)
            each.data.term = leader.data.term
            each.data.hollow = False
        return synced

    def _append(self, leader: Process, entry: str) -> bool:
        """Commit an entry; `False` when no majority holds it yet, though it may be committed later."""
        if entry not in leader.data.entries:
            leader.data.log.append((leader.data.term, entry))
        return self._has_majority(leader, self._replicate(leader))

    def leader_of(self, process: Process) -> Process | None:
        """The leader that this process follows, if it has a majority."""
        leader = self.leaders.get(process.data.cluster_id)
        if leader is None or process not in self.followers(leader):
            return None
        return leader if self._has_majority(leader, self.followers(leader)) else None

    def is_ready(self, process: Process) -> bool:
        """Whether it answers a linearizable read: it must hold all that was committed."""
        leader = self.leader_of(process)
        return leader is not None and (process is leader or process.data.log == leader.data.log)

    def put(self, process: Process, value: str) -> bool:
        """Write through this process; whether the write was acknowledged."""
        leader = self.leader_of(process)
        return leader is not None and self._append(leader, f"put {value}")

    def answer(self, endpoint: Endpoint, now: datetime) -> Answer:
        """What the process at that address answers the operator."""
        process = next((each for each in self.processes.values() if f"{each.address}:2379" == endpoint.address), None)
        problem: EtcdError | None = None
        if process is None:
            problem = EtcdError("refused", "connection refused")
        elif process.frozen:
            problem = EtcdError("timeout", "no answer")
        elif endpoint.tls is not None and not (endpoint.tls.ca == process.trusts_clients_of == process.shows_clients):
            problem = EtcdError("tls", "the TLS handshake failed")
        if process is None or problem is not None:
            return Answer(status=None, members=None, linearizable=False, error=problem, asked_at=now)
        ready = self.is_ready(process)
        error = None if ready else EtcdError("no_leader", "no leader")
        return Answer(
            status=self._report(process), members=_list(process), linearizable=ready, error=error, asked_at=now
        )

    def _report(self, process: Process) -> MemberReport:
        leader, data = self.leader_of(process), process.data
        return MemberReport(
            cluster_id=data.cluster_id,
            member_id=data.member_id,
            version=process.version,
            leader_id=leader.data.member_id if leader else 0,
            is_learner=False,
            raft_index=len(data.log),
            raft_applied_index=len(data.log),
            raft_term=data.term,
            revision=len(data.log),
            db_size=20480 + 4096 * len(data.log),
            db_size_in_use=4096 * len(data.log),
        )


def _client_url(peer_url: str) -> str:
    return peer_url.replace(":2380", ":2379")


def _list(process: Process) -> MemberList:
    data, entries = process.data, process.data.entries
    if data.hollow:
        return MemberList(cluster_id=data.cluster_id, members=())
    members = tuple(
        Member(
            id=member_id,
            name=name,  # a founder bears its name from the first entry on, started or not
            peer_urls=(url,),
            client_urls=(client_url,) if f"publish {member_id}" in entries else (),
        )
        for member_id, (name, url, client_url) in sorted(data.members.items())
    )
    return MemberList(cluster_id=data.cluster_id, members=members)
