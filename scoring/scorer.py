"""From an input to its row with one classifier: the path that every engine shares.

    read → decode → infer → row                 on a CPU, batch 1
         → decode → crops → batch → rows        on CUDA

Batches all have one size, the last one filled up, because a GPU prepares itself anew for every size.
"""

import hashlib
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError, version

import numpy as np

from inference.classifier import Classifier
from inference.errors import ParameterInvalid, SourceGone
from inference.features import FeatureClassifier, Features
from inference.prediction import Logits
from inference.preprocessing import Crop
from scoring.rows import Origin, Row, Settings
from scoring.sources import Item

CUDA_BATCH = 32

_ONNX = ("onnxruntime-gpu", "onnxruntime")
PACKAGES = {
    "onnx": _ONNX,
    "tensorrt": (*_ONNX, "tensorrt", "tensorrt-cu12", "tensorrt-cu13"),
    "torchscript": ("torch",),
    "openvino": ("openvino",),
    "openvino-bf16": ("openvino",),
    "onnx-int8": _ONNX,
    "openvino-int8": ("openvino",),
}
"""What computes for each runtime."""

Read = Callable[[], bytes]
"""Gives the encoded picture, or raises what reading it raised."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """A picture on its way to a batch: its row so far, and its crop unless it failed."""

    row: Row
    crop: Crop | None = None


@dataclass(frozen=True, slots=True)
class Computed:
    """A picture that was inferred at batch 1: its row so far, and the batch's logits and features unless it failed."""

    row: Row
    answer: tuple[Logits, Features] | None = None


class Scorer:
    """A classifier and the settings of a run. Safe to call from several threads at once.

    Whatever a picture does becomes its row; SourceGone alone is raised, because then no further row can be trusted.
    Load the classifier with `batch_sizes=(CUDA_BATCH,)` on a GPU, so that its first batch is not a slow one.
    """

    def __init__(
        self, classifier: Classifier, settings: Settings | None = None, *, batch_size: int | None = None
    ) -> None:
        """Raises ParameterInvalid below 1; `batch_size` is 1 on a CPU and CUDA_BATCH on a GPU unless given.

        Settings that ask for features need a FeatureClassifier, and make one of any other: its errors are raised too.
        """
        self.settings = settings or Settings()
        self.classifier = FeatureClassifier.of(classifier) if self.settings.features else classifier
        default_batch = CUDA_BATCH if classifier.runtime.device == "cuda" else 1
        self.batch_size = default_batch if batch_size is None else batch_size
        if self.batch_size < 1:
            raise ParameterInvalid(f"batch_size is {self.batch_size}, it must be 1 or more")
        self.origin = Origin.of(classifier)

    @property
    def fingerprint(self) -> dict[str, object]:
        """Everything that a row's bytes depend on besides the input. Equal fingerprints give equal rows."""
        cutter = ("onnx",) if self.settings.features else ()
        return {
            "model": f"{self.origin.model_name}/{self.origin.model_version}",
            "model_digest": self.origin.model_digest,
            "runtime": self.origin.runtime,
            "device": self.origin.device,
            "execution_provider": self.classifier.runtime.execution_provider,
            "batch_size": self.batch_size,
            **{name: getattr(self.settings, name) for name in self.settings.__slots__},
            # Decoders and kernels of another version may give other pixels or another last digit, we other words.
            "packages": _versions("petalpaw", "numpy", "pillow", *PACKAGES[self.origin.runtime], *cutter),
        }

    def prepared(self, item: Item, read: Read) -> Prepared:
        """From input to crop, for `rows`."""
        row = Row(item.id, item.path, self.origin)
        try:
            row, data = self._read(row, read)
            return Prepared(*self._decoded(row, data))
        except SourceGone:
            raise
        except Exception as error:  # noqa: BLE001 – whatever one picture does, the others get their rows
            return Prepared(row.failed(error))

    def computed(self, item: Item, read: Read) -> Computed:
        """From input to logits at batch 1, for `row`."""
        prepared = self.prepared(item, read)
        if prepared.crop is None:
            return Computed(prepared.row)
        try:
            return Computed(prepared.row, self._computed(prepared.crop[None]))
        except Exception as error:  # noqa: BLE001 – as above
            return Computed(prepared.row.failed(error))

    def row(self, computed: Computed) -> Row:
        """The row of one picture. Never raises."""
        return computed.row if computed.answer is None else self._try_fill(computed.row, *computed.answer)

    def rows(self, held: list[Prepared]) -> list[Row]:
        """The rows of a batch with at most `batch_size` crops, in order. Never raises."""
        crops = [each.crop for each in held if each.crop is not None]
        if not crops:
            return [each.row for each in held]
        try:
            logits, features = self._batch(crops)
        except Exception:  # noqa: BLE001 – one picture may be at fault: find it by trying each alone
            return [self._infer_alone(each) for each in held]
        answers = zip(logits[:, None], features[:, None], strict=True)
        return [each.row if each.crop is None else self._try_fill(each.row, *next(answers)) for each in held]

    def _read(self, row: Row, read: Read) -> tuple[Row, bytes]:
        data = read()
        if self.settings.content_hash:
            row = replace(row, content_hash="sha256:" + hashlib.sha256(data).hexdigest())
        return row, data

    def _decoded(self, row: Row, data: bytes) -> tuple[Row, Crop]:
        """The row with the picture's size, and the crop that the service would make of it. Raises ImageError."""
        preprocessing = self.classifier.artifact.manifest.preprocessing
        decoded = preprocessing.decode(data, self.settings.max_pixels)
        width, height = decoded.size
        return replace(row, width=width, height=height), preprocessing.crop_of(*decoded)

    def _filled(self, row: Row, logits: Logits, features: Features) -> Row:
        """The row with the answer from its logits, float32 (1, classes). Raises ArithmeticError on NaN or infinity."""
        if not np.isfinite(logits).all():
            raise ArithmeticError(f"the model's logits are not finite: {logits.ravel()[:8].tolist()}")
        if self.settings.logits:
            row = replace(row, logits=tuple(logits[0].tolist()))
        if self.settings.features:
            row = replace(row, features=tuple(features[0].tolist()))
        return row.answered(self.classifier.predictions(logits, self.settings.top_k)[0])

    def _infer_alone(self, each: Prepared) -> Row:
        if each.crop is None:
            return each.row
        try:
            return self._filled(each.row, *self._batch([each.crop]))
        except Exception as error:  # noqa: BLE001 – as above
            return each.row.failed(error)

    def _try_fill(self, row: Row, logits: Logits, features: Features) -> Row:
        try:
            return self._filled(row, logits, features)
        except Exception as error:  # noqa: BLE001 – as above
            return row.failed(error)

    def _batch(self, crops: list[Crop]) -> tuple[Logits, Features]:
        """Logits and features of these crops, computed at exactly the batch size: the last crop fills up."""
        batch = np.stack(crops + [crops[-1]] * (self.batch_size - len(crops)))
        logits, features = self._computed(batch)
        return logits[: len(crops)], features[: len(crops)]

    def _computed(self, crops: Crop) -> tuple[Logits, Features]:
        """float32 (batch, classes) and float32 (batch, length); the length is 0 when nobody asked for features."""
        if isinstance(self.classifier, FeatureClassifier):
            return self.classifier.logits_and_features(crops)
        return self.classifier.logits(crops), np.empty((len(crops), 0), dtype=np.float32)


def _versions(*packages: str) -> dict[str, str]:
    """The versions of those packages that are installed."""
    found = {}
    for name in packages:
        with suppress(PackageNotFoundError):
            found[name] = version(name)
    return found
