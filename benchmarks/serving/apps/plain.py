"""What every contender but Petalpaw runs: Pillow, the usual resize and centre crop, ONNX Runtime with one thread.

No Petalpaw is imported here: these are the lines that a user of the other servers would write, with the sizes of the
model at hand. WORKERS is how many processes or model instances share the cores: as many as cores, a thread each.
"""

import io
import json
import os
from pathlib import Path

import numpy as np
import onnxruntime
from PIL import Image, ImageOps

FOLDER = Path(os.environ["BENCHMARK_MODEL"])
MANIFEST = json.loads((FOLDER / "manifest.json").read_text())
LABELS = MANIFEST["labels"]
RESIZE, CROP = MANIFEST["preprocessing"]["resize"], MANIFEST["preprocessing"]["crop"]
RESAMPLE = Image.Resampling[MANIFEST["preprocessing"]["interpolation"].upper()]
WORKERS = int(os.environ["BENCHMARK_WORKERS"])


def session() -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(FOLDER / "model.onnx", options, providers=["CPUExecutionProvider"])


def crop_of(image: Image.Image) -> np.ndarray:
    """uint8 (CROP, CROP, 3), by the rules of torchvision's Resize and CenterCrop.

    Both of `exif_transpose` and `convert` copy by default, a third of the time of a 12-megapixel picture.
    """
    ImageOps.exif_transpose(image, in_place=True)
    if image.mode != "RGB":
        image = image.convert("RGB")
    width, height = image.size
    size = (RESIZE, int(RESIZE * height / width)) if width <= height else (int(RESIZE * width / height), RESIZE)
    image = image.resize(size, RESAMPLE)
    left, top = round((image.width - CROP) / 2), round((image.height - CROP) / 2)
    return np.asarray(image.crop((left, top, left + CROP, top + CROP)))


def crop_of_bytes(data: bytes) -> np.ndarray:
    """uint8 (CROP, CROP, 3)."""
    return crop_of(Image.open(io.BytesIO(data)))


def answers(logits: np.ndarray) -> list[dict[str, object]]:
    """Label and probability per row of float32 (batch, classes)."""
    exponentials = np.exp(logits - logits.max(axis=1, keepdims=True))
    probabilities = exponentials / exponentials.sum(axis=1, keepdims=True)
    best = probabilities.argmax(axis=1)
    return [
        {"label": LABELS[index], "probability": float(row[index])}
        for index, row in zip(best, probabilities, strict=True)
    ]


def classify(model: onnxruntime.InferenceSession, data: bytes) -> dict[str, object]:
    """One picture's answer."""
    return answers(model.run(["logits"], {"images": crop_of_bytes(data)[None]})[0])[0]
