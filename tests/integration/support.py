"""What tests on a real API server need again and again."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any
from uuid import uuid4

import yaml

from etcd_operator.kube import Connection, Kube, Resource

CRD_FOLDER = Path(__file__).parents[2] / "crds"
RBAC = "rbac.authorization.k8s.io"

#: Makes the kubeconfig of a user who may do what RBAC rules say, cluster-wide or in the given namespaces only.
MakeUser = Callable[..., Awaitable[Path]]


async def open_kube(kubeconfig: Path, **options: Any) -> Kube:
    return Kube(await Connection.open({"KUBECONFIG": str(kubeconfig)}), **options)


async def grant(kube: Kube, user: str, rules: Sequence[dict[str, Any]], namespace: str | None) -> None:
    """Give a user the rights that RBAC rules say, in one namespace or (`None`) everywhere."""
    scope = "" if namespace else "Cluster"
    metadata = {"name": f"{user}-{uuid4().hex[:4]}", **({"namespace": namespace} if namespace else {})}
    role = {"apiVersion": f"{RBAC}/v1", "kind": f"{scope}Role", "metadata": metadata, "rules": list(rules)}
    binding = {
        "apiVersion": f"{RBAC}/v1",
        "kind": f"{scope}RoleBinding",
        "metadata": metadata,
        "roleRef": {"apiGroup": RBAC, "kind": f"{scope}Role", "name": metadata["name"]},
        "subjects": [{"apiGroup": RBAC, "kind": "User", "name": user}],
    }
    for manifest in (role, binding):
        await create_any(kube, manifest)


async def create_any(kube: Kube, manifest: dict[str, Any]) -> None:
    """Create an object of a kind that the operator itself never handles."""
    group, _, version = str(manifest["apiVersion"]).rpartition("/")
    kind = str(manifest["kind"])
    namespace = manifest["metadata"].get("namespace")
    resource = Resource(
        group=group, version=version, plural=f"{kind.lower()}s", kind=kind, namespaced=namespace is not None
    )
    await kube._send("create", "POST", resource.path(namespace), body=manifest)


async def until(condition: Callable[[], Awaitable[bool]], *, seconds: float = 30.0, every: float = 0.05) -> None:
    """Wait until something is so; `TimeoutError` after some seconds. For what tells nobody when it changes."""
    async with asyncio.timeout(seconds):
        while not await condition():  # noqa: ASYNC110
            await asyncio.sleep(every)


async def apply_crds(kubeconfig: Path) -> None:
    """Apply the checkout's CRDs and wait until their kinds are served."""
    client = await open_kube(kubeconfig)
    kinds = set()
    for file in sorted(CRD_FOLDER.glob("*.yaml")):
        manifest = yaml.safe_load(file.read_text())
        await client.apply(manifest)
        kinds.add(manifest["spec"]["names"]["kind"])

    async def served() -> bool:
        return kinds <= await client.served_kinds("externaletcd.io", "v1alpha1")

    await until(served)
    await client.close()
