"""Rows whose names and numbers are hard to write, and what writes them."""

from inference.errors import ImageEmpty
from inference.prediction import Candidate, Prediction
from scoring.rows import COLUMNS, Origin, Row
from scoring.sinks import Sink

ORIGIN = Origin("colours", "1", "sha256:0", "onnx", "cpu")
ANSWER = Prediction("red", 0.1 + 0.2, True, (Candidate("red", 0, 0.1 + 0.2), Candidate('a "b", c', 1, 1e-17)))
NAMES = [
    "a.jpg",
    "two\nlines.jpg",
    "cr\rcr\r\n.jpg",
    'quote".jpg',
    "comma,.jpg",
    " blank ",
    "=1+1",
    "日本 é",
    "",
    "tab\t",
]
ROWS = [Row(index, name, ORIGIN, width=4, height=3).answered(ANSWER) for index, name in enumerate(NAMES)]
ROWS.append(Row(len(NAMES), "bad\n.jpg", ORIGIN).failed(ImageEmpty('no "bytes",\nnone')))


def write(
    sink: Sink,
    rows: list[Row] = ROWS,
    columns: tuple[str, ...] = COLUMNS,
    fingerprint: dict[str, object] = {},  # noqa: B006 – only read
) -> None:
    with sink:
        sink.begin(fingerprint, columns)
        for row in rows:
            sink.write(row)
        sink.commit_part("")
        sink.commit()


def flat(row: Row) -> dict[str, object]:
    return {name: row.flat()[name] for name in COLUMNS}
