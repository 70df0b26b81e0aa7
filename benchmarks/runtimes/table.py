"""The records as Markdown."""

import statistics
from collections.abc import Iterator
from typing import Any

from trial import BATCHES, LONGEST, Record
from worker import Kind

_KINDS: dict[Kind, str] = {"model": "The model alone", "pipeline": "Decoding, preprocessing and the model"}


def document(results: dict[str, Any]) -> str:
    """The machine, the answers, and a table per network, kind and shape."""
    low, high = _spread(results["records"])
    lines = [
        "# Runtimes beside each other",
        results["machine"],
        "```sh",
        ".venv/bin/python benchmarks/runtimes prepare --photos DATA/catdog/val --calibration DATA/catdog/train \\",
        "  --weights mobilenet_v2=WEIGHTS.pth",
        ".venv/bin/python benchmarks/runtimes measure      # or entrant by entrant: --entrants …",
        ".venv/bin/python benchmarks/runtimes report",
        "```",
        "A cell is images/s and, in brackets, the ratio to the reference: ONNX Runtime in fp32, one thread, batch 1,",
        "of the same kind, measured before every cell. Medians of the rounds; a round's reference is the median of",
        f"its references. Nine tenths of these lay between {low:.0%} and {high:.0%} of the median beside their",
        "cell: the machine was not still, differences below a tenth mean little, and so does a cell that stands",
        f"out from its neighbours. A – stands for a call that would have taken longer than {LONGEST:g} s, by the batch",
        "before. *S × T*: S calls at a time, each with T threads inside the runtime. *torch compiled* is AOTInductor:",
        "torch.compile's code generator run ahead of time.",
        *_about_gpus(results["records"]),
        "![Ratios by batch](runtimes.png)",
        "",
        "## Answers",
        *_answers(results["agreement"]),
        *(f"\n{entrant} was not measured: {words}" for entrant, words in results["refusals"].items()),
    ]
    for network in dict.fromkeys(record["network"] for record in results["records"]):
        lines += ["", f"## {network}", *_network([each for each in results["records"] if each["network"] == network])]
    return "\n".join(lines) + "\n"


def _spread(records: list[Record]) -> tuple[float, float]:
    """Between which shares of their record's median nine tenths of the references lie."""
    shares = [each / statistics.median(record["references"]) for record in records for each in record["references"]]
    cuts = statistics.quantiles(shares, n=20)
    return cuts[0], cuts[-1]


def _about_gpus(records: list[Record]) -> list[str]:
    if any("cuda" in each["entrant"] for each in records):
        return []
    return [
        "No GPU was there: the entrants of gpu.py (CUDA, I/O binding, CUDA graphs, TensorRT, nvJPEG) are written, and",
        "have never been run.",
    ]


def _answers(agreement: list[Record]) -> Iterator[str]:
    yield "| network | entrant | photos | same label as PyTorch eager | largest \\|Δlogit\\| | mean | of a span of |"
    yield "|---|---|---|---|---|---|---|"
    for each in sorted(agreement, key=lambda each: str(each["network"])):
        same = f"{each['same']:.1%}" if "same" in each else "random weights"
        cells = [each["network"], each["entrant"], each["photos"], same]
        cells += [f"{each['largest']:.2g}", f"{each['mean']:.2g}", f"{each['span']:.3g}"]
        yield f"| {' | '.join(map(str, cells))} |"


def _network(records: list[Record]) -> Iterator[str]:
    for kind, title in _KINDS.items():
        of_kind = [record for record in records if record["kind"] == kind]
        for streams, threads in dict.fromkeys((each["streams"], each["threads"]) for each in of_kind):
            rows = [each for each in of_kind if (each["streams"], each["threads"]) == (streams, threads)]
            yield f"\n### {title}, {streams} × {threads}"
            yield "| batch | " + " | ".join(map(str, BATCHES[kind])) + " |"
            yield "|---|" + "---|" * len(BATCHES[kind])
            for entrant in dict.fromkeys(each["entrant"] for each in rows):
                found = {each["batch"]: each for each in rows if each["entrant"] == entrant}
                cells = [_cell(found.get(batch)) for batch in BATCHES[kind]]
                yield f"| {entrant} | {' | '.join(cells)} |"


def _cell(record: Record | None) -> str:
    return f"{record['rate']:.3g} ({record['ratio']:.2f})" if record else "–"
