"""The status of an ApiServerBinding: what the operator observed.

Pure. Every field may be absent: what was not observed is left out instead of guessed.
"""

from typing import Annotated

from pydantic import Field

from etcd_operator.api.base import ATOMIC, BY_NAME, BY_TYPE, ApiModel, Condition, Time


class InstanceStatus(ApiModel):
    """One running kube-apiserver."""

    name: str
    """Name of the pod."""
    node: str | None = None
    """The node that it runs on."""
    ready: bool
    """Whether Kubernetes finds it ready."""
    bound: bool
    """Whether it runs with the arguments that are wanted now."""
    etcd_servers: str | None = None
    """The value of --etcd-servers that it runs with."""
    since: Time | None = None
    """Since when it runs with that."""


class ApiServerBindingStatus(ApiModel):
    """What was last observed of the API server. It changes only when something changed."""

    observed_generation: int | None = None
    """The generation of the spec that this status speaks of."""
    target: str | None = None
    """The API server in a word, such as deployment/kube-apiserver."""
    summary: str | None = None
    """The state in a few words; the STATUS column of kubectl get."""
    ready: str | None = None
    """Instances that are ready and use this etcd, of all, such as 2/2."""
    secret_name: str | None = None
    """The Secret, in the binding's namespace, that holds ca.crt, tls.crt and tls.key for the API server."""
    authority: str | None = None
    """Digest of the authorities that all instances trusted when all were last bound."""
    cluster_uid: Annotated[str | None, Field(alias="clusterUID")] = None
    """Of the cluster that a kubeconfig named when it was told first (the UID of kube-system): no other one is bound."""
    arguments: Annotated[tuple[str, ...], Field(json_schema_extra=ATOMIC)] = ()
    """The arguments that make the API server use this etcd."""
    instances: Annotated[tuple[InstanceStatus, ...], Field(json_schema_extra=BY_NAME)] = ()
    """The API server's pods."""
    conditions: Annotated[tuple[Condition, ...], Field(json_schema_extra=BY_TYPE)] = ()
    """Bound: all instances use this etcd. Degraded: something needs a person."""
