"""BentoML's own clients and ours, against the running service and against one that is busy, closing or gone."""

import asyncio
import json
import re
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest

from inference.errors import (
    ImagesFailed,
    ModelUnknown,
    Overloaded,
    ParameterInvalid,
    PathUnknown,
    PetalpawError,
    Unauthorized,
)
from service.client import Answer, AsyncClient, Classified, Client, Failed, Retries, retry_after
from tests.conftest import BLUE, RED
from tests.service.conftest import ROOT, Server, environment
from tests.test_boundaries import loaded_after

QUICK = Retries(first_s=0.01)


@pytest.fixture
def files(tmp_path: Path, picture: Callable[..., bytes]) -> list[Path]:
    """A red photo, a text and a blue photo."""
    contents = {"a.jpg": picture(RED), "b.txt": b"text", "c.jpg": picture(BLUE)}
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    return [tmp_path / name for name in contents]


def url(server: Server) -> str:
    return f"http://127.0.0.1:{server.port}"


def told(answer: Answer) -> list[str]:
    return [one.label if isinstance(one, Classified) else one.error.code for one in answer.predictions]


_BENTOML = """
import asyncio, json, sys
from pathlib import Path
import bentoml
from bentoml.exceptions import BentoMLException

url, *files = sys.argv[1:]
with bentoml.SyncHTTPClient(url) as client:
    print(json.dumps(client.classify(images=[Path(file) for file in files], model="tones", top_k=2)))
    try:
        client.classify(images=[Path(files[0])], model="roses")
    except BentoMLException as error:
        print(json.dumps([error.error_code, str(error)]))

async def ask():
    async with bentoml.AsyncHTTPClient(url) as client:
        print(json.dumps(await client.classify(images=[Path(files[0])], model="colours", version="1")))

asyncio.run(ask())
"""


def test_bentoml_s_own_clients_call_it_by_name(server: Server, files: list[Path], tmp_path: Path) -> None:
    command = [sys.executable, "-c", _BENTOML, url(server), *map(str, files)]
    done = subprocess.run(command, cwd=tmp_path, env=environment(tmp_path), capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    three, refused, one = map(json.loads, done.stdout.splitlines())
    answer = Answer.model_validate(three)
    assert (told(answer), answer.model.name) == (["warm", "image_unsupported", "cold"], "tones")
    assert len(three["predictions"][0]["top_k"]) == 2
    assert (refused[0], "model_unknown" in refused[1]) == (404, True)
    assert told(Answer.model_validate(one)) == ["red"]


def test_ours_gives_an_outcome_for_every_picture(server: Server, files: list[Path]) -> None:
    with Client(url(server), model="colours") as client:
        answer = client.classify([files[0], str(files[1]), files[2].read_bytes()], top_k=1)
        assert told(answer) == ["red", "image_unsupported", "blue"]
        first, second, third = answer.predictions
        assert (first.filename, second.filename, third.filename) == ("a.jpg", "b.txt", "2")
        assert isinstance(first, Classified)
        assert [candidate.label for candidate in first.top_k] == ["red"]
        assert isinstance(second, Failed)
        assert second.error.status == 415
        assert answer.runtime.device == "cpu"
        # None that could be classified, be it one or several, is no different.
        assert told(client.classify([files[1]])) == ["image_unsupported"]
        assert told(client.classify([files[1], b""])) == ["image_unsupported", "image_empty"]
        assert told(client.classify(files, model="tones/1")) == ["warm", "image_unsupported", "cold"]


def test_the_async_one_says_the_same(server: Server, files: list[Path]) -> None:
    async def ask() -> None:
        async with AsyncClient(url(server)) as client:
            answers = await asyncio.gather(*(client.classify(files, model="colours") for _ in range(8)))
            assert [told(answer) for answer in answers] == [["red", "image_unsupported", "blue"]] * 8
            assert [one.name for one in (await client.models()).models] == ["colours", "tones"]
            assert (await client.model("tones")).labels == ["warm", "leafy", "cold"]
            with pytest.raises(ModelUnknown):
                await client.model("roses")

    asyncio.run(ask())


def test_what_concerns_a_request_is_raised_as_what_it_is(server: Server, files: list[Path], tmp_path: Path) -> None:
    with Client(url(server)) as client:
        assert [one.name for one in client.models().models] == ["colours", "tones"]
        detail = client.model("colours", "1")
        assert (detail.version, detail.preprocessing.crop) == ("1", 32)
        with pytest.raises(ModelUnknown, match="there is no model 'roses'"):
            client.classify(files, model="roses")
        for name in ("colours?version=1", "../v2", "a/b"):
            with pytest.raises((ModelUnknown, PathUnknown), match=re.escape(name)):
                client.model(name)
        with pytest.raises(ParameterInvalid, match="several models are served"):
            client.classify(files)
        with pytest.raises(ParameterInvalid, match="there is no picture"):
            client.classify([])
        with pytest.raises(FileNotFoundError):
            client.classify([tmp_path / "absent.jpg"])
        with pytest.raises(TypeError, match="a list of pictures"):
            client.classify(b"bytes")  # type: ignore[arg-type]


class Moody(ThreadingHTTPServer):
    """Answers each request as its script says, in turn: a status with headers, or None to hang up."""

    def __init__(self, *script: tuple[int, dict[str, str], bytes] | None) -> None:
        super().__init__(("127.0.0.1", 0), _Moody)
        self.script = list(script)
        self.asked: list[tuple[float, dict[str, str], int]] = []


class _Moody(BaseHTTPRequestHandler):
    server: Moody
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        self.server.asked.append((time.monotonic(), dict(self.headers), len(body)))
        step = self.server.script.pop(0)
        if step is None:
            self.connection.shutdown(socket.SHUT_RDWR)
            self.close_connection = True
            return
        status, headers, content = step
        self.send_response(status)
        for name, value in {**headers, "content-length": str(len(content))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    do_GET = do_POST  # noqa: N815

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        pass


@pytest.fixture
def moody() -> Iterator[Callable[..., Moody]]:
    running: list[tuple[Moody, threading.Thread]] = []

    def make(*script: tuple[int, dict[str, str], bytes] | None) -> Moody:
        made = Moody(*script)
        thread = threading.Thread(target=made.serve_forever)
        thread.start()
        running.append((made, thread))
        return made

    yield make
    for made, thread in running:
        made.shutdown()
        made.server_close()
        thread.join()


def problem(code: str, status: int, **headers: str) -> tuple[int, dict[str, str], bytes]:
    body = f'{{"type":"urn:petalpaw:problem:{code}","title":"t","status":{status},"code":"{code}","detail":"because"}}'
    return status, {name.replace("_", "-"): value for name, value in headers.items()}, body.encode()


OK = (
    200,
    {},
    b'{"model":{"name":"m","version":"1","digest":"d"},"runtime":{"name":"onnx","device":"cpu",'
    b'"execution_provider":"CPU"},"predictions":[]}',
)


def test_a_busy_service_is_asked_again_when_it_says(moody: Callable[..., Moody]) -> None:
    service = moody(problem("overloaded", 429, Retry_After="1"), None, problem("not_ready", 503), OK)
    address = f"http://127.0.0.1:{service.server_port}"
    with Client(address, key="a-key", timeout=7, retries=QUICK) as client:
        assert client.classify([b"x"]).predictions == []
    moments, headers, sizes = zip(*service.asked, strict=True)
    assert moments[1] - moments[0] >= 1
    assert moments[3] - moments[1] < 5
    assert {(one["Authorization"], one["X-Request-Timeout-Ms"]) for one in headers} == {("Bearer a-key", "7000")}
    assert len(set(sizes)) == 1  # the whole body, each time


def test_patience_ends(moody: Callable[..., Moody]) -> None:
    service = moody(*[problem("overloaded", 429, Retry_After="0")] * 4, problem("overloaded", 429, Retry_After="60"))
    address = f"http://127.0.0.1:{service.server_port}"
    with Client(address, retries=QUICK) as client:
        with pytest.raises(Overloaded, match="because"):
            client.classify([b"x"])
        assert len(service.asked) == 4
        with pytest.raises(Overloaded) as caught:  # a minute is too long
            client.classify([b"x"])
        assert (len(service.asked), caught.value.retry_after) == (5, 60)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        nobody = f"http://127.0.0.1:{probe.getsockname()[1]}"
    with Client(nobody, retries=QUICK) as client, pytest.raises(httpx.ConnectError):
        client.classify([b"x"])


def test_what_will_not_change_is_asked_once(moody: Callable[..., Moody]) -> None:
    proxy = (502, {"content-type": "text/html"}, b"<html>")
    service = moody(problem("unauthorized", 401), proxy, problem("images_failed", 422), problem("new_code", 418))
    address = f"http://127.0.0.1:{service.server_port}"

    async def ask() -> list[PetalpawError]:
        raised = []
        async with AsyncClient(address, retries=QUICK) as client:
            for _ in range(4):
                with pytest.raises(PetalpawError) as caught:
                    await client.classify([b"x"])
                raised.append(caught.value)
        return raised

    errors = asyncio.run(ask())
    assert [type(error) for error in errors] == [Unauthorized, PetalpawError, ImagesFailed, PetalpawError]
    assert (errors[1].status, "status 502" in errors[1].detail) == (502, True)
    assert len(service.asked) == 4


def test_pauses_grow_and_differ() -> None:
    lost = httpx.ReadError("lost")
    pauses = [[Retries().pause(attempt, lost) or 0 for _ in range(20)] for attempt in (1, 2, 3)]
    for attempt, seen in enumerate(pauses):
        assert 0.25 * 2**attempt <= min(seen) < max(seen) <= 0.5 * 2**attempt
    assert Retries().pause(4, lost) is None
    assert Retries().pause(1, httpx.ReadTimeout("slow")) is None


@pytest.mark.parametrize(
    ("value", "seconds"),
    [("12", 12), ("9" * 400, 1e9), ("", None), ("soon", None), (formatdate(0, usegmt=True), 0), ("-1", None)],
)
def test_retry_after_is_seconds_or_a_date(value: str, seconds: float | None) -> None:
    assert retry_after(httpx.Response(429, headers={"Retry-After": value})) == seconds


def test_our_client_needs_nothing_of_the_server() -> None:
    loaded = loaded_after("import service.client")
    assert {"httpx", "pydantic"} <= loaded
    assert loaded.isdisjoint({"bentoml", "fastapi", "starlette", "onnxruntime", "prometheus_client", "torch"})


@pytest.mark.parametrize("kind", ["sh", "python"])
def test_the_examples_of_the_page_run(server: Server, files: list[Path], tmp_path: Path, kind: str) -> None:
    if kind == "sh" and shutil.which("curl") is None:
        pytest.skip("needs curl")
    page = (ROOT / "docs" / "clients.md").read_text("utf-8")
    examples = re.findall(rf"^```{kind}\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    assert len(examples) == 3
    files[2].rename(tmp_path / "b.jpg")
    settings = environment(tmp_path) | {"PYTHONPATH": str(ROOT)}
    for example in examples:
        here = example.replace("localhost:3000", f"127.0.0.1:{server.port}").replace("flowers", "colours")
        command = [sys.executable, "-c", here] if kind == "python" else ["sh", "-c", f"set -e; {here}"]
        done = subprocess.run(command, cwd=tmp_path, env=settings, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr
        assert "red" in done.stdout, done.stdout + done.stderr
