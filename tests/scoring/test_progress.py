"""A bar on a terminal, plain lines elsewhere."""

import io
import time

import pytest
from rich.console import Console

from scoring.progress import BarProgress, LineProgress, progress_on


def console(*, terminal: bool) -> Console:
    return Console(file=io.StringIO(), force_terminal=terminal, width=100, color_system=None)


def text(shown: Console) -> str:
    assert isinstance(shown.file, io.StringIO)
    return shown.file.getvalue()


def test_kind_follows_the_console() -> None:
    assert isinstance(progress_on(console(terminal=True)), BarProgress)
    assert isinstance(progress_on(console(terminal=False)), LineProgress)


def test_default_is_standard_error(capfd: pytest.CaptureFixture[str]) -> None:
    with progress_on() as progress:
        progress.start(3)
    assert capfd.readouterr() == ("", "3 inputs\n")


def test_lines_come_every_few_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    shown = console(terminal=False)
    with LineProgress(shown, seconds=5) as progress:
        progress.start(5000)
        for done in range(1, 1001):
            now = 1000 + done * 0.01
            progress.update(done, done // 300)
    assert text(shown).splitlines() == [
        "5,000 inputs",
        "500 of 5,000 (10%) · 100.0/s · 1 errors · 45 s left",
        "1,000 of 5,000 (20%) · 100.0/s · 3 errors · 40 s left",
    ]


@pytest.mark.parametrize(
    ("total", "left"), [(1010, "10 s"), (1060, "1 min 00 s"), (4599, "59 min 59 s"), (1000 + 7380, "2 h 03 min")]
)
def test_time_left(monkeypatch: pytest.MonkeyPatch, total: int, left: str) -> None:
    now = 0.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    shown = console(terminal=False)
    progress = LineProgress(shown)
    progress.start(total)
    now = 1000.0
    progress.update(1000, 0)
    assert text(shown).splitlines()[-1].endswith(f" · {left} left")


def test_bar_shows_counts_rate_and_errors() -> None:
    shown = console(terminal=True)
    with BarProgress(shown) as progress:
        progress.start(40)
        for done in range(1, 41):
            progress.update(done, done // 20)
    assert "40/40" in text(shown)
    assert "2 errors" in text(shown)
    assert "/s" in text(shown)
    assert "left" in text(shown)


def test_what_earlier_runs_did_does_not_count_for_the_rate(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    shown = console(terminal=False)
    progress = LineProgress(shown)
    progress.start(5000, 4000)
    now = 10.0
    progress.update(4100, 0)
    assert text(shown).splitlines() == [
        "5,000 inputs",
        "4,000 of them are done already",
        "4,100 of 5,000 (82%) · 10.0/s · 0 errors · 1 min 30 s left",
    ]


def test_number_of_inputs_may_be_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    shown = console(terminal=False)
    progress = LineProgress(shown)
    progress.start(None)
    now = 10.0
    progress.update(100, 3)
    assert text(shown).splitlines() == ["inputs are counted as they come", "100 · 10.0/s · 3 errors"]
    bar = console(terminal=True)
    with BarProgress(bar) as shown_bar:
        shown_bar.start(None)
        shown_bar.update(7, 1)
    assert "7/?" in text(bar)
