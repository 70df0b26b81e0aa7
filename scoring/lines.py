"""Paths that come in, one a line."""

import os
import sys
from collections.abc import Iterator
from io import BufferedIOBase
from typing import Any

from inference.errors import DataInvalid
from scoring.files import FileItem, folder_of
from scoring.remote import named
from scoring.rows import printable
from scoring.services import is_address
from scoring.sources import FailedItem, Item

_CHUNK = 2**16

_SHOWN = 100
"""Characters that are shown of what is too long to be a path."""

_MAX_NAME = 2**16
"""Bytes of a path or address at most, of which none has so many: what never ends must not take all memory."""


class Lines:
    """Paths and addresses from a binary stream, by default standard input; gone through once.

    They end with a line feed, or with a zero byte when `null` says so, as `find -print0` writes them: then any name
    can be told. Empty lines are passed over.
    """

    def __init__(self, stream: BufferedIOBase | None = None, *, null: bool = False) -> None:
        """Raises DataInvalid when standard input is closed."""
        if stream is None and sys.stdin is None:
            raise DataInvalid("standard input is closed; give it the paths, or name another source")
        buffered: Any = sys.stdin.buffer if stream is None else stream
        # Unbuffered: a thread that waits in a buffered read could not be left behind.
        self._stream = getattr(buffered, "raw", buffered)
        self._end = b"\0" if null else b"\n"

    @property
    def description(self) -> str:
        """Where the paths come from."""
        return "the paths on standard input"

    def __iter__(self) -> Iterator[Item]:
        seen: set[str] = set()
        for index, name in enumerate(filter(None, self._names())):
            location = os.fsdecode(name)
            if len(name) > _MAX_NAME:
                start = f"{printable(location[:_SHOWN])}…"
                yield FailedItem(index, start, f"{start} is longer than {_MAX_NAME:,} bytes, which no path should be")
            elif is_address(location):
                yield named(index, location)
            else:
                yield FileItem(index, location, root=folder_of(location, seen))

    def count(self) -> None:
        """Not known before they all came."""
        return

    def _names(self) -> Iterator[bytes]:
        rest = b""
        # One read gives what is there: a path is scored as soon as it came.
        while chunk := self._stream.read(_CHUNK):
            *names, rest = (rest + chunk).split(self._end)
            rest = rest[: _MAX_NAME + 2]  # enough to see that it is too long, with its carriage return
            yield from map(self._stripped, names)
        yield self._stripped(rest)

    def _stripped(self, name: bytes) -> bytes:
        return name.removesuffix(b"\r") if self._end == b"\n" else name
