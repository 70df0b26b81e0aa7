"""Artifacts that are wrong on purpose, and where to run another Python."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from inference.manifest import MANIFEST, file_entry

Change = Callable[[dict[str, Any]], object]
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def edit() -> Callable[[Path, Change], Path]:
    """Change a folder's manifest.json in place; the folder comes back."""

    def edited(folder: Path, change: Change) -> Path:
        content = json.loads((folder / MANIFEST).read_text())
        change(content)
        (folder / MANIFEST).write_text(json.dumps(content))
        return folder

    return edited


@pytest.fixture(scope="session")
def replace(edit: Callable[[Path, Change], Path]) -> Callable[[Path, str, bytes], Path]:
    """Replace a file of an artifact, its entry in the manifest included, as someone who exports it wrongly would."""

    def replaced(folder: Path, name: str, data: bytes) -> Path:
        (folder / name).write_bytes(data)
        return edit(folder, lambda content: content["files"].update({name: file_entry(folder / name).model_dump()}))

    return replaced


@pytest.fixture(scope="session")
def python() -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run another Python in the repository's root, with its warnings shown."""

    def run(*arguments: str | Path, timeout: float = 60) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-W", "always", *map(str, arguments)],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )

    return run
