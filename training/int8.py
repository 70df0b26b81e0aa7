"""An artifact gets its int8 file: quantised on training photos, measured on validation photos, refused or kept."""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from inference.budget import whole_cores
from inference.errors import AgreementTooLow, DataInvalid, ImageError, RuntimeMissing
from inference.golden import golden_crops
from inference.manifest import (
    INT8,
    MANIFEST,
    PARITY,
    CalibrationName,
    Golden,
    ParityReport,
    Quantized,
    QuantizedFigure,
    file_entry,
)
from inference.prediction import Logits
from inference.preprocessing import Crop
from inference.repository import Artifact
from inference.runtimes.base import Load, Runtime
from inference.runtimes.registry import INT8_RUNTIMES, load_runtime, runtime_class
from training.agreement import agreement
from training.lock import building
from training.progress import Progress
from training.quantize import quantize

CARD = "README.md"

Labelled = Sequence[tuple[Path, int]]
"""Photos and the indices of their classes."""


def add_int8(
    artifact: Artifact,
    training: Sequence[Path],
    validation: Labelled,
    *,
    calibration: CalibrationName = "minmax",
    exclude: Sequence[str] = (),
) -> Artifact:
    """Write model.int8.onnx into the artifact's folder, with what it is in the manifest, the card and the report.

    `training` photos give the ranges, `validation` photos the figures. Raises AgreementTooLow with the figures, leaving
    the artifact as it was; ParameterInvalid for an unknown layer; DataInvalid when photos are gone or unreadable;
    RunInvalid when another process works in the run's folder.
    """
    crops = np.array([crop for crop, _ in _crops(artifact, [(path, 0) for path in training])])
    if not len(crops):
        raise DataInvalid("no training photo could be read, so nothing gives the ranges of int8; check --data")
    with building(artifact.folder.parent) as folder:
        excluded = quantize(
            artifact.folder / "model.onnx", folder / INT8, crops, calibration=calibration, exclude=exclude
        )
        figures = measure(artifact, folder, validation)
        if weak := [str(figure) for figure in figures if not figure.passed]:
            raise AgreementTooLow(
                f"no int8 file was kept: {'; '.join(weak)}. Leave the most sensitive layers in float32 with --exclude "
                "(the last blocks first), try --calibration percentile or more --photos, or stay with model.onnx"
            )
        golden = _golden(artifact, folder)
        described = Quantized(
            calibration=calibration, images=len(crops), excluded=excluded, golden=golden, figures=tuple(figures)
        )
        (folder / INT8).replace(artifact.folder / INT8)
        return _described(artifact, described)


def measure(artifact: Artifact, folder: Path, photos: Labelled) -> list[QuantizedFigure]:
    """The int8 file in `folder` on every runtime that is here and reads it, against model.onnx on ONNX Runtime."""
    load = Load(threads=whole_cores())
    runtimes = [load_runtime("onnx", artifact.folder, "cpu", load)]
    runtimes += [load_runtime(name, folder, "cpu", load) for name in INT8_RUNTIMES if _is_installed(name)]
    truth: list[int] = []
    answers: list[list[Logits]] = [[] for _ in runtimes]
    with Progress("comparing int8", len(photos)) as progress:
        for crop, label in _crops(artifact, photos):
            truth.append(label)
            for runtime, found in zip(runtimes, answers, strict=True):
                found.append(runtime.run(crop[None]))
            progress.step(crop)
    if not truth:
        raise DataInvalid("no validation photo could be read, so int8 cannot be measured; check --data")
    exact, *others = [np.concatenate(found) for found in answers]
    return [
        _figure(runtime, found, exact, np.array(truth)) for runtime, found in zip(runtimes[1:], others, strict=True)
    ]


def _figure(
    runtime: Runtime, found: Logits, exact: Logits, truth: "np.ndarray[tuple[int], np.dtype[np.int64]]"
) -> QuantizedFigure:
    return QuantizedFigure(
        runtime=runtime.name,
        accuracy=float(np.mean(found.argmax(axis=1) == truth)),
        accuracy_fp32=float(np.mean(exact.argmax(axis=1) == truth)),
        **agreement(found, exact).model_dump(),
    )


def _golden(artifact: Artifact, folder: Path) -> Golden:
    """What ONNX Runtime gives for the golden inputs from the int8 file."""
    runtime = load_runtime(INT8_RUNTIMES[0], folder, "cpu", Load())
    crops = golden_crops(artifact.manifest.preprocessing.crop)
    logits = np.concatenate([runtime.run(crop[None]) for crop in crops])
    return artifact.manifest.golden.model_copy(update={"logits": tuple(tuple(map(float, row)) for row in logits)})


def _described(artifact: Artifact, quantized: Quantized) -> Artifact:
    """Write card, parity report (where there is one) and manifest of an artifact whose int8 file lies there."""
    folder, figures = artifact.folder, quantized.figures
    card = (folder / CARD).read_text("utf-8").partition(_HEADING)[0]
    (folder / CARD).write_text(card.rstrip() + "\n\n" + _HEADING + _section(quantized), encoding="utf-8")
    files = {**artifact.manifest.files, **{name: file_entry(folder / name) for name in (CARD, INT8)}}
    if (folder / PARITY).exists():
        report = ParityReport.model_validate_json((folder / PARITY).read_bytes())
        changed = report.model_copy(
            update={"files": {**report.files, INT8: files[INT8].sha256}, "quantized": figures, "created": _now()}
        )
        (folder / PARITY).write_text(changed.model_dump_json(indent=2) + "\n", encoding="utf-8")
    manifest = artifact.manifest.model_copy(update={"files": dict(sorted(files.items())), "quantized": quantized})
    (folder / MANIFEST).write_text(manifest.to_json(), encoding="utf-8")
    return Artifact.open(folder)


_HEADING = "## In 8-bit integers\n"


def _section(quantized: Quantized) -> str:
    """What the model card says about the int8 file."""
    return "\n".join(
        [
            f"`{INT8}` was calibrated on {quantized.images:,} training photos ({quantized.calibration}); in float32 "
            f"stay {', '.join(f'`{layer}`' for layer in quantized.excluded)}. Against `model.onnx`:",
            "",
            "| runtime | validation photos | same label | 95 % interval | accuracy | in fp32 | largest \\|Δlogit\\| |",
            "|---|---|---|---|---|---|---|",
            *(
                f"| `{figure.runtime}` | {figure.images:,} | {figure.agreement:.2%} | {figure.agreement_low:.2%} to "
                f"{figure.agreement_high:.2%} | {figure.accuracy:.2%} | {figure.accuracy_fp32:.2%} | "
                f"{figure.max_difference:.2g} |"
                for figure in quantized.figures
            ),
            "",
        ]
    )


def _crops(artifact: Artifact, photos: Labelled) -> Iterator[tuple[Crop, int]]:
    """The photos that can be read, as the classifier sees them, with their labels."""
    for path, label in photos:
        try:
            yield artifact.manifest.preprocessing(path.read_bytes()), label
        except ImageError:
            continue
        except OSError as error:
            raise DataInvalid(
                f"{path} cannot be read ({error.strerror}); say with --data where the photos are now"
            ) from error


def _is_installed(name: str) -> bool:
    try:
        runtime_class(name)
    except RuntimeMissing:
        return False
    return True


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
