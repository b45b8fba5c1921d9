"""The pod that makes one member the only one of its etcd, after the quorum was lost for good.

Pure. It stands beside the StatefulSet, which runs nobody meanwhile, and mounts the member's own volume; no Service
and no disruption budget selects it. Its etcd reads a file of its own (`config_map.RECOVERY_FILE`); that it is ready is
a linearizable read, which one member answers only when there is no other voter.
"""

from dataclasses import replace

from etcd_operator.resources.blueprint import Blueprint, Recovery, owned_metadata
from etcd_operator.resources.config_map import RECOVERY_FILE
from etcd_operator.resources.names import RECOVERY, Manifest, helper_labels
from etcd_operator.resources.stateful_set import stateful_set


def recovery_pod(blueprint: Blueprint, recovery: Recovery) -> Manifest:
    """The member's own pod, overlay included, but for its name, its command, its volume, and containers beside etcd."""
    names, member = blueprint.names, recovery.member
    as_the_member = replace(blueprint, template_revision=blueprint.revision_of(member))
    spec = dict(stateful_set(as_the_member)["spec"]["template"]["spec"])
    spec.pop("initContainers", None)
    etcd = next(container for container in spec["containers"] if container["name"] == "etcd")
    etcd = {**etcd, "command": ["/usr/local/bin/etcd", f"--config-file=/etc/etcd/{RECOVERY_FILE}"]}
    volume = {"name": "data", "persistentVolumeClaim": {"claimName": names.claim(member)}}
    metadata = owned_metadata(blueprint, names.recovery_pod(member), {RECOVERY: recovery.loss})
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {**metadata, "labels": helper_labels(names.name, "recovery")},
        "spec": {**spec, "restartPolicy": "OnFailure", "containers": [etcd], "volumes": [*spec["volumes"], volume]},
    }
