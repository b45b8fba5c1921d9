"""Programs that run in pods of their own, from the operator's image: beside etcd, and on control-plane nodes.

They know nothing of Kubernetes' API and take all they need as arguments and files.
"""
