"""Manifest + preprocessing + runtime: the one path from bytes to predictions, for service, scoring and parity."""

import logging
from collections.abc import Iterable, Sequence

import numpy as np

from inference.budget import whole_cores
from inference.errors import DeviceUnavailable, ImageError, ManifestInvalid, RuntimeMissing, SelfTestFailed
from inference.golden import golden_crops
from inference.manifest import digest_of
from inference.prediction import DEFAULT_TOP_K, Logits, Prediction, predictions
from inference.preprocessing import MAX_PIXELS, Crop, Decoded
from inference.repository import Artifact
from inference.runtimes.base import Device, DeviceChoice, Load, Runtime
from inference.runtimes.registry import AUTOMATIC, cuda_device_count, load_runtime, runtime_class
from inference.trial import fastest

_log = logging.getLogger(__name__)


class Classifier:
    """A loaded artifact that has just given PyTorch's answers on this machine.

    Safe to call from several threads at once.
    """

    def __init__(self, artifact: Artifact, runtime: Runtime) -> None:
        self.artifact = artifact
        self.runtime = runtime
        self.labels = artifact.manifest.labels

    @classmethod
    def load(
        cls,
        artifact: Artifact,
        *,
        runtime: str = "onnx",
        device: DeviceChoice = "auto",
        threads: int = 1,
        streams: int | None = None,
        batch_sizes: Iterable[int] = (),
    ) -> "Classifier":
        """Load a verified artifact and replay its golden inputs, at batch 1, at their number and at `batch_sizes`.

        `streams` calls (by default one per core) will come at a time, each with `threads` threads inside the runtime.
        `batch_sizes` are those that will be used later on a GPU, which prepares itself anew for each; a CPU does not.
        Device `auto` is CUDA where a GPU is visible and passes; where one fails, the log says why and the CPU is taken.
        Runtime `auto` is the fastest that passes in full precision, `auto-int8` the fastest of these and of int8.
        Raises SelfTestFailed, RuntimeMissing, DeviceUnavailable or ManifestInvalid.
        """
        load = Load(threads=threads, streams=streams or whole_cores())
        if device != "auto":
            return cls._chosen(artifact, runtime, device, load, batch_sizes)
        if cuda_device_count():
            try:
                return cls._chosen(artifact, runtime, "cuda", load, batch_sizes)
            except (DeviceUnavailable, SelfTestFailed, ManifestInvalid) as error:
                _log.warning("using the CPU although there is a GPU: %s", error.detail)
        return cls._chosen(artifact, runtime, "cpu", load, batch_sizes)

    @classmethod
    def _chosen(
        cls, artifact: Artifact, runtime: str, device: Device, load: Load, batch_sizes: Iterable[int]
    ) -> "Classifier":
        def proven(name: str) -> "Classifier":
            return cls._proven(artifact, name, device, load, batch_sizes)

        return fastest(device, AUTOMATIC[runtime], proven) if runtime in AUTOMATIC else proven(runtime)

    @classmethod
    def _proven(
        cls, artifact: Artifact, runtime: str, device: Device, load: Load, batch_sizes: Iterable[int]
    ) -> "Classifier":
        # A file that the manifest does not name was never compared with a digest.
        file = runtime_class(runtime).file
        if file not in artifact.manifest.files:
            raise RuntimeMissing(
                f"{artifact.name}/{artifact.version} was published without {file}, which runtime {runtime!r} needs; "
                "export and publish it with that file or choose another runtime"
            )
        classifier = cls(artifact, load_runtime(runtime, artifact.folder, device, load))
        classifier.self_test(batch_sizes if device == "cuda" else ())
        classifier.runtime.trim()
        return classifier

    def preprocess(self, data: bytes, max_pixels: int = MAX_PIXELS) -> Crop:
        """Picture bytes → uint8 (height, width, 3). Raises ImageError and nothing else."""
        return self.artifact.manifest.preprocessing(data, max_pixels)

    def decode(self, data: bytes, max_pixels: int = MAX_PIXELS) -> Decoded:
        """The first half of `preprocess`: an upright RGB image and its size. Raises ImageError and nothing else."""
        return self.artifact.manifest.preprocessing.decode(data, max_pixels)

    def crop_of(self, decoded: Decoded) -> Crop:
        """The second half of `preprocess`: resize and crop."""
        return self.artifact.manifest.preprocessing.crop_of(*decoded)

    def logits(self, crops: Crop) -> Logits:
        """uint8 (batch, height, width, 3) → float32 (batch, classes)."""
        return self.runtime.run(crops)

    def predictions(self, logits: Logits, top_k: int = DEFAULT_TOP_K) -> list[Prediction]:
        """Calibrated answers, one per row of `logits`. Raises ParameterInvalid when `top_k` is below 1."""
        return predictions(logits, self.labels, self.artifact.manifest.calibration, top_k)

    def classify(
        self, images: Sequence[bytes], top_k: int = DEFAULT_TOP_K, max_pixels: int = MAX_PIXELS
    ) -> list[Prediction | ImageError]:
        """Pictures in, one outcome each, in order; a bad picture is its own outcome and harms no other.

        Every crop runs at batch 1, so an answer never depends on its neighbours.
        """
        outcomes: list[Prediction | ImageError] = []
        for data in images:
            try:
                crop = self.preprocess(data, max_pixels)
            except ImageError as error:
                outcomes.append(error.with_traceback(None))  # which leads back to `outcomes`
            else:
                outcomes += self.predictions(self.logits(crop[None]), top_k)
        return outcomes

    def self_test(self, batch_sizes: Iterable[int] = ()) -> None:
        """Prove preprocessing and model on this machine. Raises SelfTestFailed, saying what differs and by how much."""
        manifest = self.artifact.manifest
        where = f"{self.artifact.name}/{self.artifact.version} on {self.runtime.name} ({self.runtime.device})"
        if manifest.preprocessing.golden_digest() != manifest.preprocessing_golden:
            raise SelfTestFailed(
                f"{where}: preprocessing gives other bytes than where the model was exported; "
                "install the Pillow version that the lock names"
            )
        golden, crops = manifest.golden_of(self.runtime.file), golden_crops(manifest.preprocessing.crop)
        if digest_of(crops.tobytes()) != golden.crops_sha256:
            raise SelfTestFailed(f"{where}: the golden inputs differ from those of the export; export the model again")
        expected = np.array(golden.logits, dtype=np.float32)
        tolerance = golden.allowed(self.runtime.deviation)
        for size in sorted({1, len(crops), *batch_sizes}):
            order = np.resize(np.arange(len(crops)), max(size, len(crops)))
            batches = [order[start : start + size] for start in range(0, len(order), size)]
            try:
                found = np.concatenate([self.logits(crops[batch]) for batch in batches])
                difference = float(np.abs(found - expected[order]).max())
            # Runtimes raise what they like when a model's inputs or outputs are not those of the signature.
            except Exception as error:
                raise SelfTestFailed(
                    f"{where}: the model cannot run the golden inputs at batch {size} ({error}); export it again"
                ) from error
            # Written so that NaN fails too.
            if not difference <= tolerance:
                those = "PyTorch's" if golden is manifest.golden else f"those of {self.runtime.file} at its export"
                raise SelfTestFailed(
                    f"{where}: logits of the golden inputs differ from {those} by {difference:.3g} at batch {size}, "
                    f"{tolerance:.3g} is allowed; export the model again or choose another runtime"
                )
