"""A real Kubernetes on one Linux machine: what `hack/cluster` builds, starts, breaks and removes.

`localcluster.artifacts` is the face of the building half (programs and images, cached outside the checkout).
Nothing in here is imported by the operator.
"""
