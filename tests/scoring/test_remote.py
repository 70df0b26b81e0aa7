"""Addresses: the same inputs as from this machine, and servers that fail, lie or go away."""

import gzip
import os
import resource
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import fsspec
import pytest

from inference.classifier import Classifier
from inference.errors import DataInvalid, ImageUnreachable, ImageUnreadable, PackageMissing, SourceGone
from scoring import remote, witnesses
from scoring.arguments import source_of
from scoring.local import LocalEngine
from scoring.remote import Remote, RemoteItem
from scoring.scorer import Scorer
from scoring.shards import Shard

NAMES = ["a/1.jpg", "a/10.jpg", "a/2.png", "a/notes.txt", "b.webp", "c d.jpg"]
PICTURES = ["a/1.jpg", "a/10.jpg", "a/2.png", "b.webp", "c d.jpg"]


@pytest.fixture
def memory() -> Iterator[Any]:
    system = fsspec.filesystem("memory")
    for name in NAMES:
        system.pipe_file(f"/in/{name}", name.encode())
    yield system
    system.rm("/", recursive=True)


Serve = Callable[[type[BaseHTTPRequestHandler]], tuple[ThreadingHTTPServer, str]]


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Starts real servers on the loopback; gives each with its address."""
    started: list[ThreadingHTTPServer] = []

    def start(handler: type[BaseHTTPRequestHandler]) -> tuple[ThreadingHTTPServer, str]:
        server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        started.append(server)
        return server, f"http://127.0.0.1:{server.server_port}"

    yield start
    for server in started:
        server.shutdown()
        server.server_close()


def files_of(folder: Path) -> type[BaseHTTPRequestHandler]:
    class Handler(SimpleHTTPRequestHandler):
        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments, directory=str(folder))

        def log_message(self, *_: object) -> None:
            pass

    return Handler


def make(folder: Path) -> None:
    for name in NAMES:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(name.encode())


@pytest.mark.parametrize("address", ["memory://in", "memory://in/"])
def test_folder(memory: Any, address: str) -> None:
    items = list(Remote(address))
    assert [item.read().decode() for item in items] == PICTURES
    assert [item.path for item in items] == [f"memory:///in/{name}" for name in PICTURES]
    assert [item.id for item in items] == list(range(5))
    before = [item.stamp() for item in items]
    assert [item.stamp() for item in Remote(address)] == before
    memory.pipe_file("/in/b.webp", b"longer than before")
    assert [one != other.stamp() for one, other in zip(before, Remote(address), strict=True)] == [0, 0, 0, 1, 0]


def test_file_and_pattern(memory: Any) -> None:
    assert [item.path for item in Remote("memory://in/a/notes.txt")] == ["memory://in/a/notes.txt"]
    assert [item.read() for item in Remote("memory://in/a/1*.jpg")] == [b"a/1.jpg", b"a/10.jpg"]
    assert Remote("memory://in").description == "memory://in"


def test_pattern_searches_folders_that_it_fits(memory: Any) -> None:
    memory.pipe_file("/in/a-b/3.jpg", b"a-b/3.jpg")
    assert [item.read().decode() for item in Remote("memory://in/a*")] == [*PICTURES[:3], "a-b/3.jpg"]
    # With `**` everything is found by itself, folders are not, and the order is that of a folder.
    found = [item.read().decode() for item in Remote("memory://in/**")]
    assert found == [*NAMES[:4], "a-b/3.jpg", *NAMES[4:]]


def test_host_of_colons(tmp_path: Path) -> None:
    (tmp_path / "1.jpg").write_bytes(b"six")

    class Six(ThreadingHTTPServer):
        address_family = socket.AF_INET6

    try:
        server = Six(("::1", 0), files_of(tmp_path))
    except OSError as error:
        pytest.skip(f"this machine has no ::1: {error}")
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    try:
        assert RemoteItem(0, f"http://[::1]:{server.server_port}/1.jpg").read() == b"six"
    finally:
        server.shutdown()
        server.server_close()


def test_local_addresses(tmp_path: Path) -> None:
    make(tmp_path)
    items = list(Remote(f"file://{tmp_path}"))
    assert [item.read().decode() for item in items] == PICTURES
    assert items[0].path == f"file://{tmp_path}/a/1.jpg"


def test_http(tmp_path: Path, serve: Serve) -> None:
    make(tmp_path)
    _, address = serve(files_of(tmp_path))
    assert [item.read() for item in Remote(f"{address}/a/1.jpg")] == [b"a/1.jpg"]
    assert sorted(item.read().decode() for item in Remote(f"{address}/")) == PICTURES
    (missing,) = Remote(f"{address}/gone.jpg")
    with pytest.raises(ImageUnreadable, match=r"gone\.jpg cannot be read \(no such file\); check the address"):
        missing.read()


def test_http_is_scored(tmp_path: Path, serve: Serve, classifier: Classifier, picture: Callable[..., bytes]) -> None:
    for name in ("1.jpg", "2.jpg"):
        (tmp_path / name).write_bytes(picture())
    _, address = serve(files_of(tmp_path))
    rows = list(LocalEngine(Scorer(classifier)).rows(Remote(f"{address}/")))
    assert [(row.path, row.label) for row in rows] == [(f"{address}/{name}.jpg", "red") for name in (1, 2)]


class Stumbling(BaseHTTPRequestHandler):
    """Answers every second request with 503, and what is forbidden with 403."""

    count = 0

    def do_GET(self) -> None:
        type(self).count += 1
        status = 403 if "secret" in self.path else 503 if self.count % 2 else 200
        self.send_response(status)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"ok")

    def log_message(self, *_: object) -> None:
        pass


class Circling(BaseHTTPRequestHandler):
    """Sends everyone back to where they came from."""

    def do_GET(self) -> None:
        self.send_response(302)
        self.send_header("Location", self.path)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Quiet."""


def test_circle_of_redirects_is_named(serve: Serve) -> None:
    _, address = serve(Circling)
    with pytest.raises(ImageUnreadable, match=r"cannot be read \(too many redirects\)"):
        RemoteItem(0, f"{address}/a.jpg").read()


def test_server_that_stumbles_is_asked_again(serve: Serve) -> None:
    _, address = serve(Stumbling)
    assert RemoteItem(0, f"{address}/a.jpg").read() == b"ok"
    with pytest.raises(ImageUnreadable, match=r"cannot be read \(403, .*check the address and its permissions"):
        RemoteItem(0, f"{address}/secret.jpg", root=f"{address}/").read()


@pytest.mark.parametrize("status", [408, 425, 429, 500, 503])
def test_server_that_cannot_just_now_did_not_say_no(serve: Serve, monkeypatch: pytest.MonkeyPatch, status: int) -> None:
    pauses: list[float] = []
    monkeypatch.setattr("time.sleep", pauses.append)
    _, address = serve(Failing)
    with pytest.raises(ImageUnreachable, match=f"{status}.*score it again when its server is there"):
        RemoteItem(0, f"{address}/{status}.jpg").read()
    assert pauses == ([1, 2] if status in (429, 503) else [])


def test_server_that_went_away(tmp_path: Path, serve: Serve) -> None:
    make(tmp_path)
    server, address = serve(files_of(tmp_path))
    found, *_ = Remote(f"{address}/")
    server.shutdown()
    server.server_close()
    with pytest.raises(
        SourceGone, match=r"cannot be reached any more \(.*\); bring it back, then run the same command"
    ):
        found.read()
    # Of one that gave nothing yet nobody knows whether it ever was there.
    with pytest.raises(ImageUnreadable):
        RemoteItem(0, f"{address}/a/1.jpg").read()


class Failing(BaseHTTPRequestHandler):
    """Answers as the address says, `/503.jpg`, and in the end with 502 whatever is asked for."""

    ended = False

    def do_GET(self) -> None:
        self.send_response(502 if self.ended else int(self.path[1:4]))
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Quiet."""


def test_server_that_gave_something_has_to_stay(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    server, address = serve(Failing)
    # Whatever becomes of one address: the server is there as long as one that gave something answers.
    for name in ("404", "503", "200", "503", "404"):
        if name != "200":
            with pytest.raises(ImageUnreadable):
                RemoteItem(0, f"{address}/{name}.jpg").read()
        else:
            assert RemoteItem(0, f"{address}/{name}.jpg").read() == b""
    monkeypatch.setattr(Failing, "ended", True)
    with pytest.raises(SourceGone, match=rf"^{address}/ cannot be reached any more \(502, "):
        RemoteItem(0, f"{address}/200.jpg").read()
    server.shutdown()
    server.server_close()
    with pytest.raises(SourceGone, match=rf"^{address}/ cannot be reached any more"):
        RemoteItem(0, f"{address}/404.jpg").read()


def test_witness_of_an_earlier_run(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    """Known where the inputs are listed, it is asked for where they are read."""
    server, address = serve(Failing)
    witnesses.trust(f"{address}/200.jpg")
    item = remote.named(0, f"{address}/503.jpg")
    monkeypatch.setattr(witnesses, "_witnesses", witnesses.Witnesses())
    with pytest.raises(ImageUnreadable):
        item.read()
    server.shutdown()
    server.server_close()
    with pytest.raises(SourceGone):
        item.read()


@pytest.mark.parametrize(
    ("address", "server"),
    [
        ("http://a.b:80/c/d.jpg?e=http://f/g", "http://a.b:80/"),
        ("s3://bucket", "s3://bucket/"),
        ("zip://a/b.jpg::https://host/c.zip", "https://host/"),
        ("http://[::1]:80/a.jpg", "http://[::1]:80/"),
        ("s3://bucket/12::30.jpg", "s3://bucket/"),
    ],
)
def test_who_answers_for_an_address(address: str, server: str) -> None:
    assert witnesses.server_of(address) == server


def test_server_that_never_was(tmp_path: Path, serve: Serve) -> None:
    server, address = serve(files_of(tmp_path))
    server.shutdown()
    server.server_close()
    for named in (f"{address}/", f"{address}/*.jpg"):
        with pytest.raises(DataInvalid, match=r"cannot be read \(.*onnect.*\); check the path or address and who"):
            list(Remote(named))
    with pytest.raises(DataInvalid, match="check the path or address"):
        Shard(f"{address}/a.tar")


def test_archive_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(DataInvalid, match=r"cannot be read \(no such file\); check the address"):
        RemoteItem(0, f"zip://a.jpg::file://{tmp_path}/none.zip").read()


def test_pattern_of_shards_on_a_server_that_never_was() -> None:
    with pytest.raises(DataInvalid, match=r"^http://127.0.0.1:1/\*.tar cannot be read \(.*check the path or address"):
        source_of(["http://127.0.0.1:1/*.tar"])


def test_address_that_makes_no_sense_is_not_taken_for_a_silent_server() -> None:
    with pytest.raises(ImageUnreadable) as raised:
        RemoteItem(0, "http://[::1").read()
    assert raised.value.code == "image_unreadable"


def test_folder_that_went_away(memory: Any) -> None:
    items = list(Remote("memory://in"))
    memory.rm("/in/b.webp")
    with pytest.raises(ImageUnreadable):
        items[3].read()
    memory.rm("/in", recursive=True)
    with pytest.raises(SourceGone):
        items[0].read()


def test_too_large(memory: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "MAX_BYTES", 6)
    (item,) = Remote("memory://in/a/1.jpg")
    with pytest.raises(ImageUnreadable, match="larger than 6 bytes"):
        item.read()


def test_addresses_that_are_none() -> None:
    with pytest.raises(DataInvalid, match=r"nope://x is no address that can be read \(Protocol not known: nope"):
        Remote("nope://x")


def test_missing_package_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "fsspec", None)
    monkeypatch.setitem(sys.modules, "fsspec.core", None)
    with pytest.raises(PackageMissing, match=r"install petalpaw\[remote\]"):
        Remote("s3://bucket/x")


def test_special_files_are_not_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.jpg")
    for address in ("file:///dev/zero", "local:///dev/zero", f"file://{tmp_path}/pipe.jpg"):
        with pytest.raises(ImageUnreadable, match="is not a regular file"):
            RemoteItem(0, address).read()
    (found,) = Remote(f"file://{tmp_path}")
    with pytest.raises(ImageUnreadable, match="is not a regular file"):
        found.read()


class Endless(BaseHTTPRequestHandler):
    """A body without length that never ends; what is packed unpacks to a thousand times its size."""

    def do_GET(self) -> None:
        block = bytes(2**20)
        self.send_response(200)
        if "packed" in self.path:
            self.send_header("Content-Encoding", "gzip")
            block = gzip.compress(bytes(2**26))
        self.end_headers()
        with suppress(OSError):
            while True:
                self.wfile.write(block)

    def log_message(self, *_: object) -> None:
        pass


@pytest.mark.timeout(60)
@pytest.mark.parametrize("name", ["a.jpg", "packed.jpg"])
def test_endless_bodies_are_cut_off(serve: Serve, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setattr(remote, "MAX_BYTES", 5_000_000)
    _, address = serve(Endless)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(ImageUnreadable, match="is larger than 5,000,000 bytes"):
        RemoteItem(0, f"{address}/{name}").read()
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000


class Silent(BaseHTTPRequestHandler):
    """Promises what it never sends."""

    count = 0

    def do_GET(self) -> None:
        type(self).count += 1
        self.send_response(200)
        self.send_header("Content-Length", "2")
        self.end_headers()
        threading.Event().wait(10)

    def log_message(self, *_: object) -> None:
        pass


def test_silent_server_is_not_waited_for(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "_SILENT_SECONDS", 0.3)
    _, address = serve(Silent)
    began = time.monotonic()
    with pytest.raises(ImageUnreadable, match="cannot be read"):
        RemoteItem(0, f"{address}/a.jpg").read()
    assert (time.monotonic() - began < 5, Silent.count) == (True, 1)
