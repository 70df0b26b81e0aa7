"""The CPU budget comes from the quota and the affinity, not from the host."""

import os
from pathlib import Path

import pytest

from inference.budget import Budget, available_cores


@pytest.fixture
def eight_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)


def grant(folder: Path, v2: str | None = None, v1: tuple[str, str] | None = None) -> None:
    """Make a control group with these files; None means no file."""
    folder.mkdir(parents=True, exist_ok=True)
    if v2 is not None:
        (folder / "cpu.max").write_text(v2)
    if v1 is not None:
        (folder / "cpu.cfs_quota_us").write_text(v1[0])
        (folder / "cpu.cfs_period_us").write_text(v1[1])


def quota(tmp_path: Path, v2: str | None = None, v1: tuple[str, str] | None = None) -> float:
    """What `available_cores` makes of a container that sees its own groups as the outermost."""
    grant(tmp_path, v2)
    grant(tmp_path / "cpu", None, v1)
    return available_cores(tmp_path, tmp_path / "own")


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
        ("200000 100000\n", ("100000\n", "100000\n"), 1),
        ("max 100000\n", ("100000\n", "100000\n"), 1),
        ("", ("100000\n", "100000\n"), 1),
        ("garbage", None, 8),
        (None, ("garbage", "100000"), 8),
    ],
)
def test_quota(tmp_path: Path, v2: str | None, v1: tuple[str, str] | None, cores: float) -> None:
    assert quota(tmp_path, v2, v1) == cores


@pytest.mark.usefixtures("eight_cores")
@pytest.mark.parametrize(
    ("own", "cores"),
    [
        ("0::/system.slice/petalpaw.service\n", 2),
        ("0::/system.slice\n", 4),
        ("0::/\n", 6),
        ("0::/../elsewhere\n", 6),
        ("3:cpu,cpuacct:/docker/one\n0::/\n", 1.5),
        ("no control groups", 6),
    ],
)
def test_the_groups_around_count_as_well(tmp_path: Path, own: str, cores: float) -> None:
    grant(tmp_path, "600000 100000")
    grant(tmp_path / "system.slice", "400000 100000")
    grant(tmp_path / "system.slice" / "petalpaw.service", "200000 100000")
    grant(tmp_path / "cpu" / "docker", None, ("-1", "100000"))
    grant(tmp_path / "cpu" / "docker" / "one", None, ("150000", "100000"))
    (tmp_path / "own").write_text(own)
    assert available_cores(tmp_path, tmp_path / "own") == cores


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


@pytest.mark.parametrize(("cores", "streams", "planned"), [(2, None, 3), (1.5, None, 1), (8, None, 9), (4, 4, 4)])
def test_a_spare_stream_comes_on_top_where_there_are_cores_to_fill(
    cores: float, streams: int | None, planned: int
) -> None:
    assert Budget.plan(cores=cores, streams=streams, spare=1).streams == planned


def test_plan_measures_this_machine() -> None:
    assert Budget.plan().cores == available_cores()


def test_text() -> None:
    assert str(Budget(1.5, 1, 1, 1)) == "1.5 cores → 1 worker(s) × 1 stream(s) × 1 thread(s)"
