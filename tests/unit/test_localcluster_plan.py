"""What the local cluster computes before it touches the machine: addresses, configurations, judgements, parsing."""

from __future__ import annotations

import datetime
import ipaddress
import json
import os
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from localcluster import (
    addresses,
    cgroups,
    cluster,
    diagnose,
    dns_probe,
    health,
    imagestore,
    kubeadm,
    limits,
    node_init,
    records,
    state,
)
from localcluster.addons import addons
from localcluster.errors import ClusterError
from localcluster.kubectl import documents
from localcluster.node import Node, nodes_of
from localcluster.state import ClusterState

DEV = ClusterState(name="dev", number=0, nodes=3)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("EXTERNAL_ETCD_CACHE", str(tmp_path))
    return tmp_path


# Addresses


def test_no_two_nodes_share_an_address_or_a_pod_range() -> None:
    every = [(c, n) for c in range(addresses.MAX_CLUSTERS) for n in range(1, addresses.MAX_NODES + 1)]
    assert len({addresses.node_address(c, n) for c, n in every}) == len(every)
    ranges = [ipaddress.IPv4Network(addresses.node_pods(c, n)) for c, n in every]
    assert len(set(ranges)) == len(every)
    for (number, _), pods in zip(every, ranges, strict=True):
        assert pods.subnet_of(ipaddress.IPv4Network(addresses.cluster_pods(number)))
        assert pods.subnet_of(addresses.PODS)


def test_every_node_address_is_on_the_flat_network_and_none_is_the_switch_or_the_machine() -> None:
    for number in range(addresses.MAX_CLUSTERS):
        for node in range(1, addresses.MAX_NODES + 1):
            address = ipaddress.IPv4Address(addresses.node_address(number, node))
            assert address in addresses.NODES
            assert address not in (addresses.SWITCH, addresses.HOST)


@pytest.mark.parametrize(("number", "node"), [(16, 1), (-1, 1), (0, 0), (0, 16)])
def test_numbers_out_of_range_have_no_address(number: int, node: int) -> None:
    with pytest.raises(ValueError, match="no addresses"):
        addresses.node_address(number, node)


def test_hardware_addresses_are_local_and_follow_from_the_address() -> None:
    assert addresses.hardware_address("198.18.240.11") == "02:65:c6:12:f0:0b"


def test_routes_that_overlap_are_found() -> None:
    assert addresses.clashing(["192.0.2.0/24", "198.18.0.0/15", "198.19.4.1", "10.0.0.0/8"]) == [
        "198.18.0.0/15",
        "198.19.4.1",
    ]


# State


def test_clusters_get_the_lowest_free_number_and_keep_it() -> None:
    assert [state.allocate(name, 1).number for name in ("a", "b", "c")] == [0, 1, 2]
    (state.clusters_dir() / "b" / "cluster.json").unlink()
    assert state.allocate("d", 1).number == 1
    assert state.allocate("c", None).number == 2


def test_a_cluster_grows_and_stays_as_it_is_but_does_not_shrink() -> None:
    assert state.allocate("dev", None).nodes == 1
    assert state.allocate("dev", 3).nodes == 3
    assert state.allocate("dev", None).nodes == 3
    with pytest.raises(ClusterError, match="cannot shrink to 2"):
        state.allocate("dev", 2)


@pytest.mark.parametrize("name", ["", "Dev", "1st", "a_b", "-a", "a-", "a" * 31, "../x"])
def test_names_that_cannot_be_host_names_are_refused_and_leave_nothing(name: str, cache: Path) -> None:
    with pytest.raises(ClusterError, match="cannot name a cluster"):
        cluster.Cluster.up(name, 1)
    assert list(cache.iterdir()) == []


@pytest.mark.parametrize("nodes", [0, -1, 16])
def test_sizes_without_addresses_are_refused(nodes: int) -> None:
    with pytest.raises(ClusterError, match="has 1 to 15 nodes"):
        cluster.Cluster.up("dev", nodes)


def test_a_lock_outlives_the_removal_of_its_folder(cache: Path) -> None:
    with state.cluster_lock("dev"):
        (state.clusters_dir() / "dev").rmdir()
    with state.cluster_lock("dev"):
        assert (state.clusters_dir() / "dev").is_dir()


@pytest.mark.parametrize("content", ["", "{", "[1]", "7"])
def test_a_record_that_a_power_cut_garbled_is_told(content: str) -> None:
    state.allocate("dev", 1)
    (state.clusters_dir() / "dev" / "cluster.json").write_text(content)
    with pytest.raises(ClusterError, match=r"dev/cluster\.json cannot be read"):
        state.find("dev")


def test_a_record_is_on_disk_before_it_takes_its_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced = list[str]()

    def sync(descriptor: int) -> None:
        assert not (tmp_path / "record.json").exists()
        synced.append((tmp_path / "record.new").read_text())

    monkeypatch.setattr(os, "fsync", sync)
    records.write(tmp_path / "record.json", {"a": 1})
    assert [json.loads(text) for text in synced] == [{"a": 1}] == [records.read(tmp_path / "record.json")]


# cgroups

V1 = """\
31 24 0:27 / /sys/fs/cgroup ro,nosuid - tmpfs tmpfs ro
32 31 0:28 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory
33 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw shared:9 - cgroup cgroup rw,cpu,cpuacct
34 31 0:30 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw
"""
V2 = "30 23 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n"


def test_hierarchies_of_both_versions_are_found() -> None:
    assert [str(path) for path, _ in cgroups.hierarchies(V1)] == [
        "/sys/fs/cgroup/memory",
        "/sys/fs/cgroup/cpu,cpuacct",
        "/sys/fs/cgroup/unified",
    ]
    assert not cgroups.is_v2(cgroups.hierarchies(V1))
    assert cgroups.is_v2(cgroups.hierarchies(V2))


def test_children_on_v2_get_the_controllers_that_are_missing_and_exist(tmp_path: Path) -> None:
    (tmp_path / "cgroup.controllers").write_text("cpuset cpu io memory pids rdma misc\n")
    (tmp_path / "cgroup.subtree_control").write_text("memory pids\n")
    cgroups._delegate(tmp_path)
    assert (tmp_path / "cgroup.subtree_control").read_text() == "+cpu +cpuset +io"


# kubeadm


def by_kind(text: str) -> dict[str, dict[str, Any]]:
    return {document["kind"]: document for document in yaml.safe_load_all(text)}


def test_kubeadm_is_told_where_the_control_plane_and_its_pods_live() -> None:
    told = by_kind(kubeadm.init_config(Node(cluster=ClusterState(name="two", number=1, nodes=1), number=1)))
    assert told["InitConfiguration"]["localAPIEndpoint"]["advertiseAddress"] == "198.18.241.11"
    assert told["InitConfiguration"]["nodeRegistration"]["name"] == "two-1"
    assert told["ClusterConfiguration"]["networking"]["podSubnet"] == "198.19.16.0/20"
    assert told["KubeProxyConfiguration"]["mode"] == "nftables"
    assert "addon/coredns" in told["InitConfiguration"]["skipPhases"]


def test_kubeadm_waits_longer_than_a_minute_for_the_api_server_and_ends_before_it_is_killed() -> None:
    told = by_kind(kubeadm.init_config(nodes_of(DEV)[0]))
    assert 120 < int(told["InitConfiguration"]["timeouts"]["kubernetesAPICall"].removesuffix("s")) < kubeadm.TIMEOUT


def test_each_node_has_a_cgroup_root_of_its_own(cache: Path) -> None:
    for node in nodes_of(DEV):
        kubeadm._prepare(node, "")
        patch = json.loads((node.kubernetes / "patches" / "kubeletconfiguration.json").read_text())
        assert patch == {"cgroupRoot": f"/external-etcd/{node.name}"}


def test_every_image_in_the_addons_is_named_and_never_pulled() -> None:
    assert "@" not in addons(DEV).replace("'@", "")
    for document in yaml.safe_load_all(addons(DEV)):
        if document["kind"] == "Deployment":
            for container in document["spec"]["template"]["spec"]["containers"]:
                assert container["imagePullPolicy"] == "Never"


def test_cluster_dns_forwards_nowhere() -> None:
    corefile = next(d for d in yaml.safe_load_all(addons(DEV)) if d.get("data", {}).get("Corefile"))
    assert "forward" not in corefile["data"]["Corefile"]


# The node's first process


def test_the_kubelet_is_started_with_the_flags_that_kubeadm_wrote(tmp_path: Path) -> None:
    flags = 'KUBELET_KUBEADM_ARGS="--node-ip=198.18.240.11 --pod-infra-container-image=pause:3"\n'
    (tmp_path / "kubeadm-flags.env").write_text(flags)
    (tmp_path / "bootstrap-kubelet.conf").touch()
    assert node_init.kubelet_arguments(tmp_path, tmp_path)[2:] == [
        f"--bootstrap-kubeconfig={tmp_path}/bootstrap-kubelet.conf",
        "--node-ip=198.18.240.11",
        "--pod-infra-container-image=pause:3",
    ]


def test_without_flags_or_bootstrap_the_kubelet_gets_its_two_files_only(tmp_path: Path) -> None:
    assert len(node_init.kubelet_arguments(tmp_path, tmp_path)) == 2


# Judging health

NOON = datetime.datetime(2026, 1, 1, 12, 0, 0, 700000, tzinfo=datetime.UTC)


def kube_node(name: str = "dev-1", *, ready: str = "True", beat: str = "2026-01-01T12:00:00Z") -> dict[str, Any]:
    condition = {"type": "Ready", "status": ready, "lastHeartbeatTime": beat}
    return {"kind": "Node", "metadata": {"name": name}, "status": {"conditions": [condition]}}


def deployment(name: str, *, available: str = "True") -> dict[str, Any]:
    status = {"conditions": [{"type": "Available", "status": available}]}
    return {"kind": "Deployment", "metadata": {"name": name}, "status": status}


def storage(default: str = "true") -> dict[str, Any]:
    annotations = {"storageclass.kubernetes.io/is-default-class": default}
    return {"kind": "StorageClass", "metadata": {"name": "local-path", "annotations": annotations}}


def healthy() -> list[dict[str, Any]]:
    return [kube_node(), deployment("coredns"), deployment("local-path-provisioner"), storage()]


def test_a_healthy_cluster_has_no_ailments() -> None:
    assert health.ailments(healthy(), {"dev-1"}) == []


@pytest.mark.parametrize(
    ("place", "instead", "told"),
    [
        (0, kube_node(ready="Unknown"), "node dev-1 is not Ready"),
        (1, deployment("coredns", available="False"), "coredns is not available"),
        (2, deployment("another"), "local-path-provisioner is not available"),
        (3, storage("false"), "StorageClass local-path is not the default"),
    ],
)
def test_each_ailment_is_told(place: int, instead: dict[str, Any], told: str) -> None:
    items = healthy()
    items[place] = instead
    assert health.ailments(items, {"dev-1"}) == [told]


def test_what_a_node_said_before_it_was_started_does_not_count() -> None:
    assert health.all_ready({"dev-1": kube_node()}, {"dev-1"}, NOON)
    assert not health.all_ready({"dev-1": kube_node(beat="2026-01-01T11:59:59Z")}, {"dev-1"}, NOON)
    assert not health.all_ready({"dev-1": kube_node(ready="False")}, {"dev-1"}, NOON)
    assert not health.all_ready({"dev-1": kube_node()}, {"dev-1", "dev-2"}, NOON)


def addon_pod(name: str, *, started: str, ready: str = "True") -> dict[str, Any]:
    status = {
        "conditions": [{"type": "Ready", "status": ready}],
        "containerStatuses": [{"state": {"running": {"startedAt": started}}}],
    }
    return {"metadata": {"name": name}, "spec": {"nodeName": "dev-1"}, "status": status}


def test_an_addon_that_ran_before_its_node_was_started_does_not_count() -> None:
    def seen(started: str, ready: str = "True") -> dict[str, dict[str, Any]]:
        return {f"{name}-1": addon_pod(f"{name}-1", started=started, ready=ready) for name in health.ADDONS}

    assert health.addons_run(seen("2026-01-01T12:00:05Z"), {"dev-1"}, NOON)
    assert not health.addons_run(seen("2026-01-01T11:00:00Z"), {"dev-1"}, NOON)
    assert health.addons_run(seen("2026-01-01T11:00:00Z"), {"dev-2"}, NOON)
    assert not health.addons_run(seen("2026-01-01T12:00:05Z", ready="False"), {"dev-1"}, NOON)
    assert not health.addons_run({}, set(), NOON)


# Whom to blame


def log(node: Node, name: str, text: str) -> Path:
    path = node.folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def test_a_program_that_ended_is_blamed_before_what_stands_on_it() -> None:
    node = Node(cluster=DEV, number=1)
    log(node, "var/log/pods/kube-system_etcd-dev-1_uid/etcd/1.log", "")
    log(node, "log/init.log", "12:00:00 containerd ended with exit code 1\n12:00:00 kubelet ended with exit code 1\n")
    assert diagnose.culprit(node) == node.logs / "containerd.log"


def test_a_container_that_was_restarted_is_blamed() -> None:
    node = Node(cluster=DEV, number=1)
    log(node, "log/init.log", "12:00:00 kubelet ended with exit code 0\n")
    log(node, "var/log/pods/kube-system_kube-scheduler-dev-1_uid/kube-scheduler/0.log", "")
    last = log(node, "var/log/pods/kube-system_kube-apiserver-dev-1_uid/kube-apiserver/2.log", "")
    assert diagnose.culprit(node) == last


def test_nobody_is_blamed_without_a_reason() -> None:
    assert diagnose.culprit(Node(cluster=DEV, number=1)) is None


def test_logs_are_found_by_program_container_and_pod() -> None:
    node = Node(cluster=DEV, number=1)
    etcd = log(node, "var/log/pods/kube-system_etcd-dev-1_uid/etcd/0.log", "")
    assert diagnose.log_of(node, "kubelet") == node.logs / "kubelet.log"
    assert diagnose.log_of(node, "etcd") == etcd
    assert diagnose.log_of(node, "etcd-dev") == etcd
    with pytest.raises(ClusterError, match=r"no log of nonsense on dev-1; there are init, .*, etcd"):
        diagnose.log_of(node, "nonsense")


def test_an_error_shows_the_last_lines_of_the_log_to_read(tmp_path: Path) -> None:
    path = tmp_path / "kubelet.log"
    path.write_text("".join(f"line {n}\n" for n in range(100)))
    told = ClusterError("it failed", log=path).told(lines=2)
    assert told == f"it failed\nThe log to read: {path}\n    line 98\n    line 99"


# Small parsers


def test_a_dns_answer_is_told_from_an_empty_one_and_a_refusal() -> None:
    question = dns_probe.query("kubernetes.default")
    record = b"\xc0\x0c\0\x01\0\x01\0\0\0\x05\0\x04\x0a\x60\0\x01"
    answer = question[:2] + b"\x84\x00\0\x01\0\x01" + question[8:] + record
    assert dns_probe.address_in(answer, question) == "10.96.0.1"
    assert dns_probe.address_in(question[:2] + b"\x84\x03" + answer[4:], question) is None
    assert dns_probe.address_in(question[:2] + b"\x84\x00\0\x01\0\0" + question[8:] + record, question) is None
    assert dns_probe.address_in(b"", question) is None


def test_watched_objects_are_read_however_the_pipe_cuts_them() -> None:
    items = [{"n": 1, "text": "\u00e9"}, {"n": 2}, {"n": 3}]
    whole = "\n".join(json.dumps(item, ensure_ascii=False, indent=1) for item in items).encode()
    for at_once in (1, 7, 1000):
        reader, writer = os.pipe()
        os.write(writer, whole)
        os.close(writer)
        assert list(documents(reader, time.monotonic() + 5, at_once=at_once)) == items
        os.close(reader)


def test_a_watch_ends_at_its_deadline() -> None:
    reader, writer = os.pipe()
    assert list(documents(reader, time.monotonic() + 0.05)) == []
    os.close(reader)
    os.close(writer)


# What belongs to the whole machine


def test_limits_are_raised_once_and_put_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "PROC_SYS", tmp_path)
    value, record = tmp_path / "fs/inotify/max_user_instances", tmp_path / "record"
    value.parent.mkdir(parents=True)
    value.write_text("128\n")
    for _ in range(2):
        limits.raise_all(record)
        assert int(value.read_text()) == 4096
    limits.restore_all(record)
    assert int(value.read_text()) == 128
    assert not record.exists()


def test_limits_that_are_high_or_were_changed_meanwhile_are_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "PROC_SYS", tmp_path)
    value, record = tmp_path / "fs/inotify/max_user_instances", tmp_path / "record"
    value.parent.mkdir(parents=True)
    value.write_text("8192\n")
    limits.raise_all(record)
    assert int(value.read_text()) == 8192
    value.write_text("128\n")
    limits.raise_all(record)
    value.write_text("5000\n")
    limits.restore_all(record)
    assert int(value.read_text()) == 5000


def test_archives_are_remembered_once_and_as_long_as_they_exist(tmp_path: Path) -> None:
    dev = state.allocate("dev", 1)
    archives = [tmp_path / "a.tar", tmp_path / "b.tar"]
    for archive in [*archives, archives[0]]:
        archive.touch()
        imagestore.remember(archive, dev)
    assert imagestore.remembered(dev) == archives
    archives[0].unlink()
    assert imagestore.remembered(dev) == archives[1:]
