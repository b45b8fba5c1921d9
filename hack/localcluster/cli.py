"""`hack/cluster`: the commands, and what they say. All work is done in `cluster`."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path
from typing import Annotated

import typer

from localcluster import artifacts, balancer, cluster, diagnose, external_etcd, network, shell, state, versions
from localcluster import node as machines
from localcluster.cluster import Cluster
from localcluster.errors import ClusterError
from localcluster.progress import Progress

app = typer.Typer(
    help="A real multi-node Kubernetes on this machine, without containers around it and without a network out.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

Name = Annotated[str, typer.Option("--name", "-n", help="The cluster's name.")]
NodeName = Annotated[str, typer.Argument(metavar="NODE", help="A node's name, for instance dev-1.")]
PASS_ON = {"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []}


@app.command()
def up(
    name: Name = "dev",
    nodes: Annotated[int | None, typer.Option(help="How many nodes (new cluster: 1); more than before adds.")] = None,
    control_planes: Annotated[
        int | None, typer.Option(help="How many of them are control planes, behind a balancer (new cluster: 1).")
    ] = None,
    etcd_servers: Annotated[
        str | None, typer.Option(metavar="URLS", help="Use this etcd outside of the cluster: https://HOST:PORT,...")
    ] = None,
    etcd_certs: Annotated[
        Path | None, typer.Option(metavar="DIR", help="With that etcd's ca.crt, and tls.crt and tls.key of a client.")
    ] = None,
) -> None:
    """Bring a cluster up, or repair it: makes what is missing, leaves what is healthy alone."""
    started = time.monotonic()
    etcd = external_etcd.read(etcd_servers, etcd_certs)
    made = Cluster.up(name, nodes, Progress(), control_planes=control_planes, etcd=etcd)
    names = ", ".join(node.name for node in made.nodes)
    typer.echo(f"Cluster {name} is up ({names}; {time.monotonic() - started:.1f} s). Next:")
    typer.echo(f"  export KUBECONFIG={made.kubeconfig}")
    typer.echo("  kubectl get nodes")


@app.command()
def down(
    name: Name = "dev",
    all_clusters: Annotated[bool, typer.Option("--all", help="All clusters.")] = False,
) -> None:
    """Remove a cluster with its data, and everything that it left on this machine."""
    for each in [found.name for found in state.find_all()] if all_clusters else [name]:
        existed = cluster.remove(each)
        typer.echo(f"Cluster {each} is gone." if existed else f"There is no cluster {each}.")


@app.command("list")
def list_clusters() -> None:
    """Show all clusters and their nodes."""
    plugged = network.plugged_links()
    rows = [("CLUSTER", "NODE", "ADDRESS", "STATE")]
    for found in state.find_all():
        if balanced := balancer.of(found):
            wrong = balancer.ailments(balanced, plugged)
            condition = wrong[0].removeprefix(f"{balanced.name} ") if wrong else "running"
            rows.append((found.name, balanced.name, balanced.address, condition))
        rows += [(found.name, node.name, node.address, _condition(node, plugged)) for node in machines.nodes_of(found)]
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    for row in rows:
        typer.echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


@app.command()
def kubeconfig(
    name: Name = "dev",
    content: Annotated[bool, typer.Option("--content", help="Print the file itself, not its path.")] = False,
) -> None:
    """Print the path of a cluster's kubeconfig: export KUBECONFIG=$(hack/cluster kubeconfig)."""
    found = state.find(name)
    path = found.folder / "kubeconfig" if found else None
    if path is None or not path.exists():
        raise ClusterError(f"there is no cluster {name}, or it never came up (hack/cluster up --name {name})")
    typer.echo(path.read_text() if content else path)


@app.command()
def load(
    image: Annotated[
        str, typer.Argument(help="A docker-archive; or `operator`, `haproxy` or `etcd:VERSION`, which are built.")
    ],
    name: Name = "dev",
) -> None:
    """Put an image on all nodes of a cluster."""
    progress = Progress()
    if image == "operator":
        called, archive = artifacts.ensure_operator_image(progress)
    elif image.startswith("etcd:"):
        archive = artifacts.ensure_etcd_image(image.removeprefix("etcd:").removeprefix("v"), progress)
        called = image
    elif image == "haproxy":
        called, archive = versions.HAPROXY_IMAGE, artifacts.ensure_haproxy_image(progress)
    else:
        called, archive = image, Path(image)
        if not archive.is_file():
            raise ClusterError(f"{image} is neither a docker-archive, nor `operator`, `haproxy` or `etcd:VERSION`")
    found = Cluster.find(name)
    with progress.step(f"Loading {called} into cluster {name}", estimate=4):
        found.load(archive)
    typer.echo(called)


@app.command("exec", context_settings={**PASS_ON, "help_option_names": ["--help"]})
def execute(node: NodeName, context: typer.Context) -> None:
    """Run a command inside a node: hack/cluster exec dev-1 -- ctr -n k8s.io containers ls."""
    argv = machines.command(Cluster.of_node(node).node(node), context.args or ["bash"])
    os.execvp(argv[0], argv)


@app.command(context_settings=PASS_ON)
def kubectl(
    context: typer.Context,
    name: Annotated[str, typer.Option("--on", help="The cluster's name; all else is kubectl's.")] = "dev",
) -> None:
    """Run kubectl on a cluster: hack/cluster kubectl get pods -A."""
    argv = Cluster.find(name).kubectl.argv(*context.args)
    os.execve(argv[0], argv, shell.direct_environment())


@app.command("stop-node")
def stop_node(node: NodeName) -> None:
    """Cut a node's power: everything in it dies at once, its disk stays."""
    Cluster.of_node(node).stop_node(node)


@app.command("start-node")
def start_node(node: NodeName) -> None:
    """Start a node that was stopped; as after a reboot."""
    Cluster.of_node(node).start_node(node)


@app.command()
def partition(node: NodeName) -> None:
    """Pull a node's network cable: it runs on, and reaches nobody."""
    Cluster.of_node(node).partition(node)


@app.command()
def heal(node: NodeName) -> None:
    """Put a node's network cable back."""
    Cluster.of_node(node).heal(node)


@app.command()
def logs(
    node: NodeName,
    program: Annotated[str, typer.Argument(help="kubelet, containerd, kubeadm, init, or a container or pod.")],
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on as it grows.")] = False,
) -> None:
    """Print the log of a program on a node, also when the API server is gone."""
    path = diagnose.log_of(Cluster.of_node(node).node(node), program)
    argv = ["tail", "-n", "+1", *(["-F"] if follow else []), str(path)]
    os.execvp(argv[0], argv)


def main() -> None:
    """Run a command; errors meant for a person are told as such, without a traceback."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _interrupt)
    try:
        if os.geteuid() != 0:
            raise ClusterError("nodes need namespaces, mounts and cgroups: run this as root")
        app(prog_name="hack/cluster")
    except ClusterError as error:
        sys.exit(f"hack/cluster: {error.told()}")
    except artifacts.BuildError as error:
        sys.exit(f"hack/cluster: {error}")
    except Interrupted:
        sys.exit("hack/cluster: interrupted; `up` goes on where it stopped, `down` removes it")


class Interrupted(BaseException):
    """The person gave up. Not KeyboardInterrupt, which the command-line library would answer in its own words."""


def _interrupt(_number: int, _frame: object) -> None:
    raise Interrupted


def _condition(node: machines.Node, plugged: set[str]) -> str:
    if not node.is_member:
        return "not set up"
    if machines.running_pid(node) is None:
        return "stopped"
    return "running" if node.link in plugged else "cut off"
