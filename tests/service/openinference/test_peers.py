"""KServe's and MLServer's own clients, as their projects publish them, against the real server."""

import base64
import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from inference.preprocessing import Preprocessing
from tests.conftest import BLUE, GREEN, RED
from tests.peers.environment import PEERS
from tests.service.conftest import Server

Picture = Callable[..., bytes]
COLOURS = (RED, GREEN, BLUE)


def run(*command: str | Path) -> str:
    # Nothing of this project, and no proxy, on the way of another's program.
    done = subprocess.run(command, capture_output=True, text=True, timeout=200, check=False, env={"PATH": "/usr/bin"})
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_kserve(server: Server, kserve: Path, picture: Picture, tmp_path: Path) -> None:
    pictures = [picture(colour) for colour in COLOURS]
    files = [tmp_path / f"{index}.jpg" for index in range(len(pictures))]
    for file, data in zip(files, pictures, strict=True):
        file.write_bytes(data)
    crops = tmp_path / "crops.npy"
    np.save(crops, np.stack([Preprocessing(resize=36, crop=32)(data) for data in pictures]))
    address = f"http://127.0.0.1:{server.port}"
    found = json.loads(run(kserve, PEERS / "kserve_session.py", address, "colours", crops, *files).splitlines()[-1])
    assert [found.pop(name) for name in ("live", "ready", "model_ready", "other_ready")] == [True, True, True, False]
    assert [error.partition(":")[0] for error in found.pop("errors")] == ["", "image_unsupported"]
    assert "image_unsupported: encoded[1], the first of 1" in found.pop("refused")
    assert len(found) == 8
    assert all(answer == [0, 1, 2] for answer in found.values()), found


def lines(tensors: list[dict[str, Any]]) -> str:
    outputs = [{"name": name} for name in ("probabilities", "abstained", "error")]
    return "".join(
        json.dumps({"id": f"line {index}", "inputs": [tensor], "outputs": outputs}) + "\n"
        for index, tensor in enumerate(tensors)
    )


def batch(mlserver: Path, server: Server, folder: Path, tensors: list[dict[str, Any]], *options: str) -> list[Any]:
    """Run `mlserver infer`; its answers in the order of the lines."""
    (folder / "in").write_text(lines(tensors))
    url = f"127.0.0.1:{server.port}"
    run(mlserver, "infer", "-u", url, "-m", "colours", "-i", folder / "in", "-o", folder / "out", "-r", "1", *options)
    answers = [json.loads(line) for line in (folder / "out").read_text().splitlines()]
    return sorted(answers, key=lambda answer: answer["parameters"]["batch_index"])


def values(answer: dict[str, Any]) -> dict[str, Any]:
    return {output["name"]: output["data"] for output in answer["outputs"]}


def test_mlserver_with_pictures(server: Server, mlserver: Path, picture: Picture, tmp_path: Path) -> None:
    """Lines of base64, gathered four at a time; a bad picture among them is its own outcome."""
    pictures = [*(picture(colour) for colour in COLOURS), b"text", picture(RED)]
    tensors = [
        {
            "name": "encoded",
            "shape": [1, 1],
            "datatype": "BYTES",
            "data": [base64.b64encode(data).decode()],
            "parameters": {"content_type": "base64"},
        }
        for data in pictures
    ]
    answers = batch(mlserver, server, tmp_path, tensors, "-s", "4")
    assert [answer["id"] for answer in answers] == [f"line {index}" for index in range(5)]
    bad = values(answers.pop(3))
    assert bad["probabilities"] == [None, None, None]
    assert bad["abstained"] == [True]
    assert bad["error"][0].startswith("image_unsupported: ")
    assert [int(np.argmax(values(answer)["probabilities"])) for answer in answers] == [0, 1, 2, 0]
    assert all(values(answer)["error"] == [""] for answer in answers)


def test_mlserver_with_crops_in_binary_form(server: Server, mlserver: Path, picture: Picture, tmp_path: Path) -> None:
    crops = [Preprocessing(resize=36, crop=32)(picture(colour)) for colour in COLOURS]
    tensors = [
        {"name": "images", "shape": [1, *crop.shape], "datatype": "UINT8", "data": crop.ravel().tolist()}
        for crop in crops
    ]
    answers = batch(mlserver, server, tmp_path, tensors, "-s", "2", "-b")
    assert [int(np.argmax(values(answer)["probabilities"])) for answer in answers] == [0, 1, 2]
