"""The documents speak of what exists: files, settings, metrics, names."""

import re
from pathlib import Path

import pytest
import yaml

from devtools import environment
from devtools.project import ROOT
from etcd_operator.runtime.metrics import Metrics
from etcd_operator.runtime.settings import Settings

DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *(ROOT / "docs").glob("*.md")]
OPERATIONS = (ROOT / "docs" / "operations.md").read_text()


def names_in(text: str, pattern: str) -> set[str]:
    return set(re.findall(pattern, text))


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_link_and_every_path_leads_somewhere(document: Path) -> None:
    text = document.read_text()
    links = {link for link in names_in(text, r"\]\(([^)#]+)\)") if "://" not in link}
    missing = {link for link in links if not (document.parent / link).exists()}
    paths = names_in(text, r"\b((?:deploy|docs|crds|hack|tests|operator)/[\w./-]*\w)")
    missing |= {path for path in paths if not (ROOT / path).exists()}
    assert not missing


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_no_blank_was_left_to_be_filled_in(document: Path) -> None:
    assert "@@" not in document.read_text()


def test_operations_names_every_setting_and_no_other() -> None:
    section = OPERATIONS.split("## Settings")[1].split("## ")[0]
    assert names_in(section, r"`([A-Z]+(?:_[A-Z]+)*)`") == {name.upper() for name in Settings.__dataclass_fields__}


def test_operations_names_only_metrics_that_exist() -> None:
    metrics = Metrics()
    metrics.watch_queue(["EtcdCluster"], dict)
    told = names_in(metrics.text().decode(), r"# TYPE (external_etcd_operator_\w+)")
    # The per-series creation times that the client library adds are nobody's business.
    assert names_in(OPERATIONS, r"`(external_etcd_operator_\w+)`") == {name for name in told if "_created" not in name}


def test_the_etcdctl_pod_is_made_for_a_cluster_by_its_name() -> None:
    pod = yaml.safe_load(environment.etcdctl_pod("orders"))
    assert pod["metadata"]["name"] == "orders-etcdctl"
    (container,) = pod["spec"]["containers"]
    assert pod["spec"]["volumes"][0]["secret"]["secretName"] == "orders-client"
    assert {"name": "orders-client", "key": "endpoints"} in [
        variable.get("valueFrom", {}).get("secretKeyRef") for variable in container["env"]
    ]
