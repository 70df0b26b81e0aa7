"""A server that goes away in the middle of a run: whatever came from it, the run ends and goes on."""

import io
import json
import signal
import socket
import subprocess
import sys
import tarfile
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from inference.errors import DataInvalid, SourceGone
from inference.repository import Repository
from scoring.shards import Shard
from scoring.sources import FailedItem, Item
from scoring.tables import Table
from tests.cluster import Cluster
from tests.fresh import python

ROOT = Path(__file__).parents[2]

SERVER = """
import os, signal, sys, time
from http.server import HTTPServer, SimpleHTTPRequestHandler

port, left = map(int, sys.argv[1:3])


class Handler(SimpleHTTPRequestHandler):
    def do_GET(self):
        global left
        left -= 1
        if left == 0:
            print("asked", flush=True)
            if sys.argv[3] == "hang":
                time.sleep(60)
            os.kill(os.getpid(), signal.SIGKILL)
        super().do_GET()


class Server(HTTPServer):
    request_queue_size = 100  # with fewer, one that comes early may be answered a second later than the others


Server(("127.0.0.1", port), Handler).serve_forever()
"""

Serve = Callable[..., "subprocess.Popen[bytes]"]


@pytest.fixture
def port() -> int:
    """One that nobody listens at."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        return int(free.getsockname()[1])


@pytest.fixture
def serve(photos: Path, port: int) -> Iterator[Serve]:
    """Starts a server of 30 photos, of which five are damaged; asked the n-th time, it says so and dies or hangs."""
    started: list[subprocess.Popen[bytes]] = []

    def start(last: int = -1, then: str = "die") -> "subprocess.Popen[bytes]":
        arguments = [sys.executable, "-c", SERVER, str(port), str(last), then]
        process = subprocess.Popen(arguments, cwd=photos, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        started.append(process)
        until = time.monotonic() + 30
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                return process
            except OSError:
                assert time.monotonic() < until
                time.sleep(0.02)

    yield start
    for process in started:
        process.kill()
        process.communicate()


@pytest.fixture
def score(repository: Repository, tmp_path: Path) -> Callable[..., "subprocess.CompletedProcess[str]"]:
    """Runs `petalpaw score` on a table."""

    def run(*arguments: str) -> "subprocess.CompletedProcess[str]":
        options = ["--model", "colours", "--models", str(repository.root), "--column", "photo"]
        return python("-m", "petalpaw", "score", *arguments, *options, cwd=tmp_path, timeout=60)

    return run


def test_killed_server_ends_the_run_and_the_same_command_goes_on(
    serve: Serve, score: Callable[..., "subprocess.CompletedProcess[str]"], port: int, tmp_path: Path
) -> None:
    served = [f"http://127.0.0.1:{port}/{index % 30:02}.jpg" for index in range(100)]
    # A file that is not there, and a server that never was, concern nobody else.
    addresses = [*served[:3], f"http://127.0.0.1:{port}/gone.jpg", "http://127.0.0.1:1/a.jpg", *served[3:]]
    (tmp_path / "t.csv").write_text("photo\n" + "\n".join(addresses) + "\n")
    server = serve()
    assert score("t.csv", "-o", "whole.jsonl").returncode == 1
    server.kill()
    server.wait()

    serve(60)
    ended = score("t.csv", "-o", "out.jsonl")
    assert ended.returncode == 3, ended.stderr
    assert f"http://127.0.0.1:{port}/ cannot be reached any more" in ended.stderr
    assert "bring it back, then run the same command again to go on" in ended.stderr
    assert "[source_gone]" in ended.stderr
    assert "Traceback" not in ended.stderr
    (part,) = (tmp_path / "out.jsonl.parts" / "journal.jsonl").read_text().splitlines()[1:]
    assert 30 < json.loads(part)["rows"] < 70

    # Gone on with before the server is back, it ends as before: no rows of errors.
    assert score("t.csv", "-o", "out.jsonl").returncode == 3
    assert not (tmp_path / "out.jsonl").exists()

    serve()
    assert score("t.csv", "-o", "out.jsonl").returncode == 1
    assert (tmp_path / "out.jsonl").read_bytes() == (tmp_path / "whole.jsonl").read_bytes()
    codes = [json.loads(line)["error_code"] for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert len(codes) == len(addresses)
    assert codes[3:5] == ["image_unreadable", "image_unreachable"]
    assert {"image_unreadable", "image_unreachable"}.isdisjoint(codes[:3] + codes[5:])


def test_before_anything_was_committed_an_away_server_ends_the_run_too(
    serve: Serve, score: Callable[..., "subprocess.CompletedProcess[str]"], port: int, tmp_path: Path
) -> None:
    """Whether an earlier run was killed early or there was none: a network that is away makes no rows of errors."""
    addresses = [f"http://127.0.0.1:{port}/{index % 30:02}.jpg" for index in range(40)]
    (tmp_path / "t.csv").write_text("\n".join(["photo", "http://127.0.0.1:1/a.jpg", *addresses]) + "\n")
    for _ in range(2):
        away = score("t.csv", "-o", "out.jsonl")
        assert away.returncode == 3, away.stderr
        assert "no server of the first 41 inputs gave an answer; run the same command again" in away.stderr
        assert f"http://127.0.0.1:{port}/09.jpg cannot be read (" in away.stderr
        assert "[source_gone]" in away.stderr
        assert [path.name for path in tmp_path.glob("out*")] == []

    serve()
    assert score("t.csv", "-o", "out.jsonl").returncode == 1
    rows = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert [row["error_code"] for row in rows if row["label"] is None] == ["image_unreachable"] + [
        "image_truncated"
    ] * 6


@pytest.mark.parametrize("beside", ['""', "nope://x/a.jpg"])
def test_what_asked_no_server_does_not_speak_for_one(
    score: Callable[..., "subprocess.CompletedProcess[str]"], tmp_path: Path, beside: str
) -> None:
    """An empty cell or an address of no service is a row, but says nothing of the network."""
    (tmp_path / "t.csv").write_text(f"photo\n{beside}\nhttp://127.0.0.1:1/a.jpg\n")
    away = score("t.csv", "-o", "out.jsonl")
    assert (away.returncode, "no server of the first 2 inputs" in away.stderr) == (3, True), away.stderr
    (tmp_path / "t.csv").write_text(f"photo\n{beside}\n")
    assert score("t.csv", "-o", "out.jsonl").returncode == 1


def test_interrupted_before_any_answer_keeps_nothing_and_says_so(repository: Repository, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "petalpaw", "score", "-", "--model", "colours", "--models", str(repository.root)]
    run = subprocess.Popen(
        [*command, "-o", str(tmp_path / "out.jsonl")],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert run.stderr is not None
    reported = threading.Event()

    def ask() -> None:
        while not reported.wait(0.1):  # progress is told when a row comes after five seconds
            print("http://127.0.0.1:1/a.jpg", file=run.stdin, flush=True)

    asking = threading.Thread(target=ask)
    asking.start()
    while " errors" not in run.stderr.readline():
        assert run.poll() is None
    reported.set()
    asking.join()
    run.send_signal(signal.SIGINT)
    messages = run.stderr.read()  # standard input stays open meanwhile
    run.communicate(timeout=60)
    assert run.returncode == 130, messages
    assert "→ nowhere, for no server gave an answer" in messages
    assert "to go on" not in messages
    assert list(tmp_path.glob("out*")) == []


def test_what_is_said_of_the_first_thousand(
    score: Callable[..., "subprocess.CompletedProcess[str]"], tmp_path: Path
) -> None:
    """A thousand addresses without an answer are enough; one answer before, and they are rows."""
    (tmp_path / "photo.jpg").write_bytes(b"no picture")
    silent = ["http://127.0.0.1:1/a.jpg"] * 1000
    (tmp_path / "t.csv").write_text("\n".join(["photo", *silent, "photo.jpg"]))
    ended = score("t.csv", "-o", "out.csv")
    assert (ended.returncode, "of the first 1,000 inputs" in ended.stderr) == (3, True), ended.stderr
    (tmp_path / "t.csv").write_text("\n".join(["photo", "photo.jpg", *silent]))
    assert score("t.csv", "-o", "out.csv").returncode == 1
    assert (tmp_path / "out.csv").read_text().count(",image_unreachable,") == 1000


def test_server_of_a_part_with_more_failures_than_answers_has_to_stay(
    serve: Serve, score: Callable[..., "subprocess.CompletedProcess[str]"], port: int, tmp_path: Path
) -> None:
    """However many of other servers failed beside its answers, the unfinished run knows it."""
    silent = ["http://127.0.0.1:1/a.jpg"] * 40
    addresses = [f"http://127.0.0.1:{port}/{index:02}.jpg" for index in range(30)]
    (tmp_path / "t.csv").write_text("\n".join(["photo", *silent, *addresses]))
    server = serve(25)
    assert score("t.csv", "-o", "out.csv").returncode == 3
    server.wait()
    (part,) = (tmp_path / "out.csv.parts" / "journal.jsonl").read_text().splitlines()[1:]
    assert json.loads(part)["witnesses"] != []
    again = score("t.csv", "-o", "out.csv")
    assert (again.returncode, "[source_gone]" in again.stderr) == (3, True), again.stderr
    assert f"http://127.0.0.1:{port}/ cannot be reached any more" in again.stderr


@pytest.mark.parametrize("then", ["die", "hang"])
def test_on_a_cluster_too(
    cluster: Cluster,
    repository: Repository,
    serve: Serve,
    score: Callable[..., "subprocess.CompletedProcess[str]"],
    port: int,
    tmp_path: Path,
    then: str,
) -> None:
    pytest.importorskip("ray")
    table, whole, output = (tmp_path / name for name in ("t.csv", "whole.jsonl", "out.jsonl"))
    addresses = [f"http://127.0.0.1:{port}/{index % 30:02}.jpg" for index in range(300)]
    table.write_text("\n".join(["photo", *addresses[:3], "http://127.0.0.1:1/a.jpg", *addresses[3:]]))
    server = serve()
    assert score("t.csv", "-o", "whole.jsonl").returncode == 1
    server.kill()
    server.wait()

    def on_cluster() -> "subprocess.Popen[bytes]":
        options = ("--model", "colours", "--device", "cpu", "--column", "photo", "-o", output)
        return cluster.score(repository.root, table, *options)

    server = serve(200, then)
    with on_cluster() as run:
        assert server.stdout is not None
        server.stdout.readline()
        if then == "hang":
            # Those that come in their place never got anything from the server.
            for actor in cluster.actors():
                actor.kill()
            server.kill()
        _, messages = run.communicate(timeout=120)
    assert run.returncode == 3, messages.decode()
    assert f"http://127.0.0.1:{port}/ cannot be reached any more".encode() in messages
    assert b"[source_gone]" in messages
    assert b"Traceback" not in messages
    assert not output.exists()

    serve()
    with on_cluster() as run:
        _, messages = run.communicate(timeout=120)
    assert run.returncode == 1, messages.decode()
    assert output.read_bytes() == whole.read_bytes()


def table() -> bytes:
    return b"path\n" + (b"long" * 250 + b".jpg\n") * 12_000


def shard() -> bytes:
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as tar:
        for index in range(120):
            member = tarfile.TarInfo(f"{index}.jpg")
            member.size = 100_000
            tar.addfile(member, io.BytesIO(bytes(member.size)))
    return content.getvalue()


class Parts(BaseHTTPRequestHandler):
    """Gives 12 MB in parts of 5 MiB, if it gives parts, and of the second only the beginning."""

    content: bytes
    ranges: bool

    def do_HEAD(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(self.content)))
        self.end_headers()

    def do_GET(self) -> None:
        if not self.ranges:
            self.do_HEAD()
            self.wfile.write(self.content)
            return
        begin, end = map(int, self.headers["Range"].removeprefix("bytes=").split("-"))
        part = self.content[begin : end + 1]
        self.send_response(206)
        self.send_header("Content-Range", f"bytes {begin}-{begin + len(part) - 1}/{len(self.content)}")
        self.send_header("Content-Length", str(len(part)))
        self.end_headers()
        self.wfile.write(part[:1000] if begin else part)
        self.close_connection = begin > 0

    def log_message(self, *_: object) -> None:
        """Quiet."""


@pytest.mark.parametrize(
    ("ranges", "raised", "says"),
    [
        (True, SourceGone, r"cannot be reached any more \(.*\); bring it back, then run the same command"),
        (False, DataInvalid, r"cannot be read any further \(.*range requests.*\); download it, and name the file"),
    ],
)
@pytest.mark.parametrize("name", ["t.csv", "t.tar"])
def test_half_a_table_or_shard_is_not_taken_for_all(
    name: str, ranges: bool, raised: type[Exception], says: str
) -> None:
    handler = type("Handler", (Parts,), {"content": shard() if name == "t.tar" else table(), "ranges": ranges})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    address = f"http://127.0.0.1:{server.server_port}/{name}"
    source = Shard(address) if name == "t.tar" else Table(address, "path")
    taken: list[Item] = []
    try:
        with pytest.raises(raised, match=says):
            taken.extend(source)
    finally:
        server.shutdown()
        server.server_close()
    assert len(taken) > 10
    assert not any(isinstance(item, FailedItem) for item in taken)
