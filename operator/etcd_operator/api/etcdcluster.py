"""The kind EtcdCluster: what a user says about an etcd.

Pure. The CRD is generated from these models, so that the docstrings here are what `kubectl explain` shows
and the rules here are what the API server enforces. Only fields that some code applies stand here.
"""

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, WithJsonSchema, with_config
from typing_extensions import TypedDict

from etcd_operator.api.base import (
    API_VERSION,
    BY_NAME,
    ApiModel,
    Column,
    KindInfo,
    LocalObjectReference,
    ObjectMeta,
    Rule,
)
from etcd_operator.api.etcdcluster_access import AccessSpec
from etcd_operator.api.etcdcluster_clients import ClientAccess
from etcd_operator.api.etcdcluster_healing import HealingSpec
from etcd_operator.api.etcdcluster_options import EtcdOptions
from etcd_operator.api.etcdcluster_proxy import ProxySpec
from etcd_operator.api.etcdcluster_recovery import RecoverySpec
from etcd_operator.api.etcdcluster_resources import ResourceRequirements
from etcd_operator.api.etcdcluster_status import EtcdClusterStatus
from etcd_operator.api.etcdcluster_tls import TLSSpec
from etcd_operator.api.rules import at_least, immutable, when_quantities
from etcd_operator.api.units import Quantity

#: The newest etcd that this release was tested with.
DEFAULT_VERSION = "3.7.3"
#: The minor versions that the operator knows the configuration and the pitfalls of.
SUPPORTED_MINORS = ("3.5", "3.6", "3.7")

#: A StatefulSet labels its pods with "<name>-<hash of up to 10>", and a label holds 63 characters; the rest is
#: left to names that later objects derive. More can be allowed later, fewer cannot.
LONGEST_NAME = 48


class ImageSpec(ApiModel):
    """Where the etcd image comes from. Its tag is `v` and spec.version."""

    repository: Annotated[
        str,
        Field(min_length=1, max_length=512),
        Rule(
            "!self.matches('@|:[^/]*$')",
            "must be a repository without tag or digest: the tag is v and spec.version, so set spec.version instead",
        ),
    ] = "gcr.io/etcd-development/etcd"
    """The image without its tag. A mirror must keep the tags of the original, such as v3.7.3."""
    pull_policy: Literal["Always", "IfNotPresent", "Never"] = "IfNotPresent"
    """When the kubelet pulls the image."""
    pull_secrets: Annotated[tuple[LocalObjectReference, ...], Field(max_length=16, json_schema_extra=BY_NAME)] = ()
    """Secrets of type kubernetes.io/dockerconfigjson in the same namespace, for a private registry."""


class StorageSpec(ApiModel):
    """The volume of each member."""

    size: Annotated[
        Quantity,
        Rule(
            at_least("128Mi"),
            "must be a quantity of at least 128Mi, such as 8Gi: etcd sets aside two log files of 64 MB at the start",
        ),
        when_quantities(
            "self",
            "oldSelf",
            rule="quantity(string(self)).compareTo(quantity(string(oldSelf))) >= 0",
            message="cannot shrink: Kubernetes only ever grows a volume; create a smaller EtcdCluster instead",
        ),
    ] = Quantity("8Gi")
    """Size of each member's volume. It may grow and never shrink.

    Where the StorageClass cannot expand volumes, members are replaced one by one, each on a new volume, and the old
    ones go.

    Leave room for more than options.quotaBackendBytes: snapshots and the write-ahead log share the volume,
    and a defragmentation needs the database's size a second time.
    """
    storage_class_name: Annotated[str, Field(min_length=1, max_length=253)] | None = None
    """StorageClass of the volumes; absent, the cluster's default class. Immutable once the etcd was founded.

    etcd waits for every write to reach the disk: local SSDs serve it best, network file systems not at all.
    """
    medium: Annotated[
        Literal["Disk", "Memory"],
        immutable("data does not move between volumes and memory; create a new EtcdCluster instead"),
    ] = "Disk"
    """Disk: a volume for each member. Memory: a tmpfs of that size in each member's pod, for data that may be lost.

    With Memory the data goes with the pod: a member whose pod goes is replaced by a new one, which needs three members
    or more, and when more than half of the pods go at once, all data is lost for good. What is stored counts towards
    the memory of the etcd container: leave room for it below resources.limits.memory. Immutable.
    """
    deletion_policy: Literal["Retain", "Delete"] = "Retain"
    """What happens to the volumes when the EtcdCluster is deleted and to those of members that are scaled away.

    With Retain they stay, and an EtcdCluster of the same name adopts them with their data. With Delete they go.
    """


_TEXTS = {"type": "object", "additionalProperties": {"type": "string"}}


@with_config(use_attribute_docstrings=True)
class PodTemplateMetadata(TypedDict, total=False):
    """Labels and annotations for the pods, in plain dictionaries."""

    labels: Annotated[dict[str, str], WithJsonSchema(_TEXTS)]
    """Labels beyond the operator's own, which cannot be changed."""
    annotations: Annotated[dict[str, str], WithJsonSchema(_TEXTS)]
    """Annotations beyond the operator's own, which cannot be changed."""


class PodTemplate(ApiModel):
    """What the members' pods should have beyond what the operator gives them."""

    metadata: PodTemplateMetadata = Field(default_factory=PodTemplateMetadata)
    """Labels and annotations of the pods."""
    spec: dict[str, Any] = Field(default_factory=dict)
    """A pod spec, laid over the operator's own as kubectl patch does it: objects are merged, containers, volumes and
    the like by name, other lists replaced; null takes a field out.

        spec:
          nodeSelector: {disk: nvme}
          tolerations: [{key: dedicated, value: etcd, effect: NoSchedule}]
          priorityClassName: system-cluster-critical
          containers:
          - name: log-shipper
            image: registry.example.com/shipper:1.4

    The operator prefers to keep members on different nodes, then in different zones; topology spread constraints or
    an affinity given here can insist on it. Of the container named etcd, the command, image and probes are the
    operator's, as are the pod's host name, restart policy and network.
    """


_MEMBERS_RULES = (
    Rule(
        "self < 1 || self > 7 || self % 2 == 1",
        "must be 1, 3, 5 or 7: an even number of members tolerates no more failures than one fewer, and splits evenly",
    ),
    Rule(
        "self <= 7",
        "must be 1, 3, 5 or 7: with more members every write waits for more disks than safety asks for",
    ),
    Rule(
        "self >= 1",
        "must be 1, 3, 5 or 7: to stop an etcd and keep its data, delete the EtcdCluster while"
        " spec.storage.deletionPolicy is Retain, and apply it again later",
    ),
)
_VERSION_RULE = Rule(
    "self.matches('^3[.][567][.](0|[1-9][0-9]{0,2})$')",
    f"must be a full version of etcd {', '.join(SUPPORTED_MINORS[:-1])} or {SUPPORTED_MINORS[-1]} without a leading v,"
    f" such as {DEFAULT_VERSION}: the operator has not learned the settings and pitfalls of others",
)


class EtcdClusterSpec(ApiModel):
    """The etcd that is wanted. Every field has a default that suits production."""

    members: Annotated[int, *_MEMBERS_RULES] = 3
    """How many members: 1, 3, 5 or 7. With 3 one may fail, with 5 two, with 7 three; 1 is for experiments.

    An even number is refused: it tolerates no more failures than one fewer. Also: kubectl scale.
    """
    version: Annotated[str, Field(min_length=1, max_length=32), _VERSION_RULE] = DEFAULT_VERSION
    """The etcd version, without a leading v: any patch of 3.5, 3.6 or 3.7; the newest of each is the best tested.

    Of an etcd that runs: another patch, or the next minor version; members restart one by one. Going back to the
    version before is possible while one member still runs it.
    """
    image: ImageSpec = Field(default_factory=ImageSpec)
    """Where the etcd image comes from."""
    storage: StorageSpec = Field(default_factory=StorageSpec)
    """The volume of each member."""
    resources: ResourceRequirements = ResourceRequirements(requests={"cpu": "100m", "memory": "256Mi"})
    """CPU and memory of the etcd container of each member."""
    options: EtcdOptions = Field(default_factory=EtcdOptions)
    """etcd's own settings."""
    tls: TLSSpec = Field(default_factory=TLSSpec)
    """Encryption and authentication, on unless switched off."""
    proxy: ProxySpec = Field(default_factory=ProxySpec)
    """HAProxy in front of the members."""
    access: AccessSpec = Field(default_factory=AccessSpec)
    """Who may reach the etcd over the network."""
    clients: Annotated[tuple[ClientAccess, ...], Field(max_length=32, json_schema_extra=BY_NAME)] = ()
    """Applications with a client certificate each, in Secrets in this namespace and in others that agree.

    While etcd's own authentication is off, as it is unless somebody turned it on, each of them may read and write all
    that there is.
    """
    pod_template: PodTemplate = Field(default_factory=PodTemplate)
    """What the members' pods should have beyond what the operator gives them: labels, a node selector,
    tolerations, more containers.
    """
    healing: HealingSpec = Field(default_factory=HealingSpec)
    """When a member is replaced by a new one."""
    recovery: RecoverySpec = Field(default_factory=RecoverySpec)
    """How to go on after the quorum was lost for good."""
    paused: bool = False
    """While true the operator observes and reports and changes nothing, for as long as a person works by hand."""


class EtcdCluster(ApiModel):
    """An etcd that the operator founds, secures with TLS and keeps healthy.

    The smallest useful one says only how many members:

        apiVersion: externaletcd.io/v1alpha1
        kind: EtcdCluster
        metadata: {name: tenant-a}
        spec: {members: 3}

    Clients reach it at the Service of the same name, with the certificates of the Secret <name>-client.
    """

    info: ClassVar[KindInfo] = KindInfo(
        kind="EtcdCluster",
        plural="etcdclusters",
        short_names=("etcd",),
        columns=(
            Column(name="Members", type="integer", path=".spec.members", description="Members wanted"),
            Column(
                name="Ready",
                type="integer",
                path=".status.readyMembers",
                description="Members that answer and take part",
            ),
            Column(
                name="Tolerates",
                type="integer",
                path=".status.toleratedFailures",
                description="Members that may still fail now",
            ),
            Column(name="Leader", type="string", path=".status.leader", description="The leader"),
            Column(name="Version", type="string", path=".status.version", description="The etcd version that runs"),
            Column(name="Status", type="string", path=".status.summary", description="The state in a few words"),
            Column(name="Age", type="date", path=".metadata.creationTimestamp", description="Time since creation"),
        ),
        scale=(".spec.members", ".status.readyMembers", ".status.selector"),
    )
    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            f"size(self.metadata.name) <= {LONGEST_NAME} && self.metadata.name.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$')",
            f"metadata.name must be lower case letters, digits and hyphens, begin with a letter and have at most"
            f" {LONGEST_NAME} characters: Services, pods and their labels are named after it",
        ),
        Rule(
            "!has(oldSelf.status) || !has(oldSelf.status.bootstrap)"
            " || has(self.spec.storage.storageClassName) == has(oldSelf.spec.storage.storageClassName)"
            " && (!has(self.spec.storage.storageClassName)"
            " || self.spec.storage.storageClassName == oldSelf.spec.storage.storageClassName)",
            "is immutable once the etcd was founded: Kubernetes cannot move a volume to another class;"
            " create a new EtcdCluster with that class instead",
            field_path=".spec.storage.storageClassName",
        ),
        Rule(
            "self.spec.storage.medium != 'Memory' || self.spec.members >= 3",
            "must be 3, 5 or 7 while spec.storage.medium is Memory: the data of a single member would go with its pod",
            field_path=".spec.members",
        ),
        Rule(
            "!has(oldSelf.status) || !has(oldSelf.status.bootstrap)"
            " || !(oldSelf.spec.version.startsWith('3.5.') && self.spec.version.startsWith('3.7.')"
            " || oldSelf.spec.version.startsWith('3.7.') && self.spec.version.startsWith('3.5.'))"
            # Back to what runs: a wish that was refused can always be withdrawn.
            " || has(oldSelf.status.version)"
            " && oldSelf.status.version.substring(0, 4) == self.spec.version.substring(0, 4)",
            "cannot skip a minor version: etcd goes up, or back, one at a time; set a version of 3.6 first, and go on"
            " when all members run it",
            field_path=".spec.version",
        ),
        Rule(
            "!has(self.spec.clients) || size(self.spec.clients) == 0 || self.spec.tls.client.mode != 'Off'",
            "must be empty while spec.tls.client.mode is Off: without TLS there are no certificates, and everybody who"
            " reaches the Service may come; create an EtcdCluster with TLS instead",
            field_path=".spec.clients",
        ),
        Rule(
            "!has(self.spec.recovery) || !has(self.spec.recovery.forceFrom)"
            " || self.spec.recovery.forceFrom.startsWith(self.metadata.name + '-')"
            " && size(self.spec.recovery.forceFrom) == size(self.metadata.name) + 2",
            "must be a member of this EtcdCluster: its name, a hyphen, and a number from 0 to 6",
            field_path=".spec.recovery.forceFrom",
        ),
    )

    api_version: Literal["externaletcd.io/v1alpha1"] = API_VERSION
    kind: Literal["EtcdCluster"] = "EtcdCluster"
    metadata: ObjectMeta = Field(default_factory=ObjectMeta)
    spec: EtcdClusterSpec = Field(default_factory=EtcdClusterSpec)
    """The etcd that is wanted."""
    status: EtcdClusterStatus = Field(default_factory=EtcdClusterStatus)
    """The etcd that was last observed."""
