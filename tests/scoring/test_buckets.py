"""Buckets: s3fs against Moto's S3 and gcsfs against fake-gcs-server give what a folder of the same files gives."""

import io
import json
import os
import socket
import subprocess
import sys
import tarfile
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.util import find_spec
from pathlib import Path
from threading import Thread
from typing import Any

import pyarrow
import pyarrow.parquet as pq
import pytest

from inference.errors import DataInvalid, ImageUnreadable
from inference.repository import Repository
from scoring import services
from scoring.remote import Remote, RemoteItem, matches
from tests.fresh import ROOT
from tests.scoring.buckets import Bucket, Objects, free_port, gcs, s3

if not (find_spec("s3fs") and find_spec("gcsfs")):  # importing gcsfs is for scoring, which has it choose its ways
    pytest.skip("s3fs and gcsfs are not installed", allow_module_level=True)

NAMES = [
    *(
        "a b.jpg",
        " a.jpg",
        "#1.jpg",
        "what?.jpg",
        "50%.jpg",
        "%41.jpg",
        "%2F.jpg",
        "é日本.jpg",
        "-dash.jpg",
        "=1+1.jpg",
    ),
    *("a+b&c=d;e.jpg", "quote'\".jpg", "12::30.jpg", "[1].jpg", "star*.jpg", "back\\slash.jpg", "tab\t.jpg", "X.JPG"),
    *("sub/1.jpg", "sub/deep/2.jpg", "sub-1/3.jpg", "sub.jpg", "notes.txt"),
]
MARKERS = ["in/", "in/sub/", "in/hollow/", "twice/"]
"""Objects that stand for folders, as consoles make them."""
TWICE = ["twice//1.jpg", "twice/2.jpg"]
"""Names that no folder of this machine has."""
MANY = [f"many/{index:04}.jpg" for index in range(1050)]
"""More than one page of a listing."""


@pytest.fixture(scope="module")
def objects(picture: Callable[..., bytes]) -> Objects:
    colours = [("red", (220, 30, 30)), ("green", (30, 200, 40)), ("blue", (30, 40, 210))]
    made = [picture(colours[seed % 3][1], (60, 50), seed=seed) for seed in range(len(NAMES))]
    found = {f"in/{name}": data for name, data in zip(NAMES, made, strict=True)}
    found |= {"in/empty.jpg": b"", "in/broken.jpg": made[0][:300], "secret.jpg": made[0]}
    found |= {f"labelled/{colours[seed % 3][0]}/{seed}.jpg": made[seed] for seed in range(6)}
    shard = io.BytesIO()
    with tarfile.open(fileobj=shard, mode="w") as tar:
        for index in range(3):
            member = tarfile.TarInfo(f"{index}.jpg")
            member.size = len(made[index])
            tar.addfile(member, io.BytesIO(made[index]))
    found |= {f"shards/{index}.tar": shard.getvalue() for index in range(2)}
    found |= dict.fromkeys(MANY, b"")
    return found


@pytest.fixture(scope="module")
def folder(objects: Objects, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same files on this machine."""
    home = tmp_path_factory.mktemp("folder")
    for key, data in objects.items():
        (home / key).parent.mkdir(parents=True, exist_ok=True)
        (home / key).write_bytes(data)
    return home


def tables(address: str) -> dict[str, bytes]:
    """Two tables of addresses that begin there and of some that begin at the table."""
    names = ["in/a b.jpg", f"{address}/in/#1.jpg", f"{address}/in/12::30.jpg", "in/gone.jpg", "in/sub/1.jpg"]
    parquet = io.BytesIO()
    pq.write_table(pyarrow.table({"photo": names}), parquet)
    return {"t.csv": "\n".join(["photo", *names]).encode(), "t.parquet": parquet.getvalue()}


@pytest.fixture(scope="module", params=["s3", "gs"])
def bucket(
    request: pytest.FixtureRequest, objects: Objects, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Bucket]:
    server = {"s3": s3, "gs": gcs}[request.param]
    filled = {**objects, **tables(f"{request.param}://bucket"), **dict.fromkeys(MARKERS + TWICE, b"")}
    with server(filled, tmp_path_factory.mktemp("server")) as found:
        yield found


@pytest.fixture
def command(
    repository: Repository, tmp_path: Path, running: "list[subprocess.Popen[str]]"
) -> Callable[..., "subprocess.Popen[str]"]:
    """Starts `petalpaw SUBCOMMAND …` with nothing but this environment to tell it of buckets."""
    nowhere = {"AWS_EC2_METADATA_DISABLED": "true", "NO_GCE_CHECK": "true", "HOME": str(tmp_path)}
    ours = ("AWS_", "GOOGLE_", "STORAGE_", "GCS", "FSSPEC_")
    clean = {name: value for name, value in os.environ.items() if not name.startswith(ours)}

    def start(environment: Any, subcommand: str, *arguments: str, cwd: Path = tmp_path) -> "subprocess.Popen[str]":
        options = ["--model", "colours", "--models", str(repository.root), "--device", "cpu"]
        process = subprocess.Popen(
            [sys.executable, "-m", "petalpaw", subcommand, *arguments, *options],
            env={**clean, **nowhere, "PYTHONPATH": str(ROOT), **environment},
            cwd=cwd,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        running.append(process)
        return process

    return start


Command = Callable[..., "subprocess.Popen[str]"]


def ended(process: "subprocess.Popen[str]", status: int) -> tuple[str, str]:
    output, messages = process.communicate(timeout=180)
    assert process.returncode == status, messages
    assert "Traceback" not in messages
    return output, messages


def rows(output: str, home: object) -> list[dict[str, Any]]:
    """The rows as if home were here; why a file is not there is said in other words."""
    found = [json.loads(line) for line in output.replace(f"{home}/", "").splitlines()]
    return [row | {"error_detail": None} if row["error_code"] == "image_unreadable" else row for row in found]


def test_a_folder_gives_the_rows_of_the_same_files_here(bucket: Bucket, folder: Path, command: Command) -> None:
    there = command(bucket.environment, "score", f"{bucket.address}/in/")
    here = command({}, "score", "in/", cwd=folder)
    output, _ = ended(there, 1)
    expected = rows(ended(here, 1)[0], folder)
    assert rows(output, bucket.address) == expected
    # All but the notes, the empty one and the broken one.
    assert sum(row["label"] is not None for row in expected) == len(NAMES) - 1 == len(expected) - 2
    assert json.loads(output.splitlines()[0])["path"].startswith(f"{bucket.address}/in/")


def test_patterns_tables_shards_and_single_objects(bucket: Bucket, folder: Path, command: Command) -> None:
    for name, content in tables(str(folder)).items():
        (folder / name).write_bytes(content)
    sources = ["in/*", "shards/*.tar", "t.csv", "t.parquet", "in/é日本.jpg", "in/**/*.jpg"]
    there = command(
        bucket.environment, "score", *(f"{bucket.address}/{source}" for source in sources), "--column", "photo"
    )
    here = command({}, "score", *(f"{folder}/{source}" for source in sources), "--column", "photo", cwd=folder)
    assert rows(ended(there, 1)[0], bucket.address) == rows(ended(here, 1)[0], folder)


def test_labelled_folders_are_evaluated(bucket: Bucket, folder: Path, command: Command) -> None:
    there = command(bucket.environment, "evaluate", f"{bucket.address}/labelled/")
    here = command({}, "evaluate", "labelled/", cwd=folder)
    figures, expected = (json.loads(ended(process, 0)[0]) for process in (there, here))
    assert figures.pop("source") == f"{bucket.address}/labelled/"
    assert expected.pop("source") == "labelled/"
    assert figures == expected
    assert figures["accuracy"] == 1


@pytest.fixture
def here(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> str:
    """The address of the bucket, for clients in this process."""
    for name, value in bucket.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("NO_GCE_CHECK", "true")
    system, _ = services.file_system(bucket.address)
    type(system).clear_instance_cache()
    return bucket.address


def test_listings_of_more_than_a_page(here: str) -> None:
    expected = [f"{here}/{name}" for name in MANY]
    assert [item.path for item in Remote(f"{here}/many")] == expected
    assert [address for address, _ in matches(f"{here}/many/*.jpg")] == expected


def test_names_with_two_slashes(here: str) -> None:
    items = list(Remote(f"{here}/twice/"))
    assert [item.path for item in items] == [f"{here}/{name}" for name in TWICE]
    assert [item.read() for item in items] == [b"", b""]


def test_what_was_put_there_again_is_what_it_was(here: str) -> None:
    """Its stamp has the entity tag in place of the time."""
    (item,) = (each for each in Remote(f"{here}/in/sub/") if each.path.endswith("sub/1.jpg"))
    system, path = services.file_system(f"{here}/in/sub/1.jpg")
    assert isinstance(item, RemoteItem)
    assert item.version.count("\0") == 1
    assert item.version.startswith(f"{len(item.read())}\0")
    assert str(system.info(path)["LastModified" if "s3" in here else "updated"]) not in item.version


WRONG = {
    "missing bucket": ({}, "s3://nowhere/in/", "s3://nowhere/in/ cannot be read (no such bucket, folder or file)"),
    "unknown key": (
        {"AWS_ACCESS_KEY_ID": "AKIA"},
        "s3://bucket/in/",
        "The AWS Access Key Id you provided does not exist",
    ),
    "wrong secret": (
        {"AWS_SECRET_ACCESS_KEY": "s"},
        "s3://bucket/shards/*.tar",
        "s3://bucket/shards/*.tar cannot be read (The request signature we calculated does not match",
    ),
    "no credentials": (
        {"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": ""},
        "s3://bucket/in/*.jpg",
        "s3://bucket/in/*.jpg cannot be read (Unable to locate credentials)",
    ),
    "nobody there": ({"AWS_ENDPOINT_URL": "http://127.0.0.1:1"}, "s3://bucket/shards/0.tar", "Could not connect"),
    "no address": ({"AWS_ENDPOINT_URL": "127.0.0.1:9000"}, "s3://bucket/*.tar", "Invalid endpoint: 127.0.0.1:9000"),
}


@pytest.mark.parametrize("bucket", ["s3"], indirect=True)
def test_what_operators_get_wrong_ends_the_run_at_once(bucket: Bucket, command: Command) -> None:
    """Side by side, since each is a process of a second."""
    runs = [command({**bucket.environment, **changed}, "score", source) for changed, source, _ in WRONG.values()]
    for (_, _, says), run in zip(WRONG.values(), runs, strict=True):
        output, messages = ended(run, 3)
        assert says in messages
        assert "check the path or address and who may read it" in messages
        assert not output


@pytest.mark.parametrize("bucket", ["s3"], indirect=True)
def test_one_object_without_permission_is_a_row(bucket: Bucket, command: Command) -> None:
    run = command(bucket.environment, "score", f"{bucket.address}/secret.jpg", f"{bucket.address}/in/X.JPG")
    denied, answered = map(json.loads, ended(run, 1)[0].splitlines())
    assert "secret.jpg cannot be read (Forbidden); check the address and its permissions" in denied["error_detail"]
    assert answered["label"]


class Forbidding(BaseHTTPRequestHandler):
    """Tells of an object, but says no to whoever wants it, or a listing, as Google does."""

    def do_GET(self) -> None:
        told = self.path.endswith("/o/a.jpg")
        no = {"error": {"code": 403, "message": "reader does not have storage.objects.get access"}}
        body = json.dumps({"name": "a.jpg", "bucket": "bucket", "size": "3"} if told else no)
        self.send_response(200 if told else 403)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body.encode())

    def log_message(self, *_: object) -> None:
        """Quiet."""


def test_google_without_permission(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Forbidding)
    Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setenv("NO_GCE_CHECK", "true")
    try:
        (item,) = Remote("gs://bucket/a.jpg")
        with pytest.raises(ImageUnreadable, match=r"cannot be read \(Forbidden: \S+ reader does not have storage"):
            item.read()
        with pytest.raises(DataInvalid, match=r"bucket/in/ cannot be read \(Forbidden: .* does not have"):
            list(Remote("gs://bucket/in/"))
        assert not caplog.records  # nor on standard error
    finally:
        server.shutdown()
        server.server_close()


@pytest.mark.parametrize("address", ["s3://bucket/in/", "s3://bucket/*.jpg", "gs://bucket/in", "gs://bucket/*.jpg"])
def test_a_service_that_says_nothing_is_not_waited_for(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(services, "KNOCK_SECONDS", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        endpoint = f"http://127.0.0.1:{silent.getsockname()[1]}"
        names = ("AWS_ENDPOINT_URL", "STORAGE_EMULATOR_HOST")
        for name in names:
            monkeypatch.setenv(name, endpoint)
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "NO_GCE_CHECK"):
            monkeypatch.setenv(name, "true")
        type(services.file_system(address)[0]).clear_instance_cache()
        with pytest.raises(DataInvalid, match=r"cannot be read \(no answer in time\); check the path"):
            list(Remote(address))


def test_killed_server_ends_the_run_and_the_same_command_goes_on(
    objects: Objects, command: Command, tmp_path: Path
) -> None:
    port = free_port()
    some = {key: data for key, data in objects.items() if key.startswith("in/")}
    with s3(some, tmp_path, port=port, last=12) as bucket:
        address = f"{bucket.address}/in/"
        _, messages = ended(command(bucket.environment, "score", address, "-o", "out.jsonl"), 3)
    assert f"{address} cannot be reached any more" in messages
    assert "bring it back, then run the same command again to go on [source_gone]" in messages
    (part,) = (tmp_path / "out.jsonl.parts" / "journal.jsonl").read_text().splitlines()[1:]
    assert 0 < json.loads(part)["rows"] < 12
    assert not (tmp_path / "out.jsonl").exists()
    # Filled again with the same objects, whose times are others.
    with s3(some, tmp_path, port=port) as bucket:
        _, messages = ended(command(bucket.environment, "score", address, "-o", "out.jsonl"), 1)
        ended(command(bucket.environment, "score", address, "-o", "whole.jsonl"), 1)
    assert f"{json.loads(part)['rows']} of them are done already" in messages
    assert (tmp_path / "out.jsonl").read_bytes() == (tmp_path / "whole.jsonl").read_bytes()
