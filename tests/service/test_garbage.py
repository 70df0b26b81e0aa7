"""What a request leaves behind goes with it, and does not wait for the garbage collector with a picture in its arms."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from inference.repository import Repository
from tests.service.conftest import ROOT, environment

_REQUESTS = """
import base64, gc, sys
from tests.service.within import serve

whole = sys.stdin.buffer.read()
half, jpeg = whole[: len(whole) // 2], {"content-type": "image/jpeg"}
at = "/classify?model=colours"
requests = {
    "good": lambda client: client.post(at, content=whole, headers=jpeg),
    "half": lambda client: client.post(at, content=half, headers=jpeg),
    "several": lambda client: client.post(at, files=[("images", ("a", each)) for each in (whole, half, b"", b"text")]),
    "part": lambda client: client.post(at, files={"other": whole}),
    "base64": lambda client: client.post(at, json={"images": [base64.b64encode(half).decode(), "?"]}),
    "json": lambda client: client.post(at, content=b"{", headers={"content-type": "application/json"}),
    "type": lambda client: client.post(at, content=whole, headers={"content-type": "text/plain"}),
    "model": lambda client: client.post("/classify?model=none", content=whole, headers=jpeg),
    "late": lambda client: client.post(at, content=whole, headers=jpeg | {"X-Request-Timeout-Ms": "1"}),
    "many": lambda client: client.post(at, files=[("images", ("a", b"x"))] * 500),
    "tensor": lambda client: client.post("/v2/models/colours/infer", json={"inputs": []}),
    "nowhere": lambda client: client.post("/nowhere", content=whole),
}

def alive():
    from inference.errors import PetalpawError
    from service.call import Call
    return sum(isinstance(each, (PetalpawError, Call)) for each in gc.get_objects())

def ask(client):
    for send in requests.values():  # first times keep things for good
        send(client)
    gc.collect()
    gc.disable()
    for name, send in requests.items():
        before = alive()
        for _ in range(10):
            assert send(client).status_code in (200, 400, 404, 405, 413, 415, 422, 429, 504), name
        client.get("/livez")
        left = alive() - before
        print(name, left, flush=True)

serve(ask)
"""


def test_no_request_leaves_itself_behind(tmp_path: Path, repository: Repository, picture: Callable[..., bytes]) -> None:
    settings = environment(tmp_path, models=repository.root, device="cpu")
    done = subprocess.run(
        [sys.executable, "-c", _REQUESTS], cwd=ROOT, env=settings, input=picture(), capture_output=True, timeout=120
    )
    assert done.returncode == 0, done.stderr.decode()
    left = {name: int(count) for name, count in (line.split() for line in done.stdout.decode().splitlines())}
    assert len(left) == 12
    assert {name: count for name, count in left.items() if count > 2} == {}
