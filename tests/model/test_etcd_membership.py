"""The model's own etcd: changes of membership as real etcd carries them out and refuses them.

What the operator is tested against must itself be right. Each rule here was seen on etcd 3.5 to 3.7, or is read from
the source that `calls` names.
"""

import re
from datetime import UTC, datetime

import pytest
import yaml

from etcd_operator.etcd.errors import EtcdError, Kind
from etcd_operator.etcd.failures import judge
from etcd_operator.etcd.model import Endpoint, Member
from model.calls import ModelClient
from model.etcd import FUSE, Etcd, EtcdExitedError, Process, Volume

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def url(name: str) -> str:
    return f"http://{name}:2380"


def endpoint(name: str) -> Endpoint:
    return Endpoint(address=f"{name}:2379")


class Lab:
    """An etcd cluster of the model, without a Kubernetes: `m0` and so on, each with a disk."""

    def __init__(self, members: int, *, max_learners: int = 7) -> None:
        self.etcd = Etcd()
        self.client = ModelClient(self.etcd)
        self.disks: dict[str, Volume] = {}
        self.max_learners = max_learners
        names = [f"m{number}" for number in range(members)]
        for name in names:
            self.start(name, names, state="new")
        self.etcd.step()

    def start(self, name: str, listed: list[str], *, state: str = "existing", directory: str = "d") -> Process:
        file = {
            "name": name,
            "data-dir": directory,
            "initial-advertise-peer-urls": url(name),
            "initial-cluster": ",".join(f"{each}={url(each)}" for each in listed),
            "initial-cluster-state": state,
            "initial-cluster-token": "t",
            "max-learners": self.max_learners,
        }
        disk = self.disks.setdefault(name, Volume())
        self.etcd.start(name, name, {"config": {f"{name}.yaml": yaml.safe_dump(file)}}, disk, f"{name}.yaml")
        return self.etcd.processes[name]

    def restart(self, name: str) -> Process:
        self.etcd.stop(name)
        return self.start(name, [name])

    async def add(self, name: str, via: str = "m0") -> Member:
        return (await self.client.member_add(endpoint(via), (url(name),)))[0]

    async def join(self, name: str) -> Member:
        """Add a learner and start it, the only one there is so far."""
        added = await self.add(name)
        self.start(name, [*self.names, name])
        self.etcd.step()
        return added

    def id(self, name: str) -> int:
        return self.etcd.processes[name].data.member_id

    @property
    def leader(self) -> str:
        (leader,) = self.etcd.leaders.values()
        return leader.name

    @property
    def names(self) -> list[str]:
        """The members that have a name, as the leader's list has them."""
        return sorted(each.name for each in self.etcd.processes[self.leader].data.roster.members.values() if each.name)

    @property
    def follower(self) -> str:
        return next(name for name in self.etcd.processes if name != self.leader)

    def put(self, value: str = "v") -> bool:
        return self.etcd.put(self.etcd.processes[self.leader], value)


def refused(kind: Kind) -> "pytest.RaisesExc[EtcdError]":
    return pytest.RaisesExc(EtcdError, check=lambda error: error.kind == kind)


async def test_a_learner_is_added_joins_and_becomes_a_voter() -> None:
    lab = Lab(3)
    lab.put()
    added = await lab.add("m3", via=lab.follower)
    assert (added.name, added.client_urls, added.is_learner, added.started) == ("", (), True, False)
    joined = lab.start("m3", ["m0", "m1", "m2", "m3"])
    assert (joined.data.member_id, joined.data.cluster_id) == (added.id, lab.etcd.processes["m0"].data.cluster_id)
    lab.etcd.step()
    answer = lab.etcd.answer(endpoint("m3"), NOW)
    assert answer.status is not None
    assert (answer.status.is_learner, answer.members, answer.linearizable, answer.error) == (True, None, False, None)
    listed = await lab.client.member_promote(endpoint(lab.follower), added.id)
    member = listed.by_id(added.id)
    assert member is not None
    assert (member.name, member.started, member.is_learner) == ("m3", True, False)
    assert lab.etcd.is_ready(joined)
    assert [len(voters) for voters in lab.etcd.history[listed.cluster_id].voters] == [3, 4]


async def test_a_member_that_is_added_again_is_another_one() -> None:
    lab = Lab(3)
    first = await lab.add("m3")
    await lab.client.member_remove(endpoint("m0"), first.id)
    assert (await lab.add("m3")).id != first.id


@pytest.mark.parametrize(
    "listed",
    [
        ["m0", "m1", "m2", "m3"],  # without the learner that has not started
        ["m0", "m1", "m2", "m3", "m4", "m5"],
        ["m0", "m1", "m2", "m3", "m5"],
        ["m0", "m1", "m2", "m2", "m3"],
        ["m0", "m1", "m2", "m4"],
    ],
)
async def test_a_joiner_that_does_not_list_the_very_members_is_refused(listed: list[str]) -> None:
    lab = Lab(3)
    await lab.add("m3")
    await lab.add("m4")
    with pytest.raises(EtcdExitedError) as ended:
        lab.start("m3", listed)
    assert judge(str(ended.value), 1).kind == "member_list"
    assert lab.disks["m3"].directories == {}
    lab.start("m3", ["m0", "m1", "m2", "m3", "m4"])
    assert lab.etcd.step() == []


async def test_a_joiner_that_reaches_nobody_says_what_the_fuse_says() -> None:
    lab = Lab(3)
    await lab.add("m3")
    for name in ("m0", "m1", "m2"):
        lab.etcd.processes[name].frozen = True
    with pytest.raises(EtcdExitedError, match=re.escape(FUSE)):
        lab.start("m3", ["m0", "m1", "m2", "m3"])


async def test_a_member_that_nobody_added_is_refused() -> None:
    lab = Lab(3)
    with pytest.raises(EtcdExitedError, match="member count is unequal"):
        lab.start("m3", ["m0", "m1", "m2", "m3"])


async def test_learners_do_not_count_for_a_majority() -> None:
    lab = Lab(3)
    await lab.join("m3")
    gone = [name for name in ("m0", "m1", "m2") if name != lab.leader]
    lab.etcd.stop(gone[0])
    assert lab.put()
    lab.etcd.stop(gone[1])
    assert not lab.put()
    lab.etcd.step()
    assert lab.etcd.leaders == {}


async def test_a_learner_is_promoted_only_with_the_log() -> None:
    lab = Lab(3)
    for number in range(20):
        lab.put(str(number))
    added = await lab.add("m3")
    promote = lab.client.member_promote
    with refused("not_found"):
        await promote(endpoint("m0"), 1)
    with refused("not_a_learner"):
        await promote(endpoint("m0"), lab.id("m1"))
    with refused("learner_not_ready"):
        await promote(endpoint("m0"), added.id)
    joined = lab.start("m3", ["m0", "m1", "m2", "m3"])
    joined.lagging = True
    lab.etcd.step()
    with refused("learner_not_ready"):
        await promote(endpoint("m0"), added.id)
    with refused("is_learner"):
        await promote(endpoint("m3"), added.id)
    joined.lagging = False
    lab.etcd.step()
    assert len((await promote(endpoint("m0"), added.id)).voters) == 4


async def test_a_learner_that_has_died_is_promoted_all_the_same() -> None:
    """etcd goes by what the leader last heard: that the learner lives is for the caller to know."""
    lab = Lab(1)
    added = await lab.join("m1")
    lab.etcd.stop("m1")
    changes: list[bool] = []
    lab.etcd.on_change = lambda change: changes.append(change.roster.has_quorum(change.connected))
    await lab.client.member_promote(endpoint("m0"), added.id)
    assert changes == [False]
    assert not lab.put()


async def test_a_removed_member_ends_and_ends_again() -> None:
    lab = Lab(3)
    removed = lab.follower
    others = [name for name in ("m0", "m1", "m2") if name != removed]
    await lab.client.member_remove(endpoint(lab.leader), lab.id(removed))
    with refused("unavailable"):
        await lab.client.status(endpoint(removed))
    assert lab.etcd.step() == [removed]
    assert sorted(lab.etcd.processes) == others
    lab.restart(removed)
    assert lab.etcd.step() == [removed]
    assert lab.put()


async def test_a_removed_member_that_did_not_hear_of_it_ends_when_it_does() -> None:
    lab = Lab(3)
    removed = lab.follower
    identity = lab.id(removed)
    lab.etcd.stop(removed)
    await lab.client.member_remove(endpoint(lab.leader), identity)
    for process in lab.etcd.processes.values():
        process.frozen = True
    process = lab.restart(removed)
    assert lab.etcd.step() == []
    assert lab.etcd.answer(endpoint(removed), NOW).linearizable is False
    assert lab.etcd.leader_of(process) is None
    for each in lab.etcd.processes.values():
        each.frozen = False
    assert lab.etcd.step() == [removed]


async def test_removals_that_would_cost_the_quorum_are_refused() -> None:
    lab = Lab(3)
    dead = lab.follower
    identity = lab.id(dead)
    lab.etcd.stop(dead)
    with refused("unhealthy_cluster"):
        await lab.client.member_remove(endpoint(lab.leader), lab.id(lab.leader))
    with refused("not_found"):
        await lab.client.member_remove(endpoint(lab.leader), 1)
    left = await lab.client.member_remove(endpoint(lab.leader), identity)
    assert len(left.voters) == 2
    last = lab.follower
    await lab.client.member_remove(endpoint(lab.leader), lab.id(last))
    lab.etcd.step()
    with refused("not_enough_started"):
        await lab.client.member_remove(endpoint(lab.leader), lab.id(lab.leader))


async def test_nobody_is_added_to_three_voters_of_which_one_is_gone_until_it_is_removed() -> None:
    lab = Lab(3)
    dead = lab.follower
    identity = lab.id(dead)
    lab.etcd.stop(dead)
    with refused("unhealthy_cluster"):
        await lab.add("m3", via=lab.leader)
    await lab.client.member_remove(endpoint(lab.leader), identity)
    assert (await lab.add("m3", via=lab.leader)).is_learner


@pytest.mark.parametrize(("limit", "learners"), [(7, 7), (1, 1)])
async def test_only_so_many_learners_are_accepted(limit: int, learners: int) -> None:
    lab = Lab(3, max_learners=limit)
    with refused("already_exists"):
        await lab.add("m1")
    for number in range(learners):
        await lab.add(f"m{3 + number}")
    with refused("too_many_learners"):
        await lab.add("m10")


async def test_etcd_asks_to_wait_while_voters_have_just_connected() -> None:
    lab = Lab(3)
    lab.etcd.unsettled = 2
    with refused("unhealthy_cluster"):
        await lab.add("m3")
    with refused("unhealthy_cluster"):
        await lab.client.member_remove(endpoint("m0"), lab.id("m1"))
    added = await lab.add("m3")
    lab.etcd.unsettled = 1
    await lab.client.member_remove(endpoint("m0"), added.id)


async def test_a_change_that_timed_out_may_be_carried_out_later_and_keeps_others_waiting() -> None:
    lab = Lab(3)
    for process in lab.etcd.processes.values():
        process.lagging = True
    with refused("timeout"):
        await lab.add("m3", via=lab.leader)
    with refused("timeout"):
        await lab.client.member_remove(endpoint(lab.leader), lab.id(lab.follower))
    assert not lab.etcd.processes[lab.leader].data.roster.learners
    for process in lab.etcd.processes.values():
        process.lagging = False
    lab.etcd.step()
    roster = lab.etcd.processes["m0"].data.roster
    assert (len(roster.learners), len(roster.voters)) == (1, 3)


async def test_without_a_leader_nothing_is_changed() -> None:
    lab = Lab(3)
    lab.etcd.leaders.clear()
    with refused("no_leader"):
        await lab.add("m3")


async def test_the_lead_moves_to_a_voter_that_keeps_up() -> None:
    lab = Lab(3)
    learner = await lab.join("m3")
    leader, target = lab.leader, lab.follower
    move, identity = lab.client.move_leader, lab.id(target)
    with refused("not_leader"):
        await move(endpoint(target), identity)
    with refused("bad_transferee"):
        await move(endpoint(leader), learner.id)
    lab.etcd.processes[target].frozen = True
    with refused("no_leader"):  # "request timed out, leader transfer took too long"
        await move(endpoint(leader), identity)
    lab.etcd.processes[target].frozen = False
    await move(endpoint(leader), identity)
    assert lab.leader == target
    assert lab.put()


async def test_a_leader_that_is_removed_hands_on() -> None:
    lab = Lab(3)
    leader = lab.leader
    lab.put()
    await lab.client.member_remove(endpoint(leader), lab.id(leader))
    assert lab.etcd.step() == [leader]
    lab.etcd.step()
    assert lab.leader != leader
    assert lab.put("w")


async def test_a_member_that_lost_its_data_comes_back_as_itself_where_its_file_lists_everybody() -> None:
    """The hazard: two that forgot elect each other over the one that knows. The fuse prevents it."""
    lab = Lab(3)
    leader, forgets = lab.leader, lab.follower
    (third,) = {"m0", "m1", "m2"} - {leader, forgets}
    lab.etcd.processes[third].lagging = True
    assert lab.put("precious")
    identity = lab.id(forgets)
    lab.etcd.stop(forgets)
    lab.disks[forgets].directories.clear()
    with pytest.raises(EtcdExitedError):
        lab.start(forgets, [forgets])
    assert lab.etcd.problems == []
    assert lab.start(forgets, ["m0", "m1", "m2"]).data.member_id == identity
    assert len(lab.etcd.problems) == 1
    lab.etcd.stop(leader)
    lab.etcd.processes[third].lagging = False
    lab.etcd.step()
    lab.put("anew")
    assert lab.leader == third
    assert "put precious" not in lab.etcd.processes[third].data.entries
    assert any("is lost" in problem for problem in lab.etcd.problems)
