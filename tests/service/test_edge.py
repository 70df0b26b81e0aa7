"""The outermost layer and the time limit, without a server: what no client should be able to cause."""

import asyncio
import json
import logging
import time
from typing import Any

import pytest
from pydantic import SecretStr
from starlette.datastructures import State
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from inference.errors import DeadlineExceeded
from service import upload
from service.call import TIMEOUT, Call
from service.drain import Drain
from service.edge import Edge
from service.security import Gate
from service.settings import Settings


def state(**settings: Any) -> State:
    return State({"settings": Settings(**settings), "gate": Gate(), "drain": Drain(0, 1)})


STATE = state()


def scope_of(method: str = "POST", path: str = "/classify", **headers: str) -> Scope:
    return {
        "type": "http",
        "method": method,
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "headers": [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()],
    }


def exchange(app: ASGIApp, scope: Scope, receive: Receive) -> list[Message]:
    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    asyncio.run(app(scope, receive, send))  # type: ignore[arg-type]
    return sent


async def nothing() -> Message:
    return {"type": "http.request", "body": b"", "more_body": False}


class Client:
    """One that sends `body` and then either waits for its answer or leaves after a while."""

    def __init__(self, body: bytes = b"x", leaves_after: float = 60) -> None:
        self._messages: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]
        self._leaves_after = leaves_after

    async def __call__(self) -> Message:
        if self._messages:
            return self._messages.pop()
        await asyncio.sleep(self._leaves_after)
        return {"type": "http.disconnect"}


def problem_of(sent: list[Message]) -> dict[str, Any]:
    headers = dict(sent[0]["headers"])
    assert headers[b"content-type"] == b"application/problem+json"
    body: dict[str, Any] = json.loads(b"".join(message["body"] for message in sent[1:]))
    assert body["status"] == sent[0]["status"]
    return body


def test_what_nobody_foresaw_is_logged_and_typed(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Once BentoML has configured logging, its loggers do not propagate.
    monkeypatch.setattr(logging.getLogger("bentoml"), "propagate", True)

    async def broken(_scope: Scope, _receive: Receive, _send: Send) -> None:
        raise KeyError("secret")

    body = problem_of(exchange(Edge(broken, STATE), scope_of(), nothing))
    assert (body["status"], body["code"]) == (500, "internal")
    assert "secret" not in json.dumps(body)
    assert "unexpected failure of POST /classify" in caplog.text


def test_a_path_writes_no_line_of_its_own_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    async def failing(_scope: Scope, _receive: Receive, _send: Send) -> None:
        raise RuntimeError

    exchange(Edge(failing, STATE), {**scope_of(path="/a\nb"), "raw_path": b"/a%0Ab"}, nothing)
    assert caplog.messages == ["unexpected failure of POST /a%0Ab"]


def test_a_shorter_deadline_ends_what_is_waited_for() -> None:
    async def wait(call: Call, seconds: float | None) -> None:
        async with call.at_most(seconds):
            await asyncio.sleep(0.2)

    begun = time.monotonic()
    call = Call(deadline=begun + 60)
    with pytest.raises(DeadlineExceeded):
        asyncio.run(wait(call, 0.01))
    assert time.monotonic() - begun < 0.19
    assert call.remaining <= 0
    patient = Call(deadline=time.monotonic() + 60)
    asyncio.run(wait(patient, None))
    assert patient.remaining > 50


def test_what_takes_too_long_in_the_repository_goes_on() -> None:
    async def slow(_scope: Scope, _receive: Receive, _send: Send) -> None:
        await asyncio.sleep(5)

    key = "an-admin-key-of-the-tests"
    limited = state(request_timeout_s=0.01)
    limited.gate = Gate.of(Settings(api_keys=SecretStr(f"admin:{key}")))
    asked = scope_of(path="/v2/repository/models/catdog/load", x_api_key=key)
    sent = exchange(Edge(slow, limited), asked, nothing)
    assert b"the index has its outcome" in sent[1]["body"]


def test_a_failure_after_the_answer_began_is_not_hidden() -> None:
    async def late(scope: Scope, receive: Receive, send: Send) -> None:
        await Response("half")(scope, receive, send)
        raise KeyError("late")

    with pytest.raises(KeyError):
        exchange(Edge(late, STATE), scope_of(), nothing)


@pytest.mark.parametrize(("status", "code"), [(404, "path_unknown"), (405, "method_unsupported"), (503, "internal")])
def test_plain_text_errors_become_problems(status: int, code: str) -> None:
    body = problem_of(exchange(Edge(PlainTextResponse("no", status), STATE), scope_of(), nothing))
    assert (body["status"], body["code"]) == (status, code)


def test_plain_text_that_is_no_error_stays() -> None:
    sent = exchange(Edge(PlainTextResponse("yes"), STATE), scope_of(), nothing)
    assert sent[1]["body"] == b"yes"


def test_the_rest_of_a_refused_upload_is_dropped_up_to_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upload, "LINGER_BYTES", 1000)
    read = 0

    async def endless() -> Message:
        nonlocal read
        read += 100
        return {"type": "http.request", "body": b"x" * 100, "more_body": True}

    sent = exchange(Edge(PlainTextResponse("no", 404), STATE), scope_of(content_length="99999"), endless)
    assert dict(sent[0]["headers"])[b"connection"] == b"close"
    assert problem_of(sent)["code"] == "path_unknown"
    assert read == 1000


def test_a_small_upload_is_read_to_its_end_and_the_connection_kept() -> None:
    client = Client(b"x" * 100)
    sent = exchange(Edge(PlainTextResponse("no", 404), STATE), scope_of(content_length="100"), client)
    assert b"connection" not in dict(sent[0]["headers"])
    assert client._messages == []


def test_a_sender_that_stalls_is_left_after_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upload, "LINGER_S", 0.05)

    async def stalled() -> Message:
        await asyncio.sleep(60)
        raise AssertionError

    sent = exchange(Edge(PlainTextResponse("no", 404), STATE), scope_of(transfer_encoding="chunked"), stalled)
    assert sent[-1] == {"type": "http.response.body", "body": b""}


class Slow:
    """An application that reads the body, then works until it is stopped or done."""

    def __init__(self, works: float = 60) -> None:
        self.works, self.done, self.calls = works, 0, list[Call]()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        self.calls.append(Call.of(request))
        await request.body()
        await asyncio.sleep(self.works)
        self.done += 1
        await Response("done")(scope, receive, send)


def test_a_body_that_never_comes_is_not_waited_for_beyond_the_limit() -> None:
    async def stalled() -> Message:
        await asyncio.sleep(60)
        raise AssertionError

    patient = Edge(Slow(), state(request_timeout_s=0.05))
    sent = exchange(patient, scope_of(content_length="9"), stalled)
    assert (problem_of(sent)["status"], problem_of(sent)["code"]) == (504, "deadline_exceeded")


@pytest.mark.parametrize(("asked", "most"), [("50", 30.0), ("60000", 0.05)])
def test_work_ends_at_the_clients_deadline_and_never_after_the_services(asked: str, most: float) -> None:
    slow = Slow()
    sent = exchange(
        Edge(slow, state(request_timeout_s=most)),
        scope_of(content_length="1", **{TIMEOUT.lower(): asked}),
        Client(),
    )
    body = problem_of(sent)
    assert (body["status"], body["code"]) == (504, "deadline_exceeded")
    assert "no answer within 0.05 s" in body["detail"]
    assert slow.done == 0
    assert slow.calls[0].remaining <= 0


@pytest.mark.parametrize("asked", ["", "0", "-1", "1.5", "soon", "1e3", "9" * 20, "٣".encode().decode("latin-1")])
def test_a_deadline_that_is_no_number_is_refused(asked: str) -> None:
    scope = scope_of(content_length="1")
    scope["headers"].append((TIMEOUT.lower().encode(), asked.encode("latin-1")))
    body = problem_of(exchange(Edge(Slow(), STATE), scope, Client()))
    assert (body["status"], body["code"]) == (422, "parameter_invalid")
    assert "whole number of milliseconds" in body["detail"]


def test_two_deadlines_are_refused() -> None:
    scope = scope_of(content_length="1")
    scope["headers"] += [(TIMEOUT.lower().encode(), b"50")] * 2
    assert problem_of(exchange(Edge(Slow(), STATE), scope, Client()))["code"] == "parameter_invalid"


def test_work_ends_when_its_client_leaves() -> None:
    slow = Slow()
    sent = exchange(Edge(slow, STATE), scope_of(content_length="1"), Client(leaves_after=0.02))
    assert slow.done == 0
    assert slow.calls[0].abandoned
    assert sent[0]["status"] == 499


def test_a_client_that_leaves_with_its_answer_ends_nothing() -> None:
    class Quick(Client):
        async def __call__(self) -> Message:
            return self._messages.pop() if self._messages else {"type": "http.disconnect"}

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await Request(scope, receive).body()
        await Response("done")(scope, receive, send)
        await asyncio.sleep(0.01)

    sent = exchange(Edge(app, STATE), scope_of(content_length="1"), Quick())
    assert [message.get("status") for message in sent] == [200, None]


def test_a_reader_that_takes_too_long_ends_its_own_answer_only() -> None:
    async def endless(_message: Message) -> None:
        await asyncio.sleep(60)

    patient = Edge(PlainTextResponse("yes"), state(request_timeout_s=0.05))
    asyncio.run(patient(scope_of(), nothing, endless))  # the server closes the connection; nothing is logged


def test_the_disconnect_can_be_waited_for_by_the_application_too() -> None:
    seen: list[Message] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await Request(scope, receive).body()
            seen.append(await receive())
        finally:
            seen.append(await receive())

    exchange(Edge(app, STATE), scope_of(content_length="1"), Client(leaves_after=0.02))
    assert seen[-1] == {"type": "http.disconnect"}
