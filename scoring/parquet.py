"""Rows as Parquet: typed columns, row groups of one size, and the model's identity in the file's metadata."""

import io
import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

from inference.errors import PackageMissing
from scoring.formats import json_line
from scoring.journal import Fingerprint
from scoring.rows import Row

try:
    import pyarrow as pa
    import pyarrow.json as pj
    import pyarrow.parquet as pq
except ImportError as error:
    raise PackageMissing(f"Parquet needs a package ({error}); install petalpaw[tables]") from error

ROW_GROUP = 10_000
"""Rows per row group, the last one excepted."""

_CANDIDATE = pa.struct([("label", pa.string()), ("class_index", pa.int32()), ("probability", pa.float64())])
_TYPES = {
    "id": pa.int64(),
    "probability": pa.float64(),
    "abstained": pa.bool_(),
    "top_k": pa.list_(_CANDIDATE),
    "width": pa.int32(),
    "height": pa.int32(),
    "logits": pa.list_(pa.float32()),
    "features": pa.list_(pa.float32()),
}
"""Types of columns; the others are text."""

_REQUIRED = ("id", "path", "model_name", "model_version", "model_digest", "runtime", "device")


class ParquetFormat:
    """Parts are Parquet files themselves; the whole has row groups of `ROW_GROUP` rows wherever they ended."""

    suffix = ".parquet"
    head = b""

    def __init__(self, columns: Sequence[str]) -> None:
        self.schema = pa.schema(
            [pa.field(name, _TYPES.get(name, pa.string()), nullable=name not in _REQUIRED) for name in columns]
        )
        self._parsing = pj.ParseOptions(explicit_schema=self.schema, unexpected_field_behavior="error")

    def encode(self, rows: Sequence[Row]) -> bytes:
        """The rows as a small Parquet file."""
        # By way of JSON: building columns from Python's objects makes pyarrow import pandas, if that is installed.
        lines = "".join(json_line(row, self.schema.names) for row in rows).encode()
        table = pj.read_json(io.BytesIO(lines), pj.ReadOptions(use_threads=False, block_size=len(lines)), self._parsing)
        target = io.BytesIO()
        pq.write_table(table, target)
        return target.getvalue()

    def join(self, parts: Iterable[Path], target: BinaryIO, fingerprint: Fingerprint) -> None:
        """All rows again, with the fingerprint as `petalpaw` in the file's metadata. Raises OSError."""
        schema = self.schema.with_metadata({"petalpaw": json.dumps(fingerprint, ensure_ascii=False)})
        with pq.ParquetWriter(target, schema) as writer:
            for group in _groups(parts):
                writer.write_table(group.cast(schema), row_group_size=ROW_GROUP)


def _groups(parts: Iterable[Path]) -> Iterator[pa.Table]:
    """Tables of `ROW_GROUP` rows, the last one excepted."""
    held: list[pa.Table] = []
    rows = 0
    for path in parts:
        held.append(pq.ParquetFile(path).read(use_threads=False))
        rows += len(held[-1])
        while rows >= ROW_GROUP:
            whole = pa.concat_tables(held)
            yield whole.slice(0, ROW_GROUP).combine_chunks()
            held, rows = [whole.slice(ROW_GROUP)], rows - ROW_GROUP
    if rows:
        yield pa.concat_tables(held).combine_chunks()
