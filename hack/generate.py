"""Write the manifests that are generated from the models; with --check only tell which differ.

`crds/` holds one CustomResourceDefinition per kind. Nobody edits these files by hand.
"""

import argparse
import sys
from pathlib import Path
from typing import Any

import yaml

from etcd_operator.api import ApiServerBinding, EtcdCluster
from etcd_operator.api.crd import crd

ROOT = Path(__file__).resolve().parent.parent
KINDS = (EtcdCluster, ApiServerBinding)
HEADER = "# Generated from operator/etcd_operator/api by hack/generate; edit the models instead.\n"


class _Dumper(yaml.SafeDumper):
    """Block style for text of several lines, no aliases, lists indented below their key."""

    def ignore_aliases(self, data: Any) -> bool:
        return True

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:
        super().increase_indent(flow, False)


def _text(dumper: yaml.SafeDumper, value: str) -> yaml.Node:
    return dumper.represent_scalar("tag:yaml.org,2002:str", value, style="|" if "\n" in value else None)


_Dumper.add_representer(str, _text)


def manifest_text(manifest: dict[str, Any]) -> str:
    """The manifest as YAML in the order of its keys, under a line that tells where it comes from."""
    return HEADER + yaml.dump(manifest, Dumper=_Dumper, sort_keys=False, width=110, allow_unicode=True)


def outputs() -> dict[Path, str]:
    """Every generated file, by its path from the root of the project, with what it must hold."""
    return {Path("crds") / f"{kind.info.plural}.yaml": manifest_text(crd(kind)) for kind in KINDS}


def differing(root: Path) -> list[Path]:
    """The generated files that are missing or differ, and files in crds/ that nothing generates."""
    wanted = outputs()
    stale = [path for path, text in wanted.items() if not (root / path).exists() or (root / path).read_text() != text]
    strangers = [path.relative_to(root) for path in sorted((root / "crds").glob("*.yaml"))]
    return stale + [path for path in strangers if path not in wanted]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing, exit 1 when a file differs")
    check = parser.parse_args().check
    for path in differing(ROOT):
        print(f"{path}: {'differs from the models; run hack/generate' if check else 'written'}")
        if check:
            continue
        if (text := outputs().get(path)) is None:
            (ROOT / path).unlink()
        else:
            (ROOT / path).write_text(text)
    return 1 if check and differing(ROOT) else 0


if __name__ == "__main__":
    sys.exit(main())
