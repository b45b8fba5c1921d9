"""`hack/test`: the checks of the project, layer by layer, cheapest first.

Runs lint, types, unit, model, integration and e2e in that order and stops at the first layer that fails.
The last line printed is always `N passed, N failed, N skipped`: tests, plus one per check of lint and types.
`thorough` is e2e with the tests that show what another one shows, at one more moment, on one more version or under one
more fault; they are marked so, and take longer than one wants to wait for each change.
A layer in which nothing was found to run has failed: an empty folder must not look like success.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from devtools import environment
from devtools.project import ROOT

LAYERS = ("lint", "types", "unit", "model", "integration", "e2e")
SOURCES = ("operator", "hack", "tests")

#: Tests that run side by side: most use one core each.
WORKERS = 2
#: The same for e2e tests: one takes more than half of two cores while pods start, and a third finishes none earlier.
E2E_WORKERS = 2
#: What runs only when it is asked for by name: all e2e tests; and the storm, which takes as long as one likes.
THOROUGH, SOAK = "thorough", "soak"
SOAK_MINUTES = 60.0

#: The local cluster that the e2e tests run on; each of several workers has its own, with the worker's name behind it.
E2E_CLUSTER = "test"


@dataclass(frozen=True, kw_only=True, slots=True)
class Tally:
    """How many checks had which end."""

    passed: int = 0
    failed: int = 0
    skipped: int = 0

    def __add__(self, other: "Tally") -> "Tally":
        return Tally(
            passed=self.passed + other.passed,
            failed=self.failed + other.failed,
            skipped=self.skipped + other.skipped,
        )

    def __str__(self) -> str:
        return f"{self.passed} passed, {self.failed} failed, {self.skipped} skipped"


def read_junit(path: Path) -> Tally:
    """What a pytest run counted, from its JUnit XML; a setup that broke counts as failed.

    A run that ended before it wrote the file (a broken conftest, an interrupt) is one failure.
    """
    if not path.exists() or not path.stat().st_size:
        return Tally(failed=1)
    tally = Tally()
    for suite in ElementTree.parse(path).getroot().iter("testsuite"):
        count = {key: int(suite.get(key, "0")) for key in ("tests", "failures", "errors", "skipped")}
        bad = count["failures"] + count["errors"]
        good = max(count["tests"] - bad - count["skipped"], 0)
        tally += Tally(passed=good, failed=bad, skipped=count["skipped"])
    return tally


def run(argv: Sequence[str]) -> int:
    """Run a program from the checkout's root with this Python's environment; returns its exit code."""
    sys.stdout.flush()
    return subprocess.run(argv, cwd=ROOT, check=False).returncode


def run_checks(*commands: Sequence[str]) -> Tally:
    """Run commands that pass or fail as a whole, all of them, as their findings are fixed together."""
    tally = Tally()
    for command in commands:
        print("$", " ".join(command), flush=True)
        tally += Tally(failed=1) if run(command) else Tally(passed=1)
    return tally


def lint(_: Sequence[str]) -> Tally:
    """Style, formatting, the import contract, and generated files that match their sources."""
    return run_checks(
        [sys.executable, "-m", "ruff", "check"],
        [sys.executable, "-m", "ruff", "format", "--check"],
        [str(Path(sys.executable).with_name("lint-imports"))],
        ["hack/generate", "--check"],
    )


def types(_: Sequence[str]) -> Tally:
    """mypy --strict over everything."""
    return run_checks([sys.executable, "-m", "mypy", "--strict", *SOURCES])


def run_pytest(layer: str, arguments: Sequence[str], *, without: str = "") -> Tally:
    """Run the tests in tests/LAYER side by side, or those of them that the arguments name one after the other.

    Without arguments, those with the mark `without` are left out.

    Tests of one file stay together, as they may share what took long to make.
    """
    named = any(argument.startswith("tests/") for argument in arguments)
    if not arguments:
        workers = E2E_WORKERS if layer == "e2e" else WORKERS
        arguments = [f"--numprocesses={workers}", "--dist=loadfile", "--durations=15"]
        arguments += ["-m", f"not {without}"] if without else []
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "junit.xml"
        paths = [] if named else [f"tests/{layer}"]
        code = run([sys.executable, "-m", "pytest", f"--junit-xml={report}", *paths, *arguments])
        tally = read_junit(report)
    if code and not tally.failed:
        # Nothing collected (5), interrupted (2), usage (4): no test failed, yet the layer did not pass.
        print(f"hack/test: pytest ended with exit code {code}", file=sys.stderr, flush=True)
        return tally + Tally(failed=1)
    return tally


def unit(arguments: Sequence[str]) -> Tally:
    """Pure code alone."""
    return run_pytest("unit", arguments)


def model(arguments: Sequence[str]) -> Tally:
    """Hypothesis machines that crash the operator between any two steps."""
    return run_pytest("model", arguments)


def integration(arguments: Sequence[str]) -> Tally:
    """Real kube-apiserver and etcd processes on loopback, no nodes."""
    return run_pytest("integration", arguments)


def e2e(arguments: Sequence[str]) -> Tally:
    """The operator, installed as a user would, in local clusters."""
    return run_e2e(arguments, without=THOROUGH)


def thorough(arguments: Sequence[str]) -> Tally:
    """All e2e tests, also those of one more moment, version or fault."""
    return run_e2e(arguments)


def run_e2e(arguments: Sequence[str], *, without: str = "") -> Tally:
    """Bring up the local clusters that e2e tests run on, and run them."""
    # Brought up here, not by the workers: builds show how far they are, and only one makes each.
    for name in e2e_clusters(arguments):
        if run(["hack/cluster", "up", "--name", name, "--nodes", str(environment.NODES)]):
            return Tally(failed=1)
    return run_pytest("e2e", arguments, without=without)


def soak(arguments: Sequence[str]) -> Tally:
    """The storm of the e2e tests for as long as asked, its faults told as they happen."""
    return run_pytest("e2e", ["tests/e2e/test_storm.py", "-s", *arguments])


def e2e_clusters(arguments: Sequence[str]) -> list[str]:
    """The local clusters that e2e tests run on with those arguments."""
    if arguments or "E2E_CLUSTER" in os.environ:
        return [e2e_cluster(None)]
    return [e2e_cluster(f"gw{worker}") for worker in range(E2E_WORKERS)]


def e2e_cluster(worker: str | None) -> str:
    """The local cluster of a pytest worker; None: all tests run in one process."""
    name = os.environ.get("E2E_CLUSTER", E2E_CLUSTER)
    return f"{name}-{worker}" if worker else name


RUNNERS: dict[str, Callable[[Sequence[str]], Tally]] = {
    "lint": lint,
    "types": types,
    "unit": unit,
    "model": model,
    "integration": integration,
    "e2e": e2e,
    THOROUGH: thorough,
    SOAK: soak,
}


def take_down(clusters: Sequence[str]) -> None:
    """Remove the clusters that the e2e tests brought up, unless they were told to use another one."""
    if "E2E_CLUSTER" not in os.environ:
        for name in clusters:
            run(["hack/cluster", "down", "--name", name])


def run_layers(layers: Sequence[str], arguments: Sequence[str], *, keep: bool) -> Tally:
    """Run the layers in their order, up to and with the first that fails."""
    total = Tally()
    for layer in (name for name in (*LAYERS, THOROUGH, SOAK) if name in layers):
        print(f"--- {layer}: {RUNNERS[layer].__doc__}", flush=True)
        started = time.monotonic()
        try:
            tally = RUNNERS[layer](arguments)
        finally:
            if layer in ("e2e", THOROUGH) and not keep:
                take_down(e2e_clusters(arguments))
            elif layer == SOAK and not keep:
                take_down([e2e_cluster(None)])
        print(f"--- {layer}: {tally}, {time.monotonic() - started:.0f} s", flush=True)
        total += tally
        if tally.failed:
            break
    return total


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """The command line; what follows `--` goes to pytest as it is."""
    own, arguments = list(argv), []
    if "--" in own:
        cut = own.index("--")
        own, arguments = own[:cut], own[cut + 1 :]
    parser = argparse.ArgumentParser(
        prog="hack/test",
        description="Run the project's checks, in order, until a layer fails.",
        epilog="What follows -- goes to pytest: hack/test unit -- -k quorum -x",
    )
    parser.add_argument(
        "layers", nargs="*", metavar="LAYER", help=f"run these alone: {', '.join(LAYERS)}; {THOROUGH} or {SOAK}"
    )
    parser.add_argument("--minutes", type=float, default=SOAK_MINUTES, help=f"how long {SOAK} takes (%(default)g)")
    parser.add_argument("--seed", help=f"what faults {SOAK} deals out, as a run before told it (random)")
    parser.add_argument("--keep", action="store_true", help="leave the e2e tests' local clusters up")
    options = parser.parse_args(own)
    if unknown := [layer for layer in options.layers if layer not in RUNNERS]:
        parser.error(f"no such layer: {', '.join(unknown)}; there are {', '.join(RUNNERS)}")
    if SOAK in options.layers and len(options.layers) > 1:
        parser.error(f"{SOAK} runs by itself")
    options.layers = options.layers or list(LAYERS)
    options.arguments = arguments
    return options


def main(argv: Sequence[str] | None = None) -> int:
    """Run what was asked for; 0 when every check passed."""
    options = parse(sys.argv[1:] if argv is None else argv)
    if SOAK in options.layers:
        os.environ |= {"STORM_MINUTES": str(options.minutes)} | ({"STORM_SEED": options.seed} if options.seed else {})
    try:
        total = run_layers(options.layers, options.arguments, keep=options.keep)
    except KeyboardInterrupt:
        total = Tally(failed=1)
        print("hack/test: interrupted", file=sys.stderr, flush=True)
    sys.stderr.flush()
    print(total, flush=True)
    return 1 if total.failed else 0


if __name__ == "__main__":
    sys.exit(main())
