"""What Kubernetes says and is told. I/O, but no judgement: nothing here knows what an etcd is, nor Kopf."""

from etcd_operator.kube.client import Kube
from etcd_operator.kube.connection import Connection, CredentialsError
from etcd_operator.kube.errors import (
    Conflict,
    Fenced,
    Forbidden,
    Gone,
    Invalid,
    KubeError,
    NotFound,
    Unauthorized,
    Unavailable,
)
from etcd_operator.kube.events import EventRecorder
from etcd_operator.kube.resources import Resource
from etcd_operator.resources.names import Manifest

__all__ = [
    "Conflict",
    "Connection",
    "CredentialsError",
    "EventRecorder",
    "Fenced",
    "Forbidden",
    "Gone",
    "Invalid",
    "Kube",
    "KubeError",
    "Manifest",
    "NotFound",
    "Resource",
    "Unauthorized",
    "Unavailable",
]
