"""Arrows point one way: training, service and scoring import inference, and torch stays where it belongs."""

import ast
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from inference.repository import Repository
from tests.fresh import python

ROOT = Path(__file__).parents[1]
PACKAGES = ("inference", "evaluation", "training", "service", "scoring")
TORCH = {"torch", "torchvision", "onnxscript"}
TORCH_ALLOWED = ("training/", "inference/runtimes/torchscript.py")
FORBIDDEN = {
    "inference": {"evaluation", "training", "service", "scoring", "bentoml", "petalpaw", "commands"},
    "evaluation": {"training", "service", "scoring", "bentoml", "petalpaw", "commands"},
    "service": {"evaluation", "training", "scoring", "petalpaw", "commands"},
    "scoring": {"training", "service", "bentoml", "petalpaw", "commands"},
    "training": {"petalpaw", "commands"},
}


def modules() -> list[str]:
    return [str(path.relative_to(ROOT)) for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))]


def imported(path: str) -> Iterator[str]:
    """The top-level package of every import in a file, wherever it stands, by statement or by name."""
    for node in ast.walk(ast.parse((ROOT / path).read_text(encoding="utf-8"))):
        match node:
            case ast.Import():
                yield from (alias.name.split(".")[0] for alias in node.names)
            case ast.ImportFrom(module=str(module), level=0):
                yield module.split(".")[0]
            case ast.ImportFrom():
                yield Path(path).parts[0]
            case ast.Call(args=[ast.Constant(value=str(name)), *_]) if "import" in ast.unparse(node.func):
                yield name.split(".")[0]


@pytest.mark.parametrize("path", modules())
def test_imports(path: str) -> None:
    found = set(imported(path))
    assert found.isdisjoint(FORBIDDEN[Path(path).parts[0]])
    if not path.startswith(TORCH_ALLOWED):
        assert found.isdisjoint(TORCH)


def test_imports_are_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules[__name__], "ROOT", tmp_path)
    (tmp_path / "service").mkdir()
    (tmp_path / "service" / "a.py").write_text(
        "import os.path\ndef f():\n    from torch.nn import Module\n    importlib.import_module('ray.data')\n"
        "    __import__('onnx')\nfrom . import b\n"
    )
    assert sorted(imported("service/a.py")) == ["onnx", "os", "ray", "service", "torch"]


def test_packages_are_only_a_docstring() -> None:
    for path in modules():
        if path.endswith("__init__.py"):
            body = ast.parse((ROOT / path).read_text(encoding="utf-8")).body
            assert all(isinstance(node, ast.Expr) for node in body), path


def loaded_after(code: str, *arguments: str) -> set[str]:
    """The top-level modules in sys.modules after running `code` in a fresh Python."""
    done = python("-c", code + "\nimport json, sys\nprint(json.dumps(sorted(sys.modules)))", *arguments)
    assert done.returncode == 0, done.stderr
    return {name.split(".")[0] for name in json.loads(done.stdout.splitlines()[-1])}


CLASSIFY = """
import sys
from pathlib import Path
from inference.classifier import Classifier
from inference.repository import Repository

classifier = Classifier.load(Repository(Path(sys.argv[1])).open("colours"), device="cpu")
(answer,) = classifier.classify([Path(sys.argv[2]).read_bytes()])
assert answer.label == "red"
"""

SCORE = """
import sys
from pathlib import Path
from inference.classifier import Classifier
from inference.repository import Repository
from scoring.local import LocalEngine
from scoring.progress import progress_on
from scoring.run import score
from scoring.scorer import Scorer
from scoring.sinks import FileSink
from scoring.files import Files

classifier = Classifier.load(Repository(Path(sys.argv[1])).open("colours"), device="cpu")
source, output = Files([sys.argv[2]]), Path(sys.argv[2] + ".csv")
summary = score(source, LocalEngine(Scorer(classifier)), FileSink(output), progress_on())
assert summary.labels == {"red": 1}
"""


@pytest.mark.parametrize(
    ("code", "others"),
    [
        (CLASSIFY, {"training", "service", "scoring", "rich", "typer"}),
        (SCORE, {"training", "service", "ray", "pyarrow", "fsspec"}),
    ],
    ids=["classify", "score"],
)
def test_answers_need_no_torch_and_no_bentoml(
    code: str, others: set[str], repository: Repository, picture: Callable[..., bytes], tmp_path: Path
) -> None:
    (tmp_path / "red.jpg").write_bytes(picture())
    loaded = loaded_after(code, str(repository.root), str(tmp_path / "red.jpg"))
    assert {"inference", "onnxruntime", "PIL"} <= loaded
    assert loaded.isdisjoint({"torch", "torchvision", "bentoml", "onnx", *others})


def test_the_front_door_imports_no_package_before_a_command_is_chosen() -> None:
    assert loaded_after("import petalpaw").isdisjoint({"torch", "bentoml", "onnxruntime", "training", "service"})
