"""The files of a tar, a zip or a folder, given out one by one and never written under the names that it holds.

An archive with anything that pictures have no use for is refused whole: absolute names, `..`, links, devices, or more
bytes than its size can honestly hold.
"""

import gzip
import lzma
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path, PureWindowsPath

from inference.errors import DataInvalid

EXPANSION, ROOM = 20, 64 << 20
"""An archive may hold at most this many times its own size in bytes, plus this many bytes."""

_DAMAGED = (zlib.error, lzma.LZMAError)

LARGEST = 64 << 20
"""Bytes of the largest member that may be read."""


@dataclass(frozen=True)
class Member:
    """A file in an archive; `read` gives its content, and must be called before the next member is asked for."""

    name: str
    size: int
    kind: str
    read: Callable[[], bytes]


def members(path: Path) -> Iterator[Member]:
    """Every file of a tar, a zip or a folder; the folder's own name leads the names, as an archive of it would have it.

    Raises DataInvalid for what is unsafe, damaged or no archive.
    """
    room = EXPANSION * path.stat().st_size + ROOM
    with damage(path):
        for member in _entries(path):
            if not path.is_dir():
                room -= member.size
                _check(path, member, room)
            if member.kind == "file":
                yield replace(member, read=partial(_read, path, member))


@contextmanager
def damage(path: Path) -> Iterator[None]:
    """What Python's readers of archives raise on a damaged one, as DataInvalid."""
    try:
        yield
    # A zip's reader also raises RuntimeError (encrypted) and NotImplementedError (a rare compression).
    except (tarfile.TarError, zipfile.BadZipFile, gzip.BadGzipFile, *_DAMAGED, EOFError, RuntimeError) as error:
        raise DataInvalid(f"{path} is damaged or no archive ({error}); remove it and fetch it again") from error


def _read(path: Path, member: Member) -> bytes:
    with damage(path):
        return member.read()


def _check(path: Path, member: Member, room: int) -> None:
    """Refuse what reaches outside, is no plain file, or blows up."""
    windows = PureWindowsPath(member.name)
    if windows.drive or windows.root or ".." in windows.parts:
        problem = "leaves the archive's folder"
    elif member.kind not in ("file", "folder"):
        problem = "is a link or a device"
    elif room < 0 or member.size > LARGEST:
        problem = f"makes it unpack to far more than its {path.stat().st_size:,} bytes can honestly hold"
    else:
        return
    raise DataInvalid(f"{path} is not safe to unpack: {member.name!r} {problem}; nothing was taken from it")


def _entries(path: Path) -> Iterator[Member]:
    if path.is_dir():
        return _folder(path)
    return _zip(path) if zipfile.is_zipfile(path) else _tar(path)


def _folder(path: Path) -> Iterator[Member]:
    for file in sorted(path.rglob("*")):
        kind = "file" if file.is_file() and not file.is_symlink() else "other"
        yield Member(file.relative_to(path.parent).as_posix(), 0, kind, file.read_bytes)


def _zip(path: Path) -> Iterator[Member]:
    with zipfile.ZipFile(path) as archive:
        for info in archive.infolist():
            mode = stat.S_IFMT(info.external_attr >> 16)
            plain = "folder" if info.is_dir() else "file"
            kind = plain if mode in (0, stat.S_IFREG, stat.S_IFDIR) else "other"
            yield Member(info.filename, info.file_size, kind, partial(archive.read, info))


def _tar(path: Path) -> Iterator[Member]:
    with tarfile.open(path) as archive:
        for info in archive:
            kind = "file" if info.isfile() else "folder" if info.isdir() else "other"
            yield Member(info.name, info.size, kind, partial(_tar_content, archive, info))


def _tar_content(archive: tarfile.TarFile, info: tarfile.TarInfo) -> bytes:
    file = archive.extractfile(info)
    assert file is not None, "only asked for plain files"
    content = file.read()
    if len(content) != info.size:
        raise tarfile.ReadError(f"{info.name} ends early")
    return content
