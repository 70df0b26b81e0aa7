"""Runtimes `auto` and `auto-int8`: the fastest that passes on this machine, found by letting them take turns."""

import logging
from collections.abc import Callable, Sequence
from time import perf_counter
from typing import TYPE_CHECKING

from inference.errors import PetalpawError, RuntimeMissing
from inference.golden import golden_crops
from inference.runtimes.base import Device
from inference.runtimes.registry import runtime_class

if TYPE_CHECKING:
    from inference.classifier import Classifier

_ROUNDS = 15
_log = logging.getLogger(__name__)


def fastest(device: Device, names: Sequence[str], load: Callable[[str], "Classifier"]) -> "Classifier":
    """Load every one of `names` that knows the device and keep the one that needs least for one crop.

    What is not installed is left out; so is what fails, with a warning. Raises what the first candidate raised when
    all fail.
    """
    proven: list[Classifier] = []
    errors: list[PetalpawError] = []
    for name in _candidates(device, names):
        try:
            proven.append(load(name))
        except PetalpawError as error:
            errors.append(error)
            _log.warning("runtime auto: without %s: %s", name, error.detail)
    if not proven:
        raise errors[0]
    return proven[0] if len(proven) == 1 else _first(proven)


def _candidates(device: Device, names: Sequence[str]) -> list[str]:
    found = []
    for name in names:
        try:
            if device in runtime_class(name).devices:
                found.append(name)
        except RuntimeMissing:
            _log.debug("runtime auto: %s is not installed", name)
    return found


def _first(proven: "list[Classifier]") -> "Classifier":
    crop = golden_crops(proven[0].artifact.manifest.preprocessing.crop)[:1]
    # The least of many turns: whatever else the machine does only adds to it.
    least = [float("inf")] * len(proven)
    for _ in range(_ROUNDS):
        for index, classifier in enumerate(proven):
            start = perf_counter()
            classifier.logits(crop)
            least[index] = min(least[index], perf_counter() - start)
    _log.info(
        "runtime auto, %s: %s",
        proven[0].artifact.name,
        ", ".join(f"{one.runtime.name} {time * 1000:.2g} ms" for one, time in zip(proven, least, strict=True)),
    )
    return proven[least.index(min(least))]
