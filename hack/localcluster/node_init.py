"""A node's first process: makes the node's own view of the machine, then keeps containerd and the kubelet running.

A program of its own (`python -I -S node_init.py ...`, standard library only), because it outlives the command that
started it and must not depend on the checkout or on installed packages later. Two lives:

- `outside SPEC REPORT_FD`: enters the node's cgroups, then becomes `nsenter` + `unshare`, which start the other.
- `inside SPEC REPORT_FD`: is process 1 of the node's PID namespace. Writes `pid N` (as the machine counts) to the
  descriptor at once and `ready` when containerd answers. Lives until it is killed, and with it the whole node:
  that is how a node is stopped, as a power cut would.

kubeadm talks to it as to OpenRC: the shims `openrc`, `rc-service` and `rc-update` write `start` or `stop` into a pipe.
"""

from __future__ import annotations

import json
import os
import selectors
import shlex
import signal
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any

NODE = Path("/run/node")
#: Seconds between a program's exit and its next start.
RESTART_DELAY = 1.0
#: What a kubelet would set machine-wide when it finds other values: it is shown these, and the machine is left alone.
KUBELET_TUNABLES = {
    "vm/overcommit_memory": 1,
    "vm/panic_on_oom": 0,
    "kernel/panic": 10,
    "kernel/panic_on_oops": 1,
    "kernel/keys/root_maxkeys": 1000000,
    "kernel/keys/root_maxbytes": 25000000,
}
#: kubeadm finds an init system by these names; see its util/initsystem.
SHIMS = {
    "openrc": "exit 0",
    "rc-update": "echo kubelet",
    "rc-service": f'case "$2" in status) echo "* status: started" ;; *) echo "$2" > {NODE}/control ;; esac',
}


def outside(spec_path: str, report: int) -> None:
    """Enter the node's cgroups and become the program that makes its namespaces; does not return."""
    spec = json.loads(Path(spec_path).read_text())
    for members in spec["cgroup_members"]:
        Path(members).write_text("0")  # "0" means the writer
    argv = ["nsenter", f"--net={spec['netns']}", "unshare", "--mount", "--uts", "--ipc", "--pid", "--fork"]
    argv += [sys.executable, "-I", "-S", __file__, "inside", spec_path, str(report)]
    os.execvp(argv[0], argv)


def inside(spec_path: str, report: int) -> None:
    """Be process 1 of the node; does not return."""
    # /proc is still the machine's, so this is our process ID as the machine counts.
    os.write(report, f"pid {Path('/proc/self').readlink()}\n".encode())
    spec = json.loads(Path(spec_path).read_text())
    socket.sethostname(spec["name"])
    mount_all(spec)
    write_identity(spec)
    Path("/proc/sys/net/ipv4/ip_forward").write_text("1")
    Supervisor(report).run()


def mount_all(spec: dict[str, Any]) -> None:
    """Everything that the node writes goes to its own folder; what the machine has is seen, not changed."""
    mount("--make-rprivate", "/")
    mount("-t", "proc", "proc", "/proc")
    if os.path.ismount("/run/netns"):  # else this node would keep the networks of others alive
        subprocess.run(["umount", "--recursive", "--lazy", "/run/netns"], check=True)
    mount("-t", "tmpfs", "-o", "mode=755", "node-run", "/run")
    for name in ("state", "programs"):
        (NODE / name).mkdir(parents=True)
        mount("--bind", spec[name], str(NODE / name))
    for top in ("etc", "usr", "opt"):
        if Path("/", top).is_dir():
            layers = NODE / "state" / "overlay" / top
            for layer in ("upper", "work"):
                (layers / layer).mkdir(parents=True, exist_ok=True)
            options = f"lowerdir=/{top},upperdir={layers}/upper,workdir={layers}/work"
            mount("-t", "overlay", "-o", options, "overlay", f"/{top}")
    for source, target in {"var": "/var", "tmp": "/tmp", "kubernetes": "/etc/kubernetes"}.items():
        for folder in (NODE / "state" / source, Path(target)):
            folder.mkdir(parents=True, exist_ok=True)
        mount("--bind", str(NODE / "state" / source), target)
    for name in ("lib/kubelet", "lib/containerd", "lib/etcd", "lib/local-pv", "log/pods", "log/containers", "tmp"):
        Path("/var", name).mkdir(parents=True, exist_ok=True)
    Path("/var/lib/etcd").chmod(0o700)
    show_tunables()
    mount("--make-rshared", "/")  # as on any node: volumes that the kubelet mounts must reach running containers


def show_tunables() -> None:
    """Cover the parameters that belong to the whole machine with files that hold what a kubelet wants to read."""
    (NODE / "tunables").mkdir()
    for name, value in KUBELET_TUNABLES.items():
        real = Path("/proc/sys", name)
        if real.exists():
            shown = NODE / "tunables" / name.replace("/", ".")
            shown.write_text(f"{value}\n")
            mount("--bind", str(shown), str(real))


def write_identity(spec: dict[str, Any]) -> None:
    """Files below /etc that differ from the machine's own, and kubeadm's way to start the kubelet."""
    files = {
        "/etc/hostname": f"{spec['name']}\n",
        "/etc/hosts": f"127.0.0.1 localhost\n{spec['address']} {spec['name']}\n",
        # Nothing listens there: no node resolves names outside the cluster.
        "/etc/resolv.conf": f"nameserver {spec['gateway']}\n",
        "/etc/machine-id": uuid.uuid5(uuid.NAMESPACE_DNS, spec["name"]).hex + "\n",
    }
    for name, content in files.items():
        Path(name).unlink(missing_ok=True)  # often a link to somewhere below /run
        Path(name).write_text(content)
    (NODE / "shims").mkdir()
    for name, script in SHIMS.items():
        shim = NODE / "shims" / name
        shim.write_text(f"#!/bin/sh\n{script}\n")
        shim.chmod(0o755)


def mount(*words: str) -> None:
    """Run mount(8); a failure ends the node, with the reason in its log."""
    subprocess.run(["mount", *words], check=True)


class Program:
    """One program that is kept running: its command line is made anew at each start."""

    def __init__(self, name: str, *, wanted: bool) -> None:
        self.name = name
        self.wanted = wanted
        self.process: subprocess.Popen[bytes] | None = None
        #: Whether it was told to end, so that its end is no failure.
        self.told_to_end = False
        #: Not to be started before this time (monotonic seconds).
        self.not_before = 0.0

    def argv(self) -> Sequence[str]:
        if self.name == "containerd":
            return ["containerd", "--config", f"{NODE}/state/containerd.toml"]
        return ["kubelet", *kubelet_arguments(Path("/etc/kubernetes"), Path("/var/lib/kubelet"))]

    def start(self) -> None:
        env = {"PATH": f"{NODE}/programs:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
        if self.name == "containerd":
            env["NOTIFY_SOCKET"] = f"{NODE}/notify"
        with Path(NODE, "state", "log", f"{self.name}.log").open("ab") as log:
            self.process = subprocess.Popen(
                self.argv(), env=env, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )
        say(f"{self.name} started")


def kubelet_arguments(kubernetes: Path, kubelet: Path) -> list[str]:
    """The kubelet's command line, as kubeadm's own systemd unit would put it together."""
    arguments = [f"--config={kubelet}/config.yaml", f"--kubeconfig={kubernetes}/kubelet.conf"]
    if (kubernetes / "bootstrap-kubelet.conf").exists():
        arguments.append(f"--bootstrap-kubeconfig={kubernetes}/bootstrap-kubelet.conf")
    flags = kubelet / "kubeadm-flags.env"
    if flags.exists():
        name, _, value = flags.read_text().strip().partition("=")
        if name == "KUBELET_KUBEADM_ARGS":
            arguments += shlex.split(shlex.split(value)[0]) if value else []
    return arguments


class Supervisor:
    """Starts the node's programs, starts them again when they end, and reaps what they leave behind."""

    def __init__(self, report: int) -> None:
        self.report: int | None = report
        self.containerd = Program("containerd", wanted=True)
        self.kubelet = Program("kubelet", wanted=Path("/var/lib/kubelet/config.yaml").exists())
        self.events = selectors.DefaultSelector()

    def run(self) -> None:
        wake, wake_writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(wake_writer)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        os.mkfifo(NODE / "control")
        control = os.open(NODE / "control", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        notify.bind(f"{NODE}/notify")
        self.events.register(wake, selectors.EVENT_READ, lambda: self.reap(wake))
        self.events.register(control, selectors.EVENT_READ, lambda: self.obey(os.read(control, 4096).decode()))
        self.events.register(notify, selectors.EVENT_READ, lambda: self.hear(notify.recv(4096).decode()))
        while True:
            for key, _ in self.events.select(self.start_due()):
                key.data()

    def start_due(self) -> float | None:
        """Start what should run and may; seconds until the next one may, None when all is well."""
        now = time.monotonic()
        waiting = [p for p in (self.containerd, self.kubelet) if p.wanted and p.process is None]
        for program in [p for p in waiting if p.not_before <= now]:
            program.start()
            waiting.remove(program)
        return min((p.not_before - now for p in waiting), default=None)

    def reap(self, wake: int) -> None:
        os.read(wake, 4096)
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            for program in (self.containerd, self.kubelet):
                if program.process and program.process.pid == pid:
                    say(f"{program.name} ended with exit code {os.waitstatus_to_exitcode(status)}")
                    program.process = None
                    program.not_before = 0.0 if program.told_to_end else time.monotonic() + RESTART_DELAY
                    program.told_to_end = False

    def obey(self, orders: str) -> None:
        for order in orders.split():
            self.kubelet.wanted = order != "stop"
            if order != "start" and self.kubelet.process:
                self.kubelet.told_to_end = True
                self.kubelet.process.terminate()

    def hear(self, message: str) -> None:
        """containerd says READY=1 (sd_notify) once it answers."""
        if "READY=1" in message.splitlines() and self.report is not None:
            os.write(self.report, b"ready\n")
            os.close(self.report)
            self.report = None


def say(text: str) -> None:
    print(time.strftime("%H:%M:%S"), text, flush=True)


if __name__ == "__main__":
    {"outside": outside, "inside": inside}[sys.argv[1]](sys.argv[2], int(sys.argv[3]))
