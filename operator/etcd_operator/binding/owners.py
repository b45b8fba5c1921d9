"""Who set an API server's arguments last, by what Kubernetes notes of every object's fields.

Pure. Source: Kubernetes, Server-Side Apply, "Field management" (metadata.managedFields).
"""

from etcd_operator.binding.observation import Seen
from etcd_operator.resources.names import MANAGER, Manifest


def manager_of_arguments(seen: Seen) -> str:
    """The field manager, other than the operator, that wrote the container's arguments last; for a message."""
    if seen.workload is None or seen.target is None:
        return "somebody"
    entries = [
        entry
        for entry in seen.workload["metadata"].get("managedFields") or ()
        if entry.get("manager") != MANAGER and _owns_arguments(entry, seen.target.container)
    ]
    newest = max(entries, key=lambda entry: str(entry.get("time", "")), default=None)
    return str(newest["manager"]) if newest else "somebody"


def _owns_arguments(entry: Manifest, container: str) -> bool:
    fields = entry.get("fieldsV1") or {}
    for step in ("f:spec", "f:template", "f:spec", "f:containers", f'k:{{"name":"{container}"}}'):
        fields = fields.get(step) or {}
    return bool({"f:args", "f:command"} & set(fields))
