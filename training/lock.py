"""A folder in which one process works at a time."""

import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from inference.errors import RunInvalid

LOCK = ".training"
"""The locked file of a run folder."""


@contextmanager
def held(folder: Path, name: str = LOCK) -> Iterator[None]:
    """Keep other processes out of a folder while the block runs, by a locked file of that name; a kill lets go.

    Raises RunInvalid: held by another, or not writable.
    """
    if sys.platform == "win32":  # which has no such locks
        yield
        return
    import fcntl

    path = folder / name
    try:
        file = path.open("wb")
    except OSError as error:
        raise RunInvalid(f"{folder} cannot be written to ({error.strerror}); check its owner and mode") from error
    with file:
        try:
            # Not flock: loader processes would inherit it, and they outlive a killed parent by some seconds.
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError):
            raise RunInvalid(f"another process works in {folder}; wait for it, or choose another folder") from None
        except OSError:
            pass  # a file system without locks
        try:
            yield
        finally:
            path.unlink(missing_ok=True)


@contextmanager
def building(folder: Path) -> Iterator[Path]:
    """An empty folder inside a run folder, to write an artifact's files in: gone after the block.

    What a killed process left in it goes before. Raises RunInvalid as `held` does.
    """
    with held(folder):
        place = folder / ".building"
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir()
        try:
            yield place
        finally:
            shutil.rmtree(place, ignore_errors=True)
