"""What can go wrong between the operator and the API server, sorted by what the caller can do about it.

Pure. The API server answers errors with a `Status` object; its reason and message are kept word for word,
as they are what a user is told. Nothing of the HTTP library leaks out of this package.
"""
# ruff: noqa: N818 - `except Conflict` reads as the API server says it; all of them end in KubeError anyway.

import json
import math
from collections.abc import Mapping
from typing import Any, ClassVar


class KubeError(Exception):
    """A request that the API server refused, or never answered.

    `status` is the HTTP status, 0 when there was no answer; `reason` the machine-readable word of Kubernetes
    (`AlreadyExists`, `Expired`, ...); `details` what the API server adds, such as the causes of a validation
    error; `request` says what was asked ("PATCH /api/v1/...").
    """

    #: Whether the same request may succeed a moment later without anybody changing anything.
    retryable: ClassVar[bool] = False

    def __init__(
        self,
        *,
        status: int,
        reason: str,
        message: str,
        details: Mapping[str, Any] | None = None,
        request: str = "",
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.reason = reason
        self.message = message
        self.details: Mapping[str, Any] = details or {}
        self.request = request
        #: Seconds that the API server asked to wait.
        self.retry_after = retry_after

    def __str__(self) -> str:
        where = f"{self.request}: " if self.request else ""
        return f"{where}{self.status or 'no answer'} {self.reason}: {self.message}"


class NotFound(KubeError):
    """404: the object, or the kind itself, is not there."""


class Conflict(KubeError):
    """409: somebody was faster, a precondition does not hold, or the object exists already: look again, then retry."""

    @property
    def already_exists(self) -> bool:
        return self.reason == "AlreadyExists"


class Forbidden(KubeError):
    """403: a right is missing, a quota or a policy says no, or the namespace is going away."""

    @property
    def namespace_terminating(self) -> bool:
        return any(cause.get("reason") == "NamespaceTerminating" for cause in self.details.get("causes", ()))


class Unauthorized(KubeError):
    """401: the credentials are not (or no longer) accepted, even after reading them anew."""

    retryable = True


class Invalid(KubeError):
    """400, 415 or 422: the API server will never take this object as it is.

    Also the 500 by which server-side apply answers to a field that its schema does not know, or of a wrong type.
    """


class Gone(KubeError):
    """410: a page token or a resource version is too old; begin the list anew."""


class Unavailable(KubeError):
    """429, 5xx, a dropped connection or a timeout: whether a write took effect is unknown. Retry later."""

    retryable = True


class Fenced(KubeError):
    """This process may no longer write, as it cannot prove that it is still the leader. Nothing was sent."""

    def __init__(self, request: str) -> None:
        super().__init__(
            status=0, reason="Fenced", message="leadership is not certain any more; nothing was sent", request=request
        )


#: How server-side apply begins to say, with a 500, that an object does not fit its schema
#: (apimachinery/pkg/util/managedfields/internal/structuredmerge.go).
MISFIT = "failed to create typed patch object"

_BY_STATUS: Mapping[int, type[KubeError]] = {
    400: Invalid,
    401: Unauthorized,
    403: Forbidden,
    404: NotFound,
    409: Conflict,
    410: Gone,
    415: Invalid,
    422: Invalid,
    429: Unavailable,
}


def error_from_response(
    status: int, body: bytes, *, request: str, retry_after: str | None = None, quoted: bool = True
) -> KubeError:
    """The error for an answer of 400 and above, and any other that is none.

    A body that is no `Status` is quoted, cut to 200 characters, where that may be told to everybody.
    """
    kind = _BY_STATUS.get(status, Unavailable if status >= 500 else KubeError)
    try:
        told = json.loads(body)
    except ValueError:
        told = None
    if not isinstance(told, dict) or told.get("kind") != "Status":
        told = {"message": body.decode(errors="replace").strip()[:200] if quoted else f"answered {status}"}
    details, message = _details(told.get("details")), str(told.get("message") or "the API server gave no message")
    if message.startswith(MISFIT):
        kind = Invalid
    return kind(
        status=status,
        reason=str(told.get("reason") or f"Http{status}"),
        message=message,
        details=details,
        request=request,
        retry_after=_seconds(retry_after) or _seconds(details.get("retryAfterSeconds")),
    )


def _details(told: object) -> Mapping[str, Any]:
    """As Kubernetes says them: another server may say anything."""
    if not isinstance(told, dict):
        return {}
    causes = told.get("causes")
    listed = [each for each in causes if isinstance(each, dict)] if isinstance(causes, list) else []
    return {**told, **({"causes": listed} if "causes" in told else {})}


def _seconds(value: object) -> float | None:
    try:
        seconds = float(str(value))
        return seconds if seconds > 0 and math.isfinite(seconds) else None
    except ValueError:
        return None  # absent, or the HTTP-date form, which the API server never uses
