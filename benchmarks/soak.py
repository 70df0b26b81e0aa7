"""An hour at full load: is every answer right, and does memory stay flat?

    .venv/bin/python benchmarks/soak.py --photos photos/ [--minutes 60]

Three clients at once ask one `petalpaw serve` on its defaults: wrk in a closed loop with one photo each, a client that
sends what fails (half a picture, no picture, no bytes, one of twenty broken) and compares every answer, and one that
asks for /livez. Memory is what the server has allocated (RssAnon; pages of files come and go with the kernel's
cache), once a second. Prints a row per stretch as Markdown, then the verdict; exit status 1 when an answer was wrong
or memory grew.
"""

import argparse
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import gate  # names the folder that the following are in
import httpx

from contenders import CONTENDERS  # isort: skip
from load import Bodies, closed  # isort: skip
from photos import KINDS, pictures  # isort: skip
from processes import cpu_seconds, free_port, ready, stop, tree  # isort: skip
from trees import started  # isort: skip

COUNT = 24
STRETCHES = 12
GROWTH = 0.05
"""Of memory after the first stretch, which is the warm-up."""
HEAD = """| minutes | answered | errors | images/s | p50, p99 ms | CPU ms/image | allocated MB, median and most \
| /livez ms, median and most | what must fail |
|---|---|---|---|---|---|---|---|---|"""


@dataclass
class Seen:
    """What the side clients saw in one stretch."""

    memory: list[float] = field(default_factory=list)
    health: list[float] = field(default_factory=list)
    answers: Counter[str] = field(default_factory=Counter)


@dataclass
class Failing:
    """Requests of which parts must fail; what they were first answered must come back every time."""

    client: httpx.Client
    photos: list[bytes]
    first: dict[str, Any]

    def ask(self) -> Counter[str]:
        """One round of them: `name: as it must`, or what came instead."""
        photo = self.photos[0]
        answers = Counter[str]()
        for name, sent, code in (
            ("half a picture", [photo[: len(photo) // 2]], "image_truncated"),
            ("no picture", [b"nothing of the kind"], "image_unsupported"),
            ("no bytes", [b""], "image_empty"),
            ("one of twenty", [*self.photos[:19], photo[:5000]], "image_truncated"),
        ):
            parts = [("images", (f"{index}.jpg", data)) for index, data in enumerate(sent)]
            answer = self.client.post("/classify?model=flowers", files=parts, headers={"Connection": "close"})
            said = answer.json()
            (last,) = said.get("predictions", [{}])[-1:]
            right = last.get("error", {}).get("code") == code and said == self.first.setdefault(name, said)
            answers[f"{name}: {'as it must' if right else answer.text[:300]}"] += 1
        return answers


def every(seconds: float, ended: threading.Event, seen: "Seen", act: Callable[[], None]) -> threading.Thread:
    """Do it again and again; that it cannot be done is an answer, too, and a wrong one."""

    def repeat() -> None:
        while not ended.wait(seconds):
            try:
                act()
            except Exception as error:  # noqa: BLE001 – whatever it is, the soak goes on
                seen.answers[f"{type(error).__name__}: {error}"] += 1

    thread = threading.Thread(target=repeat)
    thread.start()
    return thread


def allocated_mb(server: subprocess.Popen[bytes]) -> float:
    """Anonymous memory of all its processes."""
    statuses = (Path(f"/proc/{process.pid}/status").read_text() for process in tree(server))
    return sum(int(status.split("RssAnon:")[1].split()[0]) for status in statuses) * 1024 / 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--clients", type=int, default=16)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as made:
        found = pictures(arguments.photos, KINDS["photos"], COUNT)
        bodies = Bodies(Path(made) / "bodies", [CONTENDERS["petalpaw"].body(data) for data in found])
        port = free_port()
        server = started(gate.ROOT, [], port, Path(made) / "log")
        try:
            ready(server, f"http://127.0.0.1:{port}/readyz")
            sys.exit(soaked(server, f"http://127.0.0.1:{port}", bodies, found, arguments))
        finally:
            stop(server)


def soaked(
    server: subprocess.Popen[bytes], url: str, bodies: Bodies, photos: list[bytes], arguments: argparse.Namespace
) -> str | int:
    """Print a row per stretch. Returns what was wrong, or 0."""
    print(HEAD, flush=True)
    seconds = arguments.minutes * 60 / STRETCHES
    levels, wrong, first = list[float](), Counter[str](), dict[str, Any]()
    for stretch in range(STRETCHES):
        seen, ended = Seen(), threading.Event()
        with httpx.Client(base_url=url, timeout=60, trust_env=False) as client:
            failing = Failing(client, photos, first)

            def health(client: httpx.Client = client, seen: Seen = seen) -> None:
                began = time.perf_counter()
                if client.get("/livez").status_code != 200:
                    seen.answers["/livez: not alive"] += 1
                seen.health.append(1e3 * (time.perf_counter() - began))

            side = [
                every(1, ended, seen, lambda seen=seen: seen.memory.append(allocated_mb(server))),  # type: ignore[misc]
                every(0.5, ended, seen, health),
                every(5, ended, seen, lambda seen=seen, failing=failing: seen.answers.update(failing.ask())),  # type: ignore[misc]
            ]
            cpu = cpu_seconds(server)
            load = closed(f"{url}/classify?model=flowers", bodies, arguments.clients, seconds)
            cost = 1e3 * (cpu_seconds(server) - cpu) / max(1, load.count)
            ended.set()
            for thread in side:
                thread.join()
        levels.append(statistics.median(seen.memory))
        bad = Counter({what: count for what, count in seen.answers.items() if not what.endswith("as it must")})
        wrong.update(bad)
        if load.errors:
            wrong["good photos without their answer"] += load.errors
        print(
            f"| {(stretch + 1) * seconds / 60:g} | {load.count:,} | {load.errors} | {load.rate:.0f} | {load.p50:.0f}, "
            f"{load.p99:.0f} | {cost:.1f} | {levels[-1]:.1f}, {max(seen.memory):.1f} | "
            f"{statistics.median(seen.health):.1f}, {max(seen.health):.0f} | "
            f"{seen.answers.total() - bad.total()} right, {bad.total()} wrong |",
            flush=True,
        )
    growth = max(levels[1:]) / levels[1] - 1
    print(f"\nGrowth of the allocated memory after the first stretch: {growth:.1%}; wrong: {dict(wrong) or 'nothing'}")
    if wrong:
        return "answers were wrong"
    return f"memory grew by {growth:.1%}" if growth > GROWTH else 0


if __name__ == "__main__":
    main()
