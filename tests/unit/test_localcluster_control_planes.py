"""Local clusters with several control planes, or with an etcd outside: what is computed before the machine changes."""

from __future__ import annotations

import datetime
import json
import os
import re
import subprocess
from pathlib import Path
from typing import Any, cast

import pytest
import yaml
from typer.testing import CliRunner

from localcluster import addresses, balancer, cli, cluster, external_etcd, kubeadm, processes, state
from localcluster.addons import addons
from localcluster.errors import ClusterError
from localcluster.kubectl import Kubectl
from localcluster.node import nodes_of
from localcluster.state import ClusterState

SERVERS = ("https://198.18.240.11:32379", "https://198.18.240.12:32379")
ALONE = ClusterState(name="dev", number=0, nodes=3)
HA = ClusterState(name="ha", number=1, nodes=4, control_planes=3)
NOON = datetime.datetime(2026, 1, 1, 12, 0, 0, 700000, tzinfo=datetime.UTC)
EXTERNAL = ClusterState(name="ex", number=2, nodes=1, etcd_servers=SERVERS)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("EXTERNAL_ETCD_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def certs(tmp_path: Path) -> Path:
    folder = tmp_path / "certs"
    folder.mkdir()
    for name in external_etcd.FILES:
        (folder / name).write_text(name)
    return folder


def by_kind(text: str) -> dict[str, dict[str, Any]]:
    return {document["kind"]: document for document in yaml.safe_load_all(text)}


def record_of(name: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((state.clusters_dir() / name / "cluster.json").read_text())
    return content


# State


def test_control_planes_and_the_etcd_are_remembered() -> None:
    made = state.allocate("dev", 4, control_planes=3, etcd_servers=SERVERS)
    assert made == state.find("dev") == state.allocate("dev", None)
    assert (made.nodes, made.control_planes, made.etcd_servers) == (4, 3, SERVERS)


def test_without_a_number_of_nodes_all_are_control_planes() -> None:
    assert state.allocate("dev", None, control_planes=3).nodes == 3


def test_a_record_from_before_there_were_several_control_planes_is_read_and_still_written() -> None:
    old = {"name": "dev", "number": 0, "nodes": 3}
    state.allocate("dev", 3)
    assert record_of("dev") == old
    assert state.find("dev") == ALONE


def test_a_record_from_a_later_checkout_is_read_as_far_as_it_is_understood() -> None:
    state.allocate("dev", 3)
    (state.clusters_dir() / "dev" / "cluster.json").write_text(json.dumps({**record_of("dev"), "colour": "red"}))
    assert state.find("dev") == ALONE


@pytest.mark.parametrize(
    ("wanted", "told"),
    [
        ({"control_planes": 5}, "has control planes: 3, which cannot become 5"),
        ({"control_planes": 1}, "has control planes: 3, which cannot become 1"),
        ({"etcd_servers": SERVERS[:1]}, "has the etcd at https://198.18.240.11:32379, https://198.18.240.12:32379 and"),
    ],
)
def test_what_a_cluster_is_made_of_does_not_change(wanted: dict[str, Any], told: str) -> None:
    state.allocate("dev", 6, control_planes=3, etcd_servers=SERVERS)
    with pytest.raises(ClusterError, match=re.escape(told)):
        state.allocate("dev", None, **wanted)
    assert state.allocate("dev", 7, control_planes=3, etcd_servers=SERVERS).nodes == 7


def test_a_cluster_with_an_etcd_of_its_own_does_not_get_another() -> None:
    state.allocate("dev", 1)
    with pytest.raises(ClusterError, match="has an etcd of its own and cannot move to another one"):
        state.allocate("dev", None, etcd_servers=SERVERS)


@pytest.mark.parametrize(
    ("nodes", "control_planes", "told"),
    [
        (None, 0, "1 to 7 control planes"),
        (9, 8, "1 to 7 control planes"),
        (2, 3, "3 control planes need as many nodes"),
    ],
)
def test_impossible_numbers_of_control_planes_are_refused_and_leave_nothing(
    nodes: int | None, control_planes: int, told: str, cache: Path
) -> None:
    with pytest.raises(ClusterError, match=told):
        cluster.Cluster.up("dev", nodes, control_planes=control_planes)
    assert not cache.exists()


# The balancer


def test_only_several_control_planes_have_a_balancer() -> None:
    assert balancer.of(ALONE) is None
    assert balancer.api_address(ALONE) == nodes_of(ALONE)[0].address
    assert balancer.api_address(HA) == "198.18.241.10"


def test_the_balancer_has_an_address_that_no_node_has() -> None:
    every = {addresses.node_address(0, number) for number in range(1, addresses.MAX_NODES + 1)}
    assert addresses.balancer_address(0) not in every | {str(addresses.SWITCH), str(addresses.HOST)}


def test_the_balancer_asks_every_control_plane_and_no_worker() -> None:
    told = balancer.config(balancer.Balancer(cluster=HA))
    servers = re.findall(r"^    server (\S+) (\S+)$", told, re.MULTILINE)
    assert servers == [(f"ha-{number}", f"198.18.241.{10 + number}:6443") for number in (1, 2, 3)]
    assert "bind 198.18.241.10:6443" in told
    assert "option httpchk GET /readyz" in told


def test_links_at_the_switch_have_names_that_linux_takes() -> None:
    last = ClusterState(name="z" * 30, number=addresses.MAX_CLUSTERS - 1, nodes=15, control_planes=7)
    assert len(balancer.Balancer(cluster=last).link) <= 15


def test_a_balancer_that_never_ran_is_an_ailment() -> None:
    assert balancer.ailments(balancer.Balancer(cluster=HA), set()) == ["ha-balancer does not run"]


def test_a_process_counts_as_long_as_it_is_the_one_that_was_recorded(tmp_path: Path) -> None:
    record = tmp_path / "process.json"
    assert processes.running(record, "it") is None
    sleeper = subprocess.Popen(["sleep", "60"])
    try:
        processes.write_record(record, sleeper.pid)
        assert processes.running(record, "it") == sleeper.pid
        record.write_text(json.dumps({**json.loads(record.read_text()), "started": 1}))
        assert processes.running(record, "it") is None
        processes.write_record(record, sleeper.pid)
        processes.kill(sleeper.pid, "it")
        assert processes.running(record, "it") is None
    finally:
        sleeper.kill()
        sleeper.wait()


def test_processes_are_found_by_their_root_folder(tmp_path: Path) -> None:
    assert os.getpid() in processes.rooted_in(Path("/"))
    assert processes.rooted_in(tmp_path) == []


# kubeadm


def test_several_control_planes_are_reached_through_the_balancer_and_elect_leaders() -> None:
    told = by_kind(kubeadm.init_config(nodes_of(HA)[0]))["ClusterConfiguration"]
    assert told["controlPlaneEndpoint"] == "198.18.241.10:6443"
    assert {"198.18.241.10", "198.18.241.11", "198.18.241.13"} <= set(told["apiServer"]["certSANs"])
    for program in ("controllerManager", "scheduler"):
        assert "leader-elect" not in {argument["name"] for argument in told[program]["extraArgs"]}


def test_a_single_control_plane_is_told_what_it_always_was() -> None:
    told = by_kind(kubeadm.init_config(nodes_of(ALONE)[0]))
    assert "controlPlaneEndpoint" not in told["ClusterConfiguration"]
    assert told["ClusterConfiguration"]["apiServer"]["certSANs"] == ["198.18.240.11", "localhost", "127.0.0.1"]
    assert told["ClusterConfiguration"]["scheduler"]["extraArgs"] == [{"name": "leader-elect", "value": "false"}]
    assert "certificateKey" not in told["InitConfiguration"]


def test_control_planes_join_as_such_with_an_address_of_their_own_and_workers_do_not() -> None:
    invitation = kubeadm.Invitation(endpoint="198.18.241.10:6443", token="t", ca_hash="h", certificate_key="k")
    told = [yaml.safe_load(kubeadm.join_config(node, invitation)) for node in nodes_of(HA)]
    assert told[1]["controlPlane"] == {
        "localAPIEndpoint": {"advertiseAddress": "198.18.241.12", "bindPort": 6443},
        "certificateKey": "k",
    }
    assert told[1]["nodeRegistration"]["taints"] == []
    assert "controlPlane" not in told[3]
    assert {each["discovery"]["bootstrapToken"]["apiServerEndpoint"] for each in told} == {"198.18.241.10:6443"}


def test_an_etcd_outside_takes_the_place_of_kubeadms_own() -> None:
    told = by_kind(kubeadm.init_config(nodes_of(EXTERNAL)[0]))["ClusterConfiguration"]["etcd"]
    assert told == {
        "external": {
            "endpoints": list(SERVERS),
            "caFile": "/etc/kubernetes/pki/etcd/ca.crt",
            "certFile": "/etc/kubernetes/pki/apiserver-etcd-client.crt",
            "keyFile": "/etc/kubernetes/pki/apiserver-etcd-client.key",
        }
    }


def test_dns_and_storage_outlive_one_of_several_control_planes_and_do_not_depend_on_one_address() -> None:
    deployments = {
        document["metadata"]["name"]: document["spec"]
        for document in yaml.safe_load_all(addons(HA))
        if document["kind"] == "Deployment"
    }
    assert deployments["coredns"]["replicas"] == 2
    assert "podAntiAffinity" in deployments["coredns"]["template"]["spec"]["affinity"]
    for spec in deployments.values():
        pod = spec["template"]["spec"]
        assert all("tolerationSeconds" in t for t in pod["tolerations"] if t["effect"] == "NoExecute")
        assert {"name": "KUBERNETES_SERVICE_HOST", "value": "198.18.241.10"} in pod["containers"][0]["env"]
    assert "replicas: 1" in addons(ALONE)


# An etcd outside


def test_addresses_and_certificates_of_an_etcd_outside_are_read(certs: Path) -> None:
    read = external_etcd.read(",".join(SERVERS), certs)
    assert read == external_etcd.ExternalEtcd(
        servers=SERVERS, certificates={name: name.encode() for name in ("ca.crt", "tls.crt", "tls.key")}
    )
    assert external_etcd.read(None, None) is None


@pytest.mark.parametrize("only", ["--etcd-servers=https://198.18.240.11:2379", "--etcd-certs=/tmp"])
def test_addresses_without_certificates_and_the_other_way_round_are_refused(only: str, cache: Path) -> None:
    refused = CliRunner().invoke(cli.app, ["up", "--name", "dev", only])
    assert isinstance(refused.exception, ClusterError)
    assert "both --etcd-servers and --etcd-certs" in str(refused.exception)
    assert not cache.exists()


def test_files_that_are_missing_are_named(certs: Path) -> None:
    (certs / "tls.key").unlink()
    with pytest.raises(ClusterError, match=r"has no tls\.key; it has to hold ca\.crt, tls\.crt, tls\.key"):
        external_etcd.read(SERVERS[0], certs)


@pytest.mark.parametrize(
    "url", ["", "198.18.240.11:2379", "http://a:2379", "https://a", "https://a:x", "https://a:1/b", "https://a:1,"]
)
def test_what_is_no_address_of_an_etcd_is_refused(url: str, certs: Path) -> None:
    with pytest.raises(ClusterError, match="is no address of an etcd"):
        external_etcd.read(url, certs)


def test_certificates_stay_with_the_cluster_and_reach_its_control_plane(certs: Path) -> None:
    etcd = external_etcd.read(",".join(SERVERS), certs)
    assert etcd is not None
    for _ in range(2):
        external_etcd.keep(etcd, EXTERNAL)
    (node,) = nodes_of(EXTERNAL)
    external_etcd.give(node)
    key = node.kubernetes / "pki" / "apiserver-etcd-client.key"
    assert key.read_text() == "tls.key"
    assert key.stat().st_mode & 0o077 == 0
    assert (node.kubernetes / "pki" / "etcd" / "ca.crt").read_text() == "ca.crt"


def test_other_certificates_for_a_cluster_that_has_some_are_refused(certs: Path) -> None:
    for content, refused in (("one", False), ("two", True)):
        (certs / "tls.crt").write_text(content)
        etcd = external_etcd.read(",".join(SERVERS), certs)
        assert etcd is not None
        if refused:
            with pytest.raises(ClusterError, match="has other certificates for its etcd"):
                external_etcd.keep(etcd, EXTERNAL)
        else:
            external_etcd.keep(etcd, EXTERNAL)


def test_certificates_that_were_lost_are_asked_for() -> None:
    with pytest.raises(ClusterError, match="say --etcd-servers and --etcd-certs once more"):
        external_etcd.give(nodes_of(EXTERNAL)[0])


def test_a_cluster_with_an_etcd_of_its_own_is_given_no_certificates(cache: Path) -> None:
    external_etcd.give(nodes_of(HA)[0])
    assert not cache.exists()


class Recorder:
    """A kubectl that answers with one namespace and writes down what it is told to delete."""

    def __init__(self, created: str) -> None:
        self.created = created
        self.deleted: list[str] = []

    def get(self, *_words: str) -> list[dict[str, Any]]:
        return [{"metadata": {"name": "kube-system", "creationTimestamp": self.created}}]

    def delete(self, kind: str, *which: str) -> None:
        self.deleted.append(" ".join((kind, *which)))


def test_only_what_an_earlier_cluster_left_in_the_etcd_is_removed() -> None:
    nodes = nodes_of(ClusterState(name="ex", number=2, nodes=2, etcd_servers=SERVERS))
    nodes[0].folder.mkdir(parents=True)
    nodes[0].set_member()
    fresh, used = Recorder("2026-01-01T12:00:00Z"), Recorder("2026-01-01T11:59:59Z")
    for kubectl in (fresh, used):
        external_etcd.end_former_life(cast(Kubectl, kubectl), nodes, NOON)
    assert fresh.deleted == []
    assert "configmaps -A --field-selector=metadata.name=kube-root-ca.crt" in used.deleted
    assert [words for words in used.deleted if words.startswith("nodes")] == ["nodes ex-2"]
    assert [words.split()[2] for words in used.deleted if words.startswith("pods")] == [
        f"--field-selector=spec.nodeName={node.name}" for node in nodes
    ]


# The command line


def test_what_is_asked_for_reaches_the_cluster(certs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[Any, ...]] = []

    def up(name: str, nodes: int | None, _progress: object, **more: Any) -> cluster.Cluster:
        asked.append((name, nodes, more["control_planes"], more["etcd"] and more["etcd"].servers))
        return cluster.Cluster(state=HA)

    monkeypatch.setattr(cluster.Cluster, "up", up)
    outside = ["--etcd-servers", ",".join(SERVERS), "--etcd-certs", str(certs)]
    for words in ([], ["--nodes", "4", "--control-planes", "3"], outside):
        assert CliRunner().invoke(cli.app, ["up", "--name", "ha", *words]).exit_code == 0
    assert asked == [("ha", None, None, None), ("ha", 4, 3, None), ("ha", None, None, SERVERS)]
