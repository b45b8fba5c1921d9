"""The objects of a cluster: what in them decides over data, safety and access."""

from dataclasses import replace
from typing import Any

import pytest
import yaml

from etcd_operator.resources.blueprint import Blueprint, Seat
from etcd_operator.resources.config_map import config_map
from etcd_operator.resources.names import Manifest, selector_labels
from etcd_operator.resources.pod_disruption_budget import pod_disruption_budget
from etcd_operator.resources.secrets import (
    client_endpoints,
    client_leaf,
    content,
    peer_leaf,
    secret,
    server_leaf,
    wanted_authorities,
)
from etcd_operator.resources.services import client_service, peer_service
from etcd_operator.resources.stateful_set import stateful_set
from support.builders import NAMES, TLS_OFF, UID, blueprint


def file_of(plan: Blueprint, member: str) -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load(config_map(plan)["data"][f"{member}.yaml"])
    return loaded


def etcd_of(manifest: Manifest) -> Manifest:
    container: Manifest = manifest["spec"]["template"]["spec"]["containers"][0]
    return container


# --- configuration files ----------------------------------------------------------------------------------------------


def test_while_it_bootstraps_every_file_lists_all_members_as_new() -> None:
    file = file_of(blueprint(cluster_id=None), "a-1")
    assert file["initial-cluster-state"] == "new"
    assert file["initial-cluster"].count("=") == 3
    assert "a-2=https://a-2.a-peers.ns.svc.cluster.local:2380" in file["initial-cluster"]


def test_once_recorded_every_file_is_the_fuse() -> None:
    for member in ("a-0", "a-1", "a-2"):
        file = file_of(blueprint(), member)
        assert file["initial-cluster-state"] == "existing"
        assert file["initial-cluster"] == f"{member}=https://{member}.a-peers.ns.svc.cluster.local:2380"


def test_data_lives_in_a_directory_of_its_incarnation_and_so_does_the_token() -> None:
    file = file_of(blueprint(incarnation="second"), "a-0")
    assert file["data-dir"] == "/var/lib/etcd/second"
    assert file["initial-cluster-token"] == "a-second"


def test_a_member_may_have_an_incarnation_of_its_own() -> None:
    plan = replace(blueprint(), seats={"a-1": Seat(incarnation="later")})
    assert file_of(plan, "a-1")["data-dir"] == "/var/lib/etcd/later"
    assert file_of(plan, "a-0")["data-dir"] == "/var/lib/etcd/first"


def test_the_cluster_id_is_the_one_that_etcd_gives_itself() -> None:
    """As etcd 3.7.3 reported for a cluster of three that it had founded with such a token and such addresses."""
    assert blueprint(members=3, cluster_id=None, incarnation="first").founding_id == "33667767a9ed8d69"


def test_another_incarnation_has_another_cluster_id() -> None:
    assert blueprint(incarnation="first").founding_id != blueprint(incarnation="second").founding_id


def test_the_users_options_reach_the_file_in_etcds_units() -> None:
    options = {
        "quotaBackendBytes": "1Gi",
        "heartbeatInterval": "200ms",
        "electionTimeout": "2s",
        "snapshotCount": 5,
        "autoCompaction": {"mode": "Periodic", "retention": "1h"},
        "extra": {"log-level": "debug"},
    }
    file = file_of(blueprint(options=options), "a-0")
    assert file["quota-backend-bytes"] == 2**30
    assert (file["heartbeat-interval"], file["election-timeout"], file["snapshot-count"]) == (200, 2000, 5)
    assert (file["auto-compaction-mode"], file["auto-compaction-retention"]) == ("periodic", "1h")
    assert file["log-level"] == "debug"


def test_without_auto_compaction_nothing_is_said_of_it() -> None:
    assert "auto-compaction-mode" not in file_of(blueprint(), "a-0")


def test_files_and_stateful_set_both_record_the_foundation() -> None:
    plan = blueprint()
    for manifest in (config_map(plan), stateful_set(plan)):
        recorded = manifest["metadata"]["annotations"]
        assert recorded["externaletcd.io/incarnation"] == "first"
        assert recorded["externaletcd.io/cluster-id"] == plan.cluster_id
        assert recorded["externaletcd.io/applied-spec"] == plan.applied_spec


def test_nothing_claims_a_proof_before_there_is_one() -> None:
    assert "externaletcd.io/cluster-id" not in config_map(blueprint(cluster_id=None))["metadata"]["annotations"]


# --- Services ---------------------------------------------------------------------------------------------------------


def test_members_find_each_other_before_they_are_ready() -> None:
    spec = peer_service(blueprint())["spec"]
    assert spec["clusterIP"] == "None"
    assert spec["publishNotReadyAddresses"] is True


def test_clients_have_no_service_before_the_record() -> None:
    assert client_service(blueprint(cluster_id=None)) is None


def test_clients_reach_members_that_serve_this_clusters_data() -> None:
    service = client_service(blueprint())
    assert service is not None
    assert service["metadata"]["name"] == "a"
    assert service["spec"]["selector"] == {**selector_labels("a"), "externaletcd.io/serving": "true"}
    assert "publishNotReadyAddresses" not in service["spec"]
    assert [port["port"] for port in service["spec"]["ports"]] == [2379, 2382]


# --- StatefulSet ------------------------------------------------------------------------------------------------------


def test_the_operator_orders_restarts_and_volumes_outlive_the_stateful_set() -> None:
    spec = stateful_set(blueprint(members=5))["spec"]
    assert spec["replicas"] == 5
    assert spec["podManagementPolicy"] == "Parallel"
    assert spec["updateStrategy"] == {"type": "OnDelete"}
    assert spec["persistentVolumeClaimRetentionPolicy"] == {"whenScaled": "Retain", "whenDeleted": "Retain"}
    assert spec["selector"]["matchLabels"] == selector_labels("a")


def test_pods_carry_what_the_selectors_ask_for() -> None:
    labels = stateful_set(blueprint())["spec"]["template"]["metadata"]["labels"]
    assert selector_labels("a").items() <= labels.items()
    assert labels["externaletcd.io/serving"] == "true"


def test_nothing_that_changes_at_the_record_stands_in_the_pod_template() -> None:
    """Else every new cluster would have a template that its own pods do not match."""
    before, after = (stateful_set(blueprint(cluster_id=given)) for given in (None, ""))
    assert before["spec"] == after["spec"]


def test_probes_do_not_kill_members_while_quorum_is_lost() -> None:
    etcd = etcd_of(stateful_set(blueprint()))
    assert etcd["startupProbe"]["httpGet"]["path"] == "/livez"
    assert etcd["livenessProbe"]["httpGet"]["path"] == "/livez"
    assert etcd["readinessProbe"]["httpGet"]["path"] == "/readyz"
    startup = etcd["startupProbe"]
    assert startup["periodSeconds"] * startup["failureThreshold"] == 600
    assert etcd["readinessProbe"]["failureThreshold"] == 3


def test_pods_meet_the_restricted_pod_security_standard() -> None:
    template = stateful_set(blueprint())["spec"]["template"]["spec"]
    assert template["securityContext"]["runAsNonRoot"] is True
    assert template["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    context = etcd_of(stateful_set(blueprint()))["securityContext"]
    assert context["allowPrivilegeEscalation"] is False
    assert context["capabilities"] == {"drop": ["ALL"]}
    assert context["readOnlyRootFilesystem"] is True
    assert template["automountServiceAccountToken"] is False


def test_etcds_last_words_are_kept() -> None:
    assert etcd_of(stateful_set(blueprint()))["terminationMessagePolicy"] == "FallbackToLogsOnError"


def test_the_image_is_the_repository_and_the_version() -> None:
    made = stateful_set(
        blueprint(version="3.6.16", image={"repository": "mirror/etcd", "pullSecrets": [{"name": "s"}]})
    )
    assert etcd_of(made)["image"] == "mirror/etcd:v3.6.16"
    assert made["spec"]["template"]["spec"]["imagePullSecrets"] == [{"name": "s"}]


def test_members_prefer_nodes_and_zones_of_their_own_softly() -> None:
    affinity = stateful_set(blueprint())["spec"]["template"]["spec"]["affinity"]["podAntiAffinity"]
    assert list(affinity) == ["preferredDuringSchedulingIgnoredDuringExecution"]
    keys = [term["podAffinityTerm"]["topologyKey"] for term in affinity.popitem()[1]]
    assert keys == ["kubernetes.io/hostname", "topology.kubernetes.io/zone"]


def test_volumes_are_as_the_spec_asks() -> None:
    template = stateful_set(blueprint(storage={"size": "9Gi", "storageClassName": "fast"}))["spec"][
        "volumeClaimTemplates"
    ]
    assert template[0]["metadata"]["name"] == "data"
    assert template[0]["spec"]["resources"] == {"requests": {"storage": "9Gi"}}
    assert template[0]["spec"]["storageClassName"] == "fast"


def test_without_a_storage_class_the_default_one_is_left_to_kubernetes() -> None:
    assert "storageClassName" not in stateful_set(blueprint())["spec"]["volumeClaimTemplates"][0]["spec"]


# --- TLS --------------------------------------------------------------------------------------------------------------

OFF, MANAGED = {"mode": "Off"}, {"mode": "Managed"}


@pytest.mark.parametrize(
    ("tls", "mounted", "authorities"),
    [
        ({"peer": MANAGED, "client": MANAGED}, {"server", "peer"}, ("peer", "client")),
        ({"peer": OFF, "client": MANAGED}, {"server"}, ("client",)),
        ({"peer": MANAGED, "client": OFF}, {"peer"}, ("peer",)),
        ({"peer": OFF, "client": OFF}, set(), ()),
    ],
)
def test_only_certificates_that_are_used_are_made_and_mounted(
    tls: dict[str, Any], mounted: set[str], authorities: tuple[str, ...]
) -> None:
    plan = blueprint(tls=tls)
    template = stateful_set(plan)["spec"]["template"]["spec"]
    assert {volume["name"] for volume in template["volumes"]} == {"config", *mounted}
    assert {mount["name"] for mount in etcd_of(stateful_set(plan))["volumeMounts"]} == {"data", "config", *mounted}
    assert wanted_authorities(plan) == authorities


def test_addresses_say_whether_there_is_tls() -> None:
    assert client_endpoints(blueprint()) == "https://a.ns.svc:2379"
    plan = blueprint(tls=TLS_OFF)
    assert client_endpoints(plan) == "http://a.ns.svc:2379"
    assert plan.peer_url("a-0").startswith("http://a-0.")


def test_from_3_6_on_a_wildcard_names_all_peers() -> None:
    assert peer_leaf(blueprint(version="3.6.16")).dns_names == ("*.a-peers.ns.svc.cluster.local",)


def test_3_5_checks_peers_by_name_so_each_is_named() -> None:
    names = peer_leaf(blueprint(version="3.5.35")).dns_names
    assert names == tuple(f"a-{i}.a-peers.ns.svc.cluster.local" for i in range(3))


def test_the_server_certificate_carries_every_name_that_clients_use() -> None:
    request = server_leaf(blueprint(tls={"client": {"extraSANs": ["etcd.example.com", "10.1.2.3", "fd00::1"]}}))
    assert {"a", "a.ns", "a.ns.svc", "a.ns.svc.cluster.local", "localhost", "etcd.example.com"} <= set(
        request.dns_names
    )
    assert "*.a-peers.ns.svc.cluster.local" in request.dns_names
    assert {"127.0.0.1", "::1", "10.1.2.3", "fd00::1"} == set(request.ip_addresses)


def test_applications_get_a_certificate_that_serves_nothing() -> None:
    request = client_leaf(blueprint())
    assert request.secret == "a-client"
    assert not request.server


def test_a_secret_gives_back_what_was_put_in_and_drops_what_is_garbled() -> None:
    made = secret(blueprint(), "s", {"tls.crt": b"\x00\xff"}, issued_at="now")
    made["data"]["tls.key"] = "not base64!"
    assert content(made) == {"tls.crt": b"\x00\xff"}
    assert content(None) == {}


# --- the rest ---------------------------------------------------------------------------------------------------------


def test_a_drain_takes_one_member_at_a_time() -> None:
    budget = pod_disruption_budget(blueprint())
    assert budget is not None
    assert budget["spec"] == {"maxUnavailable": 1, "selector": {"matchLabels": selector_labels("a")}}


def test_a_single_member_has_no_budget_as_it_has_no_spare() -> None:
    assert pod_disruption_budget(blueprint(members=1)) is None


def test_everything_belongs_to_the_etcd_cluster() -> None:
    plan = blueprint()
    made = [config_map(plan), peer_service(plan), client_service(plan), stateful_set(plan), pod_disruption_budget(plan)]
    for manifest in [*made, secret(plan, "s", {}, issued_at="")]:
        assert manifest is not None
        assert [owner["uid"] for owner in manifest["metadata"]["ownerReferences"]] == [UID]
        assert manifest["metadata"]["labels"]["externaletcd.io/cluster"] == NAMES.name
        assert manifest["metadata"]["namespace"] == NAMES.namespace


def test_volume_claims_do_not_belong_to_it() -> None:
    """A stray delete must not cost a volume; deletionPolicy Delete adds the owner later."""
    assert "ownerReferences" not in stateful_set(blueprint())["spec"]["volumeClaimTemplates"][0]["metadata"]
