"""The objects that an EtcdCluster amounts to: one builder per Kubernetes kind, from facts to the whole object.

Pure. A builder reads nothing and merges nothing with what exists; it returns `None` where the cluster
does not want the object. Server-side apply and the comparison in `compare` do the rest.
"""
