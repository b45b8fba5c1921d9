"""Which keys etcd's configuration file has, version by version, read from etcd's own sources.

etcd ignores keys of its configuration file that it does not know, so the operator has to know them. The file's keys
are the JSON tags of `embed.Config` and the structs beside it; their Go types tell what a value must be. Run by
`hack/generate-etcd-options`; nothing of it is needed at run time.
"""

import argparse
import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path

#: The newest patch of every supported minor version.
VERSIONS = ("3.5.35", "3.6.16", "3.7.3")
OUTPUT = Path(__file__).parents[2] / "operator/etcd_operator/etcd/options.json"

FIELD = re.compile(r'^\s+\w+\s+(\S+)\s+`json:"([a-z0-9][a-z0-9-]*)(?:,omitempty)?"`', re.MULTILINE)
GATE = re.compile(r'^\t(\w+)\s+featuregate\.Feature = "(\w+)"', re.MULTILINE)
GATE_OF_FLAG = re.compile(r'^\t\t"(experimental-[a-z0-9-]+)":\s+(\w+),', re.MULTILINE)

TYPES = {
    "string": "string",
    "bool": "boolean",
    "int": "integer",
    "int64": "integer",
    "uint": "integer",
    "uint32": "integer",
    "uint64": "integer",
    "time.Duration": "duration",
    "[]string": "strings",
    "config.V2DeprecationEnum": "string",
}


def main() -> int:
    parser = argparse.ArgumentParser(description="Write etcd's configuration keys as JSON.")
    parser.add_argument("--check", action="store_true", help="only compare; exit 1 on a difference")
    check = parser.parse_args().check
    text = json.dumps(collect(), indent=1, sort_keys=True) + "\n"
    if check:
        return 0 if OUTPUT.read_text() == text else f"{OUTPUT} is out of date"  # type: ignore[return-value]
    OUTPUT.write_text(text)
    return 0


def collect() -> dict[str, object]:
    """Per minor version its keys with their types and its feature gates; and which gate took a key's place."""
    versions: dict[str, object] = {}
    gate_of_key: dict[str, str] = {}
    for version in VERSIONS:
        source = module_source(version)
        gates = ""
        for file in source.glob("features/*_features.go"):
            gates += file.read_text()
        versions[version.rpartition(".")[0]] = {
            "keys": keys((source / "embed/config.go").read_text()),
            "gates": sorted({name for _, name in GATE.findall(gates)}),
        }
        gate_of_key |= dict(GATE_OF_FLAG.findall(gates))
    return {"versions": versions, "gate_of_key": gate_of_key}


def keys(config: str) -> dict[str, str]:
    """The top-level keys of one version's embed/config.go, with what their values must be."""
    found = {}
    for struct in ("Config", "configJSON"):
        body = re.search(rf"^type {struct} struct \{{\n(.*?)^\}}", config, re.MULTILINE | re.DOTALL)
        if body is None:
            raise ValueError(f"embed/config.go has no struct {struct}")
        for kind, key in FIELD.findall(body[1]):
            found[key] = TYPES.get(kind, "object")
    found.pop("grpc-additional-server-options", None)  # a Go interface: for programs that embed etcd
    return found


def module_source(version: str) -> Path:
    """The folder of etcd's server module at that version, downloaded by `go` where it is missing."""
    with tempfile.TemporaryDirectory() as empty:
        command = ["go", "mod", "download", "-json", f"go.etcd.io/etcd/server/v3@v{version}"]
        done = subprocess.run(command, cwd=empty, capture_output=True, text=True, check=True)
    return Path(json.loads(done.stdout)["Dir"])


if __name__ == "__main__":
    sys.exit(main())
