"""What keeps the controllers running: the Kopf edge, the work queue, leader election, settings, metrics, health.

Knows nothing of etcd. Controllers meet it in `controller` alone; `main` is the one place that knows them all.
"""
