"""Small archives in the publishers' formats, and sets of the catalog that expect them."""

import gzip
import hashlib
import io
import struct
import tarfile
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from training.datasets.catalog import CATALOG, NamedSet

Files = dict[str, bytes]
Made = Callable[[str, Path, Files], NamedSet]


def idx(values: np.ndarray) -> bytes:  # type: ignore[type-arg]
    """An idx file of unsigned bytes."""
    return struct.pack(f">I{values.ndim}I", 0x800 + values.ndim, *values.shape) + values.astype(np.uint8).tobytes()


def tar_of(files: Files) -> bytes:
    """A gzipped tar."""
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w:gz") as archive:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return made.getvalue()


def zip_of(files: Files) -> bytes:
    """A zip."""
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return made.getvalue()


def expecting(name: str, files: Files, address: str = "http://127.0.0.1:9", **changes: object) -> NamedSet:
    """The set of the catalog, its archives those of `files` in their order, at one address each."""
    known = CATALOG[name]
    archives = tuple(
        replace(
            archive,
            name=file,
            addresses=(f"{address}/{file}",),
            size=len(content),
            sha256=hashlib.sha256(content).hexdigest(),
            content_sha256=hashlib.sha256(gzip.decompress(content)).hexdigest() if archive.content_sha256 else None,
        )
        for archive, (file, content) in zip(known.archives, files.items(), strict=True)
    )
    return replace(known, archives=archives, **changes)  # type: ignore[arg-type]


def put(folder: Path, files: Files) -> Path:
    """The files in a folder."""
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


@pytest.fixture(scope="session")
def mnist_arrays() -> dict[str, np.ndarray]:  # type: ignore[type-arg]
    """30 and 20 pictures of noise, each digit in both."""
    dice = np.random.RandomState(0)
    return {
        "train-images-idx3-ubyte": dice.randint(0, 256, (30, 28, 28)),
        "train-labels-idx1-ubyte": np.arange(30) % 10,
        "t10k-images-idx3-ubyte": dice.randint(0, 256, (20, 28, 28)),
        "t10k-labels-idx1-ubyte": np.arange(20)[::-1] % 10,
    }


@pytest.fixture(scope="session")
def mnist_files(mnist_arrays: dict[str, np.ndarray]) -> Files:  # type: ignore[type-arg]
    """MNIST's four files, small."""
    return {f"{name}.gz": gzip.compress(idx(values)) for name, values in mnist_arrays.items()}
