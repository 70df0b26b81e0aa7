"""Schemathesis asks the service whatever its OpenAPI document allows, and what it does not: nothing may contradict it.

On a server of its own, with keys, because some of what is asked unloads models.
"""

import shutil
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

from inference.repository import Repository
from tests.service.conftest import Server, environment, start

ADMIN_KEY = "a-key-for-schemathesis"
EXAMPLES = 8
SECONDS = 280

_SETTINGS = """
[parameters]
"header.X-Request-Timeout-Ms" = "30000"

[[operations]]
include-path-regex = "/infer$"
parameters = { "path.name" = "colours", "path.version" = "1" }

[[operations]]
include-path-regex = "load$"
parameters = { "path.name" = "tones" }
"""


@pytest.fixture
def locked(tmp_path: Path, repository: Repository) -> Iterator[Server]:
    models = shutil.copytree(repository.root, tmp_path / "models")
    running = Server(*start(tmp_path, models=models, api_keys=f"admin:{ADMIN_KEY}"))
    running.wait()
    yield running
    running.stop()
    assert "Traceback" not in running.said(), running.said()


@pytest.mark.skipif(find_spec("schemathesis") is None, reason="needs schemathesis")
@pytest.mark.timeout(SECONDS + 60)
def test_every_answer_is_as_documented(locked: Server, tmp_path: Path) -> None:
    settings = tmp_path / "schemathesis.toml"
    settings.write_text(_SETTINGS)
    # Pictures and tensors made of random bytes are well-formed requests that must be refused all the same.
    options = f"--phases coverage,fuzzing --max-examples {EXAMPLES} --seed 1 --no-color"
    options += " --checks all --exclude-checks positive_data_acceptance"
    command = [sys.executable, "-m", "schemathesis.cli", "--config-file", str(settings), "run"]
    command += [f"http://127.0.0.1:{locked.port}/docs.json", "--header", f"Authorization: Bearer {ADMIN_KEY}"]
    command += options.split()
    done = subprocess.run(
        command, cwd=tmp_path, env=environment(tmp_path), capture_output=True, text=True, timeout=SECONDS, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Tested: 24" in done.stdout
