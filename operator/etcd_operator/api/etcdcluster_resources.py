"""What containers of an EtcdCluster ask for.

Pure. See `etcdcluster` for the kind that this is a part of.
"""

from typing import Annotated

from pydantic import WithJsonSchema, with_config
from typing_extensions import TypedDict

from etcd_operator.api.rules import is_quantity
from etcd_operator.api.units import QUANTITY_SCHEMA

_QUANTITIES = {
    "type": "object",
    "maxProperties": 8,
    "additionalProperties": {
        **QUANTITY_SCHEMA,
        "x-kubernetes-validations": [
            {"rule": is_quantity("self"), "message": "must be a quantity such as 500m or 256Mi"},
        ],
    },
}


@with_config(use_attribute_docstrings=True)
class ResourceRequirements(TypedDict, total=False):
    """What a container asks for and may use at most, as in any pod.

    Both are plain dictionaries, so that they go into a container unchanged.
    """

    requests: Annotated[dict[str, int | str], WithJsonSchema(_QUANTITIES)]
    """What the scheduler sets aside. Where only limits are given, Kubernetes takes those."""
    limits: Annotated[dict[str, int | str], WithJsonSchema(_QUANTITIES)]
    """What the container may use at most. A CPU limit throttles etcd and can cost it the leadership: better none.
    Memory for etcd: at least three times the size of the database.
    """
