"""What survives a power cut."""

import os
from pathlib import Path


def sync(path: Path) -> None:
    """Bring a file's content, or a folder's entries after a rename, to the disk. Raises OSError."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
