"""The client's behaviour towards an API server that misbehaves: a scripted one on a loopback port."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from kubernetes.aio.client.configuration import Configuration
from yarl import URL

from etcd_operator.kube import (
    Conflict,
    Connection,
    CredentialsError,
    Fenced,
    Forbidden,
    Invalid,
    Kube,
    KubeError,
    NotFound,
    Unauthorized,
    Unavailable,
)
from etcd_operator.kube.events import EventRecorder
from etcd_operator.kube.kubeconfig import ForeignClient
from etcd_operator.kube.resources import ALL, CONFIGMAPS, ETCDCLUSTERS, NODES, PODS, resource_of

Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Script:
    """Answers to give in order (the last one for ever), and the requests that came."""

    def __init__(self, *answers: Answer) -> None:
        self.answers = list(answers)
        self.requests: list[tuple[str, str, Any]] = []
        self.headers: list[dict[str, str]] = []

    async def handle(self, request: web.Request) -> web.StreamResponse:
        body = await request.text()
        self.requests.append((request.method, str(request.rel_url), json.loads(body) if body else None))
        self.headers.append(dict(request.headers))
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        return await answer(request)


def ok(body: Any) -> Answer:
    async def answer(_: web.Request) -> web.Response:
        return web.json_response(body)

    return answer


def refuse(
    status: int, reason: str = "", *, message: str = "no", headers: dict[str, str] | None = None, **more: Any
) -> Answer:
    async def answer(_: web.Request) -> web.Response:
        told = {"kind": "Status", "apiVersion": "v1", "code": status, "reason": reason, "message": message, **more}
        return web.json_response(told, status=status, headers=headers)

    return answer


async def drop(request: web.Request) -> web.StreamResponse:
    assert request.transport is not None
    request.transport.abort()
    await asyncio.sleep(0.01)
    return web.Response()


async def hang(_: web.Request) -> web.StreamResponse:
    await asyncio.sleep(30)
    return web.Response()


async def garbage(_: web.Request) -> web.StreamResponse:
    return web.Response(text='{"half": ')


@pytest.fixture
def api(tmp_path: Path) -> Callable[..., Any]:
    """`async with api(script, **options) as kube`; foreign: as if somebody else had named the server."""

    @asynccontextmanager
    async def serve(script: Script, *, foreign: bool = False, **options: Any) -> AsyncIterator[Kube]:
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", script.handle)
        runner = web.AppRunner(app, shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        port = runner.addresses[0][1]
        (tmp_path / "token").write_text("secret")
        config = tmp_path / "kubeconfig"
        config.write_text(
            json.dumps(
                {
                    "current-context": "c",
                    "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
                    "clusters": [{"name": "c", "cluster": {"server": f"http://127.0.0.1:{port}"}}],
                    "users": [{"name": "u", "user": {"tokenFile": str(tmp_path / "token")}}],
                }
            )
        )
        if foreign:
            named = Configuration(host=f"http://127.0.0.1:{port}")
            connection = Connection(named, environ=None, origin="a test", rest=ForeignClient(named), foreign=True)
        else:
            connection = await Connection.open({"KUBECONFIG": str(config)})
        kube = Kube(connection, **{"retry_delays": (0.01, 0.02), **options})
        try:
            yield kube
        finally:
            await kube.close()
            await runner.cleanup()

    return serve


def pod(name: str = "a", **metadata: Any) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": "ns", **metadata}}


@pytest.mark.parametrize("trouble", [refuse(500, "InternalError"), refuse(503), refuse(429), drop, garbage])
async def test_reads_get_over_short_trouble(api: Any, trouble: Answer) -> None:
    script = Script(trouble, trouble, ok(pod()))
    async with api(script) as kube:
        assert (await kube.get(PODS, "ns", "a"))["metadata"]["name"] == "a"
    assert len(script.requests) >= 3


async def test_longer_trouble_is_told_as_unavailable(api: Any) -> None:
    async with api(Script(refuse(500, "InternalError", message="etcd is away"))) as kube:
        with pytest.raises(Unavailable, match="etcd is away") as caught:
            await kube.get(PODS, "ns", "a")
    assert caught.value.retryable
    assert "GET /api/v1/namespaces/ns/pods/a" in str(caught.value)


async def test_no_answer_at_all_is_unavailable_and_says_so(api: Any) -> None:
    async with api(Script(hang), timeout=0.1, retry_delays=()) as kube:
        with pytest.raises(Unavailable, match=r"no answer within \d") as caught:
            await kube.get(PODS, "ns", "a")
    assert caught.value.status == 0


async def test_a_create_is_not_repeated_when_it_may_have_taken_effect(api: Any) -> None:
    script = Script(refuse(500))
    async with api(script) as kube:
        with pytest.raises(Unavailable):
            await kube.create(pod())
    assert len(script.requests) == 1


async def test_a_create_is_repeated_when_it_was_only_throttled(api: Any) -> None:
    script = Script(refuse(429), ok(pod()))
    async with api(script) as kube:
        await kube.create(pod())
    assert len(script.requests) == 2


async def test_a_long_retry_after_goes_to_the_caller(api: Any) -> None:
    script = Script(refuse(429, headers={"Retry-After": "30"}))
    async with api(script) as kube:
        with pytest.raises(Unavailable) as caught:
            await kube.get(PODS, "ns", "a")
    assert caught.value.retry_after == 30
    assert len(script.requests) == 1


@pytest.mark.parametrize(
    ("status", "kind"),
    [(400, Invalid), (403, Forbidden), (409, Conflict), (422, Invalid), (418, KubeError), (401, Unauthorized)],
)
async def test_refusals_have_their_kind_and_are_not_repeated(api: Any, status: int, kind: type[KubeError]) -> None:
    script = Script(refuse(status, "Why", message="because", details={"causes": [{"field": "spec"}]}))
    async with api(script) as kube:
        with pytest.raises(kind) as caught:
            await kube.apply(pod())
    error = caught.value
    assert (error.status, error.reason, error.message) == (status, "Why", "because")
    assert error.details["causes"] == [{"field": "spec"}]
    assert len(script.requests) == 1


async def test_missing_is_none_for_get_and_an_error_for_status(api: Any) -> None:
    async with api(Script(refuse(404, "NotFound"))) as kube:
        assert await kube.get(PODS, "ns", "a") is None
        with pytest.raises(NotFound):
            await kube.apply_status(pod() | {"status": {}})


async def test_lists_are_paged_and_their_items_say_what_they_are(api: Any) -> None:
    first = {"metadata": {"continue": "more"}, "items": [{"metadata": {"name": "a"}}]}
    script = Script(ok(first), ok({"metadata": {}, "items": [{"metadata": {"name": "b"}}]}))
    async with api(script) as kube:
        items = await kube.list(PODS, "ns", labels={"b": "2", "a": "1"}, fields="spec.nodeName=n")
    assert [(item["kind"], item["apiVersion"], item["metadata"]["name"]) for item in items] == [
        ("Pod", "v1", "a"),
        ("Pod", "v1", "b"),
    ]
    first_query, second_query = (URL(url).query for _, url, _ in script.requests)
    assert first_query["labelSelector"] == "a=1,b=2"
    assert first_query["fieldSelector"] == "spec.nodeName=n"
    assert "resourceVersion" not in first_query
    assert second_query["continue"] == "more"


async def test_a_list_whose_page_token_expired_begins_anew(api: Any) -> None:
    first = ok({"metadata": {"continue": "old"}, "items": [{"metadata": {"name": "a"}}]})
    whole = ok({"metadata": {}, "items": [{"metadata": {"name": "a"}}, {"metadata": {"name": "b"}}]})
    async with api(Script(first, refuse(410, "Expired"), whole)) as kube:
        assert len(await kube.list(PODS, "ns")) == 2


async def test_apply_is_server_side_and_forced(api: Any) -> None:
    script = Script(ok(pod()))
    async with api(script) as kube:
        await kube.apply(pod())
    method, path, body = script.requests[0]
    assert (method, body["metadata"]["name"]) == ("PATCH", "a")
    assert path == "/api/v1/namespaces/ns/pods/a?fieldManager=external-etcd-operator&force=true"
    assert script.headers[0]["Content-Type"] == "application/apply-patch+yaml"


async def test_delete_tells_whether_it_was_this_object(api: Any) -> None:
    script = Script(ok({}), refuse(404), refuse(409))
    async with api(script) as kube:
        assert await kube.delete(PODS, "ns", "a", uid="u", grace=0, propagation="Orphan") is True
        assert await kube.delete(PODS, "ns", "a", uid="u") is False
        assert await kube.delete(PODS, "ns", "a", uid="u") is False
        with pytest.raises(Conflict):
            await kube.delete(PODS, "ns", "a")
    options = script.requests[0][2]
    assert options["preconditions"] == {"uid": "u"}
    assert (options["gracePeriodSeconds"], options["propagationPolicy"]) == (0, "Orphan")


async def test_nothing_is_written_once_leadership_is_uncertain(api: Any) -> None:
    script = Script(ok(pod()))
    async with api(script, may_write=lambda: False) as kube:
        for write in (kube.apply(pod()), kube.create(pod()), kube.replace(pod()), kube.delete(PODS, "ns", "a")):
            with pytest.raises(Fenced):
                await write
        assert await kube.get(PODS, "ns", "a") is not None
    assert [method for method, _, _ in script.requests] == ["GET"]


async def test_a_token_that_changed_is_read_anew_when_the_old_one_is_refused(
    api: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("etcd_operator.kube.connection.RELOAD_INTERVAL", 0.0)

    async def check(request: web.Request) -> web.StreamResponse:
        good = request.headers["Authorization"] == "Bearer fresh"
        return await (ok(pod()) if good else refuse(401, "Unauthorized"))(request)

    async with api(Script(check)) as kube:
        (tmp_path / "token").write_text("fresh")
        assert await kube.get(PODS, "ns", "a") is not None


async def test_every_attempt_is_counted(api: Any) -> None:
    counted: list[tuple[str, str]] = []
    script = Script(refuse(503), ok({"items": [], "metadata": {}}))
    async with api(script, observer=lambda verb, code: counted.append((verb, code))) as kube:
        await kube.list(PODS, None)
    assert counted == [("list", "503"), ("list", "200")]


async def test_no_credentials_are_told_with_the_place_that_was_looked_at(tmp_path: Path) -> None:
    with pytest.raises(CredentialsError, match="nowhere"):
        await Connection.open({"KUBECONFIG": str(tmp_path / "nowhere")})


async def test_events_are_told_once_in_order_and_never_raise(api: Any) -> None:
    script = Script(refuse(403), ok({}))
    async with api(script) as kube:
        events = EventRecorder(kube, instance="operator-0")
        involved = pod(uid="1")
        events.emit(involved, "Normal", "Dropped", "refused by the server")
        for _ in range(3):
            events.emit(involved, "Warning", "Lost", "x" * 2000)
        events.emit(involved, "Normal", "Found", "again")
        events.emit(pod(uid="2"), "Normal", "Found", "again")
        await events.close(grace=30.0)
    told = [body for _, _, body in script.requests]
    assert [event["reason"] for event in told] == ["Dropped", "Lost", "Found", "Found"]
    assert told[1]["type"] == "Warning"
    assert len(told[1]["message"]) == 1024
    assert told[1]["involvedObject"] == {
        "apiVersion": "v1", "kind": "Pod", "name": "a", "namespace": "ns", "uid": "1",
    }  # fmt: skip
    assert len({event["metadata"]["name"] for event in told}) == 4


async def test_a_sentence_is_told_again_after_a_pause_that_doubles(api: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr("etcd_operator.kube.events.monotonic", lambda: now)
    told = []
    script = Script(*[ok({})] * 20)
    async with api(script) as kube:
        events = EventRecorder(kube, instance="operator-0")
        for now in (0.0, 9.0, 11.0, 30.0, 32.0, 60.0, 80.0, 1000.0, 1009.0, 1011.0):
            before = dict(events._told)
            events.emit(pod(uid="1"), "Normal", "Added", "once more")
            if dict(events._told) != before:
                told.append(now)
        await events.close(grace=30.0)
    assert told == [0.0, 11.0, 32.0, 80.0, 1000.0, 1011.0]
    assert len(script.requests) == 6


async def test_an_event_that_was_not_answered_is_posted_again_under_its_name(api: Any) -> None:
    script = Script(refuse(503), refuse(409, "AlreadyExists"), refuse(500), ok({}))
    async with api(script) as kube:
        events = EventRecorder(kube, instance="operator-0", retry_delays=(0.0, 0.0))
        events.emit(pod(uid="1"), "Normal", "First", "posted by the attempt that was not answered")
        events.emit(pod(uid="1"), "Normal", "Second", "after it")
        await events.close(grace=30.0)
    told = [(body["reason"], body["metadata"]["name"]) for _, _, body in script.requests]
    assert [reason for reason, _ in told] == ["First", "First", "Second", "Second"]
    assert len(set(told)) == 2


async def test_an_event_that_nobody_takes_holds_up_no_other(api: Any) -> None:
    script = Script(refuse(503), refuse(503), refuse(503), ok({}))
    async with api(script) as kube:
        events = EventRecorder(kube, instance="operator-0", retry_delays=(0.0, 0.0))
        events.emit(pod(uid="1"), "Normal", "Lost", "three times refused")
        events.emit(pod(uid="1"), "Normal", "Told", "then this")
        await events.close(grace=30.0)
    assert [body["reason"] for _, _, body in script.requests] == ["Lost", "Lost", "Lost", "Told"]


# A server that somebody else chose


def text(body: str | bytes, status: int = 200, **headers: str) -> Answer:
    async def answer(_: web.Request) -> web.Response:
        return web.Response(body=body, status=status, headers=headers)

    return answer


async def broken(request: web.Request) -> web.StreamResponse:
    """What another protocol's server says."""
    assert request.transport is not None
    assert isinstance(request.transport, asyncio.WriteTransport)
    request.transport.write(b"-ERR secret command\r\n\r\n")
    await asyncio.sleep(0.01)
    return await drop(request)


def page(token: str = "more", **more: Any) -> Answer:
    return ok({"metadata": {"continue": token}, "items": [{"metadata": {"name": "a"}}], **more})


async def test_a_foreign_server_is_read_and_written_as_any_other(api: Any) -> None:
    script = Script(ok(pod()), ok(pod()), page("x"), page(""), refuse(409, "Conflict", message="changed"))
    async with api(script, foreign=True, retry_delays=()) as kube:
        assert await kube.get(PODS, "ns", "a") == pod()
        assert await kube.apply(pod()) == pod()
        assert len(await kube.list(PODS, "ns")) == 2
        with pytest.raises(Conflict, match="changed"):
            await kube.replace(pod())
    assert script.requests[1][2] == pod()
    assert script.headers[1]["Content-Type"] == "application/apply-patch+yaml"
    assert {each["Accept-Encoding"] for each in script.headers} == {"identity"}


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (text("", 307, Location="/elsewhere"), "answered 307"),
        (text("secret", 302, Location="/elsewhere"), "answered 302"),
        (text("secret", 418), "answered 418"),
        (text("secret", 500), "answered 500"),
        (text('{"kind": "Secret", "message": "secret"}', 403), "answered 403"),
        (text('{"kind": "Status", "message": ["x"], "details": "y", "reason": 3}', 400), "x"),
        (text('{"kind": "Status", "details": {"causes": "y"}}', 422), "no message"),
        (text('["secret"]'), "no object"),
        (text("secret"), "Error"),
        (text("[" * 10**6), "Error"),
        (broken, "Error"),
    ],
)
async def test_what_a_foreign_server_says_is_not_followed_and_not_told_on(api: Any, answer: Answer, told: str) -> None:
    script = Script(answer)
    async with api(script, foreign=True, retry_delays=()) as kube:
        with pytest.raises(KubeError, match=told) as raised:
            await kube.apply(pod())
    assert "secret" not in str(raised.value)
    assert len(script.requests) == 1


async def test_a_foreign_server_is_asked_without_a_proxy(api: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    async with api(Script(ok(pod())), foreign=True) as kube:
        assert await kube.get(PODS, "ns", "a") == pod()


async def test_a_foreign_server_that_says_too_much_is_not_heard_out(api: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("etcd_operator.kube.client.FOREIGN_BYTES", 2 * 1024**2)
    for status in (200, 500):
        script = Script(text(b" " * (3 * 1024**2), status))
        async with api(script, foreign=True) as kube:
            with pytest.raises(KubeError, match="larger than 2 MiB") as raised:
                await kube.get(PODS, "ns", "a")
        assert not raised.value.retryable
        assert len(script.requests) == 1


async def test_a_foreign_list_ends(api: Any) -> None:
    script = Script(page())
    async with api(script, foreign=True) as kube:
        with pytest.raises(KubeError, match="longer than 20 pages") as raised:
            await kube.list(PODS, "ns")
    assert not raised.value.retryable
    assert len(script.requests) == 20


@pytest.mark.parametrize("more", [{"items": ["x"]}, {"items": {"a": 1}}, {"metadata": "x"}])
async def test_a_foreign_list_that_is_none_is_told(api: Any, more: dict[str, Any]) -> None:
    async with api(Script(page("", **more)), foreign=True) as kube:
        with pytest.raises(KubeError, match="no list"):
            await kube.list(PODS, "ns")


@pytest.mark.parametrize("told", ["nan", "inf", "-5", "soon"])
async def test_a_wait_that_is_none_is_not_taken_over(api: Any, told: str) -> None:
    async with api(Script(refuse(503, headers={"Retry-After": told})), retry_delays=()) as kube:
        with pytest.raises(Unavailable) as raised:
            await kube.get(PODS, "ns", "a")
    assert raised.value.retry_after is None


def test_paths() -> None:
    assert ETCDCLUSTERS.path("ns", "a", "status") == (
        "/apis/externaletcd.io/v1alpha1/namespaces/ns/etcdclusters/a/status"
    )
    assert NODES.path(None, "n1") == "/api/v1/nodes/n1"
    assert PODS.path() == "/api/v1/pods"
    assert CONFIGMAPS.path("a/b") == "/api/v1/namespaces/a%2Fb/configmaps"
    with pytest.raises(ValueError, match="namespace"):
        PODS.path(None, "a")


def test_every_resource_is_found_by_its_manifest() -> None:
    for resource in ALL:
        assert resource_of({"apiVersion": resource.api_version, "kind": resource.kind}) is resource
    with pytest.raises(LookupError, match="Toaster"):
        resource_of({"apiVersion": "v1", "kind": "Toaster"})
