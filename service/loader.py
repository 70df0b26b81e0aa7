"""A version of the model repository to a classifier that is fit to serve: verified, loaded, proven. It blocks."""

import logging
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from time import perf_counter

from inference.budget import Budget
from inference.classifier import Classifier
from inference.errors import ModelUnknown
from inference.repository import Repository
from inference.runtimes.base import Device
from inference.runtimes.registry import AUTOMATIC
from service.settings import Settings

_log = logging.getLogger("bentoml.petalpaw")

Key = tuple[str, str]
"""Name and version."""


class Loader:
    """What the settings ask for: which versions, by which runtime, on which device."""

    def __init__(self, settings: Settings, budget: Budget, device: Device) -> None:
        self.repository = Repository(settings.models)
        self.device = device
        self._settings = settings
        self._budget = budget
        self._batch_sizes = range(1, settings.max_batch_size + 1) if settings.batched(device) else ()

    def wanted(self, name: str) -> list[Key]:
        """The versions of a model that are to be served, oldest first; the last is the newest that there is.

        With an agreement gate also the one before, which the newest has to agree with. Empty when there is none.
        """
        kept = max(self._settings.versions, 2 if self._settings.agreement else 1)
        return [(name, version) for version in self.repository.versions(name)[-kept:]]

    def at_start(self) -> list[Key]:
        """All that the start loads, oldest version first. Raises ManifestInvalid when the repository holds nothing."""
        if self._settings.serve is None:
            return [key for name in dict(self.repository.contents()) for key in self.wanted(name)]
        found: list[Key] = []
        for each in self._settings.serve.split(","):
            name, _, version = each.partition("/")
            found += [(name, version)] if version else self.wanted(name) or [(name, "")]
        return sorted(set(found), key=lambda key: (key[0], int(key[1] or 0)))

    def followed(self) -> list[str]:
        """The models whose new versions are looked for. Raises ManifestInvalid when the repository is unreadable."""
        if self._settings.serve is None:
            return self.repository.names()
        return [name for name in self._settings.serve.split(",") if "/" not in name]

    def named(self, name: str) -> set[str]:
        """The versions of a model that the settings name one by one."""
        keys = [each.partition("/") for each in (self._settings.serve or "").split(",")]
        return {version for each, _, version in keys if each == name and version}

    def find(self, name: str, version: str | None = None) -> Key:
        """A version in the repository, by default the newest. Raises ModelUnknown."""
        versions = self.repository.versions(name)
        if not versions:
            raise ModelUnknown(f"there is no model {name[:64]!r} in the repository; publish it, then load it")
        if version is not None and version not in versions:
            raise ModelUnknown(
                f"the repository has no version {version[:64]!r} of {name}; it has {', '.join(versions)}"
            )
        return name, version or versions[-1]

    def load(self, key: Key) -> Classifier:
        """One version. Raises ModelUnknown, ArtifactError or HostError, which say what is wrong and what to do."""
        start = perf_counter()
        name, version = key
        classifier = Classifier.load(
            self.repository.open(name, version or None),
            runtime=self._settings.runtime,
            device=self.device,
            threads=self._budget.threads,
            streams=self._budget.streams,
            batch_sizes=self._batch_sizes,
        )
        _log.info(
            "model %s/%s: %s on %s (%s), loaded and self-tested in %.2f s",
            name,
            version,
            classifier.runtime.name,
            self.device,
            classifier.runtime.execution_provider,
            perf_counter() - start,
        )
        return classifier

    def load_all(self, keys: Iterable[Key]) -> list[Classifier]:
        """Several, in order, side by side where that harms nothing. Raises as `load` does."""
        # A GPU warms one at a time, and runtimes that race must not be slowed by a neighbour.
        alone = self.device == "cuda" or self._settings.runtime in AUTOMATIC
        with ThreadPoolExecutor(1 if alone else self._budget.streams) as pool:
            return list(pool.map(self.load, keys))
