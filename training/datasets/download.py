"""One file from one of its addresses: resumed where it stopped, tried again, and verified before it has its name."""

import hashlib
import shutil
import time
from pathlib import Path

import httpx

from inference.errors import DownloadFailed, OutputUnwritable
from training.datasets.catalog import Archive
from training.progress import Progress, say

RETRIES = 4
"""Attempts at one address in a row that brought nothing, after which it is given up."""

PAUSE = 0.5
"""Seconds after an attempt that brought something; each one that brought nothing doubles the wait."""

TIMEOUT = httpx.Timeout(30, connect=10)
MEGABYTE = 1_000_000


class _GivenUp(Exception):
    """An address cannot give the file; another may."""


class _Again(Exception):
    """The next attempt may go better."""


def download(archive: Archive, folder: Path) -> Path:
    """Bring the file to `folder` and give its path; a part that an earlier call left there is gone on with.

    Raises DownloadFailed with what each address answered, OutputUnwritable where the disk refuses; the part stays.
    """
    path, part = folder / archive.name, folder / f"{archive.name}.part"
    folder.mkdir(parents=True, exist_ok=True)
    if path.exists():  # it got its name once it was verified
        return path
    _check_room(archive, part)
    answers = []
    with httpx.Client(timeout=TIMEOUT, follow_redirects=True, headers={"User-Agent": "petalpaw"}) as client:
        for address in archive.addresses:
            try:
                _fetch(client, address, archive, part)
            except _GivenUp as error:
                answers.append(f"  - {address}: {error}")
            except OSError as error:
                raise OutputUnwritable(
                    f"{part} cannot be written ({error.strerror}); make room and run again, what has come stays"
                ) from error
            else:
                part.rename(path)
                _note(part).unlink(missing_ok=True)
                return path
    tried = "\n".join(answers)
    raise DownloadFailed(
        f"{archive.name} could not be fetched:\n{tried}\nrun again when the network allows, or download the file by "
        "other means and name its folder with --from"
    )


def sha256_of(path: Path) -> str:
    """The digest of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _check_room(archive: Archive, part: Path) -> None:
    needed, free = archive.size - _size(part), shutil.disk_usage(part.parent).free
    if needed > free:
        raise OutputUnwritable(
            f"{part.parent} has {free // MEGABYTE:,} MB free, {archive.name} needs {needed // MEGABYTE:,} MB more; "
            "make room or choose another folder with --to"
        )


def _fetch(client: httpx.Client, address: str, archive: Archive, part: Path) -> None:
    """The whole file from one address into `part`, verified. A resumed file that is wrong is fetched whole once."""
    resumed = part.exists()
    _complete(client, address, archive, part)
    if (found := sha256_of(part)) == archive.sha256:
        return
    part.unlink()
    if not resumed:
        raise _GivenUp(f"gave another file: its sha256 is {found}, not {archive.sha256}; it was deleted")
    say(f"{archive.name}: the parts do not fit together; fetching it whole")
    _fetch(client, address, archive, part)


def _complete(client: httpx.Client, address: str, archive: Archive, part: Path) -> None:
    attempts = 0
    while (have := _size(part)) != archive.size:
        if have > archive.size:
            part.unlink()
        try:
            _receive(client, address, archive, part)
        except (httpx.TransportError, _Again) as error:
            attempts = 0 if _size(part) > have else attempts + 1
            # Where nobody answers from the start, there is no network or no such server: waiting would not help.
            if attempts == RETRIES or (isinstance(error, httpx.ConnectError) and not have):
                raise _GivenUp(_words(error)) from error
            say(f"{archive.name}: {_words(error)}; trying again")
            time.sleep(PAUSE * 2**attempts)
        except httpx.HTTPError as error:  # too many redirections, an address that is none
            raise _GivenUp(_words(error)) from error


def _receive(client: httpx.Client, address: str, archive: Archive, part: Path) -> None:
    """One request, for what `part` lacks; a server that knows no ranges, or has another file by now, sends it whole."""
    have = _size(part)
    headers = {"Accept-Encoding": "identity"}
    if have:
        headers["Range"] = f"bytes={have}-"
        if validator := _validator(part, address):
            headers["If-Range"] = validator
    with client.stream("GET", address, headers=headers) as response:
        start = _start(response, have, part)
        _check_size(response, start, archive)
        _write_validator(part, response, address)
        what = f"{archive.name}{f' from {start // MEGABYTE:,} MB on' if start else ''}"
        with (
            part.open("ab" if start else "wb") as file,
            Progress(what, (archive.size - start) // MEGABYTE, "MB") as progress,
        ):
            for chunk in response.iter_raw():
                if file.tell() + len(chunk) > archive.size:
                    raise _GivenUp(f"sends more than the {archive.size:,} bytes of the file")
                before = (file.tell() - start) // MEGABYTE
                file.write(chunk)
                progress.step(None, (file.tell() - start) // MEGABYTE - before)
    if _size(part) < archive.size:
        raise _Again("the connection ended early")


def _start(response: httpx.Response, have: int, part: Path) -> int:
    """Where in the file the answer begins. Raises _Again or _GivenUp for answers without it."""
    status = response.status_code
    if status == httpx.codes.OK:
        return 0
    if status == httpx.codes.PARTIAL_CONTENT and response.headers.get("Content-Range", "").startswith(f"bytes {have}-"):
        return have
    if status in (httpx.codes.PARTIAL_CONTENT, httpx.codes.REQUESTED_RANGE_NOT_SATISFIABLE):
        part.unlink(missing_ok=True)
        raise _Again("the server answers with another range; fetching the file whole")
    if status == httpx.codes.TOO_MANY_REQUESTS or response.is_server_error:
        raise _Again(f"answered {status} {response.reason_phrase}")
    raise _GivenUp(f"answered {status} {response.reason_phrase}")


def _check_size(response: httpx.Response, start: int, archive: Archive) -> None:
    announced = response.headers.get("Content-Length")
    if announced is not None and start + int(announced) != archive.size:
        raise _GivenUp(
            f"has {start + int(announced):,} bytes where the file has {archive.size:,}: it was changed, "
            "or a proxy answers in its place"
        )


def _words(error: Exception) -> str:
    return str(error) or type(error).__name__


def _size(part: Path) -> int:
    return part.stat().st_size if part.exists() else 0


def _note(part: Path) -> Path:
    """Beside a part: the address that it came from, and what tells that file's versions apart."""
    return part.with_name(f"{part.name}.version")


def _write_validator(part: Path, response: httpx.Response, address: str) -> None:
    etag = response.headers.get("ETag", "")
    # A weak tag promises the same meaning, not the same bytes.
    validator = etag if etag.startswith('"') else response.headers.get("Last-Modified", "")
    _note(part).write_text(f"{address}\n{validator}\n", encoding="utf-8")


def _validator(part: Path, address: str) -> str | None:
    note = _note(part)
    lines = note.read_text(encoding="utf-8").splitlines() if note.exists() else []
    return lines[1] if len(lines) == 2 and lines[0] == address and lines[1] else None
