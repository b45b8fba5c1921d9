"""The kinds of externaletcd.io as models, the one source of the CRDs.

Pure: no I/O, and no import of any other package of the operator.
"""

from etcd_operator.api.apiserverbinding import (
    ApiServerBinding,
    ApiServerBindingSpec,
    BindingTarget,
    ClusterReference,
    KubeadmTarget,
    ManualTarget,
    WorkloadTarget,
)
from etcd_operator.api.apiserverbinding_status import ApiServerBindingStatus, InstanceStatus
from etcd_operator.api.base import API_VERSION, GROUP, VERSION, Condition, LocalObjectReference, ObjectMeta, Time
from etcd_operator.api.etcdcluster import (
    DEFAULT_VERSION,
    LONGEST_NAME,
    SUPPORTED_MINORS,
    EtcdCluster,
    EtcdClusterSpec,
    ImageSpec,
    PodTemplate,
    PodTemplateMetadata,
    StorageSpec,
)
from etcd_operator.api.etcdcluster_access import AccessSpec, IPBlock, LabelRequirement, LabelSelector, NetworkPolicyPeer
from etcd_operator.api.etcdcluster_clients import ClientAccess
from etcd_operator.api.etcdcluster_healing import HealingSpec
from etcd_operator.api.etcdcluster_options import AutoCompaction, EtcdOptions
from etcd_operator.api.etcdcluster_proxy import ProxyService, ProxySpec, ProxyTimeouts
from etcd_operator.api.etcdcluster_recovery import QuorumLost, RecoverySpec, RecoveryStatus
from etcd_operator.api.etcdcluster_resources import ResourceRequirements
from etcd_operator.api.etcdcluster_status import Bootstrap, Endpoints, EtcdClusterStatus, MemberStatus
from etcd_operator.api.etcdcluster_tls import ClientTLS, PeerTLS, TLSSpec
from etcd_operator.api.owned_options import OWNED_OPTIONS
from etcd_operator.api.units import Duration, Quantity

__all__ = [
    "API_VERSION",
    "DEFAULT_VERSION",
    "GROUP",
    "LONGEST_NAME",
    "OWNED_OPTIONS",
    "SUPPORTED_MINORS",
    "VERSION",
    "AccessSpec",
    "ApiServerBinding",
    "ApiServerBindingSpec",
    "ApiServerBindingStatus",
    "AutoCompaction",
    "BindingTarget",
    "Bootstrap",
    "ClientAccess",
    "ClientTLS",
    "ClusterReference",
    "Condition",
    "Duration",
    "Endpoints",
    "EtcdCluster",
    "EtcdClusterSpec",
    "EtcdClusterStatus",
    "EtcdOptions",
    "HealingSpec",
    "IPBlock",
    "ImageSpec",
    "InstanceStatus",
    "KubeadmTarget",
    "LabelRequirement",
    "LabelSelector",
    "LocalObjectReference",
    "ManualTarget",
    "MemberStatus",
    "NetworkPolicyPeer",
    "ObjectMeta",
    "PeerTLS",
    "PodTemplate",
    "PodTemplateMetadata",
    "ProxyService",
    "ProxySpec",
    "ProxyTimeouts",
    "Quantity",
    "QuorumLost",
    "RecoverySpec",
    "RecoveryStatus",
    "ResourceRequirements",
    "StorageSpec",
    "TLSSpec",
    "Time",
    "WorkloadTarget",
]
