"""Observations in which etcd's member list is another one than the founders."""

from dataclasses import replace

from etcd_operator.cluster.observation import Observation
from etcd_operator.etcd.model import Member, MemberList
from support.builders import NAMES, blueprint

#: The member IDs of those that were added, less their ordinals.
ADDED = 0xABC0


def listed(seen: Observation, members: MemberList) -> Observation:
    """Every voter answers with this list."""
    answers = {name: replace(each, members=members) if each.members else each for name, each in seen.answers.items()}
    return replace(seen, answers=answers)


def the_list(seen: Observation) -> MemberList:
    found = next(each.members for each in seen.answers.values() if each.members)
    assert found is not None
    return found


def added(seen: Observation, *names: str, started: bool = False) -> Observation:
    """etcd's list with learners of these names; one that has started has its client URLs."""
    before, plan_ = the_list(seen), blueprint()
    learners = tuple(
        Member(
            id=ADDED + NAMES.members(7).index(name),
            name=name if started else "",
            peer_urls=(plan_.peer_url(name),),
            client_urls=(plan_.client_url(name),) if started else (),
            is_learner=True,
        )
        for name in names
    )
    kept = tuple(member for member in before.members if plan_.peer_url(member.name or "?") not in _urls(learners))
    return listed(seen, MemberList(cluster_id=before.cluster_id, members=(*kept, *learners)))


def _urls(members: tuple[Member, ...]) -> set[str]:
    return {url for member in members for url in member.peer_urls}


def removed(seen: Observation, name: str) -> Observation:
    before = the_list(seen)
    kept = tuple(member for member in before.members if member.name != name)
    return listed(seen, MemberList(cluster_id=before.cluster_id, members=kept))
