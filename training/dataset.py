"""Photos to batches: found, checked, decoded once, augmented in worker processes, evaluated as the service would.

files ─ splits.py ─→ members ─ decode ─→ PixelStore ─ augment (workers) ─→ training batches
                                    └──→ crops, exactly Preprocessing.__call__ ─→ evaluation batches
"""

import csv
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from inference import torchrun
from inference.budget import whole_cores
from inference.errors import DataInvalid, ImageError
from inference.manifest import Digest
from training.augment import Augment, seed_of
from training.duplicates import drop_near
from training.pixels import Pixels, PixelStore
from training.progress import Progress, say
from training.recipe import Recipe
from training.scan import LeftOut
from training.splits import Item, find_splits, fingerprint

CACHE_BYTES = 4 * 2**30
"""Default limit on decoded pixels that are kept, in bytes."""

_MOST_LINES = 20
_BLOCK = 256  # photos decoded before their pixels are stored: bounds what waits in memory

Batch = tuple[Tensor, Tensor]
"""Images uint8 (batch, height, width, 3) and class indices int64 (batch,)."""

Share = Callable[[list[int]], list[int]]
"""The photos of a batch that fall to this process."""

Key = tuple[int, int]
"""Epoch and index of a photo: all that its augmentation depends on, beside the recipe's seed."""


@dataclass(frozen=True)
class Photos:
    """The readable photos of a recipe's splits, and their pixels.

    `labels` are the class names in index order; `left_out` lists what no split holds; `fingerprint` covers every
    member's split, path, label and digest.
    """

    root: Path
    recipe: Recipe
    splits: dict[str, list[Item]]
    labels: tuple[str, ...]
    left_out: list[LeftOut]
    store: PixelStore

    @property
    def fingerprint(self) -> Digest:
        """`sha256:` of the data that a run saw."""
        return fingerprint(self.splits, self.labels)

    def image(self, item: Item) -> Image.Image:
        """What augmentation starts from: the whole upright photo, reduced when it is large. Raises ImageError."""
        kept = self.store.get(f"source:{item.path}")
        return Image.fromarray(self._decode_source(item) if kept is None else kept)

    def crop(self, item: Item) -> Pixels:
        """What evaluation and the service see: exactly `Preprocessing.__call__`. Raises ImageError."""
        kept = self.store.get(f"crop:{item.path}")
        return self.recipe.preprocessing((self.root / item.path).read_bytes()) if kept is None else kept

    def crops(self, items: Sequence[Item], batch_size: int) -> Iterator[Batch]:
        """Evaluation batches in the order of `items`; the next batch is prepared while one is used."""
        parts = [items[start : start + batch_size] for start in range(0, len(items), batch_size)]
        with ThreadPoolExecutor(whole_cores()) as pool:
            coming: list[list[Future[Pixels]]] = [[pool.submit(self.crop, item) for item in part] for part in parts[:1]]
            for index, part in enumerate(parts):
                if index + 1 < len(parts):
                    coming.append([pool.submit(self.crop, item) for item in parts[index + 1]])
                pixels = np.stack([future.result() for future in coming.pop(0)])
                yield torch.from_numpy(pixels), torch.tensor([item.label for item in part])

    def keep_pixels(self) -> int:
        """Decode every photo once: fill the store, and move what cannot be decoded from its split to `left_out`.

        Returns how many training photos are smaller than the training crop.
        """
        small = 0
        for split, items in self.splits.items():
            kind, read = ("source", self._decode_source) if split == "train" else ("crop", self.crop)
            readable = []
            with ThreadPoolExecutor(whole_cores()) as pool, Progress(f"decoding {split}", len(items)) as progress:
                for start in range(0, len(items), _BLOCK):
                    block = items[start : start + _BLOCK]
                    for item, found in zip(block, pool.map(partial(_attempt, read), block), strict=True):
                        progress.step(item)
                        if isinstance(found, LeftOut):
                            self.left_out.append(found)
                        else:
                            readable.append(item)
                            small += split == "train" and min(found.shape[:2]) < self.recipe.augmentation.size
                            self.store.put(f"{kind}:{item.path}", found)
            items[:] = readable
        return small

    def _decode_source(self, item: Item) -> Pixels:
        preprocessing, limit = self.recipe.preprocessing, self.recipe.augmentation.source_side
        image = preprocessing.decode((self.root / item.path).read_bytes()).image
        if min(image.size) > limit:
            factor = limit / min(image.size)
            width, height = (max(limit, round(side * factor)) for side in image.size)
            image = image.resize((width, height), Image.Resampling[preprocessing.interpolation.upper()])
        return np.asarray(image)


def _attempt(read: Callable[[Item], Pixels], item: Item) -> Pixels | LeftOut:
    try:
        return read(item)
    except ImageError as error:
        return LeftOut(item.path, error.code, error.detail)
    except OSError as error:
        return LeftOut(item.path, "image_unreadable", f"{error.strerror}; check the file's mode")


def open_photos(recipe: Recipe, data_root: Path, store: PixelStore) -> Photos:
    """Find, split and decode the photos of a recipe. Raises DataInvalid with every problem found."""
    splits, labels, left_out = find_splits(recipe.data, data_root, recipe.seed)
    photos = Photos(data_root.resolve(), recipe, splits, labels, left_out, store)
    small = photos.keep_pixels()
    if recipe.data.near_duplicates == "drop":
        drop_near(photos)
    empty = [
        f"  - data.{split}: no photo of class {label!r} is left"
        for split, items in splits.items()
        for index, label in enumerate(labels)
        if all(item.label != index for item in items)
    ]
    if empty:
        reasons = [f"  - {line}" for line in _lines(left_out)]
        raise DataInvalid("\n".join(["the photos cannot be used:", *empty, "left out:", *reasons]))
    counts = ", ".join(f"{len(items):,} {split}" for split, items in splits.items())
    say(f"photos: {counts}; {len(labels)} classes; {store.used / 2**20:,.0f} MiB of pixels kept")
    if small:
        size = recipe.augmentation.size
        say(f"{small:,} training photos are smaller than their crop of {size} pixels (augmentation.size) and enlarged")
    for line in _lines(left_out):
        say(f"left out: {line}")
    return photos


def _lines(left_out: Sequence[LeftOut]) -> list[str]:
    """The first files that were left out, each with its reason, and how many more there are."""
    lines = [f"{entry.path} ({entry.code}): {entry.detail}" for entry in left_out[:_MOST_LINES]]
    return lines if len(left_out) <= _MOST_LINES else [*lines, f"and {len(left_out) - _MOST_LINES:,} more"]


def write_left_out(path: Path, left_out: Sequence[LeftOut]) -> None:
    """left_out.csv: one row per file that no split holds, with code and detail."""
    with path.open("w", newline="", encoding="utf-8", errors="surrogateescape") as file:
        writer = csv.writer(file)
        writer.writerow(["path", "code", "detail"])
        writer.writerows([entry.path, entry.code, entry.detail] for entry in left_out)


class TrainingBatches:
    """The augmented training photos, epoch by epoch; the order and every crop depend on seed and epoch alone."""

    def __init__(self, photos: Photos, workers: int, pinned: bool = False, share: Share = list) -> None:
        recipe = photos.recipe
        self._order = _Order(len(photos.splits["train"]), recipe.batch_size, recipe.seed, share)
        self._loader: DataLoader[Batch] = DataLoader(
            _Augmented(photos),
            batch_sampler=self._order,
            num_workers=workers,
            collate_fn=_collate,
            persistent_workers=workers > 0,
            prefetch_factor=4 if workers else None,
            pin_memory=pinned,
            worker_init_fn=_quiet,
            generator=torch.Generator(),
        )

    def __len__(self) -> int:
        return len(self._order)

    def epoch(self, number: int) -> Iterator[Batch]:
        """The batches of one epoch. Raises ImageError when a photo has become unreadable since it was checked."""
        self._order.epoch = number
        return iter(self._loader)


def default_workers(cuda: bool) -> int:
    """Loader processes of this process: on a GPU all its cores but one, on a CPU one for every two that compute."""
    cores = max(1, whole_cores() // torchrun.local_processes())
    return max(1, min(cores - 1, 16)) if cuda else max(1, cores // 2)


class _Augmented(Dataset[Batch]):
    def __init__(self, photos: Photos) -> None:
        self._photos, self._items = photos, photos.splits["train"]
        self._augment = Augment(photos.recipe.augmentation)

    def __getitem__(self, key: Key) -> Batch:
        epoch, index = key
        item = self._items[index]
        crop = self._augment(self._photos.image(item), seed_of(self._photos.recipe.seed, "photo", epoch, index))
        return crop, torch.tensor(item.label)


@dataclass
class _Order(Sampler[list[Key]]):
    """A shuffle per epoch; a last batch that would be short is dropped unless it is the only one."""

    photos: int
    batch_size: int
    seed: int
    share: Share = list
    epoch: int = field(default=0)

    def __len__(self) -> int:
        return max(1, self.photos // self.batch_size)

    def __iter__(self) -> Iterator[list[Key]]:
        generator = torch.Generator().manual_seed(seed_of(self.seed, "order", self.epoch))
        order = torch.randperm(self.photos, generator=generator).tolist()
        for step in range(len(self)):
            part = order[step * self.batch_size : (step + 1) * self.batch_size]
            yield [(self.epoch, index) for index in self.share(part)]


def _collate(samples: list[Batch]) -> Batch:
    return torch.stack([pixels for pixels, _ in samples]), torch.stack([label for _, label in samples])


def _quiet(worker: int) -> None:  # noqa: ARG001 – the loader passes its number
    """Ctrl-C reaches every process of a terminal; the main one decides what happens."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    if hasattr(os, "setpgrp"):  # torchrun sends its SIGTERM to a process and all that it started
        os.setpgrp()
