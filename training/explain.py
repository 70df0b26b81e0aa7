"""Why a run's network answers as it does: for any photo its answer, a Grad-CAM picture and the residual report."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from evaluation.pictures import shortened
from inference.errors import ImageError, ImageUnreadable, OutputUnwritable, RunInvalid
from inference.prediction import Prediction, predictions
from training import pictures
from training.backbones import Normalized
from training.compute import Compute
from training.gradcam import heat_maps
from training.pixels import Pixels
from training.residuals import Residual, as_rows, residuals
from training.run import Run

_LONGEST = 120
"""Bytes of a photo's name that its pictures keep: file systems take 255 at most, some 143."""


@dataclass(frozen=True)
class Explanation:
    """One photo's answer and the pictures of why; None where the network has no map, or no shortcuts, to show."""

    prediction: Prediction
    gradcam: Path | None
    residuals_picture: Path | None
    residuals: list[Residual]

    def as_data(self) -> dict[str, Any]:
        """For JSON."""
        return {
            **asdict(self.prediction),
            "gradcam": self.gradcam and str(self.gradcam),
            "residuals_picture": self.residuals_picture and str(self.residuals_picture),
            "residuals": as_rows(self.residuals),
        }


def explain(
    run: Run, paths: Sequence[Path], out: Path, device: str = "auto"
) -> Iterator[tuple[Path, Explanation | ImageError]]:
    """Explain one photo after another; one that cannot be read gives its error and the others go on.

    Pictures are called after the photos: `out/NAME.gradcam.png` and `out/NAME.residuals.png`. Raises RunInvalid,
    DeviceUnavailable, OutputUnwritable.
    """
    module = run.module().to(Compute.plan(device, run.recipe).device)
    _make(out)
    names: set[str] = set()
    for path in paths:
        name = _free_name(path.name, names)
        try:
            crop = run.recipe.preprocessing(_read(path))
        except ImageError as error:
            yield path, error
        else:
            yield path, _explained(run, module, crop, out, name)


def _explained(run: Run, module: Normalized, crop: Pixels, out: Path, name: str) -> Explanation:
    with torch.inference_mode():
        logits = module(torch.from_numpy(crop)[None].to(module.scale.device)).float().cpu().numpy()
    (prediction,) = predictions(logits, run.labels, run.calibration)
    report = residuals(module, crop)
    try:
        gradcam = _draw_gradcam(module, crop, prediction, out / f"{name}.gradcam.png")
        picture = out / f"{name}.residuals.png" if report else None
        if picture:
            pictures.draw_residuals(picture, report, name)
    except OSError as error:
        raise OutputUnwritable(
            f"the pictures could not be written to {out} ({error.strerror}); choose another with --out"
        ) from error
    return Explanation(prediction, gradcam, picture, report)


def _draw_gradcam(module: Normalized, crop: Pixels, prediction: Prediction, path: Path) -> Path | None:
    try:
        (heat,) = heat_maps(module, [crop], [prediction.top_k[0].class_index])
    except RunInvalid:
        return None
    look = pictures.Look(crop, heat, None, prediction.label, prediction.probability)
    pictures.draw_looks(path, [look], shortened(f"Grad-CAM, {path.name.removesuffix('.gradcam.png')}", 56))
    return path


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ImageUnreadable(f"the file cannot be read ({error.strerror}); check its path and mode") from error


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputUnwritable(f"{folder} cannot be made ({error.strerror}); choose another with --out") from error


def _free_name(name: str, taken: set[str]) -> str:
    """The name, printable and not too long for a file system, numbered where another photo had it before."""
    name = "".join(each if each.isprintable() else "_" for each in name)
    name = name.encode()[:_LONGEST].decode(errors="ignore")
    free, number = name, 2
    while free in taken:
        free, number = f"{name}-{number}", number + 1
    taken.add(free)
    return free
