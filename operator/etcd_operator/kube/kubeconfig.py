"""The address and credentials of another cluster, from a kubeconfig that somebody else wrote.

Whoever may write a Secret is not to make the operator run a program, read a file or trust everybody: what a kubeconfig
can ask for beyond data is refused. Nor is it to cost much: it is short, and says nothing by reference. The server that
it names is as foreign: it is asked without any proxy, and sends nobody elsewhere. Sends nothing by itself.
"""

import base64
from collections.abc import Mapping
from contextlib import ExitStack
from json import dumps
from typing import Any

import aiohttp
import yaml
from kubernetes.aio.client.configuration import Configuration
from kubernetes.aio.client.rest import RESTClientObject, RESTResponse

from etcd_operator.memory_file import memory_file

#: Of a cluster and of a user: what is understood.
_CLUSTER = frozenset({"server", "certificate-authority-data", "tls-server-name"})
_USER = frozenset({"client-certificate-data", "client-key-data", "token"})
#: Bytes of a kubeconfig, its YAML events (a value is one, as is its name), and how deep it may be: one has five levels,
#: but for what extensions say.
_LONGEST = 64 * 1024
_MOST = 10_000
_DEEPEST = 20
#: A cluster has a handful of API servers; one binding needs few connections.
_CONNECTIONS = 8


class KubeconfigError(Exception):
    """A kubeconfig that cannot be used; the message says what to change, and tells no secret."""


class _Other:
    """What YAML takes for a number, where no field that is read has one."""


class _Loader(yaml.CSafeLoader):
    """Makes strings, booleans, maps and lists, and no numbers: long ones take long to read."""


_KNOWN = ("str", "null", "bool", "seq", "map")
_Loader.yaml_constructors = {
    tag: made
    for tag, made in yaml.SafeLoader.yaml_constructors.items()
    if tag is None or tag.rpartition(":")[2] in _KNOWN
}
_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag.rpartition(":")[2] not in ("timestamp", "merge")]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
for _number in ("int", "float"):
    _Loader.add_constructor(f"tag:yaml.org,2002:{_number}", lambda loader, node: _Other())


class ForeignClient(RESTClientObject):  # type: ignore[misc]
    """Sends requests to a server that somebody else named, and to no other: no proxies, redirects or cookies."""

    pool_manager: aiohttp.ClientSession | None

    def _create_pool_manager(self) -> aiohttp.ClientSession:
        return aiohttp.ClientSession(
            connector=self._create_connector(),
            trust_env=False,
            auto_decompress=False,  # some kilobytes can be made to hold gigabytes
            cookie_jar=aiohttp.DummyCookieJar(),
        )

    async def request(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str] | None = None,
        body: Any = None,
        post_params: None = None,
        _request_timeout: aiohttp.ClientTimeout | None = None,
    ) -> RESTResponse:
        """As the class above, with a JSON body."""
        if self.pool_manager is None:
            self.pool_manager = self._create_pool_manager()
        response = await self.pool_manager.request(
            method,
            url,
            headers={**(headers or {}), "Accept-Encoding": "identity"},
            data=None if body is None else dumps(body),
            timeout=_request_timeout,
            allow_redirects=False,
            server_hostname=self.configuration.tls_server_name or None,
        )
        return RESTResponse(response)


def configuration(text: bytes) -> tuple[Configuration, RESTClientObject]:
    """What the current context of a kubeconfig says, and the client that goes with it. Raises `KubeconfigError`."""
    cluster, user = _current(text)
    found = Configuration(host=_text(cluster, "server").rstrip("/"))
    found.connection_pool_maxsize = _CONNECTIONS
    found.tls_server_name = _text(cluster, "tls-server-name") if cluster.get("tls-server-name") else None
    found.ca_cert_data = _data(cluster, "certificate-authority-data").decode(errors="replace")
    if "token" in user:
        found.api_key = {"BearerToken": _text(user, "token")}
        found.api_key_prefix = {"BearerToken": "Bearer"}
    try:
        with ExitStack() as stack:
            if "client-certificate-data" in user:
                if b"ENCRYPTED" in _data(user, "client-key-data"):  # ssl would ask the terminal for its password
                    raise KubeconfigError("its client-key-data is encrypted")
                found.cert_file = stack.enter_context(memory_file(_data(user, "client-certificate-data")))
                found.key_file = stack.enter_context(memory_file(_data(user, "client-key-data")))
            client = ForeignClient(found)  # reads the files now, and never again
    except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
        raise KubeconfigError(f"its certificates cannot be read: {error}") from error
    return found, client


def _current(text: bytes) -> tuple[dict[str, Any], dict[str, Any]]:
    config = _read(text)
    if not isinstance(config, Mapping):
        raise KubeconfigError("it is no kubeconfig")
    context = _named(config, "contexts", config.get("current-context"), "context")
    cluster = _named(config, "clusters", context.get("cluster"), "cluster")
    user = _named(config, "users", context.get("user"), "user")
    for holder, known, what in ((cluster, _CLUSTER, "cluster"), (user, _USER, "user")):
        foreign = sorted(str(key) for key, value in holder.items() if key not in known and value)
        if foreign:
            told = ", ".join(sorted(known))
            raise KubeconfigError(f"its {what} says {foreign[0]}, which the operator does not follow, but only {told}")
    if not _text(cluster, "server").startswith("https://"):
        raise KubeconfigError("its server is no https:// address")
    if "certificate-authority-data" not in cluster:
        raise KubeconfigError("its cluster has no certificate-authority-data")
    if "token" not in user and not {"client-certificate-data", "client-key-data"} <= user.keys():
        raise KubeconfigError("its user has neither client-certificate-data and client-key-data nor a token")
    return cluster, user


def _read(text: bytes) -> Any:
    """What the YAML says; `None` for what is none. Aliases are refused: a few lines with them make a giant."""
    if len(text) > _LONGEST:
        raise KubeconfigError("it is larger than 64 KiB")
    depth = 0
    try:
        for number, event in enumerate(yaml.parse(text, Loader=yaml.CSafeLoader)):
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if isinstance(event, yaml.NodeEvent) and event.anchor is not None:
                raise KubeconfigError("it has YAML anchors or aliases: write out what they stand for")
            if depth > _DEEPEST or number > _MOST:
                return None
        return yaml.load(text, Loader=_Loader)
    except (yaml.YAMLError, ValueError):
        return None


def _text(holder: Mapping[str, Any], key: str) -> str:
    held = holder.get(key)
    if not isinstance(held, str):
        raise KubeconfigError(f"its {key} is no text")
    return held


def _named(config: Mapping[str, Any], listed: str, name: object, field: str) -> dict[str, Any]:
    entries = config.get(listed)
    for each in entries if isinstance(entries, list) else ():
        if isinstance(each, Mapping) and each.get("name") == name and isinstance(each.get(field), Mapping):
            return dict(each[field])
    told = name[:100] if name and isinstance(name, str) else "entry for the current context"
    raise KubeconfigError(f"its {listed} have no {told}")


def _data(holder: Mapping[str, Any], key: str) -> bytes:
    try:
        return base64.b64decode(_text(holder, key), validate=True)
    except ValueError as error:
        raise KubeconfigError(f"its {key} is no base64") from error
