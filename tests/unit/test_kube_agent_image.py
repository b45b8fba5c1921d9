"""Which image the programs beside etcd run from."""

import asyncio
from typing import Any, cast

import pytest

from etcd_operator.kube import Forbidden, Kube, Unavailable
from etcd_operator.kube.agent_image import AgentImage
from etcd_operator.resources.names import Manifest

OWN: Manifest = {"spec": {"containers": [{"name": "mesh", "image": "mesh:1"}, {"name": "operator", "image": "mine:2"}]}}


class Answers:
    """An API server that answers in turn, and with the last answer from then on."""

    def __init__(self, *answers: Manifest | Exception | None) -> None:
        self.answers, self.asked = list(answers), list[tuple[str, str]]()

    async def get(self, resource: Any, namespace: str, name: str) -> Manifest | None:
        self.asked.append((namespace, name))
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer


def told(answers: Answers, *, given: str = "", times: int = 2) -> list[str]:
    image = AgentImage(cast(Kube, answers), given=given, namespace="ops", pod="operator-1")
    return [asyncio.run(image.name()) for _ in range(times)]


def test_it_is_that_of_the_operators_container_in_its_own_pod_asked_once() -> None:
    answers = Answers(OWN)
    assert told(answers) == ["mine:2", "mine:2"]
    assert answers.asked == [("ops", "operator-1")]


def test_a_given_one_counts_and_nobody_is_asked() -> None:
    answers = Answers(OWN)
    assert told(answers, given="theirs:3") == ["theirs:3", "theirs:3"]
    assert not answers.asked


@pytest.mark.parametrize("answer", [None, Forbidden(status=403, reason="Forbidden", message="no")])
def test_outside_of_a_pod_or_without_rights_it_is_not_known_and_not_asked_again(answer: Manifest | Exception) -> None:
    answers = Answers(answer)
    assert told(answers) == ["", ""]
    assert len(answers.asked) == 1


def test_an_api_server_that_is_away_is_asked_again() -> None:
    away = Unavailable(status=0, reason="", message="no answer")
    assert told(Answers(away, OWN)) == ["", "mine:2"]
