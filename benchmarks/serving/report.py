"""The rounds' medians as Markdown."""

import os
import platform
import statistics
from collections import defaultdict
from pathlib import Path

LIMIT = "in-process limit"

Record = dict[str, object]
"""One measurement: contender, kind, round, load, and its figures."""

_COLUMNS = {
    "p50": ("p50 ms", "{:.1f}"),
    "p95": ("p95 ms", "{:.1f}"),
    "p99": ("p99 ms", "{:.1f}"),
    "errors": ("errors", "{:.0f}"),
    "cpu_ms": ("CPU ms/image", "{:.1f}"),
    "memory_mb": ("memory MB", "{:.0f}"),
    "ready_s": ("ready s", "{:.1f}"),
    "client_cpu": ("client's cores", "{:.2f}"),
}


def table(records: list[Record], arguments: str) -> str:
    """Every kind and load with a row per contender, the fastest first."""
    lines = ["# Petalpaw beside its peers", machine()]
    lines += ["```sh", f".venv/bin/python benchmarks/serving {arguments}", "```"]
    for kind in dict.fromkeys(str(record["kind"]) for record in records):
        groups = _grouped(records, kind)
        lines += ["", f"## {kind}"]
        for load in dict.fromkeys(load for load, name in groups if name != LIMIT):
            streams = 1 if load == "1 clients" else cores()
            rows = {LIMIT: groups[f"{streams} streams", LIMIT]}
            rows |= {name: group for (each, name), group in groups.items() if each == load}
            lines += ["", f"### {load}", *_rows(rows)]
    failed = {str(record["contender"]): str(record["error"]) for record in records if "error" in record}
    return "\n".join(lines + [f"\nFailed: {name}: {error}" for name, error in failed.items()])


def machine() -> str:
    """What it ran on."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    model = next(line.partition(":")[2].strip() for line in lines if "model name" in line)
    load = os.getloadavg()[0]
    return f"{cores()} cores of {model}, Python {platform.python_version()}; load average at the end {load:.1f}."


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0))


def _grouped(records: list[Record], kind: str) -> dict[tuple[str, str], list[Record]]:
    groups: dict[tuple[str, str], list[Record]] = defaultdict(list)
    for record in records:
        if record["kind"] == kind and "rate" in record:
            groups[str(record["load"]), str(record["contender"])].append(record)
    return groups


def _rows(rows: dict[str, list[Record]]) -> list[str]:
    base = _median(rows[LIMIT], "rate")
    lines = ["| contender | images/s | of the limit |" + "".join(f" {title} |" for title, _ in _COLUMNS.values())]
    lines.append("|---|" + "---|" * (2 + len(_COLUMNS)))
    for name, group in sorted(rows.items(), key=lambda row: -_median(row[1], "rate")):
        rate = _median(group, "rate")
        cells = [name, f"{rate:.1f}", f"{rate / base:.2f}"]
        cells += [form.format(_median(group, key)) if key in group[0] else "" for key, (_, form) in _COLUMNS.items()]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def _median(group: list[Record], name: str) -> float:
    return statistics.median(float(str(record[name])) for record in group)
