"""Does every exported file give PyTorch's answers? Names, dtypes and axes first, then values on real photos."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import get_args

import numpy as np
import onnx
from torch import nn

from inference.errors import ImageError
from inference.golden import golden_crops
from inference.manifest import INT8, PARITY, DecoderFigure, ParityFigure, ParityReport, Signature, Tensor
from inference.prediction import Logits
from inference.preprocessing import Crop
from inference.repository import Artifact
from inference.runtimes.base import Device, Load
from inference.runtimes.registry import cuda_device_count, load_runtime, runtime_class
from training.export import eager_logits

BATCHES = (1, 2, 7, 32)
PHOTOS = 128
PUBLISHED = ("onnx", "torchscript")
"""What a model is published with; every other runtime proves itself when it loads."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """One runtime on one device at one batch size against PyTorch eager, over all crops."""

    runtime: str
    device: Device
    batch: int
    max_difference: float
    mean_difference: float
    top1_agreement: float
    images: int
    problems: tuple[str, ...]


def check(
    artifact: Artifact, module: nn.Module, photos: Sequence[Path], further: Sequence[str] = ()
) -> Iterator[Comparison]:
    """Compare `module` in PyTorch eager on the CPU with every runtime and device present, as results come in.

    `photos` go through the artifact's own preprocessing; unreadable ones are left out. Golden inputs are added.
    `further` names runtimes beside `PUBLISHED`, each of which must be installed.
    """
    crops = np.concatenate([golden_crops(artifact.manifest.preprocessing.crop), *_crops(artifact, photos)])
    expected = {batch: by_batches(crops, batch, lambda part: eager_logits(module, part)) for batch in BATCHES}
    for name, device in present(artifact, further):
        tolerance = artifact.manifest.golden.allowed(runtime_class(name).deviation)
        runtime = load_runtime(name, artifact.folder, device, Load())
        for batch in BATCHES:
            found = by_batches(crops, batch, runtime.run)
            yield compare(name, device, batch, expected[batch], found, tolerance)


def compare(runtime: str, device: Device, batch: int, expected: Logits, found: Logits, tolerance: float) -> Comparison:
    """Two sets of logits, float32 (images, classes), as figures and problems; NaN counts as a difference.

    The largest difference may be `tolerance`, the mean a tenth of it, and the best class may change only where
    PyTorch's own two best logits lie within twice the tolerance: there the picture decides nothing.
    """
    if found.shape != expected.shape or found.dtype != np.float32:
        problem = f"gives {found.dtype} {found.shape}, expected float32 {expected.shape}"
        return Comparison(runtime, device, batch, np.inf, np.inf, 0.0, len(expected), (problem,))
    difference = np.abs(found - expected)
    largest, mean = float(difference.max()), float(difference.mean())
    second, best = np.sort(expected, axis=1)[:, -2:].T
    agrees = found.argmax(axis=1) == expected.argmax(axis=1)
    disputed = int(np.sum(~agrees & (best - second > 2 * tolerance)))
    problems = [
        f"at batch {batch} {what} is {value:.3g}, {limit:.3g} is allowed"
        for what, value, limit in (
            ("the largest |Δlogit|", largest, tolerance),
            ("the mean |Δlogit|", mean, tolerance / 10),
            ("the number of clear pictures whose best class changed", disputed, 0),
        )
        if not value <= limit
    ]
    return Comparison(runtime, device, batch, largest, mean, float(agrees.mean()), len(expected), tuple(problems))


def report(artifact: Artifact, comparisons: Iterable[Comparison], decoder: DecoderFigure | None = None) -> ParityReport:
    """Sum up, one figure per runtime and device, with the structural problems of the files, and write parity.json.

    The figures of the artifact's int8 file, which stand in its manifest, are taken over. `decoder` has those of a
    decoder that is not exact.
    """
    comparisons = list(comparisons)
    problems = [f"{item.runtime} on {item.device}: {text}" for item in comparisons for text in item.problems]
    problems += structure_problems(artifact.folder / "model.onnx", artifact.manifest.signature)
    golden = len(artifact.manifest.golden.logits)
    photos = comparisons[0].images - golden if comparisons else 0
    if not photos:
        problems.append("no photo was compared; pass readable photos with --data, or --photos 1 or more")
    if decoder and not decoder.passed:
        problems.append(str(decoder))
    pairs = list(dict.fromkeys((item.runtime, item.device) for item in comparisons))
    # The int8 file was compared with model.onnx when it was exported; its digest binds the figures to it.
    quantized = artifact.manifest.quantized
    read = [*(runtime_class(name).file for name, _ in pairs), *([INT8] if quantized else [])]
    summary = ParityReport(
        passed=not problems,
        files={
            # model.onnx and, beside a large one, model.onnx.data
            file: entry.sha256
            for file, entry in artifact.manifest.files.items()
            if any(file.startswith(name) for name in read)
        },
        figures=tuple(
            _figure([item for item in comparisons if (item.runtime, item.device) == pair], artifact) for pair in pairs
        ),
        quantized=quantized.figures if quantized else (),
        decoder=decoder,
        problems=tuple(problems),
        batches=BATCHES,
        photos=photos,
        golden=golden,
        created=datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
    )
    (artifact.folder / PARITY).write_text(summary.model_dump_json(indent=2) + "\n", encoding="utf-8")
    return summary


def present(artifact: Artifact, further: Sequence[str] = ()) -> list[tuple[str, Device]]:
    """The runtimes that the artifact has a file for, on every device that they know and this machine has."""
    devices: tuple[Device, ...] = get_args(Device) if cuda_device_count() else ("cpu",)
    return [
        (name, device)
        for name in dict.fromkeys((*PUBLISHED, *further))
        if runtime_class(name).file in artifact.manifest.files
        for device in devices
        if device in runtime_class(name).devices
    ]


def structure_problems(path: Path, signature: Signature) -> list[str]:
    """What in an ONNX file's inputs and outputs differs from the signature: names, dtypes, axes, the batch axis."""
    graph = onnx.load(path, load_external_data=False).graph
    return [
        f"{path.name}: {problem}"
        for what, wanted, found in (
            ("inputs", signature.input, graph.input),
            ("outputs", signature.output, graph.output),
        )
        if (problem := _tensor_problem(what, wanted, found))
    ]


def _tensor_problem(what: str, wanted: Tensor, found: Sequence[onnx.ValueInfoProto]) -> str | None:
    """None when `found` is the one tensor that `wanted` describes."""
    described = [
        {
            "name": value.name,
            "dtype": onnx.helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type).name,
            "shape": tuple(
                axis.dim_value if axis.HasField("dim_value") else None for axis in value.type.tensor_type.shape.dim
            ),
        }
        for value in found
    ]
    expected = [wanted.model_dump()]
    return None if described == expected else f"{what} are {described}, expected {expected}"


def _figure(items: Sequence[Comparison], artifact: Artifact) -> ParityFigure:
    """The worst of one runtime and device over its batch sizes."""
    return ParityFigure(
        runtime=items[0].runtime,
        device=items[0].device,
        max_difference=max(item.max_difference for item in items),
        mean_difference=max(item.mean_difference for item in items),
        top1_agreement=min(item.top1_agreement for item in items),
        images=items[0].images,
        tolerance=artifact.manifest.golden.allowed(runtime_class(items[0].runtime).deviation),
    )


def by_batches(crops: Crop, size: int, run: Callable[[Crop], Logits]) -> Logits:
    """The logits of all crops, run `size` at a time; the last batch is filled up from the front, so none is smaller."""
    order = np.resize(np.arange(len(crops)), -(-len(crops) // size) * size)
    parts = [run(crops[order[start : start + size]]) for start in range(0, len(order), size)]
    return np.concatenate(parts)[: len(crops)]


def _crops(artifact: Artifact, photos: Sequence[Path]) -> list[Crop]:
    """The photos' crops, uint8 (1, height, width, 3) each."""
    crops = []
    for photo in photos:
        try:
            crops.append(artifact.manifest.preprocessing(photo.read_bytes())[None])
        except ImageError:
            continue
    return crops
