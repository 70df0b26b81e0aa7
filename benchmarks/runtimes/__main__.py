"""Runtimes beside each other: three networks, the model alone and with decoding, batches, threads and streams.

    .venv/bin/python benchmarks/runtimes prepare --photos PHOTOS --calibration OTHERS --weights mobilenet_v2=FILE
    .venv/bin/python benchmarks/runtimes measure --entrants "onnx fp32" "onnx int8"
    .venv/bin/python benchmarks/runtimes report

`prepare` exports, quantises (on photos that are not measured) and compiles into --folder, once, and notes how far the
answers of every entrant are from eager PyTorch's; it may run on a busy machine. `measure` needs an idle one: each cell
takes turns with the reference, ONNX Runtime in fp32, one thread, batch 1, and each of both has a process of its own. It
may be called entrant by entrant: results are added to the JSON. `report` makes the table and the chart from that.
Where a GPU is, gpu.py has more entrants: CUDA, I/O binding, CUDA graphs, TensorRT, nvJPEG.
"""

import argparse
import json
import random
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from entrants import entrants
from trial import LONGEST, agreement, measured, with_ratios

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "benchmarks" / "results"
NETWORKS = ("mobilenet_v2", "resnet50", "vit_b_16")

sys.path.append(str(ROOT / "benchmarks" / "serving"))

from photos import KINDS, pictures  # noqa: E402
from report import machine  # noqa: E402


def main() -> None:
    options = _options()
    results: dict[str, Any] = {"machine": "", "agreement": [], "refusals": {}, "records": []}
    if options.json.exists():
        results |= json.loads(options.json.read_text())
    {"prepare": prepare, "measure": measure, "report": report}[options.stage](options, results)


def prepare(options: argparse.Namespace, results: dict[str, Any]) -> None:
    """Files, pictures, and agreement."""
    import networks

    weights = dict(each.split("=", 1) for each in options.weights)
    _photographs(options)
    others = sorted(options.calibration.rglob("*.jpg"))
    calibration = networks.crops_of(random.Random(0).sample(others, 2 * networks.CALIBRATED_ON), networks.CALIBRATED_ON)
    if refusal := networks.refusal_of_bf16():
        results["refusals"]["onnx bf16"] = refusal
    for name in options.networks:
        if not (options.folder / name / "complete").exists():
            file = weights.get(name)
            networks.prepare(options.folder, name, Path(file) if file else None, calibration)
            (options.folder / name / "complete").touch()
        for entrant in options.entrants:
            key = {"entrant": entrant, "network": name}
            results["agreement"] = [each for each in results["agreement"] if not key.items() <= each.items()]
            results["agreement"].append(agreement(entrant, name, options.folder, name in weights))
            _write(options.json, results)


def measure(options: argparse.Namespace, results: dict[str, Any]) -> None:
    """Add or replace the records of the entrants asked for."""
    for entrant in options.entrants:
        began = time.monotonic()
        for record in measured(
            entrant, options.networks, options.folder, options.rounds, options.seconds, options.longest
        ):
            key = {name: record[name] for name in ("entrant", "network", "kind", "streams", "threads", "batch")}
            results["records"] = [each for each in results["records"] if not key.items() <= each.items()]
            results["records"].append(record)
            results["machine"] = f"{machine()} {_versions()}."
            _write(options.json, results)
        print(f"{entrant}: {time.monotonic() - began:.0f} s", file=sys.stderr)


def report(options: argparse.Namespace, results: dict[str, Any]) -> None:
    """runtimes.md and runtimes.png beside the JSON file."""
    from chart import draw
    from table import document

    results["records"] = with_ratios(results["records"])
    options.json.with_suffix(".md").write_text(document(results))
    draw(options.json.with_suffix(".png"), results["records"])


def _photographs(options: argparse.Namespace) -> None:
    """Crops of photos as they are, for answers, and pictures of the usual size, for the pipeline."""
    import networks

    (options.folder / "pictures").mkdir(parents=True, exist_ok=True)
    files = sorted(options.photos.rglob("*.jpg"))
    chosen = random.Random(0).sample(files, min(len(files), 2 * options.count))
    np.save(options.folder / "photos.npy", networks.crops_of(chosen, options.count))
    for index, picture in enumerate(pictures(options.photos, KINDS["photos"], 64)):
        (options.folder / "pictures" / f"{index:02d}.jpg").write_bytes(picture)


def _versions() -> str:
    return ", ".join(f"{name} {version(name)}" for name in ("onnxruntime-gpu", "openvino", "torch"))


def _write(path: Path, results: dict[str, Any]) -> None:
    """JSON with a record per line."""
    parts = [
        f"{json.dumps(name)}: "
        + ("[\n" + ",\n".join(map(json.dumps, part)) + "\n]" if isinstance(part, list) else json.dumps(part))
        for name, part in results.items()
    ]
    path.write_text("{\n" + ",\n".join(parts) + "\n}\n")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("stage", choices=["prepare", "measure", "report"])
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()) / "petalpaw-runtimes")
    parser.add_argument("--json", type=Path, default=RESULTS / "runtimes.json")
    parser.add_argument("--networks", nargs="+", default=NETWORKS, choices=NETWORKS)
    parser.add_argument("--entrants", nargs="+", default=list(entrants()), choices=list(entrants()))
    parser.add_argument("--photos", type=Path, help="a folder of JPEG photos; labels are compared on these")
    parser.add_argument("--calibration", type=Path, help="a folder of others, for int8")
    parser.add_argument("--weights", nargs="*", default=[], metavar="NETWORK=FILE", help="else they are random")
    parser.add_argument("--count", type=int, default=400, help="photos to compare labels on")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=0.08, help="per measurement; one call at least")
    parser.add_argument("--longest", type=float, default=LONGEST, help="seconds of a call; longer ones are left out")
    options = parser.parse_args()
    if options.stage == "prepare" and not (options.photos and options.calibration):
        parser.error("prepare needs --photos and --calibration")
    return options


if __name__ == "__main__":
    main()
