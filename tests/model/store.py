"""The API server of the model: objects of one namespace with UIDs, generations, finalizers, owners and their garbage.

A miniature for tests: what the rules of the operator rest on is faithful (server-side apply removes what is no
longer said, preconditions, immutable fields, the three ways to delete), the rest is left out.
"""

import copy
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, Literal

from etcd_operator.api import Quantity
from etcd_operator.cluster.records import is_terminating, timestamp
from etcd_operator.cluster.settled import requested
from etcd_operator.kube import Conflict, Forbidden, Invalid, NotFound
from etcd_operator.resources.names import Manifest

Propagation = Literal["Foreground", "Background", "Orphan"]
FOREGROUND, ORPHAN, PROTECTION = "foregroundDeletion", "orphan", "kubernetes.io/pvc-protection"
#: What of a StatefulSet's spec the API server lets nobody change.
IMMUTABLE = ("serviceName", "podManagementPolicy", "selector", "volumeClaimTemplates")
LIST_KEYS: Mapping[str, tuple[str, ...]] = {
    "containers": ("name",),
    "volumes": ("name",),
    "env": ("name",),
    "volumeMounts": ("mountPath",),
    "ports": ("containerPort", "port"),
    "ownerReferences": ("uid",),
    "imagePullSecrets": ("name",),
    "topologySpreadConstraints": ("topologyKey",),
}


class Store:
    """All objects by kind and name. `version` grows with every change, as a watch would tell."""

    def __init__(self, clock: Callable[[], datetime]) -> None:
        self._clock = clock
        self._objects: dict[tuple[str, str], Manifest] = {}
        self._applied: dict[str, Manifest] = {}
        self._uids = 0
        self.version = 0
        #: Whether the StorageClass of the claims lets them grow.
        self.expandable = False
        #: Told every object right before it begins to go.
        self.on_delete: Callable[[Manifest], None] = lambda manifest: None
        #: Told every object right after it has gone.
        self.on_gone: Callable[[Manifest], None] = lambda manifest: None

    def get(self, kind: str, name: str) -> Manifest | None:
        return self._objects.get((kind, name))

    def all(self, kind: str | None = None, labels: Mapping[str, str] | None = None) -> list[Manifest]:
        wanted = (labels or {}).items()
        return [
            manifest
            for (of, _), manifest in sorted(self._objects.items())
            if kind in (None, of) and wanted <= (manifest["metadata"].get("labels") or {}).items()
        ]

    def create(self, manifest: Manifest) -> Manifest:
        made = copy.deepcopy(manifest)
        self._uids += 1
        made["metadata"] |= {
            "uid": f"uid-{self._uids}",
            "creationTimestamp": timestamp(self._clock()),
            "generation": 1,
        }
        self._objects[made["kind"], made["metadata"]["name"]] = made
        return self.touch(made)

    def create_new(self, manifest: Manifest) -> Manifest:
        """Create what must not exist yet."""
        if self.get(manifest["kind"], manifest["metadata"]["name"]) is not None:
            raise Conflict(status=409, reason="AlreadyExists", message=f"{manifest['metadata']['name']} already exists")
        return copy.deepcopy(self.create(manifest))

    def touch(self, manifest: Manifest) -> Manifest:
        """Give the object a new resource version, after it was changed in place."""
        self.version += 1
        manifest["metadata"]["resourceVersion"] = str(self.version)
        return manifest

    def apply(self, manifest: Manifest, *, status: bool = False) -> Manifest:
        """Server-side apply with force, by the one manager that there is; of the status alone, or of all but it."""
        metadata = manifest["metadata"]
        live = self.get(manifest["kind"], metadata["name"])
        if live is None or ("uid" in metadata and metadata["uid"] != live["metadata"]["uid"]):
            if status:
                raise NotFound(status=404, reason="NotFound", message=f"{metadata['name']} not found")
            if "uid" in metadata:
                raise Conflict(status=409, reason="Conflict", message="Precondition failed: UID")
            live = self.create(manifest)
            self._applied[live["metadata"]["uid"]] = copy.deepcopy(manifest)
            return copy.deepcopy(live)
        if status:
            return self._write(live, {**live, "status": copy.deepcopy(manifest["status"])})
        pruned = _pruned(copy.deepcopy(live), self._applied.get(live["metadata"]["uid"], {}), manifest, "")
        written = self._write(live, _merged(pruned, copy.deepcopy(manifest), ""))
        self._applied[live["metadata"]["uid"]] = copy.deepcopy(manifest)
        return written

    def patch(self, kind: str, name: str, patch: Manifest) -> Manifest:
        """A JSON merge patch; UID and resource version in it are preconditions."""
        live = self.get(kind, name)
        if live is None:
            raise NotFound(status=404, reason="NotFound", message=f"{name} not found")
        for key in ("uid", "resourceVersion"):
            if patch.get("metadata", {}).get(key, live["metadata"][key]) != live["metadata"][key]:
                raise Conflict(status=409, reason="Conflict", message=f"Precondition failed: {key}")
        return self._write(live, _patched(copy.deepcopy(live), patch))

    def _write(self, live: Manifest, new: Manifest) -> Manifest:
        if new != live:
            if live["kind"] == "StatefulSet":
                for field in IMMUTABLE:
                    if live["spec"].get(field) != new["spec"].get(field):
                        raise Invalid(status=422, reason="Invalid", message=f"spec.{field} is immutable")
            if live["kind"] == "PersistentVolumeClaim":
                self._check_size(live, new)
            if new.get("spec") != live.get("spec"):
                new["metadata"]["generation"] = live["metadata"]["generation"] + 1
            self._objects[live["kind"], live["metadata"]["name"]] = self.touch(new)
            if live["metadata"].get("finalizers") and new["metadata"].get("finalizers") == [] and is_terminating(new):
                self.remove(new)
        return copy.deepcopy(new)

    def _check_size(self, live: Manifest, new: Manifest) -> None:
        """The admission plugin PersistentVolumeClaimResize, and the validation of claims."""
        before, after = requested(live) or Quantity(0), requested(new) or Quantity(0)
        if after < before:
            raise Invalid(status=422, reason="Invalid", message="field can not be less than status.capacity")
        if after > before and live["status"]["phase"] != "Bound":
            raise Forbidden(
                status=403, reason="Forbidden", message="Only bound persistent volume claims can be expanded"
            )
        if after > before and not self.expandable:
            raise Forbidden(
                status=403,
                reason="Forbidden",
                message="only dynamically provisioned pvc can be resized and the storageclass that provisions the pvc "
                "must support resize",
            )

    def delete(
        self,
        kind: str,
        name: str,
        uid: str | None = None,
        propagation: Propagation = "Background",
        *,
        at_once: bool = False,
    ) -> bool:
        """`at_once`: a pod, without asking its kubelet."""
        live = self.get(kind, name)
        if live is None or uid not in (None, live["metadata"]["uid"]):
            return False
        metadata = live["metadata"]
        if at_once:
            self.remove(live)
            return True
        if metadata.get("deletionTimestamp"):
            return True
        self.on_delete(live)
        finalizers = metadata.setdefault("finalizers", [])
        finalizers += {"Foreground": [FOREGROUND], "Orphan": [ORPHAN], "Background": []}[propagation]
        if finalizers or (kind == "Pod" and _is_with_its_kubelet(live)):
            metadata["deletionTimestamp"] = timestamp(self._clock())
            self.touch(live)
        else:
            self.remove(live)
        return True

    def remove(self, live: Manifest) -> None:
        """Take the object away, whatever it waited for."""
        self.version += 1
        self._objects.pop((live["kind"], live["metadata"]["name"]), None)
        self._applied.pop(live["metadata"]["uid"], None)
        self.on_gone(live)

    def collect_garbage(self) -> None:
        """One round of the garbage collector: objects without owners go, and owners whose dependents have gone."""
        by_uid = {manifest["metadata"]["uid"]: manifest for manifest in self.all()}
        for manifest in self.all():
            references = manifest["metadata"].get("ownerReferences") or []
            owners = [by_uid[reference["uid"]] for reference in references if reference["uid"] in by_uid]
            going = [owner for owner in owners if FOREGROUND in (owner["metadata"].get("finalizers") or [])]
            if references and len(owners) == len(going):
                self.delete(manifest["kind"], manifest["metadata"]["name"])
        for manifest in self.all():
            finalizers = manifest["metadata"].get("finalizers") or []
            if ORPHAN in finalizers:
                self._orphan_dependents(manifest)
                self.remove(manifest)
            elif FOREGROUND in finalizers and not self.dependents(manifest):
                self.remove(manifest)
            elif PROTECTION in finalizers and manifest["metadata"].get("deletionTimestamp"):
                self._release(manifest)

    def _release(self, claim: Manifest) -> None:
        """A claim that is going goes when no pod uses it any more; one that never started does not use it."""
        member = claim["metadata"]["name"].removeprefix("data-")
        pods = (self.get("Pod", f"{member}{suffix}") for suffix in ("", "-recovery", "-cleaning"))
        if not any(pod["spec"].get("nodeName") for pod in pods if pod):
            self.remove(claim)

    def dependents(self, owner: Manifest) -> list[Manifest]:
        uid = owner["metadata"]["uid"]
        return [
            manifest
            for manifest in self.all()
            if any(reference["uid"] == uid for reference in manifest["metadata"].get("ownerReferences") or [])
        ]

    def _orphan_dependents(self, owner: Manifest) -> None:
        for manifest in self.dependents(owner):
            metadata = manifest["metadata"]
            metadata["ownerReferences"] = [
                reference for reference in metadata["ownerReferences"] if reference["uid"] != owner["metadata"]["uid"]
            ]
            self.touch(manifest)


def _is_with_its_kubelet(pod: Manifest) -> bool:
    """Whether a pod has been given to a node, whose kubelet has to end it."""
    over = pod.get("status", {}).get("phase") in ("Failed", "Succeeded")
    return bool(pod["spec"].get("nodeName")) and not over


def _key_of(field: str, items: list[Any]) -> str | None:
    """By what the API server tells the elements of a list apart; `None` where it replaces the list as a whole."""
    for key in LIST_KEYS.get(field, ()):
        if all(isinstance(item, dict) and key in item for item in items):
            return key
    return None


def _pruned(live: Any, before: Any, now: Any, field: str) -> Any:
    """`live` without what `before` said and `now` does not."""
    if isinstance(live, dict) and isinstance(before, dict) and isinstance(now, dict):
        for name, value in before.items():
            if name not in live:
                continue
            if name in now or isinstance(value, dict):
                live[name] = _pruned(live[name], value, now.get(name, {}), name)
            if name not in now and not (isinstance(live[name], dict) and live[name]):
                del live[name]
        return live
    lists = isinstance(live, list) and isinstance(before, list) and isinstance(now, list)
    if lists and (key := _key_of(field, [*live, *before, *now])):
        dropped = {item[key] for item in before} - {item[key] for item in now}
        return [item for item in live if item[key] not in dropped]
    return live


def _merged(live: Any, new: Any, field: str) -> Any:
    if isinstance(live, dict) and isinstance(new, dict):
        return {**live, **{name: _merged(live.get(name), value, name) for name, value in new.items()}}
    if isinstance(live, list) and isinstance(new, list) and (key := _key_of(field, [*live, *new])):
        changed = {item[key]: item for item in new}
        known = {item[key] for item in live}
        merged = [_merged(item, changed[item[key]], "") if item[key] in changed else item for item in live]
        return merged + [item for item in new if item[key] not in known]
    return new


def _patched(live: Any, patch: Any) -> Any:
    if not isinstance(patch, dict):
        return patch
    result = live if isinstance(live, dict) else {}
    for name, value in patch.items():
        if value is None:
            result.pop(name, None)
        else:
            result[name] = _patched(result.get(name), value)
    return result
