"""Kubernetes as the local cluster's tool sees it: through kubectl. Reads and applies; judges nothing."""

from __future__ import annotations

import codecs
import json
import os
import selectors
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from localcluster.errors import ClusterError
from localcluster.shell import direct_environment, run

Manifest = dict[str, Any]


@dataclass(frozen=True, kw_only=True, slots=True)
class Kubectl:
    """One kubectl for one cluster."""

    program: Path
    kubeconfig: Path

    def argv(self, *words: str) -> list[str]:
        return [str(self.program), f"--kubeconfig={self.kubeconfig}", *words]

    def get(self, *words: str, timeout: float = 10) -> list[Manifest]:
        """Objects of the kinds named. Raises ClusterError when the API server does not answer in time."""
        argv = self.argv("get", *words, "-o", "json", f"--request-timeout={timeout:.0f}s")
        items: list[Manifest] = json.loads(run(argv, timeout=timeout + 5, env=direct_environment()).stdout)["items"]
        return items

    def apply(self, manifests: str) -> None:
        """Server-side apply of a YAML text."""
        argv = self.argv("apply", "--server-side", "--force-conflicts", "--validate=false", "-f", "-")
        run(argv, text=manifests, timeout=60, env=direct_environment())

    def delete(self, kind: str, *which: str) -> None:
        """Delete the objects that names or options name, as far as they are there, and wait until they are gone."""
        run(self.argv("delete", kind, *which, "--ignore-not-found"), timeout=60, env=direct_environment())

    def answers(self, seconds: float) -> bool:
        """Wait up to `seconds` until the API server calls itself ready."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            asked = time.monotonic()
            argv = self.argv("get", "--raw=/readyz", "--request-timeout=2s")
            if run(argv, timeout=10, check=False, env=direct_environment()).returncode == 0:
                return True
            time.sleep(max(0.0, asked + 0.3 - time.monotonic()))  # refused at once while nobody listens
        return False

    def watch_until(self, *words: str, done: Callable[[dict[str, Manifest]], bool], seconds: float) -> bool:
        """Watch objects until `done`, which gets them by name at each change; False after `seconds`."""
        argv = self.argv("get", *words, "--watch", "-o", "json")
        process = subprocess.Popen(
            argv, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, stdin=subprocess.DEVNULL, env=direct_environment()
        )
        assert process.stdout is not None
        seen: dict[str, Manifest] = {}
        try:
            for item in documents(process.stdout.fileno(), time.monotonic() + seconds):
                seen[item["metadata"]["name"]] = item
                if done(seen):
                    return True
            return False
        finally:
            process.kill()
            process.wait()
            process.stdout.close()


def documents(descriptor: int, deadline: float, *, at_once: int = 1 << 16) -> Iterator[Manifest]:
    """JSON documents as they come through a pipe, until it ends or `deadline` (monotonic seconds) has come."""
    parser, characters, text = json.JSONDecoder(), codecs.getincrementaldecoder("utf-8")(), ""
    with selectors.DefaultSelector() as selector:
        selector.register(descriptor, selectors.EVENT_READ)
        while selector.select(max(0.0, deadline - time.monotonic())):
            chunk = os.read(descriptor, at_once)
            if not chunk:
                return
            text = (text + characters.decode(chunk)).lstrip()
            while text:
                try:
                    item, end = parser.raw_decode(text)
                except ValueError:
                    break  # not whole yet
                text = text[end:].lstrip()
                yield item


def condition_is_true(item: Manifest, name: str) -> bool:
    """Whether the object says so itself."""
    return any(c["type"] == name and c["status"] == "True" for c in item.get("status", {}).get("conditions", []))


def require(fine: bool, message: str, log: Path | None = None) -> None:
    """Raise ClusterError with `message` unless `fine`."""
    if not fine:
        raise ClusterError(message, log=log)
