"""The served versions of one model, and the requests that use each."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

from inference.classifier import Classifier


class Served:
    """A classifier and the number of requests that use it; `idle` is set while there are none."""

    def __init__(self, classifier: Classifier) -> None:
        self.classifier = classifier
        self.idle = asyncio.Event()
        self.idle.set()
        self._users = 0

    @contextmanager
    def used(self) -> Iterator[Classifier]:
        """Hold the classifier for as long as it is needed."""
        self._users += 1
        self.idle.clear()
        try:
            yield self.classifier
        finally:
            self._users -= 1
            if not self._users:
                self.idle.set()


class Versions:
    """At least one version once the first is put in; `default` answers where none is named.

    With the policy `latest` that is always the newest; with `kept` the first, until it is taken out.
    """

    def __init__(self, policy: Literal["latest", "kept"]) -> None:
        self.default = ""
        self._policy = policy
        self._served: dict[str, Served] = {}

    def __contains__(self, version: str) -> bool:
        return version in self._served

    def __iter__(self) -> Iterator[str]:
        """From the oldest to the newest."""
        return iter(sorted(self._served, key=int))

    def __getitem__(self, version: str) -> Served:
        return self._served[version]

    @property
    def newest(self) -> str:
        """The newest version; empty when there is none."""
        return max(self._served, key=int, default="")

    def put(self, classifier: Classifier) -> Served | None:
        """Serve a version; what it replaces comes back."""
        version = classifier.artifact.version
        replaced = self._served.get(version)
        self._served[version] = Served(classifier)
        if not self.default or self._policy == "latest":
            self.default = self.newest
        return replaced

    def take(self, version: str) -> Served:
        """Serve a version no more; the newest of the others is the default if this one was."""
        taken = self._served.pop(version)
        if self.default == version:
            self.default = self.newest
        return taken

    def beyond(self, count: int) -> list[str]:
        """All but the newest `count` versions and the default."""
        return [version for version in [*self][:-count] if version != self.default]
