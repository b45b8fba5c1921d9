"""One local cluster and one operator, installed with exactly what deploy/ gives it, for all e2e tests.

`E2E_CLUSTER` names another local cluster than `test` (a developer's own, say); it is brought up where it is not. Tests
that run side by side have a cluster for each worker.
Nothing is taken down here: `hack/test e2e` does that, and a developer who runs one test again is glad of it.
"""

import os
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest

from devtools import environment, kube, layers
from devtools.patience import Patience
from e2e.evidence import OperatorLogs
from e2e.support import Etcd, fresh_namespace
from e2e.thorough import THOROUGH
from e2e.volumes import Volumes
from localcluster import artifacts
from localcluster.cluster import Cluster as LocalCluster
from localcluster.progress import Progress


def pytest_configure(config: pytest.Config) -> None:
    """Declare the markers, as unknown ones are refused."""
    config.addinivalue_line("markers", "e2e: needs a local cluster (minutes)")
    config.addinivalue_line("markers", "thorough: shows at one more moment, version or fault what another test shows")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Every test here is an e2e test: said once, so that `-m` can select by it, and some of them are thorough."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.e2e)
            if item.name in THOROUGH:
                item.add_marker(pytest.mark.thorough)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Add what the cluster had and what the operators said to the report of a test that failed."""
    report = yield
    known = getattr(item, "funcargs", {})
    namespaces = {value.namespace for value in known.values() if isinstance(value, Etcd)}
    namespaces |= {known["namespace"]} if "namespace" in known else set()
    if report.failed and "operator_logs" in known:
        for namespace in sorted(namespaces):
            report.sections.append((f"What happened in {namespace}", known["operator_logs"].report(namespace)))
    return report


@pytest.fixture(scope="session")
def local() -> LocalCluster:
    """The local cluster: nodes that can be stopped and partitioned."""
    name = layers.e2e_cluster(os.environ.get("PYTEST_XDIST_WORKER"))
    return environment.local_cluster(name, environment.NODES, Progress())


@pytest.fixture(scope="session")
def bare_cluster(local: LocalCluster) -> kube.Cluster:
    """The local cluster as Kubernetes, perhaps without an operator."""
    return kube.Cluster(local.kubeconfig, patience=Patience())


@pytest.fixture(scope="session")
def volumes(bare_cluster: kube.Cluster, local: LocalCluster) -> Iterator[None]:
    """Volumes that cost no pods, for all claims that name no class."""
    made = Volumes(bare_cluster, local)
    yield
    made.close()


@pytest.fixture(scope="session")
def operator_image(local: LocalCluster) -> str:
    """The operator's image, built from the checkout and loaded on every node, and beside it the proxy's."""
    return environment.load_images(local, Progress())


@pytest.fixture(scope="session")
def installed(bare_cluster: kube.Cluster, operator_image: str, volumes: None) -> kube.Cluster:
    """The cluster with deploy/install.yaml applied."""
    environment.install(bare_cluster, operator_image)
    return bare_cluster


@pytest.fixture
def cluster(installed: kube.Cluster) -> kube.Cluster:
    """The cluster with the operator ready, also after a test that hurt it."""
    environment.wait_for_operator(installed)
    return installed


@pytest.fixture(scope="session", autouse=True)
def operator_logs(bare_cluster: kube.Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[OperatorLogs]:
    """What operators say, for the reports of tests that fail."""
    logs = OperatorLogs(bare_cluster, tmp_path_factory.mktemp("operator-logs"))
    yield logs
    logs.close()


@pytest.fixture
def namespace(bare_cluster: kube.Cluster, operator_logs: OperatorLogs) -> Iterator[str]:
    """A namespace of the test's own."""
    with fresh_namespace(bare_cluster) as name:
        yield name


@pytest.fixture
def etcd(cluster: kube.Cluster, namespace: str) -> Etcd:
    """An EtcdCluster named `a`, not yet applied."""
    return Etcd(cluster=cluster, namespace=namespace, name="a")


@pytest.fixture(scope="session")
def old_etcd_images(local: LocalCluster) -> None:
    """The images of the older etcd versions on every node; they are built when a test asks for them."""
    for version in ("3.6.16", "3.5.35"):
        local.load(artifacts.ensure_etcd_image(version, Progress()))
