import re
import shutil
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from training import assess, inspection
from training.evaluate import Outcome
from training.page import write_page
from training.recipe import Recipe
from training.report import SplitReport
from training.run import Record, Run, read_record

LABELS = ("<script>alert(1)</script>", "🌹 \"roses\" & 'more'", "وردة")


class Tags(HTMLParser):
    """Every tag with its attributes, and whether tags close in order."""

    VOID = frozenset({"meta", "img", "br", "link", "input"})

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def page(folder: Path, record: Record, recipe: Recipe, labels: tuple[str, ...]) -> str:
    assert record.calibration is not None
    outcome = Outcome("test", np.eye(3, dtype=np.float32) * 9, np.array([0, 1, 1]))
    report = SplitReport.of(outcome, labels, record.calibration)
    write_page(folder, recipe, record.model_copy(update={"labels": labels}), [report], {"test": 3}, record.calibration)
    return (folder / "report.html").read_text("utf-8")


def test_the_page_needs_nothing_but_itself(finished: Path) -> None:
    html = (finished / "report.html").read_text("utf-8")
    parsed = Tags(html)
    assert parsed.open == []
    assert not {"script", "link", "iframe", "object"} & {tag for tag, _ in parsed.tags}
    images = [attributes for tag, attributes in parsed.tags if tag == "img"]
    assert len(images) == len(list(finished.glob("*.png")))
    for attributes in images:
        assert attributes["alt"]
        assert re.match(r"data:image/(png|webp);base64,", attributes["src"] or "")
    assert not re.findall(r"(?:src|href)=\"(?!data:|#)", html)
    assert "url(" not in html
    assert not any(name.startswith("on") for _, attributes in parsed.tags for name in attributes)


def test_the_page_says_what_was_measured(finished: Path) -> None:
    html, run = (finished / "report.html").read_text("utf-8"), Run.open(finished)
    assert run.metrics is not None
    for part in (f"{run.metrics.accuracy:.2%}", f"{run.metrics.accuracy_low:.2%} to {run.metrics.accuracy_high:.2%}"):
        assert part in html
    for part in (run.recipe.title, run.provenance.data_fingerprint, run.recipe.digest, "features.3", *run.labels):
        assert part in html
    assert str(run.data_root) not in html


def test_nobodys_text_becomes_markup(finished: Path, tmp_path: Path) -> None:
    for path in finished.glob("*.csv"):
        shutil.copy(path, tmp_path)
    (tmp_path / "left_out.csv").write_bytes(b"path,code,detail\n<img src=x onerror=alert(1)>\xff.png,c,d\n")
    record, recipe = read_record(finished)
    recipe = recipe.model_copy(update={"title": "<b>bold</b>", "description": "{{ 1 + 1 }} <i>&"})
    html = page(tmp_path, record, recipe, LABELS)
    parsed = Tags(html)
    assert parsed.open == []
    assert not {"script", "img", "i"} & {tag for tag, _ in parsed.tags}
    assert "<bdi>&lt;script&gt;alert(1)&lt;/script&gt;</bdi>" in html
    assert "🌹 &#34;roses&#34; &amp; &#39;more&#39;" in html
    assert "<bdi>وردة</bdi>" in html
    assert "{{ 1 + 1 }} &lt;i&gt;&amp;" in html
    assert "&lt;b&gt;bold&lt;/b&gt;" in html
    assert "onerror=alert(1)&gt;?.png" in html


def test_long_tables_are_cut_and_say_so(finished: Path, tmp_path: Path) -> None:
    for path in finished.glob("*.csv"):
        shutil.copy(path, tmp_path)
    rows = "".join(f"photo-{number}.jpg,image_empty,empty\n" for number in range(60))
    (tmp_path / "left_out.csv").write_text(f"path,code,detail\n{rows}")
    html = page(tmp_path, *read_record(finished), ("a", "b", "c"))
    assert "Files left out (60)" in html
    assert "photo-49.jpg" in html
    assert "photo-50.jpg" not in html
    assert "The others stand in left_out.csv." in html


def test_a_run_is_whole_without_what_cannot_be_drawn(
    finished: Path,
    photos_root: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def broken(*arguments: Any) -> Any:
        raise RuntimeError("no such thing")

    shutil.copytree(finished, tmp_path / "run")
    for name in ("gradcam.png", "residuals.png", "residuals.csv", "report.html"):
        (tmp_path / "run" / name).unlink()
    for module, name in ((inspection, "heat_maps"), (inspection, "residuals"), (assess, "write_page")):
        monkeypatch.setattr(module, name, broken)
    run = assess.assess_again(tmp_path / "run", device="cpu")
    assert run.metrics == Run.open(finished).metrics
    said = capsys.readouterr().err
    for name in ("gradcam.png", "residuals.png", "report.html"):
        assert f"{name} could not be made (RuntimeError: no such thing)" in said
        assert not (tmp_path / "run" / name).exists()
