"""`python -m localcluster`: what `hack/cluster` runs."""

from localcluster.cli import main

main()
