"""Starts that must be refused, on the real processes, and what a start must not import."""

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from inference.budget import Budget
from inference.errors import ArtifactError, ModelUnknown, ParameterInvalid
from inference.repository import Repository
from inference.runtimes.registry import cuda_device_count
from service.catalog import Catalog
from service.launch import REFUSED
from service.settings import Settings
from tests.service.conftest import ROOT, Server, environment, start

BUDGET = Budget(cores=1)


@pytest.fixture
def broken(tmp_path: Path, repository: Repository) -> Path:
    """A copy of the model repository, to be broken."""
    return Path(shutil.copytree(repository.root, tmp_path / "models"))


def corrupt(models: Path) -> None:
    path = models / "colours/1/model.onnx"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


def half_written(models: Path) -> None:
    path = models / "colours/1/model.onnx"
    path.write_bytes(path.read_bytes()[:50])


def no_model_file(models: Path) -> None:
    (models / "tones/1/model.onnx").unlink()


def no_manifest(models: Path) -> None:
    (models / "tones/1/manifest.json").unlink()


def half_a_manifest(models: Path) -> None:
    path = models / "tones/1/manifest.json"
    path.write_bytes(path.read_bytes()[:500])


def later_format(models: Path) -> None:
    path = models / "colours/1/manifest.json"
    path.write_text(path.read_text().replace('"format_version": 1', '"format_version": 99'))


def empty(models: Path) -> None:
    shutil.rmtree(models)
    models.mkdir()


def absent(models: Path) -> None:
    shutil.rmtree(models)


@pytest.mark.parametrize(
    ("damage", "named", "told"),
    [
        (corrupt, "colours/1/model.onnx", "copy the artifact again"),
        (half_written, "colours/1/model.onnx", "copy the artifact again"),
        (no_model_file, "tones/1/model.onnx", "copy the artifact again"),
        (no_manifest, "tones/1/manifest.json", "copy it again"),
        (half_a_manifest, "tones/1/manifest.json", "copy the folder again"),
        (later_format, "colours/1/manifest.json", "publish the model again"),
        (empty, "models", "publish one"),
        (absent, "models", "name a folder"),
    ],
)
def test_a_damaged_repository_is_refused_by_name(
    broken: Path, damage: Callable[[Path], None], named: str, told: str
) -> None:
    damage(broken)
    with pytest.raises(ArtifactError) as caught:
        Catalog.open(Settings(models=broken, device="cpu"), BUDGET)
    assert str(broken.parent / named if named == "models" else broken / named) in caught.value.detail
    assert told in caught.value.detail


def test_a_default_model_must_be_there(broken: Path) -> None:
    with pytest.raises(ParameterInvalid, match=r"PETALPAW_DEFAULT_MODEL is 'roses'.*colours, tones"):
        Catalog.open(Settings(models=broken, device="cpu", default_model="roses"), BUDGET)


def test_which_model_answers_when_none_is_named(broken: Path) -> None:
    several = Catalog.open(Settings(models=broken, device="cpu"), BUDGET)
    with pytest.raises(ParameterInvalid, match="colours, tones"), several.use(None):
        pass
    chosen = Catalog.open(Settings(models=broken, device="cpu", default_model="tones"), BUDGET)
    with chosen.use(None) as default:
        assert default.artifact.name == "tones"
    with pytest.raises(ModelUnknown), chosen.use("roses"):
        pass
    shutil.rmtree(broken / "tones")
    single = Catalog.open(Settings(models=broken, device="cpu"), BUDGET)
    with single.use(None) as only:
        assert only.artifact.name == "colours"


def test_a_refused_start_ends_the_whole_server(tmp_path: Path, broken: Path, repository: Repository) -> None:
    corrupt(broken)
    starts = [
        ({"models": broken, "device": "cpu"}, f"{broken / 'colours/1/model.onnx'} is not the file that was published"),
        ({"device": "gpu"}, "PETALPAW_DEVICE is 'gpu': Input should be 'auto', 'cpu' or 'cuda'"),
    ]
    if not cuda_device_count():
        starts.append(({"models": repository.root, "device": "cuda"}, "device 'cuda' was demanded"))
    running = []
    for number, (settings, reason) in enumerate(starts):
        home = tmp_path / str(number)
        home.mkdir()
        running.append((*start(home, **settings), reason))
    for process, _, log, reason in running:
        assert process.wait(timeout=60) == REFUSED, log.read_text()
        said = log.read_text()
        assert said.count("petalpaw cannot start: ") == 1
        assert reason in said
        assert "Traceback" not in said


def test_an_import_that_fails_in_the_worker_ends_the_whole_server(
    tmp_path: Path, repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_PROPAGATORS", "nobody_installed_this")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9")
    process, _, log = start(tmp_path, models=repository.root, device="cpu")
    assert process.wait(timeout=60) == REFUSED, log.read_text()
    assert "nobody_installed_this" in log.read_text()


def test_the_start_says_what_it_found(server: Server) -> None:
    said = server.said()
    assert "budget: " in said
    for name in ("colours/1", "tones/1"):
        assert f"model {name}: onnx on cpu (CPUExecutionProvider), loaded and self-tested in " in said


def test_metrics_count_pictures_and_time_stages(server: Server, picture: Callable[..., bytes]) -> None:
    server.client.post("/classify?model=tones", content=picture(), headers={"content-type": "image/jpeg"})
    metrics = server.client.get("/metrics").text
    assert 'petalpaw_pictures_total{code="ok",model="tones"}' in metrics
    for stage in ("decode", "inference"):
        assert f'petalpaw_stage_seconds_count{{model="tones",stage="{stage}"}}' in metrics


_REQUEST = """
import sys
from tests.service.within import serve

def ask(client):
    picture = sys.stdin.buffer.read()
    answer = client.post("/classify?model=colours", content=picture, headers={"content-type": "image/png"})
    assert answer.status_code == 200, answer.text

serve(ask)
imported = {name.partition(".")[0] for name in sys.modules}
found = imported & {"torch", "torchvision", "onnx", "training", "scoring", "ray"}
sys.exit(f"imported: {sorted(found)}" if found else 0)
"""


def test_serving_imports_no_training_and_no_torch(
    tmp_path: Path, repository: Repository, picture: Callable[..., bytes]
) -> None:
    settings = environment(tmp_path, models=repository.root, device="cpu")
    done = subprocess.run(
        [sys.executable, "-c", _REQUEST], cwd=ROOT, env=settings, input=picture(kind="PNG"), capture_output=True
    )
    assert done.returncode == 0, done.stderr.decode()
