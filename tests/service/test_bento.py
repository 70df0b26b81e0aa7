"""What `bentoml build` makes serves the same, wherever it is started and without the source."""

import shutil
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path

import pytest

from inference.repository import Repository
from tests.conftest import BLUE, RED
from tests.service.conftest import ROOT, Server, environment, start

PARTS = ("bentofile.yaml", "inference", "service", "requirements", "README.md", "LICENSE")
TITLE = 'title="Petalpaw"'


@pytest.mark.skipif(find_spec("uv") is None and shutil.which("uv") is None, reason="bentoml build needs uv")
def test_a_bento_serves_from_another_folder_and_batches_when_told(
    tmp_path: Path, repository: Repository, picture: Callable[..., bytes]
) -> None:
    source, home, elsewhere = tmp_path / "source", tmp_path / "home", tmp_path / "elsewhere"
    for folder in (source, home, elsewhere):
        folder.mkdir()
    for part in PARTS:
        copy = shutil.copytree if (ROOT / part).is_dir() else shutil.copyfile
        copy(ROOT / part, source / part)
    shutil.copytree(repository.root, source / "models")
    # The working tree is importable where the tests run; this tells the Bento's code from it.
    api = source / "service" / "api.py"
    assert TITLE in api.read_text()
    api.write_text(api.read_text().replace(TITLE, 'title="Petalpaw in a Bento"'))
    built = subprocess.run(
        [sys.executable, "-m", "bentoml", "build"], cwd=source, env=environment(home), capture_output=True, text=True
    )
    assert built.returncode == 0, built.stdout + built.stderr
    shutil.rmtree(source)

    running = Server(*start(home, "petalpaw:latest", elsewhere, batching="adaptive", default_model="tones"))
    try:
        running.wait()
        assert running.client.get("/docs.json").json()["info"]["title"] == "Petalpaw in a Bento"
        assert "<title>Petalpaw</title>" in running.client.get("/ui").text
        files = [("images", ("a.jpg", picture(BLUE))), ("images", ("b.jpg", b"")), ("images", ("c.jpg", picture(RED)))]

        def ask(_: int) -> list[str]:
            outcomes = running.client.post("/classify", files=files).json()["predictions"]
            return [outcome["label"] if "label" in outcome else outcome["error"]["code"] for outcome in outcomes]

        with ThreadPoolExecutor(16) as pool:
            assert list(pool.map(ask, range(64))) == [["cold", "image_empty", "warm"]] * 64
        assert 'petalpaw_batch_pictures_count{model="tones"}' in running.client.get("/metrics").text
        (stats,) = running.client.get("/v2/models/tones/stats").json()["model_stats"]
        assert stats["inference_count"] == 128
        assert sum(batch["batch_size"] * batch["compute_infer"]["count"] for batch in stats["batch_stats"]) == 128
        assert [model["name"] for model in running.client.get("/models").json()["models"]] == ["colours", "tones"]
    finally:
        running.stop()
