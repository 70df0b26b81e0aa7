"""What each version of a model has done since the service began, as exact sums; /metrics has the distributions."""

from collections import defaultdict
from copy import deepcopy
from dataclasses import dataclass, field
from threading import Lock
from time import time

from service.call import Ended


@dataclass(slots=True)
class Total:
    """How often, and for how many nanoseconds in all."""

    count: int = 0
    ns: int = 0

    def add(self, seconds: float, count: int = 1) -> None:
        """Once more."""
        self.count += count
        self.ns += round(seconds * 1e9)


@dataclass(slots=True)
class Figures:
    """One version's sums.

    `succeeded` and `failed` are requests, by the status of their answers; `waited`, `prepared` (decoded and cropped)
    and `inferred` are pictures, `runs` are runs of the model by the number of pictures in each.
    """

    last_request_ms: int = 0
    answered: int = 0
    succeeded: Total = field(default_factory=Total)
    failed: Total = field(default_factory=Total)
    waited: Total = field(default_factory=Total)
    prepared: Total = field(default_factory=Total)
    inferred: Total = field(default_factory=Total)
    runs: defaultdict[int, Total] = field(default_factory=lambda: defaultdict(Total))


class Statistics:
    """Figures by `name/version`; every method may be called from any thread."""

    def __init__(self) -> None:
        self._figures: defaultdict[str, Figures] = defaultdict(Figures)
        self._lock = Lock()

    def ended(self, ended: Ended) -> None:
        """Count a request that has been answered; only those that got as far as a model count."""
        call = ended.call
        if call.model is None:
            return
        with self._lock:
            figures = self._figures[call.model]
            figures.last_request_ms = int(time() * 1000)
            figures.answered += call.outcomes["ok"]
            (figures.succeeded if ended.status < 400 else figures.failed).add(ended.seconds)
            for stage, _, seconds in list(call.spent):
                match stage:
                    case "queue":
                        figures.waited.add(seconds)
                    case "batch":
                        figures.waited.add(seconds, count=0)
                    case "decode":
                        figures.prepared.add(seconds)
                    case "preprocess":
                        figures.prepared.add(seconds, count=0)
                    case "inference":
                        figures.inferred.add(seconds)

    def ran(self, model: str, pictures: int, seconds: float) -> None:
        """Count a run of a model."""
        with self._lock:
            self._figures[model].runs[pictures].add(seconds)

    def of(self, model: str) -> Figures:
        """A version's figures as they are now, all zero before its first request."""
        with self._lock:
            return deepcopy(self._figures.get(model, Figures()))
