"""Waiting for the API server: a process with the right arguments that says that it is ready."""

import http.client
import ssl
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

from etcd_operator.agent.manifest import Probe
from etcd_operator.agent.processes import ProcessID, has_flags, running

#: Seconds between two looks, and for one answer.
INTERVAL, ANSWER = 0.5, 5.0
#: A kube-apiserver that lets nobody ask anonymously serves as well; its answer says no more than that.
SERVING = frozenset({200, 401, 403})
_LONGEST = 300


def ask(probe: Probe) -> str:
    """Empty when the API server says that it is ready, else what it says, or why it cannot be asked.

    Its certificate is not verified, as the kubelet does not either (k8s.io/kubernetes, pkg/probe/http).
    """
    connection: http.client.HTTPConnection
    if probe.scheme == "HTTPS":
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        connection = http.client.HTTPSConnection(probe.host, probe.port, timeout=ANSWER, context=context)
    else:
        connection = http.client.HTTPConnection(probe.host, probe.port, timeout=ANSWER)
    try:
        connection.request("GET", probe.path)
        answer = connection.getresponse()
        said = answer.read(2**16).decode(errors="replace")
    except (OSError, http.client.HTTPException) as error:
        return f"{probe.path} does not answer: {error or type(error).__name__}"
    finally:
        connection.close()
    if answer.status in SERVING:
        return ""
    failed = [line for line in said.splitlines() if line.startswith("[-]")]
    return f"{probe.path} answers {answer.status}: {', '.join(failed) or said.strip()}"[:_LONGEST]


@dataclass(frozen=True, kw_only=True, slots=True)
class Watch:
    """How to see what the API server does; proc: the machine's /proc; `now` and `sleep` in seconds."""

    proc: Path = Path("/proc")
    ask: Callable[[Probe], str] = ask
    now: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep

    def running(self) -> frozenset[ProcessID]:
        """All kube-apiservers of this machine, whatever their arguments."""
        return frozenset(running(self.proc))

    def wait(self, flags: Mapping[str, str], probe: Probe, *, besides: Collection[ProcessID], patience: float) -> str:
        """Wait until a process with these etcd flags, none of `besides`, is ready.

        Returns nothing then, and what was seen of it when that took longer than `patience` seconds.
        """
        end, started, seen = self.now() + patience, set[ProcessID](), ""
        while True:
            fresh = self._fresh(flags, besides)
            started |= fresh
            if fresh:
                problem = self.ask(probe)
                # The answer is another process's where this one ended meanwhile.
                if not problem and fresh & self._fresh(flags, besides):
                    return ""
                seen = problem or "it ended just when it was ready"
            if self.now() >= end:
                return _told(len(started), bool(fresh), seen)
            self.sleep(INTERVAL)

    def _fresh(self, flags: Mapping[str, str], besides: Collection[ProcessID]) -> set[ProcessID]:
        return {found for found, told in running(self.proc).items() if has_flags(told, flags) and found not in besides}


def _told(started: int, runs: bool, seen: str) -> str:
    if not started:
        return "the kubelet has started no kube-apiserver with these arguments"
    times = "once" if started == 1 else f"{started} times"
    if runs:
        return f"the kube-apiserver runs, started {times}, but {seen}"
    return f"the kube-apiserver was started {times} and has ended; while it ran, {seen}"
