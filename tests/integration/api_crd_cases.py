"""What users write into an EtcdCluster: what is refused and with which words, and what is kept."""

from typing import Any

#: What is wrong -> the spec, the field that is blamed, a part of the message.
BAD_FIELDS: dict[str, tuple[dict[str, Any], str, str]] = {
    "an unknown minor": ({"version": "3.4.30"}, "spec.version", "must be a full version of etcd 3.5, 3.6 or 3.7"),
    "a leading v": ({"version": "v3.7.3"}, "spec.version", "without a leading v"),
    "no patch": ({"version": "3.7"}, "spec.version", "must be a full version"),
    "a tag": ({"image": {"repository": "quay.io/coreos/etcd:v3.7.3"}}, "spec.image.repository", "set spec.version"),
    "a digest": ({"image": {"repository": "quay.io/etcd@sha256:ab"}}, "spec.image.repository", "without tag or digest"),
    "a pull policy": ({"image": {"pullPolicy": "Sometimes"}}, "spec.image.pullPolicy", "Unsupported value"),
    "a unit": ({"storage": {"size": "8GB"}}, "spec.storage.size", "must be a quantity of at least 128Mi, such as 8Gi"),
    "a tiny volume": ({"storage": {"size": "64Mi"}}, "spec.storage.size", "of at least 128Mi"),
    "a bare number": ({"storage": {"size": 8}}, "spec.storage.size", "of at least 128Mi"),
    "a single member in memory": (
        {"members": 1, "storage": {"medium": "Memory"}},
        "spec.members",
        "must be 3, 5 or 7 while spec.storage.medium is Memory",
    ),
    "another medium": ({"storage": {"medium": "Tape"}}, "spec.storage.medium", "Unsupported value"),
    "a negative quota": ({"options": {"quotaBackendBytes": "-1"}}, "spec.options.quotaBackendBytes", "at least 1Mi"),
    "no duration": ({"options": {"heartbeatInterval": "soon"}}, "spec.options.heartbeatInterval", "such as 100ms"),
    "no heartbeat": ({"options": {"heartbeatInterval": "0s"}}, "spec.options.heartbeatInterval", "at least 10ms"),
    "a long election": ({"options": {"electionTimeout": "51s"}}, "spec.options.electionTimeout", "at most 50s"),
    "a short election": (
        {"options": {"heartbeatInterval": "250ms"}},
        "spec.options",
        "electionTimeout must be at least five times heartbeatInterval",
    ),
    "no snapshots": ({"options": {"snapshotCount": 0}}, "spec.options.snapshotCount", "greater than or equal to 1"),
    "a count for a period": (
        {"options": {"autoCompaction": {"retention": 1000}}},
        "spec.options.autoCompaction",
        "retention must be a duration such as 1h where mode is Periodic",
    ),
    "a period of nothing": (
        {"options": {"autoCompaction": {"retention": "0s"}}},
        "spec.options.autoCompaction",
        "leave autoCompaction out",
    ),
    "a period for a count": (
        {"options": {"autoCompaction": {"mode": "Revision", "retention": "1h"}}},
        "spec.options.autoCompaction",
        "retention must be a number of revisions such as 1000 where mode is Revision",
    ),
    "an authority from nowhere": (
        {"tls": {"client": {"mode": "Provided"}}},
        "spec.tls.client",
        "secretRef is needed where mode is Provided, and only there",
    ),
    "an authority that nobody asks": (
        {"tls": {"peer": {"secretRef": {"name": "ours"}}}},
        "spec.tls.peer",
        "secretRef is needed where mode is Provided, and only there",
    ),
    "the almighty client": (
        {"clients": [{"name": "root"}]},
        "spec.clients[0].name",
        "must be none of root, external-etcd-operator, ca: these are the operator's own",
    ),
    "a client named as an authority": ({"clients": [{"name": "ca"}]}, "spec.clients[0].name", "choose another name"),
    "a client that is no name": (
        {"clients": [{"name": "Web"}]},
        "spec.clients[0].name",
        "must be lower case letters, digits and hyphens, such as web",
    ),
    "a client twice": ({"clients": [{"name": "web"}, {"name": "web"}]}, "spec.clients[1]", "Duplicate value"),
    "a namespace that is no name": (
        {"clients": [{"name": "web", "namespaces": ["Shop"]}]},
        "spec.clients[0].namespaces[0]",
        "should match",
    ),
    "certificates without TLS": (
        {"clients": [{"name": "web"}], "tls": {"client": {"mode": "Off"}}},
        "spec.clients",
        "must be empty while spec.tls.client.mode is Off",
    ),
    "the operator's own key": (
        {"options": {"extra": {"data-dir": "/tmp"}}},
        "spec.options.extra.data-dir",
        "is the operator's business: the operator places the data on the volumes of spec.storage",
    ),
    "a key with a field of its own": (
        {"options": {"extra": {"quota-backend-bytes": 4294967296}}},
        "spec.options.extra.quota-backend-bytes",
        "use spec.options.quotaBackendBytes",
    ),
    "a dangerous key": (
        {"options": {"extra": {"unsafe-no-fsync": True}}},
        "spec.options.extra.unsafe-no-fsync",
        "acknowledged writes would be lost",
    ),
    "a nested key": (
        {"options": {"extra": {"client-transport-security": {"auto-tls": True}}}},
        "spec.options.extra.client-transport-security",
        "TLS is set under spec.tls",
    ),
    "a name that is no name": (
        {"tls": {"client": {"extraSANs": ["https://etcd"]}}},
        "spec.tls.client.extraSANs[0]",
        "must be an IP address or a DNS name",
    ),
    "a short certificate": ({"tls": {"certificateDuration": "1m"}}, "spec.tls.certificateDuration", "at least 10m"),
    "an endless renewal": (
        {"tls": {"certificateDuration": "24h"}},
        "spec.tls",
        "renewBefore must be shorter than certificateDuration",
    ),
    "no resource": ({"resources": {"requests": {"cpu": "lots"}}}, "spec.resources.requests[cpu]", "such as 500m"),
    "a label of a number": (
        {"podTemplate": {"metadata": {"labels": {"a": 1}}}},
        "spec.podTemplate.metadata.labels.a",
        "",
    ),
}

#: What is written -> the spec.
GOOD_FIELDS: dict[str, dict[str, Any]] = {
    "an older minor": {"version": "3.5.35"},
    "a mirror with a port": {"image": {"repository": "registry.example.com:5000/etcd", "pullSecrets": [{"name": "a"}]}},
    "a number of bytes": {"storage": {"size": 8589934592}, "options": {"quotaBackendBytes": 4294967296}},
    "a number of cores": {"resources": {"requests": {"cpu": 2}, "limits": {"memory": "1.5Gi"}}},
    "a slow network": {"options": {"heartbeatInterval": "500ms", "electionTimeout": "2s500ms"}},
    "compaction by time": {"options": {"autoCompaction": {"retention": "1h30m"}}},
    "compaction by number": {"options": {"autoCompaction": {"mode": "Revision", "retention": 1000}}},
    "compaction by text": {"options": {"autoCompaction": {"mode": "Revision", "retention": "1000"}}},
    "names and addresses": {"tls": {"client": {"extraSANs": ["*.example.com", "192.0.2.1", "2001:db8::1", "etcd"]}}},
    "other keys of etcd": {"options": {"extra": {"pre-vote": True, "max-wals": 5, "cors": "*", "log-level": "debug"}}},
    "an authority of the user's": {"tls": {"peer": {"mode": "Provided", "secretRef": {"name": "ours"}}}},
    "no TLS": {"tls": {"peer": {"mode": "Off"}, "client": {"mode": "Off"}}},
    "three members in memory": {"storage": {"medium": "Memory", "size": "512Mi"}},
    "a pod overlay": {"podTemplate": {"metadata": {"labels": {"a": "b"}}, "spec": {"nodeSelector": {"disk": "nvme"}}}},
}

#: What changes -> the spec before, the change, the field that is blamed, a part of the message.
IMMUTABLE: dict[str, tuple[dict[str, Any], dict[str, Any], str, str]] = {
    "another class": (
        {"storage": {"storageClassName": "fast"}},
        {"storage": {"storageClassName": "slow"}},
        "spec.storage.storageClassName",
        "is immutable once the etcd was founded",
    ),
    "a class set later": (
        {},
        {"storage": {"storageClassName": "slow"}},
        "spec.storage.storageClassName",
        "is immutable once the etcd was founded",
    ),
    "a class taken away": (
        {"storage": {"storageClassName": "fast"}},
        {"storage": {"storageClassName": None}},
        "spec.storage.storageClassName",
        "is immutable once the etcd was founded",
    ),
    "the storage taken away": (
        {"storage": {"storageClassName": "fast"}},
        {"storage": None},
        "spec.storage.storageClassName",
        "is immutable once the etcd was founded",
    ),
    "the spec taken away": ({"tls": {"peer": {"mode": "Off"}}}, {"tls": None}, "spec.tls.peer.mode", "is immutable"),
    "peers": ({}, {"tls": {"peer": {"mode": "Off"}}}, "spec.tls.peer.mode", "is immutable: members with TLS"),
    "clients": ({}, {"tls": {"client": {"mode": "Off"}}}, "spec.tls.client.mode", "is immutable: clients"),
    "another medium": (
        {},
        {"storage": {"medium": "Memory"}},
        "spec.storage.medium",
        "is immutable",
    ),
    "a single member in memory": (
        {"storage": {"medium": "Memory"}},
        {"members": 1},
        "spec.members",
        "must be 3, 5 or 7 while spec.storage.medium is Memory",
    ),
    "a smaller volume": (
        {"storage": {"size": "2Gi"}},
        {"storage": {"size": "2047Mi"}},
        "spec.storage.size",
        "cannot shrink",
    ),
    "a smaller number": (
        {"storage": {"size": "1Gi"}},
        {"storage": {"size": 536870912}},
        "spec.storage.size",
        "cannot shrink",
    ),
}
