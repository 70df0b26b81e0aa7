"""Does a decoder that reduces large photos keep the labels? The same model, once with it and once without."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from inference.budget import whole_cores
from inference.errors import DataInvalid, ImageError
from inference.manifest import LEAST_DRAFTS, DecoderFigure
from inference.preprocessing import Preprocessing
from inference.repository import Artifact
from inference.runtimes.base import Load
from inference.runtimes.registry import load_runtime
from training.agreement import agreement
from training.progress import Progress


def files_in(folder: Path) -> list[Path]:
    """Every file in a folder and the folders in it. Raises DataInvalid when there is none."""
    if not (found := sorted(path for path in folder.rglob("*") if path.is_file())):
        raise DataInvalid(f"{folder} holds no files; name a folder of large photos")
    return found


def compare_decoders(artifact: Artifact, photos: Sequence[Path], limit: int) -> DecoderFigure | None:
    """The artifact's decoder against the exact one, on the first `limit` photos that it reduces, or `LEAST_DRAFTS`.

    Files that are no pictures are passed over. None for an artifact whose decoder is exact. Raises DataInvalid when a
    file cannot be read.
    """
    drafted = artifact.manifest.preprocessing
    if drafted.decoder == "pillow":
        return None
    exact = drafted.model_copy(update={"decoder": "pillow"})
    runtime = load_runtime("onnx", artifact.folder, "cpu", Load(threads=whole_cores()))
    found, expected = [], []
    with Progress("comparing decoders", len(photos)) as progress:
        for path in photos:
            progress.step(path)
            if (data := _reduced(path, drafted)) is None:
                continue
            found.append(runtime.run(drafted(data)[None])[0])
            expected.append(runtime.run(exact(data)[None])[0])
            if len(found) == max(limit, LEAST_DRAFTS):
                break
    shape = (len(found), len(artifact.manifest.labels))
    shown = agreement(np.reshape(found, shape), np.reshape(expected, shape))
    return DecoderFigure(decoder=drafted.decoder, **shown.model_dump())


def _reduced(path: Path, preprocessing: Preprocessing) -> bytes | None:
    """A photo that the decoder reduces."""
    try:
        data = path.read_bytes()
        return data if preprocessing.decode(data).reduced else None
    except ImageError:
        return None
    except OSError as error:
        raise DataInvalid(f"{path} cannot be read ({error.strerror}); check its mode") from error
