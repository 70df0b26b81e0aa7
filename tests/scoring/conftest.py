"""Inputs and engines that behave as a test needs."""

import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from inference.classifier import Classifier
from inference.errors import DataInvalid
from inference.repository import Artifact


@dataclass(frozen=True)
class Input:
    """An item whose reading is a function."""

    id: int
    read_it: Callable[[], bytes]

    @property
    def path(self) -> str:
        return f"input {self.id}"

    def stamp(self) -> str:
        return self.path

    def read(self) -> bytes:
        return self.read_it()


class Inputs:
    """A source of such items."""

    description = "readers"

    def __init__(self, *readers: Callable[[], bytes]) -> None:
        self._readers = readers

    def __iter__(self) -> Iterator[Input]:
        return (Input(index, reader) for index, reader in enumerate(self._readers))

    def count(self) -> int:
        if not self._readers:
            raise DataInvalid("there is nothing")
        return len(self._readers)


@pytest.fixture(scope="session")
def inputs() -> type[Inputs]:
    return Inputs


@pytest.fixture(scope="session")
def classifier(artifact: Artifact) -> Classifier:
    return Classifier.load(artifact, device="cpu")


@pytest.fixture
def photos(tmp_path: Path, picture: Callable[..., bytes]) -> Path:
    """A folder with 30 pictures, of which every sixth is damaged."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for index in range(30):
        colour = [(220, 30, 30), (30, 200, 40), (30, 40, 210)][index % 3]
        data = picture(colour, (60 + index, 50), seed=index)
        (folder / f"{index:02}.jpg").write_bytes(data[:300] if index % 6 == 5 else data)
    return folder


@pytest.fixture
def running() -> "Iterator[list[subprocess.Popen[Any]]]":
    """The processes that a test has started, ended with it."""
    processes: list[subprocess.Popen[Any]] = []
    yield processes
    for process in processes:
        process.kill()
        process.communicate()
