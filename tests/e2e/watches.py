"""Many idle watches on one proxy, through etcd's JSON gateway: a connection each, as kube-apiservers hold them."""

import asyncio
import base64
import json
import ssl
from contextlib import suppress
from pathlib import Path

import aiohttp

from e2e.support import Etcd

#: Watches that are opened side by side: each costs a TLS handshake on this machine.
AT_ONCE = 50


class Watches:
    """Watches of one key, each of which goes on at another address when its connection ends."""

    def __init__(self, etcd: Etcd, key: str, folder: Path) -> None:
        """`folder` is for the client's certificate."""
        self._host = f"{etcd.name}.{etcd.namespace}.svc"
        self._key = base64.b64encode(key.encode()).decode()
        for name, content in etcd.secret("client").items():
            (folder / name).write_bytes(content)
        self._tls = ssl.create_default_context(cafile=str(folder / "ca.crt"))
        self._tls.load_cert_chain(folder / "tls.crt", folder / "tls.key")
        #: How many watches were opened, and how many tries failed.
        self.opened = self.failed = 0
        #: How many watches have seen an event.
        self.told = 0
        self._places = asyncio.Semaphore(AT_ONCE)

    async def watch(self, session: aiohttp.ClientSession, *addresses: str) -> None:
        """Watch at the first address, when that connection ends at the next, until there is an event."""
        for address in addresses:
            with suppress(aiohttp.ClientError, ConnectionError):
                if await self._watch(session, address):
                    self.told += 1
                    return

    async def _watch(self, session: aiohttp.ClientSession, address: str) -> bool:
        """Whether the watch saw an event before its connection ended."""
        async with self._places:
            try:
                answer = await session.post(
                    f"https://{address}:2382/v3/watch",
                    json={"create_request": {"key": self._key}},
                    ssl=self._tls,
                    server_hostname=self._host,
                )
                created = json.loads(await answer.content.readline())
            except (aiohttp.ClientError, ConnectionError):
                self.failed += 1
                raise
        assert created["result"]["created"], created
        self.opened += 1
        async with answer:
            line = await answer.content.readline()
        return bool(line) and "events" in json.loads(line)["result"]
