"""Every backbone through the whole line: laid out, built, trained for a step, exported, loaded, compared with eager.

    taskset -c 1 .venv/bin/python benchmarks/backbones.py > benchmarks/results/backbones.md
    .venv/bin/python benchmarks/backbones.py vit_h_14 googlenet

Random weights, three classes, crops of the smallest side that the network takes. Batch norms get the statistics of the
golden crops and the head is scaled so that logits have a standard deviation of 1: the differences then mean the same
for every network. They are the largest over golden crops, batches of 1, 2 and 7, ONNX Runtime and TorchScript, on the
CPU with one thread. Each network has a process of its own.

Allowed is what parity allows (1e-3, a tenth of it in the mean), or twice PyTorch's own rounding where that is more: how
far its float32 logits lie from its float64 ones. Random weights amplify rounding more than trained ones do, and two
right answers cannot be asked to lie closer together than either lies to the truth.
"""

import argparse
import copy
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch
from torch import nn

from inference.errors import ManifestInvalid
from inference.golden import golden_crops
from inference.manifest import Signature
from inference.prediction import Logits
from inference.preprocessing import Crop
from inference.runtimes.base import Load
from inference.runtimes.registry import load_runtime
from training.backbones import AUXILIARY_WEIGHTS, Normalized, backbone_facts, backbone_names, build, head_layers
from training.compatibility import check_network
from training.export import eager_logits, export_onnx, export_torchscript
from training.loss import Loss
from training.parity import by_batches, compare, structure_problems
from training.recipe import Recipe

BATCHES = (1, 2, 7)
TOLERANCE = 1e-3
SIDES = {"inception_v3": 299, "maxvit_t": 224, "partial_vgg16": 224, "vit_h_14": 28, "alexnet": 63}
"""The smallest side in pixels where it is not 64: auxiliary outputs, windows and flat layers ask for more."""
SIDES |= {"efficientnet_b7": 128, "wide_resnet101_2": 128}
"""Too deep for 64 pixels: batch norms that know only four positions of a picture make rounding large."""


@dataclass(frozen=True)
class Row:
    """What became of one network; `problems` is empty where all is well. Sizes in MB, CPU time in seconds."""

    name: str
    side: int
    size: float
    difference: float
    rounding: float
    seconds: float
    problems: tuple[str, ...]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", default=backbone_names(), metavar="NAME")
    print("| backbone | parameters | native px | tried px | ONNX MB | \\|Δlogit\\| | own rounding | CPU s | outcome |")
    print("|---|---:|---:|---:|---:|---:|---:|---:|---|")
    failed = 0
    chosen = [backbone_facts(name) for name in parser.parse_args().names]
    for facts in sorted(chosen, key=lambda facts: facts.parameters):
        name = facts.name
        # What a process has taken for one large network it does not give back for the next.
        with ProcessPoolExecutor(1, get_context("spawn"), _one_thread) as alone:
            row = alone.submit(prove, name).result()
        failed += bool(row.problems)
        print(
            f"| {name} | {facts.parameters:,} | {facts.native_size} | {row.side} | {row.size:.1f} | "
            f"{row.difference:.1e} | {row.rounding:.1e} | {row.seconds:.0f} | {'; '.join(row.problems) or 'passed'} |",
            flush=True,
        )
    sys.exit(1 if failed else 0)


def _one_thread() -> None:
    torch.set_num_threads(1)


def prove(name: str) -> Row:
    """Take one network through everything; what it refuses is a problem of its row, not an exception."""
    began, side, size, differences, problems = time.process_time(), SIDES.get(name, 64), 0.0, [0.0], list[str]()
    own = 0.0
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder)
        try:
            module = trained(recipe_of(name, side))
            crops = golden_crops(side)
            export_onnx(module, crops[:2], path / "model.onnx")
            export_torchscript(module, crops[:2], path / "model.torchscript.pt")
            size = sum(file.stat().st_size for file in path.glob("model.onnx*")) / 1e6
            problems += structure_problems(path / "model.onnx", Signature.of(side, 3))
            expected = {batch: by_batches(crops, batch, lambda part: eager_logits(module, part)) for batch in BATCHES}
            own, tolerance = rounding(module, crops, expected[1])
            for runtime in ("onnx", "torchscript"):
                loaded = load_runtime(runtime, path, "cpu", Load())
                for batch in BATCHES:
                    found = by_batches(crops, batch, loaded.run)
                    result = compare(runtime, "cpu", batch, expected[batch], found, tolerance)
                    differences.append(result.max_difference)
                    problems += [f"{runtime}: {problem}" for problem in result.problems]
                del loaded
            problems += damaged(path)
        except Exception as error:  # noqa: BLE001  # a network that fails is what the table is to show
            problems.append(f"{type(error).__name__}: {str(error).strip().splitlines()[0][:200]}")
    return Row(name, side, size, max(differences), own, time.process_time() - began, tuple(problems))


def recipe_of(name: str, side: int) -> Recipe:
    """A recipe for the network, checked as every recipe is."""
    channels = 1 if name == "partial_vgg16" else 3
    recipe = Recipe.model_validate(
        {
            "name": "trial",
            "title": "A trial",
            "description": "One step.",
            "data": {"train": {"folder": "."}, "validation": {"share": 0.2, "of": "train"}},
            "backbone": {"name": name, "weights": "none", "channels": channels},
            "normalization": {"mean": (0.5,) * channels, "std": (0.25,) * channels},
            "preprocessing": {"resize": side, "crop": side},
            "augmentation": {"size": side},
            "stages": ({"name": "all", "epochs": 1, "rates": {"head": 0.01}},),
        }
    )
    wrong = check_network(recipe)
    if wrong:
        raise ValueError("; ".join(wrong))
    return recipe


def trained(recipe: Recipe) -> Normalized:
    """A network that took one step, with batch norms and logits of ordinary size, ready for export."""
    torch.manual_seed(0)
    module = build(recipe, 3)
    head = module.network.get_submodule(head_layers(recipe.backbone.name)[-1])
    assert isinstance(head.weight, nn.Parameter)
    nn.init.normal_(head.weight, std=0.02)  # ViT's is zero at first
    side = recipe.augmentation.size
    images = torch.randint(0, 256, (2, side, side, 3), dtype=torch.uint8)
    loss = Loss(auxiliary=AUXILIARY_WEIGHTS.get(recipe.backbone.name, 0.0))
    before = head.weight.detach().clone()
    loss.total(module.train().with_auxiliaries(images), torch.tensor([0, 1])).backward()
    torch.optim.SGD(module.parameters(), lr=1e-3).step()
    module.requires_grad_(False).zero_grad()
    if torch.equal(before, head.weight):
        raise ValueError("a step moved nothing")
    crops = torch.from_numpy(golden_crops(side))
    with torch.inference_mode(False), statistics_of_the_next_batch(module):
        module(crops)
    spread = module.eval()(crops).std()
    head.weight /= spread
    return module.to(memory_format=torch.contiguous_format)


@contextmanager
def statistics_of_the_next_batch(module: Normalized) -> Iterator[None]:
    """Let every batch norm take over the statistics of the batch inside the block, and nothing else train."""
    norms = [layer for layer in module.eval().modules() if isinstance(layer, nn.modules.batchnorm._BatchNorm)]
    momenta = [layer.momentum for layer in norms]
    for layer in norms:
        layer.train().momentum = 1.0
    yield
    for layer, momentum in zip(norms, momenta, strict=True):
        layer.eval().momentum = momentum


def rounding(module: Normalized, crops: Crop, found: Logits) -> tuple[float, float]:
    """The largest distance of `found`, float32 logits, from those in float64, and the tolerance that follows."""
    exact = copy.deepcopy(module).double()
    with torch.inference_mode():
        wanted = np.concatenate([exact(torch.from_numpy(crop[None])).numpy() for crop in crops])
    distance = np.abs(found - wanted)
    # `compare` allows a tenth of the tolerance in the mean.
    return float(distance.max()), float(max(TOLERANCE, 2 * distance.max(), 20 * distance.mean()))


def damaged(folder: Path) -> list[str]:
    """Whether a file that was cut short is refused in words."""
    path = folder / "model.onnx"
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size // 2)
    return [] if refuses(lambda: load_runtime("onnx", folder, "cpu", Load())) else ["a damaged model.onnx is loaded"]


def refuses(load: Callable[[], object]) -> bool:
    """Whether loading raises our own error."""
    try:
        load()
    except ManifestInvalid:
        return True
    return False


if __name__ == "__main__":
    main()
