"""A finished run to an artifact: model.onnx and model.torchscript.pt from the same eval-mode module."""

import shutil
import warnings
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import onnx
import torch
from torch import nn
from torch.jit._trace import TracerWarning

from inference.golden import golden_crops
from inference.manifest import MANIFEST, Golden, Manifest, Signature, digest_of, file_entry
from inference.prediction import Logits
from inference.preprocessing import Crop
from inference.repository import EXPORTED, Artifact
from training.lock import building
from training.run import Run

_EXAMPLES = 2  # an example batch of 1 would be taken for a constant
_ONE_FILE = 1_900_000_000  # bytes of weights; a protobuf message ends at 2 GiB


def export(run: Run) -> Artifact:
    """Write `<run>/artifact/` anew: both models, the model card and the manifest, with PyTorch's golden logits.

    The module takes uint8 (batch, height, width, 3) and gives float32 logits (batch, classes); normalisation is part
    of it. Raises RunInvalid when the run has no finished training, or another process works in its folder.
    """
    module = run.module().to(memory_format=torch.contiguous_format)
    crops = golden_crops(run.recipe.preprocessing.crop)
    with building(run.folder) as place:
        export_onnx(module, crops[:_EXAMPLES], place / "model.onnx")
        export_torchscript(module, crops[:_EXAMPLES], place / "model.torchscript.pt")
        shutil.copyfile(run.folder / "README.md", place / "README.md")
        manifest = Manifest(
            name=run.recipe.name,
            title=run.recipe.title,
            labels=run.labels,
            signature=Signature.of(run.recipe.preprocessing.crop, len(run.labels)),
            preprocessing=run.recipe.preprocessing,
            preprocessing_golden=run.recipe.preprocessing.golden_digest(),
            files={path.name: file_entry(path) for path in sorted(place.iterdir())},
            golden=Golden(
                crops_sha256=digest_of(crops.tobytes()),
                logits=tuple(tuple(float(value) for value in row) for row in eager_logits(module, crops)),
                tolerance=run.recipe.parity.tolerance,
            ),
            calibration=run.calibration,
            metrics=run.metrics,
            provenance=run.provenance,
        )
        (place / MANIFEST).write_text(manifest.to_json(), encoding="utf-8")
        folder = run.folder / EXPORTED
        shutil.rmtree(folder, ignore_errors=True)
        place.rename(folder)
    return Artifact.open(folder)


def eager_logits(module: nn.Module, crops: Crop) -> Logits:
    """PyTorch's own answer: uint8 (batch, height, width, 3) → float32 (batch, classes), on the CPU in fp32."""
    with torch.inference_mode():
        logits: Logits = module(torch.from_numpy(np.ascontiguousarray(crops))).numpy()
    return logits


def export_onnx(module: nn.Module, examples: Crop, path: Path) -> None:
    """Write an ONNX file with a dynamic batch axis, input `images`, output `logits`.

    Weights beyond what one such file can hold lie in a second file beside it, `<name>.data`. The exporter's notes on
    source files and lines are left out: they name folders of this machine.
    """
    with _deprecations_ignored():
        program = torch.onnx.export(
            module,
            (torch.from_numpy(examples),),
            dynamo=True,
            input_names=["images"],
            output_names=["logits"],
            dynamic_shapes=({0: torch.export.Dim("batch")},),
            verbose=False,
        )
    assert program is not None
    model = program.model_proto
    for part in (model, model.graph, *model.graph.input, *model.graph.output, *model.graph.value_info):
        del part.metadata_props[:]
    for node in model.graph.node:
        del node.metadata_props[:]
        node.doc_string = ""
    size = sum(tensor.nbytes for tensor in module.state_dict().values())
    onnx.save(model, path, save_as_external_data=size > _ONE_FILE, location=f"{path.name}.data")
    onnx.checker.check_model(path, full_check=True)


def export_torchscript(module: nn.Module, examples: Crop, path: Path) -> None:
    """Write a traced and frozen TorchScript file, without the source positions that PyTorch adds for its debugger."""
    traced = path.with_name(path.name + ".traced")
    with _deprecations_ignored(), torch.inference_mode():
        script = torch.jit.freeze(torch.jit.trace(module, torch.from_numpy(examples)))  # type: ignore[no-untyped-call]
        torch.jit.save(script, traced)
    with zipfile.ZipFile(traced) as source, zipfile.ZipFile(path, "w") as target:
        for entry in source.infolist():
            if not entry.filename.endswith(".debug_pkl"):
                target.writestr(entry, source.read(entry))
    traced.unlink()


@contextmanager
def _deprecations_ignored() -> Iterator[None]:
    """torch.jit is deprecated since 2.11 but works; the ONNX exporter warns about its own internals.

    The tracer's warnings speak of input sizes that become constants: in an artifact they are, parity tries the rest.
    """
    with warnings.catch_warnings():
        for category in (DeprecationWarning, FutureWarning, UserWarning, TracerWarning):
            warnings.simplefilter("ignore", category)
        yield
