"""Where the project's files are."""

from pathlib import Path

#: The checkout that this file is part of.
ROOT = Path(__file__).resolve().parents[2]

CRDS = ROOT / "crds"
DEPLOY = ROOT / "deploy"
SAMPLES = DEPLOY / "samples"

#: The namespace, and the name of everything in it, of a stock install.
OPERATOR = "external-etcd-operator"
