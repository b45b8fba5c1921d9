"""What etcd says and is told: questions and commands over gRPC, config files, the meaning of its last words.

`client` and `probe` do I/O; `model`, `errors`, `options`, `config` and `failures` are pure. Nothing knows Kubernetes.
"""
