"""The install manifests: in step with their sources, least in rights, and fit for restricted Pod Security."""

from typing import Any

import pytest
import yaml

from devtools import manifests
from devtools.project import DEPLOY, OPERATOR
from etcd_operator.runtime.settings import Settings

Rights = set[tuple[str, str, str]]


def objects(install: str) -> list[dict[str, Any]]:
    return list(manifests.documents((DEPLOY / install).read_text()))


def one(install: str, kind: str, name: str = OPERATOR) -> dict[str, Any]:
    found = [item for item in objects(install) if item["kind"] == kind and item["metadata"]["name"] == name]
    assert len(found) == 1, f"{kind}/{name} in {install}: {len(found)}"
    return found[0]


def rights(role: dict[str, Any]) -> Rights:
    return {
        (group, resource, verb)
        for rule in role["rules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }


def test_generated_files_match_their_sources() -> None:
    assert not manifests.outdated(), "run hack/generate-install"


def test_both_installs_grant_the_same_but_for_what_is_in_no_namespace() -> None:
    beyond = rights(one("install.yaml", "ClusterRole")) - rights(one("install-namespaced.yaml", "Role"))
    assert rights(one("install-namespaced.yaml", "Role")) < rights(one("install.yaml", "ClusterRole"))
    assert beyond == {
        ("", "nodes", "get"),
        ("", "nodes", "list"),
        ("", "persistentvolumes", "get"),
        ("", "persistentvolumes", "patch"),
        ("discovery.k8s.io", "endpointslices", "list"),
    }


def test_a_namespaced_install_brings_nothing_that_needs_rights_in_the_cluster() -> None:
    kinds = {item["kind"] for item in objects("install-namespaced.yaml")}
    assert kinds == {"Deployment", "PodDisruptionBudget", "Role", "RoleBinding", "ServiceAccount"}


@pytest.mark.parametrize("install", manifests.INSTALLS)
def test_no_right_is_a_wildcard_and_none_reaches_into_pods_or_roles(install: str) -> None:
    roles = [item for item in objects(install) if item["kind"] in ("Role", "ClusterRole")]
    granted = set().union(*map(rights, roles))
    assert not {right for right in granted if "*" in right}
    forbidden = {"pods/exec", "pods/attach", "pods/portforward", "roles", "clusterroles", "rolebindings"}
    assert not {resource for _, resource, _ in granted} & forbidden
    assert {right for right in granted if right[1] == "namespaces"} == {("", "namespaces", "get")}


@pytest.mark.parametrize("install", manifests.INSTALLS)
def test_only_the_operators_own_lease_can_be_changed(install: str) -> None:
    role = one(install, "Role", f"{OPERATOR}-leader-election")
    named = [rule for rule in role["rules"] if rule["verbs"] != ["create"]]
    lease = Settings().lease_name
    assert [rule["resourceNames"] for rule in named] == [[lease]]


@pytest.mark.parametrize("install", manifests.INSTALLS)
def test_every_binding_is_to_a_role_of_the_file_and_to_the_operators_account(install: str) -> None:
    everything = objects(install)
    names = {(item["kind"], item["metadata"]["name"]) for item in everything}
    bindings = [item for item in everything if item["kind"].endswith("Binding")]
    assert len(bindings) == 2
    for binding in bindings:
        assert (binding["roleRef"]["kind"], binding["roleRef"]["name"]) in names
        assert binding["subjects"] == [{"kind": "ServiceAccount", "name": OPERATOR, "namespace": OPERATOR}]


@pytest.mark.parametrize("install", manifests.INSTALLS)
def test_the_operator_runs_twice_and_as_restricted_as_can_be(install: str) -> None:
    spec = one(install, "Deployment")["spec"]
    assert spec["replicas"] == 2
    pod, (container,) = spec["template"]["spec"], spec["template"]["spec"]["containers"]
    assert pod["securityContext"]["runAsNonRoot"]
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    probes = {container[probe]["httpGet"]["path"] for probe in ("livenessProbe", "readinessProbe", "startupProbe")}
    assert probes == {"/healthz", "/readyz"}
    assert container["ports"] == [{"containerPort": Settings().health_port, "name": "http"}]


def test_the_operators_namespace_enforces_restricted() -> None:
    labels = one("install.yaml", "Namespace")["metadata"]["labels"]
    assert labels["pod-security.kubernetes.io/enforce"] == "restricted"


def test_a_namespaced_install_watches_its_own_namespace_and_the_other_all() -> None:
    def watched(install: str) -> dict[str, Any]:
        (container,) = one(install, "Deployment")["spec"]["template"]["spec"]["containers"]
        (variable,) = [variable for variable in container["env"] if variable["name"] == "WATCH_NAMESPACES"]
        assert isinstance(variable, dict)
        return variable

    assert not watched("install.yaml").get("value")
    assert "valueFrom" not in watched("install.yaml")
    assert watched("install-namespaced.yaml")["valueFrom"] == {"fieldRef": {"fieldPath": "metadata.namespace"}}


@pytest.mark.parametrize("install", manifests.INSTALLS)
def test_every_setting_in_the_deployment_is_one_that_the_operator_reads(install: str) -> None:
    (container,) = one(install, "Deployment")["spec"]["template"]["spec"]["containers"]
    known = {name.upper() for name in Settings.__dataclass_fields__}
    assert {variable["name"] for variable in container["env"]} <= known


def test_the_image_of_the_deployment_alone_is_replaced() -> None:
    before, after = objects("install.yaml"), manifests.with_operator_image(objects("install.yaml"), "mine:1")
    changed = [new for old, new in zip(before, after, strict=True) if old != new]
    assert [item["kind"] for item in changed] == ["Deployment"]
    assert "image: mine:1" in yaml.safe_dump(changed[0])
