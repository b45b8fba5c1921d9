"""Programs that run in pods of their own beside etcd, from the operator's image.

They know nothing of Kubernetes, take all they need as arguments, and import nothing of the operator.
"""
