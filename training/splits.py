"""Folders of class folders to the members of train, validation and test.

Rules: a class is a folder directly below the split's folder, its name is the label. Photos may lie in nested
folders. Names that begin with a dot are skipped. Links are followed while they stay inside the data root. The
content decides what is a photo, so a stray text file is reported like a damaged photo.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Item:
    """One photo of a split: path relative to the data root with forward slashes, class index, `sha256:` of the file."""

    path: str
    label: int
    sha256: str
