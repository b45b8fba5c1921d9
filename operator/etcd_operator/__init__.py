"""external-etcd-operator: runs external etcd clusters on Kubernetes and keeps kube-apiservers wired to them."""
