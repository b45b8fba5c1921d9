"""Where the API server is and who we are there: from the pod's service account, or from KUBECONFIG.

Both clients of the operator take their credentials from here: `Kube` (the controllers) and the watches of
the runtime. A `Connection` belongs to one event loop. It must not send requests of its own.
"""

import os
import time
from collections.abc import Mapping

from kubernetes.aio.client.configuration import Configuration
from kubernetes.aio.client.rest import RESTClientObject
from kubernetes.aio.config import ConfigException, load_incluster_config, load_kube_config

from etcd_operator.kube import kubeconfig

#: Credentials that were refused are read anew at most this often, in seconds.
RELOAD_INTERVAL = 5.0


class CredentialsError(Exception):
    """No usable credentials; the message says where they were looked for."""


class Connection:
    """The address and credentials of an API server, kept fresh: projected tokens change every hour or so."""

    def __init__(
        self,
        configuration: Configuration,
        *,
        environ: Mapping[str, str] | None,
        origin: str,
        rest: RESTClientObject | None = None,
        foreign: bool = False,
    ) -> None:
        """`environ`: where to look for newer credentials, `None` where there will be none."""
        self._configuration = configuration
        self._environ = environ
        self._loaded_at = time.monotonic()
        self.rest = rest or RESTClientObject(configuration)
        #: Where the credentials came from, for people.
        self.origin = origin
        #: Whether somebody else chose the server, so that its answers are to be bounded, and not told on.
        self.foreign = foreign

    @classmethod
    async def open(cls, environ: Mapping[str, str] = os.environ) -> "Connection":
        """Load the credentials: KUBECONFIG where set, else the pod's own, else ~/.kube/config.

        Raises `CredentialsError`.
        """
        configuration, origin = await _load(environ)
        return cls(configuration, environ=environ, origin=origin)

    @classmethod
    def of_kubeconfig(cls, text: bytes, *, origin: str) -> "Connection":
        """To another cluster, by a kubeconfig that holds all in itself. Raises `KubeconfigError`."""
        configuration, rest = kubeconfig.configuration(text)
        return cls(configuration, environ=None, origin=origin, rest=rest, foreign=True)

    @property
    def server(self) -> str:
        """The API server's address without a trailing slash."""
        return str(self._configuration.host).rstrip("/")

    async def headers(self) -> dict[str, str]:
        """The headers that carry our identity; empty with a client certificate. Re-reads a token file once a minute."""
        token = await self._configuration.get_api_key_with_prefix("BearerToken", alias="authorization")
        return {"Authorization": token} if token else {}

    async def reload(self) -> bool:
        """Read the credentials anew after the API server refused them; whether that was done (at most every 5 s).

        A reload that fails keeps the old credentials: the file may be half written right now.
        """
        if self._environ is None or time.monotonic() - self._loaded_at < RELOAD_INTERVAL:
            return False
        self._loaded_at = time.monotonic()
        try:
            self._configuration, self.origin = await _load(self._environ)
        except CredentialsError:
            return False
        old, self.rest = self.rest, RESTClientObject(self._configuration)
        await old.close()
        return True

    async def close(self) -> None:
        await self.rest.close()


async def _load(environ: Mapping[str, str]) -> tuple[Configuration, str]:
    configuration = Configuration()
    # Hundreds of clusters reconcile at once; a small pool would make them wait for each other.
    configuration.connection_pool_maxsize = 64
    path = environ.get("KUBECONFIG")
    try:
        if not path and environ.get("KUBERNETES_SERVICE_HOST"):
            load_incluster_config(client_configuration=configuration)
            return configuration, "the pod's service account"
        path = path or f"{environ.get('HOME', '')}/.kube/config"
        await load_kube_config(config_file=path, client_configuration=configuration, persist_config=False)
    except (ConfigException, OSError, ValueError, KeyError, TypeError) as error:
        where = f"KUBECONFIG {path}" if path else "the pod's service account"
        raise CredentialsError(f"no credentials for the API server in {where}: {error}") from error
    return configuration, path
