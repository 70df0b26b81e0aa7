"""The rounds as Markdown: medians, and ratios taken within a round."""

import os
import platform
import statistics
from collections.abc import Iterator
from pathlib import Path
from typing import Any

LIMIT = "in-process limit"
OURS = "petalpaw"

Record = dict[str, Any]
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


def document(results: dict[str, Any]) -> str:
    """All of it: the machine, the pictures, a table per kind and load, the fastest first, and the calls."""
    records: list[Record] = results["records"]
    lines = ["# Petalpaw beside its peers", *dict.fromkeys(each["machine"] for each in results["calls"]), ""]
    lines += [
        "Rates, latencies and CPU time are medians over the rounds. A ratio is taken within each round, then the",
        "median of those: *of the limit* to the in-process limit (one stream for one client, a stream per core",
        "otherwise), *Petalpaw ÷ it* between Petalpaw and that contender. Errors are added up. The clients share the",
        "cores with the server. An open loop asks each for a share of its own best closed-loop rate. ~: the two were",
        "never in the same round; by way of each one's ratio to the limit.",
    ]
    for kind, about in results["pictures"].items():
        mean = about["mean_bytes"] / 1000
        lines += [
            "",
            f"## {kind}: {about['count']} of {about['width']} × {about['height']}, {mean:,.0f} KB in the mean",
        ]
        ours = [record for record in records if record["kind"] == kind and "rate" in record]
        for load in _loads(ours):
            lines += ["", f"### {load}", *_table(ours, load)]
    failed = {record["contender"]: record["error"] for record in records if "error" in record}
    lines += [f"\nFailed in a round: {name}: {error}" for name, error in failed.items()]
    lines += ["", "## Calls", "| at (UTC) | commit | load average before | `.venv/bin/python benchmarks/serving …` |"]
    lines += ["|---|---|---|---|"]
    lines += [
        f"| {each['at']} | {each['commit']} | {each['load average']} | `{each['arguments']}` |"
        for each in results["calls"]
    ]
    return "\n".join(lines) + "\n"


def machine() -> str:
    """What it runs on."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    model = next(line.partition(":")[2].strip() for line in lines if "model name" in line)
    flags = next(line.split() for line in lines if line.startswith("flags"))
    has = " and ".join(name for flag, name in _FLAGS.items() if flag in flags) or "neither AVX-512 nor AMX"
    gigabytes = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
    system = f"Linux {platform.release()}, Python {platform.python_version()}"
    return f"{cores()} cores of {model} ({has}), {gigabytes:.0f} GB, {system}."


_FLAGS = {"avx512f": "AVX-512", "avx512_bf16": "bf16", "amx_tile": "AMX"}


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0))


def ratios(records: list[Record], load: str, name: str, other: str) -> list[float]:
    """`name`'s rate ÷ `other`'s at a load, round by round, where both were measured."""
    mine, theirs = (
        {
            record["round"]: record["rate"]
            for record in records
            if record["contender"] == each and record["load"] == _load_of(each, load)
        }
        for each in (name, other)
    )
    return [mine[number] / theirs[number] for number in mine if theirs.get(number)]


def median(records: list[Record], load: str, name: str, figure: str) -> float | None:
    """Of one contender at one load."""
    found = [record[figure] for record in _of(records, load, name) if figure in record]
    return statistics.median(found) if found else None


def _load_of(name: str, load: str) -> str:
    """What the limit is to be compared by has other names: its streams."""
    if name != LIMIT:
        return load
    return f"{1 if load == '1 clients' else cores()} streams"


def _of(records: list[Record], load: str, name: str) -> Iterator[Record]:
    return (record for record in records if record["contender"] == name and record["load"] == _load_of(name, load))


def _loads(records: list[Record]) -> list[str]:
    found = {record["load"] for record in records if record["contender"] != LIMIT}
    return sorted(found, key=lambda load: (load.startswith("open"), int("".join(filter(str.isdigit, load)))))


def _table(records: list[Record], load: str) -> Iterator[str]:
    titles = [
        "contender",
        "images/s",
        "rounds",
        "of the limit",
        "Petalpaw ÷ it",
        *(each for each, _ in _COLUMNS.values()),
    ]
    yield f"| {' | '.join(titles)} |"
    yield "|---" * len(titles) + "|"
    present = dict.fromkeys(record["contender"] for record in records if any(_of(records, load, record["contender"])))
    if load.startswith("open"):
        present.pop(LIMIT, None)
    for name in sorted(present, key=lambda name: -(median(records, load, name, "rate") or 0)):
        yield f"| {' | '.join(_cells(records, load, name))} |"


def _cells(records: list[Record], load: str, name: str) -> Iterator[str]:
    group = list(_of(records, load, name))
    rates = [record["rate"] for record in group]
    yield from (name, f"{statistics.median(rates):.1f}", f"{len(rates)}: {min(rates):.0f}–{max(rates):.0f}")
    share = ratios(records, load, name, LIMIT)
    yield f"{statistics.median(share):.2f}" if share else ""
    yield "" if load.startswith("open") else _against(records, load, name)
    for figure, (_, form) in _COLUMNS.items():
        values = [record[figure] for record in group if figure in record]
        yield form.format(sum(values) if figure == "errors" else statistics.median(values)) if values else ""


def _against(records: list[Record], load: str, name: str) -> str:
    """Petalpaw's rate ÷ that of `name`; by way of the limit where they never met in a round."""
    met = ratios(records, load, OURS, name)
    if met:
        return f"{statistics.median(met):.2f}"
    ours, theirs = (ratios(records, load, each, LIMIT) for each in (OURS, name))
    return f"~{statistics.median(ours) / statistics.median(theirs):.2f}" if ours and theirs else ""
