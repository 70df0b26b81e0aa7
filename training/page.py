"""report.html: a run folder as one page that needs nothing else, no script, no network, no second file.

Labels, paths and descriptions are other people's text: the template escapes everything.
"""

import base64
import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template
from PIL import Image

from inference.manifest import Calibration
from training.checkpoint import write_atomically
from training.history import HISTORY, read_history
from training.inspection import RESIDUALS_CSV
from training.recipe import Recipe
from training.report import SplitReport
from training.run import LEFT_OUT_CSV, Record

REPORT_HTML = "report.html"
_TEMPLATES = Path(__file__).parent / "templates"
_TABLES = {LEFT_OUT_CSV: "Files left out", "checks.csv": "What the checks of the photos found"}
_MOST_ROWS = 50
_PNG_BYTES = 200_000  # larger pictures are photos, which WebP holds in a fraction


@dataclass(frozen=True)
class Table:
    """A CSV file of the run folder: its first rows as text, and how many it has."""

    name: str
    title: str
    columns: list[str]
    rows: list[list[str]]
    total: int


def write_page(
    folder: Path,
    recipe: Recipe,
    record: Record,
    reports: Sequence[SplitReport],
    counts: dict[str, int],
    calibration: Calibration,
) -> None:
    """Write report.html from the figures and from what lies in the run folder; `reports` are in order of importance.

    Raises RunInvalid where it cannot be written or the history is damaged.
    """
    history = read_history(folder / HISTORY)
    html = _template().render(
        recipe=recipe,
        record=record,
        reports=reports,
        first=reports[0],
        counts=counts,
        calibration=calibration,
        history=history,
        kept=next((epoch for epoch in reversed(history) if epoch.kept), None),
        pictures={path.name: data_uri(path) for path in sorted(folder.glob("*.png"))},
        residuals=_rows(folder / RESIDUALS_CSV),
        tables=[table for name, title in _TABLES.items() if (table := _table(folder / name, title))],
    )
    # A file name that is no UTF-8 cannot stand in a page; a question mark does.
    write_atomically(folder / REPORT_HTML, lambda file: file.write(html.encode(errors="replace")))


def data_uri(path: Path) -> str:
    """A PNG file as a `data:` address; a large one as WebP."""
    kind, content = "png", path.read_bytes()
    if len(content) > _PNG_BYTES:
        encoded = io.BytesIO()
        with Image.open(path) as image:
            image.convert("RGB").save(encoded, "WEBP", quality=85)
        kind, content = "webp", encoded.getvalue()
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"


@lru_cache(maxsize=1)
def _template() -> Template:
    environment = Environment(autoescape=True, undefined=StrictUndefined, loader=FileSystemLoader(_TEMPLATES))
    environment.filters |= {"share": "{:.2%}".format, "figure": "{:.4f}".format}
    return environment.get_template(REPORT_HTML)


def _table(path: Path, title: str) -> Table | None:
    """The first rows of a CSV file; None where it is missing or empty."""
    rows = _rows(path)
    if not rows:
        return None
    shown = [list(row.values()) for row in rows[:_MOST_ROWS]]
    return Table(path.name, title, list(rows[0]), shown, len(rows))


def _rows(path: Path) -> list[dict[str, str]]:
    if not path.is_file():
        return []
    with path.open(newline="", encoding="utf-8", errors="surrogateescape") as file:
        return list(csv.DictReader(file))
