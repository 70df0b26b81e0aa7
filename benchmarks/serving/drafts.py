"""A copy of the model repository whose artifacts decode large JPEG photos at a part of their size."""

import shutil
from pathlib import Path

from inference.manifest import MANIFEST, read_manifest


def drafted(models: Path, target: Path) -> Path:
    """The repository in `target`. For measurements only: `petalpaw publish` asks for parity first."""
    shutil.copytree(models, target)
    for path in target.glob(f"*/*/{MANIFEST}"):
        manifest = read_manifest(path.parent)[0]
        preprocessing = manifest.preprocessing.model_copy(update={"decoder": "pillow-draft"})
        path.write_text(manifest.model_copy(update={"preprocessing": preprocessing}).to_json(), encoding="utf-8")
    return target
