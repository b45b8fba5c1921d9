"""One small client for everything the operator asks of the API server: plain paths, plain dicts, typed errors.

Writes go by server-side apply wherever an object is ours: the API server merges, tells conflicts, removes what
we no longer say, and writes nothing when nothing changed. Must not decide anything: a caller that wants to
know whether a write is needed compares before it calls.
"""

import asyncio
import json
import random
import ssl
from collections.abc import AsyncIterator, Callable, Mapping
from itertools import count
from time import monotonic
from typing import Any, Literal
from urllib.parse import urlencode

import aiohttp

from etcd_operator.kube.connection import Connection
from etcd_operator.kube.errors import (
    Conflict,
    Fenced,
    Gone,
    Invalid,
    KubeError,
    NotFound,
    Unavailable,
    error_from_response,
)
from etcd_operator.kube.resources import Resource, resource_of
from etcd_operator.resources.names import MANAGER, Manifest

#: Seconds that one attempt may take in all, and to connect. A caller that can wait less says so per client.
REQUEST_TIMEOUT = 10.0
CONNECT_TIMEOUT = 3.0
#: Waits before the second and the third attempt of a request that may be repeated safely, in seconds. Anything
#: longer is the business of the work queue, which backs off without holding a worker.
RETRY_DELAYS = (0.1, 0.4)
#: Longest wait that the API server may impose on a worker (Retry-After), in seconds; longer ones go to the caller.
LONGEST_RETRY_AFTER = 2.0
#: Objects a page; a list is read in pages, so that a huge one needs neither much memory nor much time at once.
PAGE_SIZE = 500
#: Of a server that somebody else chose: bytes of an answer, and pages of a list, that are read at most.
FOREIGN_BYTES = 16 * 1024 * 1024
FOREIGN_PAGES = 20
#: What selects the metadata of objects alone: a fraction of the bytes where only names matter.
METADATA_LIST = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"

#: Called after every attempt with the verb (get, list, create, apply, patch, ...) and the code ("200", "none").
RequestObserver = Callable[[str, str], None]
#: Called before every write; whether this process may still write.
WriteGuard = Callable[[], bool]

#: A JSON patch or a JSON merge patch.
Patch = list[Any] | dict[str, Any]

_CONTENT_TYPES = {"json": "application/json-patch+json", "merge": "application/merge-patch+json"}


class Kube:
    """The API server as the operator uses it; safe for any number of concurrent callers on one event loop."""

    def __init__(
        self,
        connection: Connection,
        *,
        timeout: float = REQUEST_TIMEOUT,
        retry_delays: tuple[float, ...] = RETRY_DELAYS,
        observer: RequestObserver = lambda verb, code: None,
        may_write: WriteGuard = lambda: True,
    ) -> None:
        self._connection = connection
        self._timeout = aiohttp.ClientTimeout(total=timeout, sock_connect=min(timeout, CONNECT_TIMEOUT))
        self._retry_delays = retry_delays
        self._observer = observer
        #: Whether this process may still change anything; guard writes to others than the API server by it as well.
        self.may_write = may_write

    async def close(self) -> None:
        await self._connection.close()

    async def get(self, resource: Resource, namespace: str | None, name: str) -> Manifest | None:
        """The object as it is now (a quorum read), `None` when it does not exist."""
        try:
            return await self._send("get", "GET", resource.path(namespace, name))
        except NotFound:
            return None

    async def list(
        self,
        resource: Resource,
        namespace: str | None,
        *,
        labels: Mapping[str, str] | None = None,
        selector: str = "",
        fields: str | None = None,
        metadata_only: bool = False,
        most: int | None = None,
    ) -> list[Manifest]:
        """All objects of a kind, in one namespace or (`None`) in all, as they are now (a quorum read).

        Selected by `labels`, or by a `selector` as the API takes it. Each carries its apiVersion and kind, which the
        API server leaves out in lists. With `metadata_only`,
        nothing but metadata is filled in; with `most`, no more than so many are read. A list whose page token expired
        is begun anew, once.
        """
        query = {"limit": str(most or PAGE_SIZE)}
        if labels:
            selector = ",".join(f"{key}={value}" for key, value in sorted(labels.items()))
        if selector:
            query["labelSelector"] = selector
        if fields:
            query["fieldSelector"] = fields
        path = resource.path(namespace)
        try:
            items = [item async for item in self._pages(path, query, metadata_only, one=most is not None)]
        except Gone:
            items = [item async for item in self._pages(path, query, metadata_only, one=most is not None)]
        for item in items:
            item["apiVersion"] = resource.api_version
            item["kind"] = resource.kind
        return items

    async def _pages(
        self, path: str, query: Mapping[str, str], metadata_only: bool, *, one: bool
    ) -> AsyncIterator[Manifest]:
        token = ""
        accept = METADATA_LIST if metadata_only else None
        for number in count(1):
            page = await self._send(
                "list", "GET", path, query={**query, **({"continue": token} if token else {})}, accept=accept
            )
            if self._connection.foreign:
                _refuse_page(page, number, what=f"GET {path}")
            for item in page.get("items") or ():
                yield item
            token = (page.get("metadata") or {}).get("continue") or ""
            if one or not token:
                return

    async def create(self, manifest: Manifest) -> Manifest:
        """Create an object that must not exist yet; raises `Conflict` (`already_exists`) when it does.

        After `Unavailable` it may exist all the same.
        """
        resource = resource_of(manifest)
        path = resource.path(manifest["metadata"].get("namespace"))
        return await self._send("create", "POST", path, body=manifest, repeatable=False)

    async def apply(self, manifest: Manifest, *, force: bool = True) -> Manifest:
        """Make the object be as the manifest says (server-side apply), creating it where needed.

        Fields that an earlier apply set and this one leaves out are removed. With `force`, fields that somebody
        else set to another value become ours; without, that is a `Conflict`. A `metadata.uid` in the manifest
        is a precondition: the object is neither created nor another one of the same name changed.
        """
        return await self._apply("apply", manifest, None, force)

    async def apply_status(self, manifest: Manifest) -> Manifest:
        """Make `status` be what the manifest says; what earlier ones said and this one does not goes away.

        The manifest needs apiVersion, kind, metadata (name, namespace, better also uid) and the whole status.
        Raises `NotFound` when the object is gone.
        """
        return await self._apply("apply_status", manifest, "status", True)

    async def _apply(self, verb: str, manifest: Manifest, subresource: str | None, force: bool) -> Manifest:
        metadata = manifest["metadata"]
        path = resource_of(manifest).path(metadata.get("namespace"), metadata["name"], subresource)
        query = {"fieldManager": MANAGER, "force": "true" if force else "false"}
        try:
            return await self._send(
                verb, "PATCH", path, query=query, body=manifest, content_type="application/apply-patch+yaml"
            )
        except Invalid as error:
            if any(cause.get("field") == "metadata.uid" for cause in error.details.get("causes", ())):
                # How the API server says that an object of the name exists, but another one.
                raise Conflict(
                    status=409, reason="Conflict", message=error.message, details=error.details, request=error.request
                ) from error
            raise

    async def patch(
        self,
        resource: Resource,
        namespace: str | None,
        name: str,
        patch: Patch,
        *,
        kind: Literal["json", "merge"],
        subresource: str | None = None,
    ) -> Manifest:
        """Change single fields of an object that is not (wholly) ours.

        Not repeated by itself when the answer is lost: a JSON patch may not be one that can be applied twice.
        """
        path = resource.path(namespace, name, subresource)
        return await self._send(
            "patch",
            "PATCH",
            path,
            query={"fieldManager": MANAGER},
            body=patch,
            content_type=_CONTENT_TYPES[kind],
            repeatable=kind == "merge",
        )

    async def replace(self, manifest: Manifest) -> Manifest:
        """Write the whole object; with a `resourceVersion` in it, raises `Conflict` when somebody was faster."""
        metadata = manifest["metadata"]
        path = resource_of(manifest).path(metadata.get("namespace"), metadata["name"])
        return await self._send("replace", "PUT", path, body=manifest, repeatable=False)

    async def delete(
        self,
        resource: Resource,
        namespace: str | None,
        name: str,
        *,
        uid: str | None = None,
        propagation: Literal["Foreground", "Background", "Orphan"] | None = None,
        grace: int | None = None,
    ) -> bool:
        """Delete an object; `False` when it was gone, or when `uid` is given and it is another object by now.

        `grace` in seconds. `True` means that deletion has begun: finalizers may keep the object for a while.
        """
        options: dict[str, Any] = {"apiVersion": "v1", "kind": "DeleteOptions"}
        if uid is not None:
            options["preconditions"] = {"uid": uid}
        if propagation is not None:
            options["propagationPolicy"] = propagation
        if grace is not None:
            options["gracePeriodSeconds"] = grace
        try:
            await self._send("delete", "DELETE", resource.path(namespace, name), body=options)
        except NotFound:
            return False
        except Conflict:
            if uid is None:
                raise
            return False
        return True

    async def served_kinds(self, group: str, version: str) -> frozenset[str]:
        """The kinds that the API server serves in a group version; empty when it does not know the group."""
        try:
            found = await self._send("discover", "GET", f"/apis/{group}/{version}")
        except NotFound:
            return frozenset()
        return frozenset(each["kind"] for each in found.get("resources") or () if "/" not in each["name"])

    async def _send(
        self,
        verb: str,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        body: Any = None,
        content_type: str = "application/json",
        accept: str | None = None,
        repeatable: bool = True,
    ) -> Manifest:
        """Send one request, repeating it a few times where that is safe; raises `KubeError`."""
        url = self._connection.server + path + (f"?{urlencode(query)}" if query else "")
        what = f"{method} {path}"
        headers = {"Accept": accept or "application/json", "Content-Type": content_type, "User-Agent": MANAGER}
        delays = iter(self._retry_delays)
        reloaded = False
        while True:
            if method != "GET" and not self.may_write():
                raise Fenced(what)
            try:
                return await self._attempt(verb, method, url, what=what, headers=headers, body=body)
            except KubeError as error:
                if error.status == 401 and not reloaded:
                    reloaded = True
                    if await self._connection.reload():
                        continue
                delay = _repeat_after(error, next(delays, None), repeatable=repeatable)
                if delay is None:
                    raise
            await asyncio.sleep(delay)

    async def _attempt(
        self, verb: str, method: str, url: str, *, what: str, headers: Mapping[str, str], body: Any
    ) -> Manifest:
        started = monotonic()
        code = "none"
        try:
            response = await self._connection.rest.request(
                method,
                url,
                headers={**headers, **await self._connection.headers()},
                body=body,
                _request_timeout=self._timeout,
            )
            foreign = self._connection.foreign
            content = await (_read_some(response.response, what=what) if foreign else response.read())
            code = str(response.status)
            if response.status >= (300 if foreign else 400):
                raise error_from_response(
                    response.status,
                    content,
                    request=what,
                    retry_after=response.headers.get("Retry-After"),
                    quoted=not foreign,
                )
            answer: Manifest = json.loads(content)
            if foreign and not isinstance(answer, dict):
                raise _unusable(what, "it answered with no object")
            return answer
        except (aiohttp.ClientError, OSError, ValueError, RuntimeError) as error:
            # TimeoutError is an OSError; ValueError: an answer cut short; RuntimeError: the session was closed
            # under us when another caller re-read the credentials.
            silent = isinstance(error, TimeoutError)
            told = f"no answer within {monotonic() - started:.1f} s" if silent else self._told(error)
            raise Unavailable(
                status=0, reason="Timeout" if silent else "ConnectionFailed", message=told, request=what
            ) from error
        finally:
            self._observer(verb, code)

    def _told(self, error: Exception) -> str:
        """What went wrong; without what a foreign server said, as aiohttp quotes what it cannot read."""
        if self._connection.foreign and not isinstance(error, aiohttp.ClientConnectorError | ssl.SSLError):
            return type(error).__name__
        return str(error) or type(error).__name__


async def _read_some(response: aiohttp.ClientResponse, *, what: str) -> bytes:
    """The body, if it is no longer than `FOREIGN_BYTES`; raises `KubeError`."""
    content = bytearray()
    async for chunk in response.content.iter_any():
        content += chunk
        if len(content) > FOREIGN_BYTES:
            response.close()
            raise _unusable(what, f"its answer is larger than {FOREIGN_BYTES // 1024**2} MiB")
    return bytes(content)


def _refuse_page(page: Manifest, number: int, *, what: str) -> None:
    """Raises `KubeError` for what is no page of a list, or one too many."""
    items, metadata = page.get("items") or [], page.get("metadata") or {}
    if not (isinstance(items, list) and all(isinstance(each, dict) for each in items) and isinstance(metadata, dict)):
        raise _unusable(what, "it answered with no list")
    if number >= FOREIGN_PAGES and metadata.get("continue"):
        raise _unusable(what, f"its list is longer than {FOREIGN_PAGES} pages")


def _unusable(what: str, message: str) -> KubeError:
    return KubeError(status=200, reason="Unusable", message=message, request=what)


def _repeat_after(error: KubeError, delay: float | None, *, repeatable: bool) -> float | None:
    """Seconds until the next attempt, `None` when the caller should hear of the error now.

    429 is told before anything was done, so even a create is repeated; after every other failure a request
    that is not repeatable may have taken effect.
    """
    if delay is None or not isinstance(error, Unavailable) or not (repeatable or error.status == 429):
        return None
    if error.retry_after is not None and error.retry_after > LONGEST_RETRY_AFTER:
        return None
    return max(error.retry_after or 0.0, delay * random.uniform(0.5, 1.5))
