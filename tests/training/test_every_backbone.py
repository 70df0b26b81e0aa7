"""Every backbone through the whole line: the smallest of each family here, all of them with `pytest -m slow`."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

from training.backbones import backbone_names

FAMILIES = (
    "googlenet",
    "mnasnet0_5",
    "mobilenet_v3_small",
    "regnet_y_400mf",
    "resnet18",
    "resnet34_projected",
    "shufflenet_v2_x0_5",
    "squeezenet1_1",
)
"""Small and quick to export; the others take ten seconds and more each."""


@pytest.fixture(scope="module")
def trial() -> ModuleType:
    path = Path(__file__).parents[2] / "benchmarks" / "backbones.py"
    spec = importlib.util.spec_from_file_location("backbones_trial", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[] if name in FAMILIES else pytest.mark.slow) for name in backbone_names()]
)
@pytest.mark.timeout(1800)
def test_a_backbone_trains_exports_and_gives_pytorchs_answers(trial: ModuleType, name: str) -> None:
    row = trial.prove(name)
    assert row.problems == ()
    assert 0 < row.difference < 2 * max(trial.TOLERANCE, row.rounding)
