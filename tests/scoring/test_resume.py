"""A run that ended early goes on: every input once, and the bytes of a run that nobody disturbed."""

import errno
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from inference.classifier import Classifier
from inference.errors import DataInvalid, OutputUnwritable, SourceGone
from inference.repository import Repository
from inference.runtimes.registry import RUNTIMES
from scoring.files import Files
from scoring.local import LocalEngine
from scoring.rows import Settings
from scoring.run import score
from scoring.scorer import PACKAGES, Scorer
from scoring.sinks import FileSink
from scoring.summary import Summary


class Room(FileSink):
    """A file sink that takes so many rows and no more."""

    def __init__(self, path: Path, room: int) -> None:
        super().__init__(path)
        self._room = room

    def write(self, row: Any) -> None:
        if self._room == 0:
            raise OutputUnwritable("the disk is full")
        self._room -= 1
        super().write(row)


@pytest.fixture
def stopped(classifier: Classifier, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The output of a run of `photos` that ended after 20 of 30 rows, in five parts."""
    monkeypatch.setattr("scoring.run.PART_ROWS", 4)
    output = tmp_path / "out.jsonl"
    with pytest.raises(OutputUnwritable):
        score(Files([photos]), LocalEngine(Scorer(classifier)), Room(output, 22))
    return output


def go_on(
    classifier: Classifier, photos: Path, output: Path, settings: Settings | None = None, **options: Any
) -> Summary:
    return score(Files([photos]), LocalEngine(Scorer(classifier, settings)), FileSink(output, **options))


def undisturbed(classifier: Classifier, photos: Path) -> bytes:
    output = photos.parent / "undisturbed.jsonl"
    go_on(classifier, photos, output)
    return output.read_bytes()


def test_going_on_counts_everything(classifier: Classifier, photos: Path, stopped: Path) -> None:
    summary = go_on(classifier, photos, stopped)
    assert (summary.rows, summary.resumed, summary.failed) == (30, 20, 5)
    assert summary.labels == {"red": 10, "green": 10, "blue": 5}
    assert stopped.read_bytes() == undisturbed(classifier, photos)
    assert not stopped.with_name("out.jsonl.parts").exists()


def test_another_setting_is_refused(classifier: Classifier, photos: Path, stopped: Path) -> None:
    with pytest.raises(
        OutputUnwritable, match=r"unfinished run that was another \(top_k was 5 and is 2\); repeat .*--restart"
    ):
        go_on(classifier, photos, stopped, Settings(top_k=2))
    # Refusing harms nothing.
    assert go_on(classifier, photos, stopped).resumed == 20


def test_another_model_is_refused(classifier: Classifier, repository: Repository, photos: Path, stopped: Path) -> None:
    other = Classifier.load(repository.open("tones"), device="cpu")
    with pytest.raises(OutputUnwritable, match="model was 'colours/1' and is 'tones/1'; model_digest was"):
        go_on(other, photos, stopped)


def test_every_runtime_has_its_packages_in_the_fingerprint(classifier: Classifier) -> None:
    assert set(PACKAGES) == set(RUNTIMES)
    packages = Scorer(classifier).fingerprint["packages"]
    assert isinstance(packages, dict)
    assert {"petalpaw", "numpy", "pillow"} < set(packages)
    assert set(packages) & set(PACKAGES["onnx"])


def test_another_source_is_refused(classifier: Classifier, photos: Path, stopped: Path) -> None:
    with pytest.raises(OutputUnwritable, match=r"source was '.*photos' and is '.*photos/00\.jpg'"):
        go_on(classifier, photos / "00.jpg", stopped)


@pytest.mark.parametrize("change", ["content", "removed", "added", "all removed"])
def test_inputs_that_changed_are_noticed(classifier: Classifier, photos: Path, stopped: Path, change: str) -> None:
    if change == "content":
        (photos / "17.jpg").write_bytes(b"other")
    elif change == "removed":
        (photos / "02.jpg").unlink()
    elif change == "added":
        (photos / "02a.jpg").write_bytes(b"")
    else:
        for path in list(photos.iterdir())[1:]:
            path.unlink()
    with pytest.raises(DataInvalid, match="an earlier run scored, some are not what they were; add --restart"):
        go_on(classifier, photos, stopped)
    assert go_on(classifier, photos, stopped, restart=True).resumed == 0
    assert stopped.read_bytes() == undisturbed(classifier, photos)


def test_inputs_that_were_not_scored_yet_may_change(classifier: Classifier, photos: Path, stopped: Path) -> None:
    (photos / "25.jpg").write_bytes(b"other")
    (photos / "99.jpg").write_bytes(b"")
    assert go_on(classifier, photos, stopped).rows == 31
    assert stopped.read_bytes() == undisturbed(classifier, photos)


@pytest.mark.parametrize(
    "damage", [{"rows": None}, {"rows": -4}, {"rows": "many"}, {"errors": [1]}, {"inputs": 7}, {"sha256": None}]
)
def test_a_line_that_is_no_parts_is_scored_again(
    classifier: Classifier, photos: Path, stopped: Path, damage: dict[str, Any]
) -> None:
    journal = Path(f"{stopped}.parts/journal.jsonl")
    head, first, second, *rest = journal.read_text().splitlines()
    journal.write_text("\n".join([head, first, json.dumps({**json.loads(second), **damage}), *rest, ""]))
    assert go_on(classifier, photos, stopped).resumed == 4
    assert stopped.read_bytes() == undisturbed(classifier, photos)


def test_restart_drops_what_there_was(classifier: Classifier, photos: Path, stopped: Path) -> None:
    summary = go_on(classifier, photos, stopped, Settings(top_k=1), restart=True)
    assert (summary.rows, summary.resumed) == (30, 0)
    assert {len(json.loads(line)["top_k"] or "1") for line in stopped.read_text().splitlines()} == {1}


def cut(path: Path, size: int) -> None:
    path.write_bytes(path.read_bytes()[:size])


@pytest.mark.parametrize(
    ("harm", "resumed"),
    [
        (lambda folder: cut(folder / "journal.jsonl", -5), 16),
        (lambda folder: cut(folder / "journal.jsonl", 30), 0),
        (lambda folder: cut(folder / "journal.jsonl", 0), 0),
        (lambda folder: cut(folder / "00000003.jsonl", 100), 12),
        (lambda folder: (folder / "00000000.jsonl").unlink(), 0),
        (lambda folder: (folder / "00000009.jsonl").write_text("what was begun"), 20),
        (lambda folder: (folder / "joined").write_text("half"), 20),
    ],
    ids=["half a line", "half the head", "empty journal", "half a part", "no part", "another part", "half joined"],
)
def test_what_a_power_cut_leaves_half_is_scored_again(
    classifier: Classifier, photos: Path, stopped: Path, harm: Callable[[Path], None], resumed: int
) -> None:
    harm(stopped.with_name("out.jsonl.parts"))
    assert go_on(classifier, photos, stopped).resumed == resumed
    assert stopped.read_bytes() == undisturbed(classifier, photos)


@pytest.fixture
def uncleaned(classifier: Classifier, photos: Path, stopped: Path) -> Path:
    """Killed between the two last steps: the file has its name, its parts are still there."""
    sink = FileSink(stopped)
    sink._journal.remove = lambda: None  # type: ignore[method-assign]
    score(Files([photos]), LocalEngine(Scorer(classifier)), sink)
    assert stopped.read_bytes() == undisturbed(classifier, photos)
    return stopped


def test_output_that_is_whole_but_for_its_parts(classifier: Classifier, photos: Path, uncleaned: Path) -> None:
    folder, whole = uncleaned.with_name("out.jsonl.parts"), uncleaned.read_bytes()
    (folder / "00000000.jsonl").unlink()  # the clean-up had begun
    summary = go_on(classifier, photos, uncleaned)
    assert (summary.rows, summary.resumed, summary.exit_status) == (30, 30, 1)
    assert not folder.exists()
    assert uncleaned.read_bytes() == whole


@pytest.mark.parametrize("removed", [False, True])
def test_output_that_was_taken_away_is_made_again(
    classifier: Classifier, photos: Path, uncleaned: Path, removed: bool
) -> None:
    whole = uncleaned.read_bytes()
    uncleaned.write_text("another file")
    if removed:
        uncleaned.with_name("out.jsonl.parts").joinpath("00000000.jsonl").unlink()
    with pytest.raises(OutputUnwritable, match="exists already"):
        go_on(classifier, photos, uncleaned)
    assert uncleaned.read_text() == "another file"
    uncleaned.unlink()
    assert go_on(classifier, photos, uncleaned).resumed == (0 if removed else 30)
    assert uncleaned.read_bytes() == whole


def test_inputs_that_came_after_the_output_was_finished_are_not_lost(
    classifier: Classifier, photos: Path, uncleaned: Path
) -> None:
    whole = uncleaned.read_bytes()
    (photos / "99.jpg").write_bytes(b"")
    with pytest.raises(OutputUnwritable, match=r"finished with the 30 rows of an earlier run.*--restart --overwrite"):
        go_on(classifier, photos, uncleaned)
    assert uncleaned.read_bytes() == whole
    anew = FileSink(uncleaned, overwrite=True, restart=True)
    assert score(Files([photos]), LocalEngine(Scorer(classifier)), anew).rows == 31
    assert len(uncleaned.read_text().splitlines()) == 31


@pytest.mark.parametrize("old", ["yesterday's", None])
@pytest.mark.parametrize("grown", [False, True])
def test_output_that_could_not_get_its_name(
    classifier: Classifier, photos: Path, stopped: Path, monkeypatch: pytest.MonkeyPatch, old: str | None, grown: bool
) -> None:
    """As a bind-mounted or immutable file refuses it."""
    if old:
        stopped.write_text(old)

    def refuse(_: Path, target: Path) -> None:
        raise OSError(errno.EBUSY, os.strerror(errno.EBUSY))

    with monkeypatch.context() as broken:
        broken.setattr(Path, "replace", refuse)
        with pytest.raises(OutputUnwritable, match=r"Device or resource busy.*the 30 rows so far are in"):
            score(Files([photos]), LocalEngine(Scorer(classifier)), FileSink(stopped, overwrite=True))
    assert (stopped.read_text() if stopped.exists() else None) == old
    if grown:
        (photos / "99.jpg").write_bytes(b"")
    if old:
        with pytest.raises(OutputUnwritable, match="exists already"):
            go_on(classifier, photos, stopped)
    summary = score(Files([photos]), LocalEngine(Scorer(classifier)), FileSink(stopped, overwrite=True))
    assert (summary.resumed, summary.rows) == (30, 31 if grown else 30)
    assert stopped.read_bytes() == undisturbed(classifier, photos)
    assert not stopped.with_name("out.jsonl.parts").exists()


def test_source_that_vanishes_ends_the_run_and_it_goes_on(
    classifier: Classifier, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when a disk is unmounted: the folder is there and empty."""
    away, output = tmp_path / "away", tmp_path / "out.jsonl"
    for index in range(30, 200):  # more than are read ahead
        (photos / f"{index}.jpg").write_bytes((photos / "00.jpg").read_bytes())
    whole = undisturbed(classifier, photos)

    def vanish(done: int) -> None:
        if done == 3:
            photos.rename(away)
            photos.mkdir()

    with pytest.raises(SourceGone, match=r"photos is gone since the run began; bring it back, then run the same"):
        score(Files([photos]), LocalEngine(Scorer(classifier), streams=1), Telling(output, vanish))
    photos.rmdir()
    away.rename(photos)
    summary = go_on(classifier, photos, output)
    assert 3 <= summary.resumed < 200
    assert output.read_bytes() == whole


class Telling(FileSink):
    """A file sink that tells how many rows it has."""

    def __init__(self, path: Path, tell: Callable[[int], None]) -> None:
        super().__init__(path)
        self._tell = tell
        self._count = 0

    def write(self, row: Any) -> None:
        super().write(row)
        self._count += 1
        self._tell(self._count)
