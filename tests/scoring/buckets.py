"""Servers that speak S3 and Google Cloud Storage on the loopback, each in a process of its own."""

import base64
import json
import os
import socket
import subprocess
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.fresh import ROOT
from tests.peers.environment import installed

BUCKET = "bucket"
Objects = Mapping[str, bytes]


@dataclass(frozen=True)
class Bucket:
    """A bucket that is served, and the environment in which its clients find it."""

    address: str
    environment: Mapping[str, str]
    process: "subprocess.Popen[str]"


def free_port() -> int:
    """A port that nobody listens at."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        return int(free.getsockname()[1])


@contextmanager
def s3(objects: Objects, folder: Path, *, port: int = 0, last: int = 0) -> Iterator[Bucket]:
    """Moto, which checks signatures and permissions: `secret…` is nobody's. Asked for the object `last`, it dies."""
    port = port or free_port()
    content = folder / "objects.json"
    content.write_text(json.dumps({key: base64.b64encode(data).decode() for key, data in objects.items()}))
    program = (installed("moto") / "python", ROOT / "tests" / "peers" / "s3_server.py")
    with _running([*program, port, BUCKET, content, last], port) as process:
        assert process.stdout is not None
        key, secret = process.stdout.readline().split()
        environment = {
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
            "AWS_ACCESS_KEY_ID": key,
            "AWS_SECRET_ACCESS_KEY": secret,
            "AWS_MAX_ATTEMPTS": "1",  # of a server that died nobody has to be sure
        }
        yield Bucket(f"s3://{BUCKET}", environment, process)


@contextmanager
def gcs(objects: Objects, folder: Path) -> Iterator[Bucket]:
    """fake-gcs-server, which lets everyone read."""
    port = free_port()
    (program,) = installed("gcs").parent.glob("lib/*/site-packages/*/vendor/fake-gcs-server/bin/*")
    options = ["-scheme", "http", "-host", "127.0.0.1", "-port", port, "-public-host", f"127.0.0.1:{port}"]
    with _running([program, "-backend", "memory", "-log-level", "error", *options], port) as process:
        endpoint = f"http://127.0.0.1:{port}"
        _post(f"{endpoint}/storage/v1/b?project=tests", json.dumps({"name": BUCKET}).encode())
        for key, data in objects.items():
            name = urllib.parse.quote(key, safe="")
            _post(f"{endpoint}/upload/storage/v1/b/{BUCKET}/o?uploadType=media&name={name}", data)
        yield Bucket(f"gs://{BUCKET}", {"STORAGE_EMULATOR_HOST": endpoint}, process)


def _post(address: str, data: bytes) -> None:
    request = urllib.request.Request(address, data, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=30) as response:
        response.read()


@contextmanager
def _running(command: list[Any], port: int) -> "Iterator[subprocess.Popen[str]]":
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    process = subprocess.Popen(
        list(map(str, command)), env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    try:
        until = time.monotonic() + 60
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                break
            except OSError:
                assert process.poll() is None
                assert time.monotonic() < until
                time.sleep(0.02)
        yield process
    finally:
        process.kill()
        process.communicate()
