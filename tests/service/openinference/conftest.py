"""Clients of other projects, each in an environment of its own."""

from pathlib import Path

import pytest

from tests.peers.environment import installed


@pytest.fixture(scope="session")
def kserve() -> Path:
    """A Python that has KServe's client."""
    return installed("kserve") / "python"


@pytest.fixture(scope="session")
def mlserver() -> Path:
    """The program `mlserver`."""
    return installed("mlserver") / "mlserver"
