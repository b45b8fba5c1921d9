"""EtcdCluster: observe, plan, act, status.

`observe` reads Kubernetes and etcd into one `Observation`; `plan` says what to do next and why, without I/O;
`act` does it; `status` tells it. All judgement sits in the pure modules.
"""
