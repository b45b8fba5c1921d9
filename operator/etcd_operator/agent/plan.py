"""What the program on a control-plane node (`agent.apiserver`) is told, and what it answers: both are one JSON object.

Pure: the operator writes plans and reads results with the same classes.
"""

import hashlib
import json
from collections.abc import Mapping
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator
from pydantic.alias_generators import to_camel

from etcd_operator.binding.arguments import ETCD_FLAGS, PROGRAM
from etcd_operator.resources.names import GROUP

#: The host's folder that the program has at the same path, and what it uses in there.
KUBERNETES = "/etc/kubernetes"
MANIFEST = f"{KUBERNETES}/manifests/kube-apiserver.yaml"
#: Where the API server finds the certificate files: kubeadm mounts /etc/kubernetes/pki into its container.
PKI_FOLDER = f"{KUBERNETES}/pki/external-etcd"
#: Where the former manifest is kept: never in the manifests' folder, as the kubelet would run it.
SAVED_FOLDER = f"{KUBERNETES}/external-etcd"

#: In the plan's folder, beside the certificate's files.
PLAN_FILE = "plan.json"
#: The flags that name the certificate's files, in the order in which they are written, and the files' names: the
#: certificate comes last, as kube-apiserver reads the pair again at each handshake.
FILES = {"etcd-cafile": "ca.crt", "etcd-keyfile": "tls.key", "etcd-certfile": "tls.crt"}

#: On what is wired: the etcd arguments that it had at first, and the binding that set those of now.
ORIGINAL = f"{GROUP}/original-etcd-arguments"
BOUND_BY = f"{GROUP}/bound-by"

#: Bytes that the kubelet takes of a termination message (4096, MaxContainerTerminationMessageLength), with some room.
LONGEST_RESULT = 4000

Reason = Literal[
    "",
    "EndpointUnreachable",  # a wanted etcd does not answer to the certificate
    "AnotherEtcd",  # a wanted address leads to another etcd cluster than the wanted one
    "DifferentData",  # the wanted etcd holds other objects than the present one
    "WritesNotStopped",  # it holds the same ones, and the API server goes on writing into the present one
    "DataUnknown",  # what either holds cannot be read
    "ManifestMissing",
    "ManifestChanged",  # the etcd flags are neither those of before nor the wanted ones
    "ArgumentsUnreadable",  # of the manifest, or the manifest itself
    "FilesUnreadable",  # certificate files that flags name are on no folder of the node, or cannot be read
    "NotReady",  # the API server did not become ready
    "NotRestored",  # nor did it with its former manifest
    "PlanInvalid",
    "Failed",  # the node refused something
]


class _Told(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", alias_generator=to_camel, populate_by_name=True)

    def to_json(self) -> str:
        """As the other side parses it."""
        return self.model_dump_json(by_alias=True)


class PlanInvalidError(Exception):
    """A plan that cannot be carried out as it is; the text says why, without any value."""


class Plan(_Told):
    """How a node's static pod is to use etcd.

    flags: etcd's flags by name without dashes; `None`: not to be there. annotations: of the static pod; `None`: to be
    removed. before: the etcd flags that the operator saw, as `arguments.flags` has them. ours: addresses that are known
    to be the wanted etcd's. cluster_id: the wanted etcd's own, as `etcd.model.hex_id` has it; empty: not known. check:
    whether the wanted servers must answer, be of that etcd and hold the same data. patience: seconds for the API server
    to become ready.
    """

    container: str = PROGRAM
    flags: dict[str, str | None]
    annotations: dict[str, str | None] = {}
    before: dict[str, str]
    ours: tuple[str, ...] = ()
    cluster_id: str = ""
    accept_different_data: bool = False
    check: bool = True
    patience: Annotated[float, Field(gt=0)] = 180.0

    @field_validator("flags")
    @classmethod
    def _of_etcd(cls, flags: dict[str, str | None]) -> dict[str, str | None]:
        if not flags.keys() <= ETCD_FLAGS:
            raise ValueError(f"only etcd's flags of {PROGRAM} can be set")
        return flags

    def digest(self, files: Mapping[str, bytes]) -> str:
        """Of what the node is to have, with the certificate's files; how it was before is no part of it, nor what was
        there originally.
        """
        lasting = {name: value for name, value in self.annotations.items() if name != ORIGINAL}
        held = {name: hashlib.sha256(value).hexdigest() for name, value in files.items()}
        told = json.dumps([self.flags, lasting, self.container, held], sort_keys=True)
        return hashlib.sha256(told.encode()).hexdigest()[:16]

    @classmethod
    def parse(cls, text: str | bytes) -> Self:
        """From JSON; raises `PlanInvalidError`."""
        try:
            return cls.model_validate_json(text)
        except ValidationError as error:
            told = "; ".join(f"{'.'.join(map(str, each['loc']))}: {each['msg']}" for each in error.errors())
            raise PlanInvalidError(f"the plan cannot be read: {told}") from None


class Amount(_Told):
    """How much an etcd holds below its prefix, at one revision."""

    keys: int
    revision: int


class Result(_Told):
    """How a run ended.

    result: `Applied`: the manifest was replaced and the API server is ready; `Unchanged`: the manifest was as wanted;
    `RolledBack`: the former one was put back; `Refused`: nothing was replaced. reason: empty where all is as wanted.
    before, wanted: what the etcds hold, where that was compared.
    """

    result: Literal["Applied", "Unchanged", "RolledBack", "Refused"]
    reason: Reason = ""
    message: str = ""
    before: Amount | None = None
    wanted: Amount | None = None

    @property
    def succeeded(self) -> bool:
        """Whether the API server is ready with what is wanted."""
        return not self.reason

    def to_json(self) -> str:
        """At most `LONGEST_RESULT` bytes: the message is cut where it has to be."""
        text, message = super().to_json(), self.message
        while len(text.encode()) > LONGEST_RESULT and message:
            message = message[: len(message) * 9 // 10]
            text = _Told.to_json(self.model_copy(update={"message": f"{message}…"}))
        return text

    @classmethod
    def parse(cls, text: str | bytes) -> Self:
        """From JSON; raises ValueError."""
        return cls.model_validate_json(text)
