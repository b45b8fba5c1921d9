"""What the operator tells the program on a node, and what it hears from it."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from etcd_operator.agent.plan import BOUND_BY, LONGEST_RESULT, ORIGINAL, Amount, Plan, PlanInvalidError, Result
from support.node import NEW_FLAGS, OLD_FLAGS, plan


def test_a_plan_is_read_as_it_was_written() -> None:
    told = plan(
        ours=("https://a:2379",),
        cluster_id="c",
        accept_different_data=True,
        check=False,
        annotations={"a": "b", "c": None},
    )
    assert Plan.parse(told.to_json()) == told
    assert json.loads(told.to_json()) == {
        "container": "kube-apiserver",
        "flags": NEW_FLAGS,
        "annotations": {"a": "b", "c": None},
        "before": OLD_FLAGS,
        "ours": ["https://a:2379"],
        "clusterId": "c",
        "acceptDifferentData": True,
        "check": False,
        "patience": 10.0,
    }


def test_what_is_not_told_is_careful() -> None:
    told = Plan.parse('{"flags": {"etcd-servers": "http://a:2379"}, "before": {}}')
    assert told.check
    assert not told.accept_different_data
    assert not told.cluster_id
    assert told.patience == 180


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("{", "Invalid JSON"),
        ("[]", "an object"),
        ('{"flags": {}}', "before"),
        ('{"flags": {"token-auth-file": "/x"}, "before": {}}', "only etcd's flags"),
        ('{"flags": {}, "before": {}, "patience": 0}', "patience"),
        ('{"flags": {}, "before": {}, "newer": 1}', "newer"),
    ],
)
def test_a_plan_that_is_none_is_told(text: str, problem: str) -> None:
    with pytest.raises(PlanInvalidError, match=problem):
        Plan.parse(text)


@given(message=st.text(max_size=6000), keys=st.none() | st.integers(0))
def test_a_result_fits_into_a_termination_message(message: str, keys: int | None) -> None:
    amount = None if keys is None else Amount(keys=keys, revision=1)
    result = Result(result="Refused", reason="DifferentData", message=message, before=amount)
    text = result.to_json()
    assert len(text.encode()) <= LONGEST_RESULT
    read = Result.parse(text)
    assert (read.result, read.reason, read.before) == (result.result, result.reason, amount)
    assert read == result or (read.message.endswith("…") and message.startswith(read.message[:-1]))
    assert len(read.message) == len(message) or len(text.encode()) > LONGEST_RESULT * 0.7


def test_only_a_result_without_a_reason_is_a_success() -> None:
    assert Result(result="Unchanged").succeeded
    assert not Result(result="Unchanged", reason="NotReady").succeeded


def test_a_digest_is_of_what_the_node_is_to_have() -> None:
    told, files = plan(annotations={ORIGINAL: "{}", BOUND_BY: "ns/name"}), {"ca.crt": b"a"}
    same = plan(annotations={ORIGINAL: "null", BOUND_BY: "ns/name"}, before={}, ours=("x",), patience=1)
    assert same.digest(files) == told.digest(files)
    others = (told.digest({"ca.crt": b"b"}), plan(annotations={}).digest(files), plan(flags={}).digest(files))
    assert len({told.digest(files), *others}) == 4
