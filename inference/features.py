"""A classifier that also gives features, for search, clustering and training of one's own on top."""

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from inference.classifier import Classifier
from inference.errors import PackageMissing, ParameterInvalid
from inference.prediction import Logits
from inference.preprocessing import Crop
from inference.runtimes.base import Load

if TYPE_CHECKING:
    from inference.runtimes.features import FeatureRuntime

Features = NDArray[np.float32]
"""float32, (batch, length); the length is the network's: 1280 for MobileNetV2."""


class FeatureClassifier(Classifier):
    """A classifier whose runtime also gives what the last linear layer sees. Safe to call from several threads."""

    runtime: "FeatureRuntime"

    @classmethod
    def of(cls, classifier: Classifier, threads: int = 1) -> "FeatureClassifier":
        """The same artifact on the same device, loaded anew and proven as every classifier is.

        Raises ParameterInvalid when runtime or model have no features, PackageMissing without onnx, SelfTestFailed.
        """
        runtime = classifier.runtime
        if runtime.name != "onnx":
            raise ParameterInvalid(
                f"runtime {runtime.name!r} gives no features; choose runtime 'onnx' or leave them out"
            )
        try:
            from inference.runtimes.features import FeatureRuntime
        except ImportError as error:
            raise PackageMissing(f"features need a package ({error}); install petalpaw[features]") from error
        found = cls(classifier.artifact, FeatureRuntime(classifier.artifact.folder, runtime.device, Load(threads)))
        found.self_test()
        found.runtime.trim()
        return found

    def logits_and_features(self, crops: Crop) -> tuple[Logits, Features]:
        """uint8 (batch, height, width, 3) → float32 (batch, classes) and float32 (batch, length)."""
        return self.runtime.run_with_features(crops)
