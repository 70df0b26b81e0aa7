"""The classifiers that a process serves, by name."""

import logging
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from time import perf_counter

from inference.budget import Budget
from inference.classifier import Classifier
from inference.errors import (
    DeviceUnavailable,
    ManifestInvalid,
    ModelUnknown,
    ParameterInvalid,
    SelfTestFailed,
)
from inference.repository import Artifact, Repository
from inference.runtimes.base import Device
from inference.runtimes.registry import cuda_device_count
from service.settings import PREFIX, Settings

_log = logging.getLogger("bentoml.petalpaw")


class Catalog:
    """Classifiers by name, all on one device, and the one for requests that name none."""

    def __init__(self, classifiers: Mapping[str, Classifier], device: Device, default: str | None = None) -> None:
        if default is not None and default not in classifiers:
            raise ParameterInvalid(
                f"{PREFIX}DEFAULT_MODEL is {default!r}, but the model repository holds {', '.join(classifiers)}"
            )
        self.classifiers = dict(classifiers)
        self.device = device
        self.default = next(iter(classifiers)) if default is None and len(classifiers) == 1 else default

    @classmethod
    def load(cls, settings: Settings, budget: Budget) -> "Catalog":
        """Verify, load and test the latest version of every model.

        Raises ArtifactError or HostError that names the file and says what to do, ParameterInvalid for a default
        model that is not there.
        """
        artifacts = Repository(settings.models).latest()
        if settings.device != "auto":
            return cls(_load(artifacts, settings, budget, settings.device), settings.device, settings.default_model)
        if not cuda_device_count():
            _log.info("device auto: the CPU, because no NVIDIA GPU is visible")
        else:
            try:
                return cls(_load(artifacts, settings, budget, "cuda"), "cuda", settings.default_model)
            except (DeviceUnavailable, SelfTestFailed, ManifestInvalid) as reason:
                _log.warning("device auto: the CPU although there is a GPU: %s", reason)
        return cls(_load(artifacts, settings, budget, "cpu"), "cpu", settings.default_model)

    @contextmanager
    def use(self, name: str | None, version: str | None = None) -> Iterator[Classifier]:
        """A classifier for as long as it is needed, by default the version that is served.

        Raises ModelUnknown, or ParameterInvalid when a name is needed.
        """
        classifier = self._choose(name)
        if version not in (None, classifier.artifact.version):
            raise ModelUnknown(
                f"version {version!r:.64} of {classifier.artifact.name} is not served; {classifier.artifact.version} is"
            )
        yield classifier

    def _choose(self, name: str | None) -> Classifier:
        names = ", ".join(self.classifiers)
        name = name or self.default
        if name is None:
            raise ParameterInvalid(f"several models are served; name one of them as 'model': {names}")
        if name not in self.classifiers:
            raise ModelUnknown(f"there is no model {name[:64]!r}; known: {names}")
        return self.classifiers[name]


def _load(artifacts: list[Artifact], settings: Settings, budget: Budget, device: Device) -> dict[str, Classifier]:
    sizes = range(1, settings.max_batch_size + 1) if settings.batched(device) else ()

    def load(artifact: Artifact) -> Classifier:
        start = perf_counter()
        classifier = Classifier.load(
            artifact, runtime=settings.runtime, device=device, threads=budget.threads, batch_sizes=sizes
        )
        _log.info(
            "model %s/%s: %s on %s (%s), loaded and self-tested in %.2f s",
            artifact.name,
            artifact.version,
            classifier.runtime.name,
            device,
            classifier.runtime.execution_provider,
            perf_counter() - start,
        )
        return classifier

    with ThreadPoolExecutor(budget.streams if device == "cpu" else 1) as pool:
        return {
            artifact.name: classifier for artifact, classifier in zip(artifacts, pool.map(load, artifacts), strict=True)
        }
