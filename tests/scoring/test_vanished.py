"""A server that is killed in the middle of a run of addresses that were named one by one: the run ends and goes on."""

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from inference.repository import Repository

ROOT = Path(__file__).parents[2]

SERVER = """
import os, signal, sys
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

port, left = map(int, sys.argv[1:])


class Handler(SimpleHTTPRequestHandler):
    def do_GET(self):
        global left
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        super().do_GET()


ThreadingHTTPServer(("127.0.0.1", port), Handler).serve_forever()
"""

Serve = Callable[..., "subprocess.Popen[bytes]"]


@pytest.fixture
def port() -> int:
    """One that nobody listens at."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        return int(free.getsockname()[1])


@pytest.fixture
def serve(photos: Path, port: int) -> Iterator[Serve]:
    """Starts a server of 30 photos, of which five are damaged; it dies when it is asked for the n-th time."""
    started: list[subprocess.Popen[bytes]] = []

    def start(dies_at: int = -1) -> "subprocess.Popen[bytes]":
        arguments = [sys.executable, "-c", SERVER, str(port), str(dies_at)]
        process = subprocess.Popen(arguments, cwd=photos, stderr=subprocess.DEVNULL)
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
        process.wait()


@pytest.fixture
def score(repository: Repository, tmp_path: Path) -> Callable[..., "subprocess.CompletedProcess[str]"]:
    """Runs `petalpaw score` on a table."""

    def run(*arguments: str) -> "subprocess.CompletedProcess[str]":
        options = ["--model", "colours", "--models", str(repository.root), "--column", "photo"]
        return subprocess.run(
            [sys.executable, "-m", "petalpaw", "score", *arguments, *options],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

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

    serve(dies_at=60)
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
    assert [index for index, code in enumerate(codes) if code == "image_unreadable"] == [3, 4]
