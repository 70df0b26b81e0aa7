"""Pictures at fsspec addresses: s3://, gs://, http://, memory:// and whatever else fsspec knows."""

import os
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, BinaryIO, Self

from inference.errors import DataInvalid, ImageUnreachable, ImageUnreadable, PetalpawError, SourceGone
from scoring.files import FileItem
from scoring.rows import printable
from scoring.services import (
    SECONDS,
    asked,
    attempts,
    file_system,
    is_address,
    is_answer,
    is_busy,
    knock,
    reason_of,
    speaks,
)
from scoring.sources import MAX_BYTES, SUFFIXES, FailedItem, Item, numbered
from scoring.witnesses import server_of, trust, witness_of

_SILENT_SECONDS = 30
"""How long an HTTP server may say nothing: it is not asked again after that."""

_CHUNK = 2**16

_VERSIONS = ("mtime", "LastModified", "updated", "created")
"""Where listings of several services tell one content of an address from another, if they have no entity tag."""


@contextmanager
def opened(location: str) -> Iterator[BinaryIO]:
    """A file of this machine or an address, open for reading in binary. Raises DataInvalid when it cannot be.

    What is at an address raises SourceGone where it ends early.
    """
    file: Any
    try:
        if is_address(location):
            system, path = file_system(location)
            knock(system, path)
            file = _Watched(location, system.open(path, "rb"))
        else:
            file = _opened_here(location)
    except PetalpawError:
        raise
    except Exception as error:  # every service has exceptions of its own
        raise unreachable(location, error) from error
    with file:
        yield file


def _opened_here(location: str) -> BinaryIO:
    """Raises OSError, and DataInvalid for a pipe, whose writer may never come."""
    if stat.S_ISFIFO(os.stat(location).st_mode):  # noqa: PTH116 – as in files.py
        raise DataInvalid(f"{printable(location)} is a pipe, and would be read twice; write it to a file")
    return open(location, "rb")  # noqa: PTH123 – as in files.py


class _Watched:
    """A file at an address: one whose server went away must not pass for a damaged one, and half of it not for all."""

    def __init__(self, location: str, file: Any) -> None:
        self._location = location
        self._file = file

    def read(self, size: int = -1) -> bytes:
        """Raises SourceGone, and DataInvalid where the server gives no parts of files, which a large one needs."""
        try:
            data: bytes = self._file.read(size)
        except ValueError as error:
            raise DataInvalid(
                f"{printable(self._location)} cannot be read any further ({error}); download it, and name the file"
            ) from error
        except Exception as error:  # every service has exceptions of its own
            raise gone(self._location, error) from error
        return data

    read1 = read

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()


def version_of(location: str) -> str:
    """What changes when the content of a file or address does, as far as the place tells; else nothing."""
    if not is_address(location):
        status = os.stat(location)  # noqa: PTH116 – as in files.py
        return f"{status.st_size}\0{status.st_mtime_ns}"
    system, path = file_system(location)
    return _version(system.info(path))


def _version(entry: dict[str, Any]) -> str:
    tag = entry.get("ETag") or entry.get("etag")
    told = [tag] if tag else [entry[key] for key in _VERSIONS if entry.get(key) is not None]
    return "\0".join(map(str, [entry.get("size", ""), *told]))


def named(index: int, address: str) -> "RemoteItem":
    """The picture at an address that was named by itself, in a table say."""
    return RemoteItem(index, address, witness=witness_of(address))


@dataclass(frozen=True, slots=True)
class RemoteItem:
    """A picture at an address.

    `root` is the address below which it was found, `version` what its listing told. `witness` is another address of
    its server, where that is known to have given something.
    """

    id: int
    address: str
    version: str = ""
    root: str | None = None
    witness: str | None = None

    @property
    def path(self) -> str:
        """The address, fit to print."""
        return printable(self.address)

    def stamp(self) -> str:
        """Address and version. One that was not found by a search is not asked for its version."""
        return f"{self.address}\0{self.version}"

    def read(self) -> bytes:
        """The content at the address.

        Raises ImageUnreadable, ImageUnreachable, or SourceGone when its root, or a server that gave something before,
        does not answer.
        """
        system, path = file_system(self.address)
        if speaks(system, "file"):
            return FileItem(self.id, path, root=self.root and file_system(self.root)[1]).read()
        most = attempts(system)
        for attempt in range(most):
            try:
                data = _content(system, path)
                break
            except (FileNotFoundError, PermissionError, IsADirectoryError, TimeoutError, MemoryError) as error:
                raise self._failure(error) from error
            except Exception as error:  # every service has exceptions of its own
                if attempt == most - 1:
                    raise self._failure(error) from error
                if is_busy(error):
                    time.sleep(2**attempt)
        if len(data) > MAX_BYTES:
            raise ImageUnreadable(f"{self.path} is larger than {MAX_BYTES:,} bytes, which no picture should be")
        trust(self.address)
        return data

    def _failure(self, error: Exception) -> ImageUnreadable | SourceGone:
        if self._is_gone(error):
            return gone(self.root or server_of(self.address), error)
        kind, hint = (
            (ImageUnreadable, "check the address and its permissions")
            if is_answer(error)
            else (ImageUnreachable, "check the address, and score it again when its server is there")
        )
        return kind(f"{self.path} cannot be read ({reason_of(error)}); {hint}")

    def _is_gone(self, error: Exception) -> bool:
        if isinstance(error, PermissionError):
            return False
        if self.root is not None:
            return not _exists(self.root)
        if is_answer(error):
            return False
        witness = witness_of(self.address) or self.witness
        return witness is not None and not _answers(witness)


def _content(system: Any, path: str) -> bytes:
    """What is at a path, of anything larger than MAX_BYTES only the beginning. Raises what the service does."""
    if speaks(system, "http"):
        import fsspec.asyn

        body: bytes = fsspec.asyn.sync(system.loop, _body, system, path)
        return body
    with system.open(path, "rb") as file:
        data: bytes = file.read(MAX_BYTES + 1)
    return data


async def _body(system: Any, path: str) -> bytes:
    """The same over HTTP: fsspec reads a body whole, however long, and waits for five minutes."""
    body = bytearray()
    async with await _response(system, path) as response:
        if response.status == HTTPStatus.NOT_FOUND:
            raise FileNotFoundError(path)
        response.raise_for_status()
        async for chunk in response.content.iter_chunked(_CHUNK):
            body += chunk
            if len(body) > MAX_BYTES:
                break
    return bytes(body)


async def _response(system: Any, path: str, **options: object) -> Any:
    import aiohttp

    patience = aiohttp.ClientTimeout(total=SECONDS, sock_connect=_SILENT_SECONDS, sock_read=_SILENT_SECONDS)
    session = await system.set_session()
    return await session.get(system.encode_url(path), **{"timeout": patience, **system.kwargs, **options})


def unreachable(location: str, error: Exception) -> DataInvalid:
    """The error for what was named and cannot be had."""
    missing = isinstance(error, FileNotFoundError) and is_address(location)
    reason = "no such bucket, folder or file" if missing else reason_of(error)
    return DataInvalid(
        f"{printable(location)} cannot be read ({reason}); check the path or address and who may read it"
    )


def gone(location: str, error: Exception) -> SourceGone:
    """The error for a source that was there and is not any more."""
    return SourceGone(
        f"{printable(location)} cannot be reached any more ({reason_of(error)}); bring it back, then run the same "
        "command again to go on"
    )


def _exists(address: str) -> bool:
    system, path = file_system(address)
    try:
        return bool(asked(system, "exists", path))
    except Exception:  # noqa: BLE001 – as in RemoteItem.read
        return False


def _is_directory(system: Any, path: str) -> bool:
    """Raises what the service does, if it is no answer. (To say `isdir`, s3fs lists a folder whole.)"""
    try:
        return bool(asked(system, "info", path)["type"] == "directory")
    except FileNotFoundError:
        return False
    except Exception as error:
        if not is_answer(error):
            raise
        return bool(asked(system, "isdir", path))  # who may not look at an object may perhaps list it


def _answers(address: str) -> bool:
    """Whether its server says anything, be it that there is no such file (any more)."""
    system, path = file_system(address)
    try:
        if speaks(system, "http"):
            import fsspec.asyn

            return bool(fsspec.asyn.sync(system.loop, _status, system, path) < HTTPStatus.INTERNAL_SERVER_ERROR)
        asked(system, "info", path)
    except Exception as error:  # noqa: BLE001 – as in RemoteItem.read
        return is_answer(error)
    return True


async def _status(system: Any, path: str) -> int:
    async with await _response(system, path, allow_redirects=False) as response:
        return int(response.status)


class Remote:
    """The picture at an address, or those below one that ends in `/` or is a folder, or that a pattern names.

    A folder's entries come in the order of their names and are held in memory while it is gone through.
    """

    def __init__(self, address: str) -> None:
        """Raises PackageMissing or DataInvalid."""
        self._address = address
        self._system, self._path = file_system(address)

    @property
    def description(self) -> str:
        """The address."""
        return printable(self._address)

    def __iter__(self) -> Iterator[Item]:
        return numbered(self._found())

    def count(self) -> None:
        """Not known before all folders were listed."""
        return

    def _found(self) -> Iterator[Item]:
        if "*" in self._address:
            for address, is_folder in matches(self._address):
                if is_folder:
                    yield from self._walk(file_system(address)[1], address)
                else:
                    yield named(0, address)
        elif self._is_folder():
            yield from self._walk(self._path, self._address)
        else:
            yield named(0, self._address)

    def _is_folder(self) -> bool:
        # An HTTP server has no folders; one that lists links is meant by a slash.
        if self._address.endswith("/") or speaks(self._system, "http"):
            return self._address.endswith("/")
        try:
            return _is_directory(self._system, self._path)
        except Exception as error:
            raise unreachable(self._address, error) from error

    def _walk(self, folder: str, root: str) -> Iterator[Item]:
        try:
            if folder == self._path:
                knock(self._system, folder)
            entries = self._listed(folder)
        except Exception as error:
            if folder == self._path:
                raise unreachable(self._address, error) from error
            if isinstance(error, FileNotFoundError) or not is_answer(error):
                raise gone(folder, error) from error
            yield FailedItem(0, printable(folder), f"{printable(folder)} cannot be listed ({reason_of(error)})")
            return
        for name, entry in sorted(entries.items()):
            if entry["type"] == "directory":
                yield from self._walk(name, root)
            elif os.path.splitext(name)[1].lower() in SUFFIXES:  # noqa: PTH122 – no path of this machine
                yield RemoteItem(0, self._system.unstrip_protocol(name), _version(entry), root)

    def _listed(self, folder: str) -> dict[str, dict[str, Any]]:
        """What is in a folder, by name."""
        entries = {each["name"]: each for each in self._system.ls(folder, detail=True)}
        itself = [name for name in entries if name.rstrip("/") == folder.rstrip("/")]
        if any(entries.pop(name)["type"] == "directory" for name in itself):
            # An object that stands for the folder, or `//` in names, of which no service lists a folder.
            entries |= self._system.find(folder, prefix="/", detail=True)
        return entries


def matches(pattern: str) -> list[tuple[str, bool]]:
    """The addresses that a pattern fits, in order, and which of them are folders; with `**` those are gone through.

    Raises DataInvalid when the service cannot be asked.
    """
    system, path = file_system(pattern)
    try:
        knock(system, path)
        found = [(name, entry["type"] == "directory") for name, entry in system.glob(path, detail=True).items()]
    except Exception as error:
        raise unreachable(pattern, error) from error
    deep = "**" in pattern
    # Objects that stand for folders end in a slash, and so do HTTP's folders.
    kept = [(name, folder) for name, folder in found if not (deep if folder else name.endswith("/"))]
    kept.sort(key=lambda each: each[0].split("/") if deep else [each[0]])  # as on this machine
    return [(system.unstrip_protocol(name), folder) for name, folder in kept]
