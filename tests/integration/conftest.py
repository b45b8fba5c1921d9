"""What integration tests share: a real API server, its administrator, users with fewer rights, namespaces."""

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from etcd_operator.kube import Kube
from etcd_operator.kube.resources import ETCDCLUSTERS
from integration.api_server import ApiServer
from integration.support import MakeUser, apply_crds, grant, open_kube


@pytest.fixture(scope="session")
def api_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiServer]:
    """An API server; the same for all tests of the session."""
    server = ApiServer(tmp_path_factory.mktemp("api-server"))
    try:
        server.start()
        yield server
    finally:
        server.close()


@pytest.fixture(scope="session")
def crds(api_server: ApiServer) -> None:
    """The checkout's CRDs are in force."""
    asyncio.run(apply_crds(api_server.admin_kubeconfig))


@pytest.fixture(scope="session")
def admin_kubeconfig(api_server: ApiServer) -> Path:
    """A kubeconfig with all rights."""
    return api_server.admin_kubeconfig


@pytest.fixture
async def kube(admin_kubeconfig: Path, crds: None) -> AsyncIterator[Kube]:
    """The operator's own client, with all rights, and the operator's own kinds served."""
    client = await open_kube(admin_kubeconfig)
    yield client
    await client.close()


@pytest.fixture
async def namespace(kube: Kube) -> AsyncIterator[str]:
    """A namespace for one test; its EtcdClusters go at the end, or the next test's operator would see them.

    The namespace itself stays: without controllers nothing would ever finish its deletion.
    """
    name = f"test-{uuid4().hex[:8]}"
    await kube.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
    yield name
    for cluster in await kube.list(ETCDCLUSTERS, None):
        metadata = cluster["metadata"]
        if metadata["namespace"].startswith(name):
            await kube.delete(ETCDCLUSTERS, metadata["namespace"], metadata["name"])


@pytest.fixture
async def make_user(api_server: ApiServer, kube: Kube) -> MakeUser:
    """`await make_user(rules)` or `await make_user(rules, namespaces=["a"])`: a kubeconfig of a fresh user."""

    async def make(rules: Sequence[dict[str, Any]], *, namespaces: Sequence[str] | None = None, name: str = "") -> Path:
        user = name or f"user-{uuid4().hex[:8]}"
        for namespace in [None] if namespaces is None else namespaces:
            await grant(kube, user, rules, namespace)
        return api_server.kubeconfig(user)

    return make
