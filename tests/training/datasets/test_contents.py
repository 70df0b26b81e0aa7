"""The publishers' formats, read from files that are made here."""

import gzip
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from inference.errors import DataInvalid
from tests.conftest import SHARED
from tests.training.datasets.conftest import Files, expecting, idx, put, tar_of
from training.datasets.catalog import CATALOG
from training.datasets.contents import CIFAR_CLASSES, IMAGES, LABELS, cifar10, digits, read_idx
from training.datasets.store import fetch, lacking, pictures_in


def test_mnist_becomes_class_folders_with_the_very_pixels(
    tmp_path: Path,
    mnist_files: Files,
    mnist_arrays: dict[str, np.ndarray],  # type: ignore[type-arg]
) -> None:
    source = put(tmp_path / "downloads", {f"MNIST/raw/{name}": content for name, content in mnist_files.items()})
    chosen = expecting("mnist", mnist_files, splits={"train": 30, "test": 20})
    assert fetch(chosen, tmp_path / "data", source)
    assert lacking(chosen, tmp_path / "data") == []
    assert pictures_in(chosen, tmp_path / "data") == 50
    for split, prefix, count in (("train", "train", 30), ("test", "t10k", 20)):
        for index in range(count):
            label = mnist_arrays[f"{prefix}-labels-idx1-ubyte"][index]
            with Image.open(tmp_path / "data/mnist" / split / str(label) / f"{index:05}.png") as image:
                assert image.mode == "L"
                np.testing.assert_array_equal(np.asarray(image), mnist_arrays[f"{prefix}-images-idx3-ubyte"][index])


def test_mnist_takes_files_that_were_unpacked_or_compressed_anew(tmp_path: Path, mnist_files: Files) -> None:
    raw = {name.removesuffix(".gz"): gzip.decompress(content) for name, content in mnist_files.items()}
    anew = {name: gzip.compress(gzip.decompress(content), 1) for name, content in mnist_files.items()}
    assert anew != mnist_files
    nested = {f"{name}/{name}": content for name, content in raw.items()}
    for number, files in enumerate((raw, anew, nested)):
        assert fetch(expecting("mnist", mnist_files), tmp_path / f"{number}", put(tmp_path / f"from{number}", files))


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "begins with nothing"),
        (b"\0\0\x08", "begins with 0x000008"),
        (idx(np.zeros((2, 3, 3)))[:9], "no such idx file"),
        (idx(np.zeros(5)), "begins with 0x00000801, not 0x00000803"),
        (idx(np.zeros((2, 3, 3)))[:-1], "holds 17 bytes for the shape (2, 3, 3)"),
        (idx(np.zeros((2, 3, 3))) + b"x", "holds 19 bytes"),
        (gzip.compress(idx(np.zeros((2, 3, 3))))[:-12], "is damaged"),
        (b"<html>not found</html>", "begins with 0x3c68746d"),
    ],
)
def test_a_damaged_idx_file_is_refused(content: bytes, says: str, tmp_path: Path) -> None:
    (tmp_path / "images").write_bytes(content)
    with pytest.raises(DataInvalid) as refused:
        read_idx(tmp_path / "images", IMAGES)
    assert says in refused.value.detail
    assert "fetch" in refused.value.detail


def test_a_gzip_bomb_is_refused(tmp_path: Path) -> None:
    (tmp_path / "images.gz").write_bytes(gzip.compress(bytes(65 << 20), 1))
    with pytest.raises(DataInvalid, match="far too many"):
        read_idx(tmp_path / "images.gz", LABELS)


@pytest.mark.parametrize(("labels", "says"), [(np.arange(3), "3 labels"), (np.array([1, 10]), "label 10")])
def test_labels_that_do_not_fit_are_refused(labels: np.ndarray, says: str, tmp_path: Path) -> None:  # type: ignore[type-arg]
    put(tmp_path, {"i": idx(np.zeros((2, 28, 28))), "l": idx(labels)})
    with pytest.raises(DataInvalid, match=says):
        list(digits([tmp_path / "i", tmp_path / "l"] * 2))


def cifar_batch(labels: list[int], seed: int = 0) -> tuple[bytes, np.ndarray]:  # type: ignore[type-arg]
    """A binary batch, and its pictures as (count, 32, 32, 3)."""
    pixels = np.random.RandomState(seed).randint(0, 256, (len(labels), 32, 32, 3)).astype(np.uint8)
    records = [
        bytes([label]) + picture.transpose(2, 0, 1).tobytes() for label, picture in zip(labels, pixels, strict=True)
    ]
    return b"".join(records), pixels


CIFAR_BATCHES = [f"data_batch_{number}.bin" for number in range(1, 6)] + ["test_batch.bin"]


def test_cifar_becomes_class_folders_with_the_very_pixels(tmp_path: Path) -> None:
    made = {name: cifar_batch(list(range(10)), seed) for seed, name in enumerate(CIFAR_BATCHES)}
    files = {"c.tar.gz": tar_of({f"cifar-10-batches-bin/{name}": batch for name, (batch, _) in made.items()})}
    chosen = expecting("cifar10", files, splits={"train": 50, "test": 10})
    assert fetch(chosen, tmp_path / "data", put(tmp_path / "from", files))
    assert pictures_in(chosen, tmp_path / "data") == 60
    for name, (_, pixels) in made.items():
        split = "test" if name == "test_batch.bin" else "train"
        for index, label in enumerate(CIFAR_CLASSES):
            path = tmp_path / "data/cifar10" / split / label / f"{name.removesuffix('.bin')}-{index:05}.png"
            with Image.open(path) as image:
                np.testing.assert_array_equal(np.asarray(image), pixels[index])


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"data_batch_3.bin": cifar_batch([1, 2])[0][:-1]}, "data_batch_3.bin in .* is not made of records of 3,073"),
        ({"data_batch_3.bin": b""}, "not made of records"),
        ({"data_batch_3.bin": cifar_batch([1, 10])[0]}, "holds the label 10"),
        ({"data_batch_3.bin": None, "test_batch.bin": None}, "lacks data_batch_3.bin, test_batch.bin"),
    ],
)
def test_a_damaged_cifar_archive_is_refused(changes: dict[str, bytes | None], says: str, tmp_path: Path) -> None:
    batches = {name: cifar_batch([0, 9])[0] for name in CIFAR_BATCHES} | changes
    path = tmp_path / "c.tar.gz"
    path.write_bytes(
        tar_of({f"cifar-10-batches-bin/{name}": batch for name, batch in batches.items() if batch is not None})
    )
    with pytest.raises(DataInvalid, match=says):
        list(cifar10([path]))


def test_the_real_mnist_is_what_the_catalog_expects(tmp_path: Path) -> None:
    raw = SHARED / "data/mnist/MNIST/raw"
    if not raw.is_dir():
        pytest.skip("MNIST is not here")
    from training.datasets.store import _check_contents, _found

    files = _found(CATALOG["mnist"], raw)
    _check_contents(CATALOG["mnist"].archives, files)
    assert read_idx(files[0], IMAGES).shape == (60_000, 28, 28)
    assert read_idx(files[3], LABELS).shape == (10_000,)
