"""The outermost layer and the time limit, without a server: what no client should be able to cause."""

import asyncio
import json
import logging
from typing import Any

import pytest
from starlette.responses import PlainTextResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service import edge
from service.api import api
from service.edge import Edge
from service.settings import Settings


def scope_of(method: str = "POST", path: str = "/classify", **headers: str) -> Scope:
    return {
        "type": "http",
        "method": method,
        "path": path,
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

    body = problem_of(exchange(Edge(broken), scope_of(), nothing))
    assert (body["status"], body["code"]) == (500, "internal")
    assert "secret" not in json.dumps(body)
    assert "unexpected failure of POST /classify" in caplog.text


def test_a_failure_after_the_answer_began_is_not_hidden() -> None:
    async def late(scope: Scope, receive: Receive, send: Send) -> None:
        await Response("half")(scope, receive, send)
        raise KeyError("late")

    with pytest.raises(KeyError):
        exchange(Edge(late), scope_of(), nothing)


@pytest.mark.parametrize(("status", "code"), [(404, "path_unknown"), (405, "method_unsupported"), (503, "internal")])
def test_plain_text_errors_become_problems(status: int, code: str) -> None:
    body = problem_of(exchange(Edge(PlainTextResponse("no", status)), scope_of(), nothing))
    assert (body["status"], body["code"]) == (status, code)


def test_plain_text_that_is_no_error_stays() -> None:
    sent = exchange(Edge(PlainTextResponse("yes")), scope_of(), nothing)
    assert sent[1]["body"] == b"yes"


def test_the_rest_of_a_refused_upload_is_dropped_up_to_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(edge, "LINGER_BYTES", 1000)
    read = 0

    async def endless() -> Message:
        nonlocal read
        read += 100
        return {"type": "http.request", "body": b"x" * 100, "more_body": True}

    sent = exchange(Edge(PlainTextResponse("no", 404)), scope_of(content_length="99999"), endless)
    assert dict(sent[0]["headers"])[b"connection"] == b"close"
    assert problem_of(sent)["code"] == "path_unknown"
    assert read == 1000


def test_a_sender_that_stalls_is_left_after_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(edge, "LINGER_S", 0.05)

    async def stalled() -> Message:
        await asyncio.sleep(60)
        raise AssertionError

    sent = exchange(Edge(PlainTextResponse("no", 404)), scope_of(transfer_encoding="chunked"), stalled)
    assert sent[-1] == {"type": "http.response.body", "body": b""}


def test_a_request_that_takes_too_long_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api.state, "settings", Settings(request_timeout_s=0.05), raising=False)

    async def stalled() -> Message:
        await asyncio.sleep(60)
        raise AssertionError

    body = problem_of(exchange(api, scope_of(content_type="image/jpeg", content_length="9"), stalled))
    assert (body["status"], body["code"]) == (504, "deadline_exceeded")
