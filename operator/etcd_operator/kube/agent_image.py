"""Which image the programs beside etcd run from: the operator's own, which its own pod tells.

Reads only, and only when such a program is needed. Outside of a pod nothing is known, and none of them runs.
"""

import structlog

from etcd_operator.kube.client import Kube
from etcd_operator.kube.errors import KubeError
from etcd_operator.kube.resources import PODS

log = structlog.get_logger(__name__)

#: The operator's container in its own pod.
CONTAINER = "operator"


class AgentImage:
    """The image, looked up once for all clusters of one operator, in its pod; unless it is `given`."""

    def __init__(self, kube: Kube, *, given: str, namespace: str, pod: str) -> None:
        self._kube = kube
        self._own_pod = (namespace, pod)
        self._found: str | None = given or None

    async def name(self) -> str:
        """The image; empty where it is not known, as the operator may not read its pod, or runs in none."""
        if self._found is None:
            self._found = await self._of_own_pod()
        return self._found or ""

    async def _of_own_pod(self) -> str | None:
        namespace, name = self._own_pod
        try:
            pod = await self._kube.get(PODS, namespace, name)
        except KubeError as error:
            log.warning("agent.image_unknown", hint="set AGENT_IMAGE to the operator's image", error=str(error))
            return "" if not error.retryable else None
        containers = pod["spec"]["containers"] if pod else []
        found = next((str(each["image"]) for each in containers if each["name"] == CONTAINER), "")
        if not found:
            log.warning(
                "agent.image_unknown", hint="set AGENT_IMAGE to the operator's image", pod=f"{namespace}/{name}"
            )
        return found
