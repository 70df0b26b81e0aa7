"""The CPU budget comes from the quota and the affinity, not from the host."""

import os
from pathlib import Path

import pytest

from inference.budget import Budget, available_cores


@pytest.fixture
def eight_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)


def quota(tmp_path: Path, v2: str | None = None, v1: tuple[str, str] | None = None) -> float:
    """What `available_cores` makes of control group files with this content; None means no file."""
    if v2 is not None:
        (tmp_path / "cpu.max").write_text(v2)
    if v1 is not None:
        (tmp_path / "cpu.cfs_quota_us").write_text(v1[0])
        (tmp_path / "cpu.cfs_period_us").write_text(v1[1])
    return available_cores(tmp_path / "cpu.max", tmp_path / "cpu.cfs_quota_us")


@pytest.mark.usefixtures("eight_cores")
@pytest.mark.parametrize(
    ("v2", "v1", "cores"),
    [
        (None, None, 8),
        ("max 100000\n", None, 8),
        ("200000 100000\n", None, 2),
        ("150000 100000\n", None, 1.5),
        ("50000 100000\n", None, 0.5),
        ("6400000 100000\n", None, 8),
        (None, ("-1\n", "100000\n"), 8),
        (None, ("250000\n", "100000\n"), 2.5),
        ("200000 100000\n", ("100000\n", "100000\n"), 2),
        ("max 100000\n", ("100000\n", "100000\n"), 8),
        ("", ("100000\n", "100000\n"), 1),
        ("garbage", None, 8),
        (None, ("garbage", "100000"), 8),
    ],
)
def test_quota(tmp_path: Path, v2: str | None, v1: tuple[str, str] | None, cores: float) -> None:
    assert quota(tmp_path, v2, v1) == cores


def test_affinity_limits_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {3}, raising=False)
    assert quota(tmp_path, "400000 100000") == 1


def test_systems_without_affinity(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 6)
    assert quota(tmp_path) == 6
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert quota(tmp_path) == 1


@pytest.mark.parametrize(
    ("cores", "streams", "threads", "planned"),
    [
        (2, None, None, (2, 1)),
        (2.9, None, None, (2, 1)),
        (0.5, None, None, (1, 1)),
        (8, None, 2, (4, 2)),
        (2, None, 4, (1, 4)),
        (8, 3, None, (3, 1)),
        (1, 5, 2, (5, 2)),
    ],
)
def test_plan(cores: float, streams: int | None, threads: int | None, planned: tuple[int, int]) -> None:
    budget = Budget.plan(cores=cores, streams=streams, threads=threads)
    assert (budget.cores, budget.workers) == (cores, 1)
    assert (budget.streams, budget.threads) == planned


def test_plan_measures_this_machine() -> None:
    assert Budget.plan().cores == available_cores()


def test_text() -> None:
    assert str(Budget(1.5, 1, 1, 1)) == "1.5 cores → 1 worker(s) × 1 stream(s) × 1 thread(s)"
