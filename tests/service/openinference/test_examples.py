"""The examples of docs/openinference.md, run as they stand there but for the address and the model's name."""

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import BLUE, GREEN
from tests.service.conftest import Server

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs" / "openinference.md").read_text(encoding="utf-8")
PROGRAMS = dict(re.findall(r"```python\n# (\w+\.py)\n(.*?)```", PAGE, re.DOTALL))


@pytest.fixture
def folder(server: Server, picture: Callable[..., bytes], tmp_path: Path) -> Path:
    """Two pictures, a file that is none, and the page's programs."""
    (tmp_path / "green.jpg").write_bytes(picture(GREEN))
    (tmp_path / "blue.jpg").write_bytes(picture(BLUE))
    (tmp_path / "broken.jpg").write_bytes(b"no picture")
    for name, text in PROGRAMS.items():
        here = text.replace("localhost:3000", f"127.0.0.1:{server.port}").replace("catdog", "colours")
        (tmp_path / name).write_text(here, encoding="utf-8")
    return tmp_path


def run(folder: Path, *command: str | Path) -> str:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_there_is_one_for_each_client() -> None:
    assert PROGRAMS.keys() == {"triton_client.py", "triton_asyncio.py", "kserve_client.py", "mlserver_lines.py"}


def test_triton(folder: Path) -> None:
    said = run(folder, sys.executable, "triton_client.py", "green.jpg", "broken.jpg", "blue.jpg").splitlines()
    assert re.fullmatch(r"green.jpg \['\d\.\d{6}:1:green', '\d\.\d{6}:\d:\w+'\]", said[0])
    assert said[1].startswith("broken.jpg image_unsupported: ")
    assert ":2:blue'" in said[2]
    said = run(folder, sys.executable, "triton_asyncio.py", "green.jpg", "blue.jpg").splitlines()
    assert said[1].startswith("blue.jpg: [[0.")
    assert said[1].endswith("abstained: [[False]]")


def test_kserve(folder: Path, kserve: Path) -> None:
    said = run(folder, kserve, "kserve_client.py", "green.jpg", "blue.jpg").splitlines()
    assert said[0] == "ready: True"
    assert [line.split()[0] for line in said[1:4]] == ["logits", "probabilities", "abstained"]
    assert said[4].startswith("image_unsupported: encoded[0], the first of 1")


def test_mlserver(folder: Path, mlserver: Path, server: Server) -> None:
    (folder / "lines.json").write_text(
        run(folder, sys.executable, "mlserver_lines.py", "green.jpg", "blue.jpg", "broken.jpg")
    )
    (options,) = re.findall(r"^mlserver (infer .*)$", PAGE, re.MULTILINE)
    options = options.replace("localhost:3000", f"127.0.0.1:{server.port}").replace("catdog", "colours")
    run(folder, mlserver, *options.split())
    answers = [json.loads(line) for line in (folder / "answers.json").read_text().splitlines()]
    errors = {answer["id"]: answer["outputs"][1]["data"][0] for answer in answers}
    assert errors.pop("broken.jpg").startswith("image_unsupported: ")
    assert errors == {"green.jpg": "", "blue.jpg": ""}
