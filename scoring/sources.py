"""What is to be scored: inputs in a stable order with stable ids, read when their turn comes."""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from inference.errors import ImageUnreadable

SUFFIXES = frozenset(
    ".jpg .jpeg .jpe .jfif .mpo .png .apng .webp .gif .bmp .dib .tif .tiff .avif .avifs".split()  # noqa: SIM905 – read
)
"""Endings, in lower case, by which a file inside a folder or shard counts as a picture."""

MAX_BYTES = 256 * 2**20
"""Largest file that is read: a damaged or endless one must not take all memory."""


class Item(Protocol):
    """One input: a dataclass, small where it can be, and picklable, so that other processes can read it."""

    @property
    def id(self) -> int:
        """Position in the source, from 0."""

    @property
    def path(self) -> str:
        """Where the input lives, fit to print."""

    def stamp(self) -> str:
        """What tells this input from others and from itself once it changed, without reading it. Never raises."""

    def read(self) -> bytes:
        """The encoded picture. Raises ImageUnreadable, or SourceGone when the whole source went away."""


class Source(Protocol):
    """Inputs that can be gone through again, in the same order, as long as nobody changes them."""

    @property
    def description(self) -> str:
        """What the user named, fit to print."""

    def __iter__(self) -> Iterator[Item]:
        """The inputs, with ids from 0. Raises SourceGone or DataInvalid where they end early."""

    def count(self) -> int | None:
        """How many inputs there are, where that is known before they are read. Raises DataInvalid for none."""


@dataclass(frozen=True, slots=True)
class _Given:
    """What an input brings that is known as soon as it is listed."""

    id: int
    path: str


@dataclass(frozen=True, slots=True)
class BytesItem(_Given):
    """A picture that came with its source: a cell of a table, a member of a stream."""

    data: bytes

    def stamp(self) -> str:
        """Path and digest."""
        return f"{self.path}\0{hashlib.sha256(self.data).hexdigest()}"

    def read(self) -> bytes:
        """The picture."""
        return self.data


@dataclass(frozen=True, slots=True)
class FailedItem(_Given):
    """An input that is known to be unreadable: it ends as a row and not in silence."""

    problem: str

    def stamp(self) -> str:
        """Path and problem."""
        return f"{self.path}\0{self.problem}"

    def read(self) -> bytes:
        """Raises ImageUnreadable."""
        raise ImageUnreadable(self.problem)


class Several:
    """Sources one after the other, as one."""

    def __init__(self, sources: Sequence[Source]) -> None:
        self._sources = sources

    @property
    def description(self) -> str:
        """All of them."""
        return ", ".join(source.description for source in self._sources)

    def __iter__(self) -> Iterator[Item]:
        return numbered(item for source in self._sources for item in _some(source))

    def count(self) -> int | None:
        """The sum, unless one is not known."""
        counts = [source.count() for source in self._sources]
        return None if None in counts else sum(count or 1 for count in counts)


def _some(source: Source) -> Iterator[Item]:
    """A source's items; one that has none beside others is an input itself."""
    nothing = True
    for item in source:
        nothing = False
        yield item
    if nothing:
        yield FailedItem(0, source.description, f"{source.description} gave no input; check what it names")


def numbered(items: Iterable[Item]) -> Iterator[Item]:
    """The same items with ids from 0."""
    for index, item in enumerate(items):
        yield item if item.id == index else replace(item, id=index)  # type: ignore[type-var]  # all are dataclasses
