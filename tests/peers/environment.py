"""Programs of other projects, each in an environment of its own."""

import subprocess
import sys
from pathlib import Path

import pytest

PEERS = Path(__file__).parent
ENVIRONMENTS = PEERS.parents[1] / ".venv" / "peers"
UNREACHABLE = ("Failed to fetch", "Could not connect", "error sending request", "dns error", "Network connectivity")


def installed(name: str) -> Path:
    """The folder of the programs of a peer's environment, which is made at the first use and then kept.

    Skips the test where no registry can be reached.
    """
    home = ENVIRONMENTS / name
    lock = PEERS / f"{name}.txt"
    made = home / "made-from.txt"
    if not made.exists() or made.read_bytes() != lock.read_bytes():
        python = home / "bin" / "python"
        for command in (
            ["venv", "--quiet", "--clear", "--python", sys.executable, str(home)],
            ["pip", "install", "--quiet", "--require-hashes", "--python", str(python), "-r", str(lock)],
        ):
            done = subprocess.run(
                [sys.executable, "-m", "uv", *command], capture_output=True, text=True, timeout=240, check=False
            )
            if any(sign in done.stderr for sign in UNREACHABLE):
                pytest.skip(f"no package registry can be reached to install {name}: {done.stderr.strip()[-200:]}")
            assert done.returncode == 0, done.stderr
        made.write_bytes(lock.read_bytes())
    return home / "bin"
