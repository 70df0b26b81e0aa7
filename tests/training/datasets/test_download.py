"""Downloads from a real server on this machine, one that misbehaves as told."""

import hashlib
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from inference.errors import DownloadFailed, OutputUnwritable, RunInvalid
from tests.training.datasets.conftest import Files, expecting
from training.datasets import download as downloads
from training.datasets.catalog import Archive
from training.datasets.download import download
from training.datasets.store import fetch
from training.lock import held

CONTENT = np.random.RandomState(0).bytes(400_000)
HALF = len(CONTENT) // 2


@dataclass
class Server:
    """Serves `files`; `cuts` are the bytes after which the next answers break off, None for a whole one."""

    address: str = ""
    files: Files = field(default_factory=lambda: {"file.zip": CONTENT})
    cuts: list[int | None] = field(default_factory=list)
    status: list[int] = field(default_factory=list)
    ranges: bool = True
    etag: str = '"one"'
    asked: list[tuple[str | None, str | None]] = field(default_factory=list)
    """Range and If-Range of every request."""


def handler_of(server: Server) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            wanted, version = self.headers.get("Range"), self.headers.get("If-Range")
            server.asked.append((wanted, version))
            content = server.files.get(self.path.lstrip("/"))
            status = server.status.pop(0) if server.status else 200
            if content is None or status != 200:
                self.send_error(404 if content is None else status)
                return
            start = 0
            if wanted and server.ranges and version in (None, server.etag):
                start = int(wanted.removeprefix("bytes=").removesuffix("-"))
                self.send_response(206)
                self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
            else:
                self.send_response(200)
            self.send_header("Content-Length", str(len(content) - start))
            self.send_header("ETag", server.etag)
            self.end_headers()
            cut = server.cuts.pop(0) if server.cuts else None
            self.wfile.write(content[start:] if cut is None else content[start : start + cut])

        def log_message(self, *_: Any) -> None:
            pass

    return Handler


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("NO_PROXY", "*")
    monkeypatch.setattr(downloads, "PAUSE", 0.0)
    state = Server()
    with ThreadingHTTPServer(("127.0.0.1", 0), handler_of(state)) as serving:
        thread = threading.Thread(target=serving.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        state.address = f"http://127.0.0.1:{serving.server_address[1]}"
        yield state
        serving.shutdown()
        thread.join()


def archive_at(*addresses: str, content: bytes = CONTENT) -> Archive:
    return Archive("file.zip", addresses, len(content), hashlib.sha256(content).hexdigest(), "file")


def test_a_file_arrives_whole_and_is_not_fetched_twice(server: Server, tmp_path: Path) -> None:
    archive = archive_at(f"{server.address}/file.zip")
    path = download(archive, tmp_path)
    assert path.read_bytes() == CONTENT
    assert download(archive, tmp_path) == path
    assert server.asked == [(None, None)]
    assert [each.name for each in tmp_path.iterdir()] == ["file.zip"]


def test_a_broken_connection_is_resumed_where_it_broke(server: Server, tmp_path: Path) -> None:
    server.cuts = [100_000, 50_000, None]
    assert download(archive_at(f"{server.address}/file.zip"), tmp_path).read_bytes() == CONTENT
    assert server.asked == [(None, None), ("bytes=100000-", '"one"'), ("bytes=150000-", '"one"')]


def test_a_later_call_goes_on_with_what_an_earlier_one_left(server: Server, tmp_path: Path) -> None:
    server.cuts = [HALF] + [0] * downloads.RETRIES
    archive = archive_at(f"{server.address}/file.zip")
    with pytest.raises(DownloadFailed):
        download(archive, tmp_path)
    assert (tmp_path / "file.zip.part").read_bytes() == CONTENT[:HALF]
    server.asked.clear()
    assert download(archive, tmp_path).read_bytes() == CONTENT
    assert server.asked == [(f"bytes={HALF}-", '"one"')]


def test_a_stopped_download_keeps_its_part(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    server.cuts = [HALF]
    monkeypatch.setattr(downloads, "time", SimpleNamespace(sleep=stop))
    with pytest.raises(KeyboardInterrupt):
        download(archive_at(f"{server.address}/file.zip"), tmp_path)
    assert (tmp_path / "file.zip.part").stat().st_size == HALF


def test_a_server_without_ranges_sends_it_whole(server: Server, tmp_path: Path) -> None:
    server.ranges, server.cuts = False, [HALF]
    assert download(archive_at(f"{server.address}/file.zip"), tmp_path).read_bytes() == CONTENT
    assert [wanted for wanted, _ in server.asked] == [None, f"bytes={HALF}-"]


def test_a_file_that_changed_meanwhile_is_fetched_whole(server: Server, tmp_path: Path) -> None:
    archive = archive_at(f"{server.address}/file.zip")
    (tmp_path / "file.zip.part").write_bytes(b"x" * HALF)
    (tmp_path / "file.zip.part.version").write_text(f'{server.address}/file.zip\n"older"\n')
    assert download(archive, tmp_path).read_bytes() == CONTENT
    assert server.asked == [(f"bytes={HALF}-", '"older"')]


def test_parts_that_do_not_fit_together_are_fetched_whole_once(
    server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file.zip.part").write_bytes(b"x" * HALF)
    assert download(archive_at(f"{server.address}/file.zip"), tmp_path).read_bytes() == CONTENT
    assert server.asked == [(f"bytes={HALF}-", None), (None, None)]
    assert "do not fit together" in capsys.readouterr().err


def test_a_part_longer_than_the_file_is_begun_anew(server: Server, tmp_path: Path) -> None:
    (tmp_path / "file.zip.part").write_bytes(CONTENT + b"more")
    assert download(archive_at(f"{server.address}/file.zip"), tmp_path).read_bytes() == CONTENT


@pytest.mark.parametrize("ranges", [True, False])
def test_a_wrong_digest_is_deleted_and_said(ranges: bool, server: Server, tmp_path: Path) -> None:
    server.ranges = ranges
    archive = archive_at(f"{server.address}/file.zip", content=CONTENT[::-1])
    with pytest.raises(DownloadFailed) as failed:
        download(archive, tmp_path)
    assert hashlib.sha256(CONTENT).hexdigest() in failed.value.detail
    assert "it was deleted" in failed.value.detail
    assert not (tmp_path / "file.zip").exists()
    assert not (tmp_path / "file.zip.part").exists()


@pytest.mark.parametrize("size", [len(CONTENT) - 1, len(CONTENT) + 1])
def test_another_size_is_refused_before_it_is_read(size: int, server: Server, tmp_path: Path) -> None:
    archive = replace(archive_at(f"{server.address}/file.zip"), size=size)
    with pytest.raises(DownloadFailed, match=f"has 400,000 bytes where the file has {size:,}"):
        download(archive, tmp_path)
    assert not (tmp_path / "file.zip.part").exists()


def test_the_next_address_is_asked_when_one_fails(server: Server, tmp_path: Path) -> None:
    archive = archive_at(f"{server.address}/gone.zip", "http://127.0.0.1:9/file.zip", f"{server.address}/file.zip")
    assert download(archive, tmp_path).read_bytes() == CONTENT


def test_when_every_address_fails_each_answer_is_said_and_what_to_do(server: Server, tmp_path: Path) -> None:
    archive = archive_at(f"{server.address}/gone.zip", "http://127.0.0.1:9/file.zip", "no address")
    with pytest.raises(DownloadFailed) as failed:
        download(archive, tmp_path)
    lines = failed.value.detail.splitlines()
    assert lines[1] == f"  - {server.address}/gone.zip: answered 404 Not Found"
    assert lines[2].startswith("  - http://127.0.0.1:9/file.zip: ")
    assert "refused" in lines[2]
    assert lines[3].startswith("  - no address: ")
    assert "--from" in lines[-1]


def test_a_busy_server_is_asked_again(server: Server, tmp_path: Path) -> None:
    server.status = [503, 429, 500]
    assert download(archive_at(f"{server.address}/file.zip"), tmp_path).read_bytes() == CONTENT
    assert len(server.asked) == 4
    server.status = [503] * 10
    (tmp_path / "file.zip").unlink()
    with pytest.raises(DownloadFailed, match="answered 503"):
        download(archive_at(f"{server.address}/file.zip"), tmp_path)
    assert len(server.asked) == 4 + downloads.RETRIES


def test_a_disk_without_room_is_said_before_anything_is_asked(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(downloads.shutil, "disk_usage", lambda _: SimpleNamespace(free=399_999))
    with pytest.raises(OutputUnwritable, match="make room"):
        download(archive_at(f"{server.address}/file.zip"), tmp_path)
    assert server.asked == []


def test_a_disk_that_fills_keeps_the_part(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answers: list[object] = []

    def full(*_: object) -> None:
        answers.append(None)
        if len(answers) > 1:
            raise OSError(28, "No space left on device")

    server.cuts = [HALF, None]
    monkeypatch.setattr(downloads, "_write_validator", full)
    with pytest.raises(OutputUnwritable, match=r"No space left on device.*what has come stays"):
        download(archive_at(f"{server.address}/file.zip"), tmp_path)
    assert (tmp_path / "file.zip.part").stat().st_size == HALF


def test_a_set_is_fetched_once_and_resumed(
    server: Server, tmp_path: Path, mnist_files: Files, capsys: pytest.CaptureFixture[str]
) -> None:
    server.files = mnist_files
    chosen = expecting("mnist", mnist_files, server.address)
    server.status = [200, 404]
    with pytest.raises(DownloadFailed):
        fetch(chosen, tmp_path)
    assert not (tmp_path / "mnist").exists()
    assert "licence: CC BY-SA" in capsys.readouterr().err
    (tmp_path / ".downloads" / "other.zip.part").write_bytes(b"begun")
    assert fetch(chosen, tmp_path)
    assert len(server.asked) == 2 + 3  # the first file was not asked for again
    assert sorted(each.name for each in tmp_path.iterdir()) == [".downloads", "mnist"]
    assert [each.name for each in (tmp_path / ".downloads").iterdir()] == ["other.zip.part"]
    assert not fetch(chosen, tmp_path)
    assert len(server.asked) == 5


def test_two_fetches_at_once_do_not_mix(server: Server, tmp_path: Path, mnist_files: Files) -> None:
    import subprocess
    import sys

    code = (
        "import sys\nfrom pathlib import Path\nfrom training.lock import held\n"
        "with held(Path(sys.argv[1]), '.fetching'):\n    print(flush=True)\n    sys.stdin.read()"
    )
    other = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert other.stdout
    other.stdout.readline()
    with pytest.raises(RunInvalid, match="another process works in"):
        fetch(expecting("mnist", mnist_files, server.address), tmp_path)
    other.communicate(timeout=30)
    with held(tmp_path, ".fetching"):
        pass
    assert server.asked == []
