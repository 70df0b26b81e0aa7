"""Tar shards, as WebDataset lays them out: members that end like a picture are inputs, the others belong to them."""

import bz2
import gzip
import lzma
import os
import tarfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from lzma import LZMAError
from tarfile import ReadError
from typing import Any, Self

from inference.errors import DataInvalid, ImageTruncated, ImageUnreadable
from scoring.remote import gone, opened, version_of
from scoring.rows import printable
from scoring.services import is_address, reason_of
from scoring.sources import MAX_BYTES, SUFFIXES, BytesItem, FailedItem, Item, numbered

ENDINGS = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz")

_DAMAGES = (
    *(tarfile.TarError, EOFError, OSError, zlib.error, LZMAError),
    # tarfile takes the numbers and the nesting of headers on trust.
    *(ValueError, LookupError, ArithmeticError, RecursionError),
)

_MAX_HEADERS = 2**20
"""Bytes of one member's headers at most, long names and pax records included: tarfile reads and keeps them whole."""

_CHUNK = 2**16

_COMPRESSIONS: dict[bytes, Callable[[Any], Any]] = {
    b"\x1f\x8b": gzip.open,
    b"BZh": bz2.open,
    b"\xfd7zXZ": lzma.open,
    b"]\0\0\x80": lzma.open,
}
"""How files begin that are compressed; the last is LZMA's form before xz."""

_MAGIC_LENGTH = max(map(len, _COMPRESSIONS))


def is_shard(location: str) -> bool:
    """Whether a path or address is a shard's."""
    return location.lower().endswith(ENDINGS)


@dataclass(frozen=True, slots=True)
class MemberItem:
    """A picture inside an uncompressed shard of this machine: where it begins, and how long it is."""

    id: int
    shard: str
    name: str
    offset: int
    size: int
    version: str

    @property
    def path(self) -> str:
        """Shard and member, fit to print."""
        return printable(f"{self.shard}/{self.name}")

    def stamp(self) -> str:
        """Path, place and the shard's version."""
        return f"{self.shard}/{self.name}\0{self.offset}\0{self.size}\0{self.version}"

    def read(self) -> bytes:
        """The member's bytes. Raises ImageUnreadable, ImageTruncated or SourceGone."""
        if self.size > MAX_BYTES:
            raise _too_large(self.path)
        try:
            with open(self.shard, "rb") as file:  # noqa: PTH123 – as in files.py
                file.seek(self.offset)
                data = file.read(self.size)
        except FileNotFoundError as error:
            raise gone(self.shard, error) from error
        except OSError as error:
            raise ImageUnreadable(f"{self.path} cannot be read ({reason_of(error)}); check the shard") from error
        if len(data) < self.size:
            raise ImageTruncated(f"{self.path} is cut off with its shard; copy the shard again")
        return data


class Shard:
    """The pictures of a tar file, in its order, compressed or not, of this machine or at an address.

    Where it is cut off or damaged one more input says so: what would have followed is not passed over in silence.
    """

    def __init__(self, location: str) -> None:
        """Raises DataInvalid when the shard cannot be opened or is no tar file."""
        self._location = location
        with opened(location) as file:
            # Compressed or streamed members come with their bytes; others are read where they lie, by any process.
            self._plain = not is_address(location) and file.read(262)[257:] == b"ustar"
        next(iter(self), None)

    @property
    def description(self) -> str:
        """The shard's path."""
        return printable(self._location)

    def __iter__(self) -> Iterator[Item]:
        return numbered(self._found())

    def count(self) -> None:
        """Not known before the shard was gone through."""
        return

    def _found(self) -> Iterator[Item]:
        with opened(self._location) as file:
            version = version_of(self._location)
            try:
                tar = tarfile.open(  # noqa: SIM115 – holds nothing
                    fileobj=file if self._plain else _unpacked(file),
                    mode="r:" if self._plain else "r|",
                    tarinfo=_Member,
                )
            except _DAMAGES as error:
                raise DataInvalid(f"{self.description} is no tar file that can be read ({error})") from error
            last = "its beginning"
            try:
                for member in _members(tar, self._plain):
                    last = member.name
                    if os.path.splitext(member.name)[1].lower() in SUFFIXES:  # noqa: PTH122 – no path of this machine
                        yield self._item(tar, member, version)
            except _DAMAGES as error:
                problem = f"{self.description} is cut off or damaged after {printable(last)} ({error}); copy it again"
                yield FailedItem(0, self.description, problem)

    def _item(self, tar: tarfile.TarFile, member: tarfile.TarInfo, version: str) -> Item:
        path = printable(f"{self._location}/{member.name}")
        if not member.isreg():
            return FailedItem(0, path, f"{path} is no regular file but a link or folder; put the picture itself there")
        if self._plain and not member.issparse():
            return MemberItem(0, self._location, member.name, member.offset_data, member.size, version)
        if member.size > MAX_BYTES:
            return FailedItem(0, path, _too_large(path).detail)
        content = tar.extractfile(member)
        assert content is not None  # a regular file
        try:
            return BytesItem(0, path, content.read())
        except _DAMAGES as error:
            return FailedItem(0, path, f"{path} is cut off with its shard ({error}); copy the shard again")


def _members(tar: tarfile.TarFile, seekable: bool) -> Iterator[tarfile.TarInfo]:
    """The members, of which none is kept. Raises tarfile.TarError where the archive ends without its end mark.

    TarFile's own iteration keeps all of them and takes a damaged header for the end.
    """
    member = tar.firstmember  # type: ignore[attr-defined]  # opening reads it
    while member is not None:
        tar.members.clear()  # type: ignore[attr-defined]
        yield member
        if not seekable:
            _pass_over(tar)
        tar.fileobj.seek(tar.offset)
        try:
            member = _Member.fromtarfile(tar)
        except tarfile.EOFHeaderError:  # type: ignore[attr-defined]  # the end mark
            _expect_zeros(tar.fileobj)
            return


def _expect_zeros(file: Any) -> None:
    """What may follow the end mark. Raises tarfile.ReadError for anything else, which would be lost in silence."""
    while chunk := file.read(_CHUNK):
        if chunk.strip(b"\0"):
            raise ReadError("it goes on behind its end; archives that were joined have to be named each by itself")


def _unpacked(file: Any) -> Any:
    """What a compressed file holds, several times compressed one after the other too, which tarfile's own does not."""
    begun = _Begun(file)
    for magic, unpack in _COMPRESSIONS.items():
        if begun.head.startswith(magic):
            return unpack(begun)
    return begun


class _Begun:
    """A file that need not seek, whose beginning was looked at."""

    def __init__(self, file: Any) -> None:
        self._file = file
        self.head: bytes = file.read(_MAGIC_LENGTH)

    def read(self, size: int) -> bytes:
        """As the file's, the beginning first."""
        data, self.head = self.head[:size], self.head[size:]
        return data or self._file.read(size)


def _pass_over(tar: tarfile.TarFile) -> None:
    """A stream's content up to the next header. Raises tarfile.ReadError where it ends before; seek would not see."""
    while tar.offset - tar.fileobj.tell() > _CHUNK:
        if not tar.fileobj.read(_CHUNK):
            raise ReadError("unexpected end of data")


class _Member(tarfile.TarInfo):
    """A member with bounded headers, behind which the archive goes on and not back."""

    @classmethod
    def fromtarfile(cls, tarfile: tarfile.TarFile) -> Self:
        """Reads the next one. Raises what `_DAMAGES` names."""
        file: Any = tarfile.fileobj
        tarfile.fileobj = _Headers(file)  # type: ignore[assignment]  # it reads, tells and seeks
        try:
            member = super().fromtarfile(tarfile)
        finally:
            tarfile.fileobj = file
        if member.size < 0 or tarfile.offset <= member.offset or len(repr(tarfile.pax_headers)) > _MAX_HEADERS:
            raise ReadError("a header has a size that cannot be")
        return member


class _Headers:
    """A file of which only as much may be read as headers take."""

    def __init__(self, file: Any) -> None:
        self._file = file
        self._left = _MAX_HEADERS
        self.tell, self.seek = file.tell, file.seek

    def read(self, size: int) -> bytes:
        """Raises tarfile.ReadError."""
        self._left -= size
        if size < 0 or self._left < 0:
            raise ReadError("a header has a size that cannot be")
        data: bytes = self._file.read(size)
        return data


def _too_large(path: str) -> ImageUnreadable:
    return ImageUnreadable(f"{path} is larger than {MAX_BYTES:,} bytes, which no picture should be")
