"""The pod that changes the manifest of one node's API server, and the Secret that tells it how.

Pure. They live in kube-system of the API server's own cluster. The pod's name is the node's, so that no two of them
ever work on one manifest; it stays, completed, as the record of what the node was given last.
"""

import base64
from collections.abc import Mapping

from etcd_operator.agent.plan import KUBERNETES, PLAN_FILE, Plan
from etcd_operator.resources.names import GROUP, MANAGED_BY_LABEL, MANAGER, Manifest

KUBE_SYSTEM = "kube-system"
AGENT_LABELS = {MANAGED_BY_LABEL: MANAGER, "app.kubernetes.io/component": "etcd-wiring"}
CONTAINER = "wiring"
#: On an agent: a digest of what it was told, and the binding that it works for, see `Rival.identity`.
PLAN_DIGEST = f"{GROUP}/plan"
BINDING = f"{GROUP}/binding"

_PLAN_FOLDER = "/plan"


def agent_name(node: str) -> str:
    """Of both objects."""
    return f"external-etcd-{node}"


def agent_secret(node: str, plan: Plan, files: Mapping[str, bytes]) -> Manifest:
    """Holds the certificate for as long as the agent runs."""
    held = {PLAN_FILE: plan.to_json().encode(), **files}
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": agent_name(node), "namespace": KUBE_SYSTEM, "labels": AGENT_LABELS},
        "type": "Opaque",
        "data": {name: base64.b64encode(value).decode() for name, value in held.items()},
    }


def agent_pod(node: str, plan: Plan, files: Mapping[str, bytes], *, binding: str, image: str) -> Manifest:
    """On that node whatever keeps others off, in its own network, as root: manifests are root's alone.

    The kubelet starts one again that was killed before it told how it ended, and no deadline ends one: a manifest that
    was just replaced is not to be left without anybody who puts it back.
    """
    digest = plan.digest(files)
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": agent_name(node),
            "namespace": KUBE_SYSTEM,
            "labels": AGENT_LABELS,
            "annotations": {PLAN_DIGEST: digest, BINDING: binding},
        },
        "spec": {
            "nodeName": node,
            "hostNetwork": True,  # an API server's etcd has to be reached from there
            "hostPID": True,  # which kube-apiserver runs with which arguments, only the node's processes tell
            "dnsPolicy": "Default",
            "restartPolicy": "OnFailure",
            "priorityClassName": "system-node-critical",
            "tolerations": [{"operator": "Exists"}],
            "automountServiceAccountToken": False,
            "enableServiceLinks": False,
            "containers": [_container(image, digest)],
            "volumes": [
                {"name": "kubernetes", "hostPath": {"path": KUBERNETES, "type": "Directory"}},
                {"name": "plan", "secret": {"secretName": agent_name(node), "defaultMode": 0o400}},
            ],
        },
    }


def _container(image: str, digest: str) -> Manifest:
    return {
        "name": CONTAINER,
        "image": image,
        "imagePullPolicy": "IfNotPresent",
        "command": ["python3", "-m", "etcd_operator.agent.apiserver", _PLAN_FOLDER, f"--digest={digest}"],
        "resources": {"requests": {"cpu": "10m", "memory": "64Mi"}, "limits": {"memory": "256Mi"}},
        "securityContext": {
            "runAsUser": 0,
            "runAsNonRoot": False,
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"], "add": ["CHOWN", "DAC_OVERRIDE", "FOWNER"]},
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "volumeMounts": [
            {"name": "kubernetes", "mountPath": KUBERNETES},
            {"name": "plan", "mountPath": _PLAN_FOLDER, "readOnly": True},
        ],
    }
