"""The command line as a user meets it: a real process, its two streams and its exit status."""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from inference.repository import Repository

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def run(repository: Repository, tmp_path: Path) -> Run:
    """Runs `petalpaw` in an empty folder against the test's models."""
    environment = {**os.environ, "PETALPAW_MODELS": str(repository.root), "COLUMNS": "200"}

    def petalpaw(*arguments: str, **changes: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "petalpaw", *arguments],
            cwd=tmp_path,
            env={**environment, **changes},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    return petalpaw


def test_classify_answers_each_picture_and_tells_failures(
    run: Run, tmp_path: Path, picture: Callable[..., bytes]
) -> None:
    (tmp_path / "red.jpg").write_bytes(picture())
    (tmp_path / "text.jpg").write_text("no picture")
    done = run("classify", "red.jpg", "text.jpg", "gone.jpg", "--model", "colours", "--json")
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    assert done.returncode == 1
    assert answers[0]["label"] == "red"
    assert [answer["error"]["code"] for answer in answers[1:]] == ["image_unsupported", "image_unreadable"]
    text = run("classify", "red.jpg", "--model", "colours/1", "--top-k", "1")
    assert text.returncode == 0
    assert text.stdout == f"red.jpg\tred {answers[0]['probability']:.1%}\n"


def test_score_writes_a_row_per_picture_and_keeps_stdout_clean(
    run: Run, tmp_path: Path, picture: Callable[..., bytes]
) -> None:
    (tmp_path / "photos").mkdir()
    for index in range(5):
        (tmp_path / "photos" / f"{index}.jpg").write_bytes(picture(seed=index))
    (tmp_path / "photos" / "bad.png").write_bytes(b"")
    done = run("score", "photos", "--model", "tones")
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert done.returncode == 1
    assert [row["label"] for row in rows] == ["warm"] * 5 + [None]
    assert rows[5]["error_code"] == "image_empty"
    assert "6 rows" in done.stderr
    assert run("score", "photos", "--model", "tones", "-o", "rows.csv").returncode == 1
    assert len((tmp_path / "rows.csv").read_text().splitlines()) == 7
    again = run("score", "photos", "--model", "tones", "-o", "rows.csv")
    assert again.returncode == 3
    assert "rows.csv exists already" in again.stderr


@pytest.mark.parametrize(
    ("arguments", "status", "says"),
    [
        (["classify", "x.jpg"], 2, "name a model with --model: colours, tones"),
        (["classify", "x.jpg", "--model", "nope"], 3, "known: colours/1, tones/1 [model_unknown]"),
        (["classify", "x.jpg", "--model", "../colours"], 3, "[model_unknown]"),
        (["classify", "x.jpg", "--model", "colours", "--top-k", "0"], 2, "--top-k"),
        (["score", "nowhere", "--model", "colours"], 3, "nowhere was named"),
        (["score", ".", "--model", "colours", "--format", "xml"], 2, "--format"),
        (["serve", "--host", "nowhere"], 2, "takes an IP address"),
        (["models", "verify", "--models", "."], 3, "holds no model"),
        (["models", "list", "--models", "nowhere"], 3, "cannot be listed"),
        (["publish", "nowhere"], 3, "manifest.json is missing"),
        (["export", "nowhere"], 3, "[run_invalid]"),
        (["recipes", "show", "nope"], 3, "[recipe_invalid]"),
        (["train", "--data", ".", "--dry-run", "--find-rate"], 2, "choose one"),
        (["train", "--data", ".", "--stage", "head"], 2, "--stage belongs to --find-rate"),
        (["train", "--data", ".", "--dry-run", "--tensorboard"], 2, "--tensorboard belongs to training"),
        (["train", "--resume", ".", "--dry-run"], 2, "has its recipe"),
        (["train", "flowers", "--data", "nowhere"], 3, "petalpaw data fetch flowers --to nowhere"),
        (["fly"], 2, "No such command"),
    ],
)
def test_a_wrong_call_says_what_to_do(run: Run, arguments: list[str], status: int, says: str) -> None:
    done = run(*arguments)
    assert done.returncode == status
    assert says in done.stderr
    assert done.stdout == ""
    assert "Traceback" not in done.stderr


def test_names_of_recipes_are_whole_in_a_narrow_terminal(run: Run) -> None:
    shown = run("recipes", "list").stdout  # no terminal: 80 columns
    assert "…" not in shown
    assert {"flowers-efficientnet-b7", "four-resnet34-features"} <= set(shown.split())


def test_a_taken_port_is_said_in_one_line(run: Run) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        done = run("serve", "--port", str(taken.getsockname()[1]))
    assert done.returncode == 3
    assert "choose another with --port" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_what_the_system_refuses_is_no_traceback(run: Run, exported: Path, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    exported.rename(tmp_path / "run" / "artifact")
    done = run("publish", "run", "--models", "/dev/full/models")
    assert done.returncode == 3
    assert "Traceback" not in done.stderr
    assert "/dev/full" in done.stderr


def test_a_name_with_line_breaks_stays_on_its_line(run: Run, tmp_path: Path, picture: Callable[..., bytes]) -> None:
    (tmp_path / "a\nb\t红.jpg").write_bytes(picture())
    done = run("classify", "a\nb\t红.jpg", "--model", "colours", "--top-k", "1")
    assert done.stdout.startswith("a\\nb\\t红.jpg\tred ")
    assert len(done.stdout.splitlines()) == 1


def test_a_demanded_gpu_that_is_missing_ends_the_command(run: Run) -> None:
    from inference.runtimes.registry import cuda_device_count

    if cuda_device_count():
        pytest.skip("this machine has a GPU")
    done = run("classify", "x.jpg", "--model", "colours", "--device", "cuda")
    assert done.returncode == 3
    assert "[device_unavailable]" in done.stderr


def test_models_are_listed_shown_and_verified(run: Run, repository: Repository) -> None:
    listed = run("models", "list")
    assert "colours" in listed.stdout
    assert "tones" in listed.stdout
    shown = json.loads(run("models", "show", "colours").stdout)
    assert shown["labels"] == ["red", "green", "blue"]
    verified = run("models", "verify")
    assert verified.returncode == 0
    assert verified.stdout.count(": ok on ") == 2
    assert repository.open("colours").digest in verified.stdout


def test_verify_names_the_broken_file_and_goes_on(run: Run, repository: Repository, tmp_path: Path) -> None:
    import shutil

    shutil.copytree(repository.root, tmp_path / "models")
    (tmp_path / "models" / "colours" / "1" / "model.onnx").write_bytes(b"half")
    done = run("models", "verify", PETALPAW_MODELS=str(tmp_path / "models"))
    assert done.returncode == 1
    assert "colours/1: FAILED [digest_mismatch]" in done.stdout
    assert "model.onnx" in done.stdout
    assert "tones/1: ok" in done.stdout


def test_every_command_shows_an_example(run: Run) -> None:
    from typer.main import get_command

    import petalpaw

    def leaves(command: object, path: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
        children = getattr(command, "commands", None)
        if children is None:
            return [path]
        return [leaf for name, child in children.items() for leaf in leaves(child, (*path, name))]

    commands = leaves(get_command(petalpaw.app))
    assert len(commands) >= 10
    for path in commands:
        text = getattr(_resolve(petalpaw.app, path), "epilog", None)
        assert text is not None, path
        assert text.startswith(f"Example: petalpaw {' '.join(path)}"), path


def _resolve(app: object, path: tuple[str, ...]) -> object:
    from typer.main import get_command

    command: object = get_command(app)  # type: ignore[arg-type]
    for name in path:
        command = command.commands[name]  # type: ignore[attr-defined]
    return command


def test_help_imports_no_heavy_package() -> None:
    code = (
        "import sys, petalpaw; from typer.testing import CliRunner; "
        "assert CliRunner().invoke(petalpaw.app, ['--help']).exit_code == 0; "
        "print([name for name in ('torch', 'onnxruntime', 'bentoml', 'numpy') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "[]"


def test_data_sets_are_listed_and_fetched_once(run: Run, tmp_path: Path) -> None:
    listed = run("data", "list")
    assert listed.returncode == 0
    for name in ("flowers", "catdog", "hymenoptera", "mnist", "cifar10"):
        assert name in listed.stdout
    unknown = run("data", "fetch", "mnits")
    assert unknown.returncode == 2
    assert "no data set is called 'mnits'" in unknown.stderr
    (tmp_path / "empty").mkdir()
    lost = run("data", "fetch", "mnist", "--from", "empty")
    assert lost.returncode == 3
    assert "there is no train-images-idx3-ubyte.gz" in lost.stderr
    assert "licence: CC BY-SA" in lost.stderr
    for split in ("train", "test"):
        for digit in range(10):
            (tmp_path / "data/mnist" / split / str(digit)).mkdir(parents=True)
            (tmp_path / "data/mnist" / split / str(digit) / "0.png").write_bytes(b"")
    there = run("data", "fetch", "mnist")
    assert (there.returncode, there.stdout) == (0, "data/mnist\n")
    assert "already" in there.stderr
    assert [line.split("│")[4].strip() for line in run("data", "list").stdout.splitlines() if "│ mnist" in line] == [
        "20"
    ]
