"""The address and credentials of another cluster, from a kubeconfig that somebody else wrote.

Whoever may write a Secret is not to make the operator run a program, read a file or trust everybody: what a kubeconfig
can ask for beyond data is refused. Sends nothing.
"""

import base64
import binascii
import os
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import yaml
from kubernetes.aio.client.configuration import Configuration
from kubernetes.aio.client.rest import RESTClientObject

#: Of a cluster and of a user: what is understood.
_CLUSTER = frozenset({"server", "certificate-authority-data", "tls-server-name"})
_USER = frozenset({"client-certificate-data", "client-key-data", "token"})
#: A cluster has a handful of API servers; one binding needs few connections.
_CONNECTIONS = 8


class KubeconfigError(Exception):
    """A kubeconfig that cannot be used; the message says what to change, and tells no secret."""


def configuration(text: bytes) -> tuple[Configuration, RESTClientObject]:
    """What the current context of a kubeconfig says, and the client that goes with it. Raises `KubeconfigError`."""
    cluster, user = _current(text)
    found = Configuration(host=str(cluster["server"]).rstrip("/"))
    found.connection_pool_maxsize = _CONNECTIONS
    found.tls_server_name = cluster.get("tls-server-name")
    found.ca_cert_data = _data(cluster, "certificate-authority-data").decode(errors="replace")
    if "token" in user:
        found.api_key = {"BearerToken": str(user["token"])}
        found.api_key_prefix = {"BearerToken": "Bearer"}
    try:
        with ExitStack() as stack:
            if "client-certificate-data" in user:
                found.cert_file = stack.enter_context(_unlinked(_data(user, "client-certificate-data")))
                found.key_file = stack.enter_context(_unlinked(_data(user, "client-key-data")))
            client = RESTClientObject(found)  # reads the files now, and never again
    except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
        raise KubeconfigError(f"its certificates cannot be read: {error}") from error
    return found, client


def _current(text: bytes) -> tuple[dict[str, Any], dict[str, Any]]:
    try:
        config = yaml.safe_load(text)
    except yaml.YAMLError:
        config = None
    if not isinstance(config, Mapping):
        raise KubeconfigError("it is no kubeconfig")
    context = _named(config, "contexts", str(config.get("current-context") or ""), "context")
    cluster = _named(config, "clusters", str(context.get("cluster") or ""), "cluster")
    user = _named(config, "users", str(context.get("user") or ""), "user")
    for holder, known, what in ((cluster, _CLUSTER, "cluster"), (user, _USER, "user")):
        foreign = sorted(key for key, value in holder.items() if key not in known and value)
        if foreign:
            told = ", ".join(sorted(known))
            raise KubeconfigError(f"its {what} says {foreign[0]}, which the operator does not follow, but only {told}")
    if not str(cluster.get("server") or "").startswith("https://"):
        raise KubeconfigError("its server is no https:// address")
    if "certificate-authority-data" not in cluster:
        raise KubeconfigError("its cluster has no certificate-authority-data")
    if "token" not in user and not {"client-certificate-data", "client-key-data"} <= user.keys():
        raise KubeconfigError("its user has neither client-certificate-data and client-key-data nor a token")
    return cluster, user


def _named(config: Mapping[str, Any], listed: str, name: str, field: str) -> dict[str, Any]:
    entries = config.get(listed)
    for each in entries if isinstance(entries, list) else ():
        if isinstance(each, Mapping) and each.get("name") == name and isinstance(each.get(field), Mapping):
            return dict(each[field])
    raise KubeconfigError(f"its {listed} have no {name or 'entry for the current context'}")


def _data(holder: Mapping[str, Any], key: str) -> bytes:
    try:
        return base64.b64decode(str(holder[key]), validate=True)
    except binascii.Error as error:
        raise KubeconfigError(f"its {key} is no base64") from error


@contextmanager
def _unlinked(content: bytes) -> Iterator[str]:
    """A file that no directory names, as ssl takes nothing but files: keys are to be on no disk."""
    handle = os.memfd_create("kubeconfig", os.MFD_CLOEXEC)
    try:
        os.write(handle, content)
        yield f"/proc/self/fd/{handle}"
    finally:
        os.close(handle)
