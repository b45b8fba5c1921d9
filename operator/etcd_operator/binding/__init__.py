"""ApiServerBinding: observe, judge, act, status.

`observe` reads Kubernetes, and etcd where something is to be changed; `rules` say what is in the way, `wiring` what the
API server is to run with; `act` brings it about; `status` tells it. All judgement sits in the pure modules.
"""
