"""The pod that deletes data kept aside from a member's volume, while the member runs.

Pure. etcd's image has no shell, so it runs the operator's own. It mounts the member's volume on the member's node, as
the same user; no Service and no disruption budget selects it. What it does is told by `etcd_operator.agent.clean`.
"""

from collections.abc import Sequence

from etcd_operator.resources.blueprint import Blueprint, owned_metadata
from etcd_operator.resources.names import CLEANS, Manifest, helper_labels
from etcd_operator.resources.stateful_set import stateful_set

CONTAINER = "clean"
#: What of a member's pod decides whether a pod may run on its node and write to its volume.
_AS_THE_MEMBER = (
    "imagePullSecrets",
    "priorityClassName",
    "runtimeClassName",
    "securityContext",
    "serviceAccountName",
    "tolerations",
)


def cleaning_pod(blueprint: Blueprint, member: str, incarnations: Sequence[str], *, node: str, image: str) -> Manifest:
    """Delete the directories of these incarnations from the member's volume, on the node that it is mounted on."""
    names = blueprint.names
    of_member = stateful_set(blueprint)["spec"]["template"]["spec"]
    etcd = next(container for container in of_member["containers"] if container["name"] == "etcd")
    mount = next(mount for mount in etcd["volumeMounts"] if mount["name"] == "data")
    container = {
        "name": CONTAINER,
        "image": image,
        "imagePullPolicy": "IfNotPresent",
        "command": ["python3", "-m", "etcd_operator.agent.clean", mount["mountPath"], *incarnations],
        "resources": {"requests": {"cpu": "10m", "memory": "32Mi"}, "limits": {"cpu": "1", "memory": "128Mi"}},
        "securityContext": etcd["securityContext"],
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "volumeMounts": [mount],
    }
    metadata = owned_metadata(blueprint, names.cleaning_pod(member), {CLEANS: ",".join(incarnations)})
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {**metadata, "labels": helper_labels(names.name, "cleaning")},
        "spec": {
            **{key: of_member[key] for key in _AS_THE_MEMBER if key in of_member},
            "automountServiceAccountToken": False,
            "enableServiceLinks": False,
            "restartPolicy": "OnFailure",
            "terminationGracePeriodSeconds": 1,
            "nodeName": node,
            "containers": [container],
            "volumes": [{"name": "data", "persistentVolumeClaim": {"claimName": names.claim(member)}}],
        },
    }
