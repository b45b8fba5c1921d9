"""The configuration of the proxy in front of the members: HAProxy 2.6 or newer, in TCP mode.

Pure. TLS passes through: the proxy holds no key. Members are found by DNS SRV, so that nothing is reloaded when they
change; whether one gets connections is decided by etcd's own readiness (a linearizable read), asked on its metrics
port, so that a member without a quorum is taken out.
"""

from etcd_operator.api import ProxySpec
from etcd_operator.resources.names import CLIENT_PORT, HTTP_PORT, METRICS_PORT, MOST_MEMBERS, Names

#: Where the proxy tells of itself: /haproxy_stats, /metrics, /livez and /readyz.
STATS_PORT = 9000
STATS_PATH = "/haproxy_stats"
#: The environment that holds the page's user and password.
STATS_USER, STATS_PASSWORD = "STATS_USER", "STATS_PASSWORD"
BALANCE = {"RoundRobin": "roundrobin", "LeastConnections": "leastconn", "First": "first"}
#: Seconds that connections are given to end by themselves when a proxy is to stop; below the pod's grace period.
HARD_STOP_AFTER = 20
#: File descriptors that a proxy uses at most, two for each connection: HAProxy derives from it, and from what the
#: container may have, how many connections it takes. It makes room for all of them when it starts.
MOST_FILES = 20000


def haproxy_config(names: Names, spec: ProxySpec) -> str:
    """The whole haproxy.cfg, the same for every proxy of the cluster."""
    timeouts = spec.timeouts
    return f"""\
global
  log stdout format raw local0 notice
  fd-hard-limit {MOST_FILES}
  hard-stop-after {HARD_STOP_AFTER}s

defaults
  log global
  mode tcp
  option dontlognull
  option clitcpka
  option srvtcpka
  # A member that went between two checks costs a try, not a connection.
  option redispatch 1
  retries 3
  timeout connect {timeouts.connect.milliseconds()}ms
  timeout client {timeouts.client.milliseconds()}ms
  timeout server {timeouts.server.milliseconds()}ms
  timeout check 2s

resolvers kubernetes
  parse-resolv-conf
  accepted_payload_size 8192
  timeout resolve 1s
  timeout retry 500ms
  hold valid 1s
  hold obsolete 2s

frontend grpc
  bind :{CLIENT_PORT}
  default_backend members

frontend http
  bind :{HTTP_PORT}
  default_backend members-http

{_backend(names, spec, "members", "client")}
{_backend(names, spec, "members-http", "http")}
frontend stats
  mode http
  bind :{STATS_PORT}
  timeout client 30s
  timeout http-request 10s
  http-request return status 200 content-type text/plain string "ok" if {{ path /livez }}
  http-request return status 503 content-type text/plain string "no member is ready" if {{ path /readyz }} \
{{ nbsrv(members) lt 1 }}
  http-request return status 200 content-type text/plain string "ok" if {{ path /readyz }}
  http-request use-service prometheus-exporter if {{ path /metrics }}
  stats enable
  stats uri {STATS_PATH}
  stats refresh 5s
  stats show-legends
  stats auth "${{{STATS_USER}}}:${{{STATS_PASSWORD}}}"
"""


def _backend(names: Names, spec: ProxySpec, name: str, port: str) -> str:
    """Members behind one of their ports; as many places as there can be members."""
    return f"""\
backend {name}
  balance {BALANCE[spec.balance]}
  option httpchk
  http-check send meth GET uri /readyz
  http-check expect status 200
  default-server check port {METRICS_PORT} inter 500ms fall 2 rise 1 on-marked-down shutdown-sessions \
resolvers kubernetes init-addr none resolve-opts allow-dup-ip
  server-template member {MOST_MEMBERS} _{port}._tcp.{names.members_domain}
"""
