"""The operator's settings: environment variables, read once at start.

An invalid value ends the start with one sentence that names the variable; nothing is guessed or clamped.
"""

import os
import re
import socket
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeVar

T = TypeVar("T")

#: Where a pod finds the namespace it runs in.
OWN_NAMESPACE_FILE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")

_DNS_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
_DNS_NAME = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")


class SettingsError(Exception):
    """A setting has a value that cannot be used; the message is one sentence for the user."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Settings:
    """What can be set; the name of the environment variable is the field's in capitals."""

    #: Namespaces whose objects are handled, separated by commas; empty: all namespaces.
    watch_namespaces: tuple[str, ...] = ()
    #: Reconciles that may run at once.
    workers: int = 32
    #: Seconds after which one reconcile is cancelled and counts as failed.
    reconcile_timeout_seconds: float = 60.0
    #: Seconds between two rounds over all objects, which cover whatever the watches missed.
    resync_seconds: float = 600.0
    #: The Lease by which the replicas agree who acts.
    lease_name: str = "external-etcd-operator"
    #: Its namespace; the pod's own unless said otherwise.
    lease_namespace: str = "default"
    #: Where the operator's own pods are.
    pod_namespace: str = "default"
    #: Seconds after which a leader that was killed is replaced. It renews about four times in that time.
    lease_duration_seconds: float = 10.0
    #: The name of this replica, for the Lease and the events.
    pod_name: str = "external-etcd-operator"
    #: `json` (one object a line) or `console` (for people); unless set: console on a terminal.
    log_format: Literal["json", "console"] = "json"
    #: `debug`, `info`, `warning` or `error`.
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    #: Port of /healthz, /readyz and /metrics; 0 takes a free one and logs it.
    health_port: int = 8080
    #: Address that they listen on; empty: all.
    health_address: str = ""
    #: The image of the programs that run beside etcd (`etcd_operator.agent`); empty: the operator's own, from its pod.
    agent_image: str = ""
    #: The DNS domain of this Kubernetes (cluster.local on most); empty: discovered.
    cluster_domain: str = ""

    @classmethod
    def from_environment(cls, environ: Mapping[str, str] | None = None) -> "Settings":
        """Read the environment; raises `SettingsError`. A variable that is set but empty counts as not set."""
        env = _Environment(os.environ if environ is None else environ)
        return cls(
            watch_namespaces=env.read("WATCH_NAMESPACES", _namespaces, ()),
            workers=env.read("WORKERS", _whole(1, 1000), 32),
            reconcile_timeout_seconds=env.read("RECONCILE_TIMEOUT_SECONDS", _seconds(5, 3600), 60.0),
            resync_seconds=env.read("RESYNC_SECONDS", _seconds(10, 86400), 600.0),
            lease_name=env.read("LEASE_NAME", _dns_name, "external-etcd-operator"),
            lease_namespace=env.read("LEASE_NAMESPACE", _dns_label, _own_namespace()),
            pod_namespace=env.read("POD_NAMESPACE", _dns_label, _own_namespace()),
            lease_duration_seconds=env.read("LEASE_DURATION_SECONDS", _seconds(2, 300), 10.0),
            pod_name=env.read("POD_NAME", str, socket.gethostname()),
            log_format=env.read("LOG_FORMAT", _one_of("json", "console"), "console" if sys.stderr.isatty() else "json"),
            log_level=env.read("LOG_LEVEL", _one_of("debug", "info", "warning", "error"), "info"),
            health_port=env.read("HEALTH_PORT", _whole(0, 65535), 8080),
            health_address=env.read("HEALTH_ADDRESS", str, ""),
            agent_image=env.read("AGENT_IMAGE", str, ""),
            cluster_domain=env.read("CLUSTER_DOMAIN", _dns_name, ""),
        )


@dataclass(frozen=True, slots=True)
class _Environment:
    variables: Mapping[str, str]

    def read(self, name: str, parse: Callable[[str], T], default: T) -> T:
        text = self.variables.get(name, "").strip()
        if not text:
            return default
        try:
            return parse(text)
        except ValueError as error:
            raise SettingsError(f"{name}={text!r} cannot be used: {error}") from None


def _own_namespace() -> str:
    try:
        return OWN_NAMESPACE_FILE.read_text().strip() or "default"
    except OSError:
        return "default"


def _whole(low: int, high: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        if not text.isdecimal() or not low <= int(text) <= high:
            raise ValueError(f"it must be a whole number from {low} to {high}")
        return int(text)

    return parse


def _seconds(low: float, high: float) -> Callable[[str], float]:
    def parse(text: str) -> float:
        if not re.fullmatch(r"\d+(\.\d+)?", text) or not low <= float(text) <= high:
            raise ValueError(f"it must be a number of seconds from {low} to {high}, without a unit")
        return float(text)

    return parse


def _one_of(*choices: T) -> Callable[[str], T]:
    def parse(text: str) -> T:
        for choice in choices:
            if choice == text.lower():
                return choice
        raise ValueError(f"it must be one of {', '.join(str(choice) for choice in choices)}")

    return parse


def _dns_label(text: str) -> str:
    if not _DNS_LABEL.fullmatch(text):
        raise ValueError("it must be a name of lower-case letters, digits and hyphens, 63 characters at most")
    return text


def _dns_name(text: str) -> str:
    if not _DNS_NAME.fullmatch(text) or len(text) > 253:
        raise ValueError("it must be a DNS name of lower-case letters, digits, hyphens and dots")
    return text


def _namespaces(text: str) -> tuple[str, ...]:
    names = [name.strip() for name in text.split(",") if name.strip()]
    return tuple(dict.fromkeys(_dns_label(name) for name in names))
