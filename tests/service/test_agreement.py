"""Online, offline and evaluation agree: one set of pictures, three ways, the same labels and probabilities, exactly."""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from inference.classifier import Classifier
from inference.repository import Repository
from scoring.files import Files
from scoring.judge import Judge
from scoring.local import LocalEngine
from scoring.run import score
from scoring.scorer import Scorer
from scoring.sinks import FileSink
from scoring.truth import folder_truth
from tests.cluster import ROOT, Cluster
from tests.conftest import SHARED
from tests.corpus import broken_images
from tests.service.conftest import Server, start

PICTURES = 200
MODELS = Repository(ROOT / "models")
PHOTOS = SHARED / "data/catdog/val"


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory, picture: Callable[..., bytes]) -> Path:
    """PICTURES pictures in folders of their class: photos where there are some, else made ones; some are damaged."""
    folder = tmp_path_factory.mktemp("pictures")
    per_class = PICTURES // 2
    for place, label in enumerate(MODELS.open("catdog").manifest.labels):
        (folder / label).mkdir()
        photos = sorted((PHOTOS / label).iterdir())[: per_class - 10] if (PHOTOS / label).is_dir() else []
        for photo in photos:
            (folder / label / photo.name).symlink_to(photo)
        for index in range(per_class - len(photos)):
            random = np.random.default_rng(1000 * place + index)
            size = tuple(int(side) for side in random.integers(40, 600, 2))
            kind = ("JPEG", "PNG", "WEBP", "BMP")[index % 4]
            data = picture(tuple(random.integers(20, 235, 3)), size, kind, seed=index)
            (folder / label / f"made-{index:03}.{kind.lower()}").write_bytes(data[:200] if index % 10 == 9 else data)
    return folder


@pytest.fixture(scope="module")
def shipped(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Serves the shipped classifiers with ONNX Runtime on the CPU."""
    home = tmp_path_factory.mktemp("bentoml")
    running = Server(*start(home, models=MODELS.root, runtime="onnx", device="cpu", max_queue_s=60))
    running.wait()
    yield running
    running.stop()


def offline(line: str) -> tuple[Any, ...]:
    row = json.loads(line)
    return Path(row["path"]).name, row["label"], row["probability"], row["abstained"], row["top_k"], row["error_code"]


def online(server: Server, path: Path) -> tuple[Any, ...]:
    headers = {"Content-Type": "application/octet-stream"}
    sent = server.client.post("/classify", params={"model": "catdog"}, headers=headers, content=path.read_bytes())
    answer = sent.json()
    if "code" in answer:
        return path.name, None, None, None, None, answer["code"]
    (found,) = answer["predictions"]
    return path.name, found["label"], found["probability"], found["abstained"], found["top_k"], None


def test_service_both_engines_and_evaluation_agree(
    shipped: Server, cluster: Cluster, pictures: Path, tmp_path: Path
) -> None:
    files = sorted(pictures.rglob("*.*"))
    assert len(files) == PICTURES
    served = [online(shipped, path) for path in files]
    assert sum(each[-1] is not None for each in served) >= 2

    classifier = Classifier.load(MODELS.open("catdog"), runtime="onnx", device="cpu")
    score(Files([pictures]), LocalEngine(Scorer(classifier)), FileSink(tmp_path / "local.jsonl"))
    assert [offline(line) for line in (tmp_path / "local.jsonl").read_text().splitlines()] == served

    options = ("--model", "catdog", "--runtime", "onnx", "--device", "cpu")
    with cluster.score(MODELS.root, pictures, *options, "--output", tmp_path / "cluster.jsonl") as run:
        _, messages = run.communicate(timeout=200)
    assert run.returncode == 1, messages  # the damaged ones
    assert (tmp_path / "cluster.jsonl").read_bytes() == (tmp_path / "local.jsonl").read_bytes()

    judge = Judge(folder_truth(Files([pictures]), classifier.labels), classifier.labels)
    score(Files([pictures]), LocalEngine(Scorer(classifier)), judge)
    found = judge.judgement()
    expected = np.zeros((2, 2), int)
    for path, answer in zip(files, served, strict=True):
        if answer[-1] is None:
            expected[classifier.labels.index(path.parent.name), classifier.labels.index(answer[1])] += 1
    assert found.confusion.tolist() == expected.tolist()


def test_broken_pictures_have_the_same_outcome_in_rows(shipped: Server, tmp_path: Path) -> None:
    folder = tmp_path / "corpus"
    folder.mkdir()
    for index, broken in enumerate(broken_images()):
        (folder / f"{index:04}.jpg").write_bytes(broken.data)
    with ThreadPoolExecutor(4) as pool:
        served = list(pool.map(lambda path: online(shipped, path), sorted(folder.iterdir())))
    # In a process of its own, as the service is: here Pillow's warnings about damage are errors.
    options = ("--models", MODELS.root, "--model", "catdog", "--runtime", "onnx", "--device", "cpu")
    command = [sys.executable, "-m", "petalpaw", "score", folder, *options, "--output", tmp_path / "out.jsonl"]
    assert subprocess.run(command, cwd=ROOT, check=False, timeout=120).returncode == 1
    assert [offline(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()] == served
    assert len({each[-1] for each in served}) >= 5
