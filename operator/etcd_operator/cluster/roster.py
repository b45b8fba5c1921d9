"""Who the members are: etcd's own list where a quorum confirms it, else what the objects record.

Pure. The list is the truth and the objects follow it, so that a change of membership that was cut short at any point
is simply seen again and finished. No entry of the list is ever served from a directory of another member: one that
was added after the founding has its member ID for the directory's name.
"""

import json
from collections.abc import Mapping
from dataclasses import replace

from pydantic import TypeAdapter, ValidationError

from etcd_operator.cluster.observation import Observation
from etcd_operator.cluster.records import VolumeRecord, annotations, foundation_objects, recorded_members
from etcd_operator.etcd.model import Member, MemberList, hex_id
from etcd_operator.resources.blueprint import Blueprint, Recovery, Seat
from etcd_operator.resources.names import RECOVERY, ROSTER, Manifest

Seats = dict[str, Seat]
_RECOVERY = TypeAdapter(Recovery)


def member_list(seen: Observation, cluster_id: str) -> tuple[MemberList | None, bool]:
    """etcd's member list and whether a quorum confirmed it; lists of other etcd clusters do not count."""
    answers = [answer for answer in seen.answers.values() if answer.members]
    for answer in sorted(answers, key=lambda answer: not answer.linearizable):
        assert answer.members
        if not cluster_id or hex_id(answer.members.cluster_id) == cluster_id:
            return answer.members, answer.linearizable
    return None, False


def recorded_seats(seen: Observation) -> Seats:
    """The seats that the ConfigMap records, which is what pods start from; else the StatefulSet's copy of them."""
    for manifest in foundation_objects(seen):
        if seats := seats_on(manifest):
            return seats
    return {}


def recorded_recovery(seen: Observation) -> Recovery | None:
    """The last rebuild from one member's data, as the ConfigMap records it, else the StatefulSet."""
    manifest = next((manifest for manifest in foundation_objects(seen) if manifest is not None), None)
    try:
        return _RECOVERY.validate_json(annotations(manifest).get(RECOVERY, ""))
    except ValidationError:
        return None


def seats_on(manifest: Manifest | None) -> Seats:
    """The seats in an object's annotation; empty where there are none that can be read."""
    try:
        told = json.loads(annotations(manifest).get(ROSTER, "{}"))
        return {
            name: Seat(
                incarnation=seat["incarnation"],
                member_id=seat.get("id", ""),
                joining=seat.get("state") == "joining",
                revision=seat.get("revision", ""),
                outdated_pod=seat.get("outdatedPod", ""),
                pod=seat.get("pod", ""),
            )
            for name, seat in told.items()
        }
    except (ValueError, KeyError, TypeError, AttributeError):
        return {}


def seats(seen: Observation, base: Blueprint, volumes: Mapping[str, VolumeRecord]) -> Seats:
    """Every member of a founded cluster. `base` tells its founders, `volumes` whose data is where."""
    recorded = recorded_seats(seen)
    found = _seats(seen, base, volumes, recorded)
    if not base.in_memory:
        return found
    return {name: _with_pod(seen, base, name, seat, recorded.get(name)) for name, seat in found.items()}


def _with_pod(seen: Observation, base: Blueprint, name: str, seat: Seat, recorded: Seat | None) -> Seat:
    """The seat with the pod that has the member's data, once etcd answered there as just this member."""
    pod, answer = seen.objects.pods.get(name), seen.answers.get(name)
    report = answer.status if answer else None
    if pod and report and (hex_id(report.cluster_id), hex_id(report.member_id)) == (base.cluster_id, seat.member_id):
        return replace(seat, pod=pod["metadata"]["uid"])
    if recorded is not None and recorded.member_id == seat.member_id:
        return replace(seat, pod=recorded.pod)
    return seat


def _seats(seen: Observation, base: Blueprint, volumes: Mapping[str, VolumeRecord], recorded: Seats) -> Seats:
    listed, confirmed = member_list(seen, base.cluster_id)
    named = {name: member for member in (listed.members if listed else ()) if (name := _name(base, member))}
    if named and confirmed:
        return {
            name: _restarting(_seat(name, member, base, recorded.get(name), volumes.get(name)), recorded.get(name))
            for name, member in named.items()
        }
    if recorded:
        return recorded
    members = {*base.members, *named, *recorded_members(base.names, volumes.values(), base.cluster_id)}
    return {name: _recorded_on(volumes.get(name)) or Seat(incarnation=base.incarnation) for name in members}


def _name(base: Blueprint, member: Member) -> str:
    """The name of a member of this StatefulSet, by its peer URL: one that was added has no other before it starts."""
    host = member.peer_urls[0].rpartition("://")[2].partition(".")[0] if member.peer_urls else ""
    name = host if base.peer_url(host) in member.peer_urls else member.name
    return name if base.names.ordinal(name) is not None else ""


def _seat(name: str, member: Member, base: Blueprint, recorded: Seat | None, volume: VolumeRecord | None) -> Seat:
    own = hex_id(member.id)
    if not member.started:
        return Seat(incarnation=own, member_id=own, joining=True)
    if volume is not None and volume.member_id == own:
        return Seat(incarnation=volume.incarnation, member_id=own)
    if recorded is not None and recorded.member_id == own:
        return Seat(incarnation=recorded.incarnation, member_id=own)
    if base.founding_member_id(name) == own:
        return Seat(incarnation=base.incarnation, member_id=own)
    if recorded is not None and not recorded.member_id:
        return Seat(incarnation=recorded.incarnation, member_id=own)
    return Seat(incarnation=own, member_id=own)


def _restarting(seat: Seat, recorded: Seat | None) -> Seat:
    """The seat with what is recorded of its restart; a member that is new under its name has none behind it."""
    if recorded is None or (recorded.member_id and recorded.member_id != seat.member_id):
        return seat
    return replace(seat, revision=recorded.revision, outdated_pod=recorded.outdated_pod)


def _recorded_on(volume: VolumeRecord | None) -> Seat | None:
    return Seat(incarnation=volume.incarnation, member_id=volume.member_id) if volume else None
