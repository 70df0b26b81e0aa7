"""A published artifact as an unpublished one again, and its photos found again by their fingerprint."""

import shutil
from pathlib import Path

from inference.errors import DataInvalid
from inference.manifest import MANIFEST, PARITY
from inference.repository import EXPORTED, Artifact
from training.lock import building
from training.recipe import load_recipe
from training.splits import Item, find_splits, fingerprint


def reopened(artifact: Artifact, run: Path) -> Artifact:
    """Copy an artifact to `<run>/artifact/`, as an export would leave it.

    Raises RunInvalid when another process works in that folder, OSError where it cannot be written.
    """
    files = {name: entry for name, entry in artifact.manifest.files.items() if name != PARITY}
    manifest = artifact.manifest.model_copy(update={"version": "0", "parity": (), "files": files})
    run.mkdir(parents=True, exist_ok=True)
    with building(run) as place:
        for name in {*files, PARITY}:
            shutil.copyfile(artifact.folder / name, place / name)
        (place / MANIFEST).write_text(manifest.to_json(), encoding="utf-8")
        folder = run / EXPORTED
        shutil.rmtree(folder, ignore_errors=True)
        place.rename(folder)
    return Artifact.open(folder)


def splits_of(artifact: Artifact, recipe: str | None, data_root: Path) -> dict[str, list[Item]]:
    """The splits that an artifact was made from: its recipe's, proven equal by the fingerprint in its manifest.

    Raises DataInvalid when the photos are others, RecipeInvalid when the recipe is not there.
    """
    chosen = load_recipe(recipe or artifact.manifest.provenance.recipe)
    splits, labels, _ = find_splits(chosen.data, data_root, chosen.seed)
    found, wanted = fingerprint(splits, labels), artifact.manifest.provenance.data_fingerprint
    if found != wanted:
        raise DataInvalid(
            f"the photos in {data_root}, split as recipe {chosen.name!r} says, are not those that {artifact.name} was "
            f"made from (fingerprint {found[:19]}…, its manifest has {wanted[:19]}…), so it cannot be known which of "
            "them trained it; give the photos and, with --recipe, the training's recipe, or quantise the run itself"
        )
    return splits
