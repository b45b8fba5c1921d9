"""Authorities that the user provides, checked before they are used.

Pure. Such an authority takes the place of one that the operator would make: it is copied into the cluster's own Secret,
from which all certificates are issued, and another one in its place is taken over by a rotation. What cannot be used is
told and left alone: the cluster goes on with the copy that it has.
"""

from datetime import timedelta

from etcd_operator.cluster.authority import pair_problem
from etcd_operator.cluster.observation import Observation
from etcd_operator.pki import Authority, PKIError, inspect, signed_by, split_bundle
from etcd_operator.resources.secrets import Side, content

#: An authority must be valid for so long still: it takes two restarts of all members to replace it.
AT_LEAST = timedelta(hours=1)


def secret_of(seen: Observation, side: Side) -> str:
    """The Secret that the user's spec names for that side; empty where the operator's own authority is wanted."""
    tls = seen.cluster.spec.tls.peer if side == "peer" else seen.cluster.spec.tls.client
    return tls.secret_ref.name if tls.mode == "Provided" and tls.secret_ref else ""


def provided(seen: Observation, side: Side) -> Authority | None:
    """The user's authority; `None` where there is none that can be used."""
    if not secret_of(seen, side) or _problem(seen, side):
        return None
    data = content(seen.provided.get(side))
    return Authority(cert_pem=split_bundle(data["tls.crt"])[0], key_pem=data["tls.key"])


def provided_problems(seen: Observation) -> list[str]:
    """What is wrong with the user's authorities, and what to do, one sentence each."""
    sides: tuple[Side, ...] = ("client", "peer")
    return [
        f"Secret {secret_of(seen, side)} (spec.tls.{side}.secretRef): {problem}"
        for side in sides
        if secret_of(seen, side) and (problem := _problem(seen, side))
    ]


def _problem(seen: Observation, side: Side) -> str:
    live = seen.provided.get(side)
    if live is None:
        return f"it does not exist; create it in namespace {seen.names.namespace}"
    data = content(live)
    for key in ("tls.crt", "tls.key"):
        if not data.get(key):
            return f"{key} is missing; put the authority's {'certificate' if key == 'tls.crt' else 'key'} there, PEM"
    try:
        info = inspect(data["tls.crt"])
    except PKIError as error:
        return f"tls.crt: {error}; put the authority's certificate there"
    if problem := pair_problem(data["tls.crt"], data["tls.key"]):
        field = "tls.crt" if "authority" in problem else "tls.key"
        return f"{field}: {problem}"
    if not signed_by(info.pem, info.pem):
        return "tls.crt: it is signed by another authority; put a self-signed one there"
    if seen.at < info.not_before:
        return f"tls.crt: it is not valid before {info.not_before:%Y-%m-%d %H:%M} UTC"
    if seen.at > info.not_after - AT_LEAST:
        return f"tls.crt: it is valid until {info.not_after:%Y-%m-%d %H:%M} UTC only; put one there that lasts longer"
    return ""
