"""A fresh Python that sees this checkout, for what cannot be seen from within a test's own process."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT)}


def python(*arguments: str, cwd: Path = ROOT, timeout: float = 120) -> "subprocess.CompletedProcess[str]":
    """Run `python ARGUMENTS` to its end, whatever that is."""
    command = [sys.executable, *arguments]
    return subprocess.run(
        command, cwd=cwd, env=ENVIRONMENT, capture_output=True, text=True, timeout=timeout, check=False
    )
