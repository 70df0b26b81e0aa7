"""The results as Markdown and as a picture; what is extrapolated says so."""

import statistics
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from deployment import CLIENTS, ONE, SETTINGS, WHOLE
from matplotlib.figure import Figure
from paper import GFLOP, GPUS, MACHINES, PRICED, SHARE, Gpu, model_rate, per_million
from simulation import Costs, fitted, simulated

from evaluation.pictures import BLUE, ORANGE, RED, save

CORES = (1, 2, 4, 8, 16)
PROCESSES = (1, 2, 4, 8)
LINKS = {"1 Gbit/s": 125e6, "10 Gbit/s": 1.25e9}


class Findings:
    """What the tables are made from: medians, and the model fitted to them."""

    def __init__(self, results: dict[str, Any]) -> None:
        self.results = results
        whole = {key: self.median(WHOLE, key) / 1e3 for key in ("loop_ms", "stream_ms", "client_ms")}
        costs = Costs(whole["loop_ms"], whole["stream_ms"], client=whole["client_ms"])
        self.local = fitted(costs, 2, self.median(WHOLE, "rate"), CLIENTS)
        self.costs = Costs(self.local.loop, self.local.stream, self.local.python)
        one, two = self.median(ONE, "rate"), self.median(WHOLE, "rate")
        self.one, self.contention = one, max(0.0, 2 * one / two - 1)

    def rates(self, setting: str, key: str = "rate") -> list[float]:
        return [each[key] for each in self.results["records"] if each["setting"] == setting]

    def median(self, setting: str, key: str) -> float:
        return statistics.median(self.rates(setting, key))

    def law(self, cores: int) -> float:
        """The universal scalability law without its second term, which two points cannot give."""
        return self.one * cores / (1 + self.contention * (cores - 1))

    def best(self, cores: int) -> tuple[float, int]:
        """The model's highest rate and the number of processes that gives it."""
        return max((simulated(self.costs, cores, count).rate, count) for count in PROCESSES if count <= cores)


def document(results: dict[str, Any]) -> str:
    """Measured, fitted, extrapolated, on paper."""
    found = Findings(results)
    sections = (_measured(found), _fit(found), _cores(found), _bottlenecks(found), _gpus(found), _cost(found))
    head = ["# How the service scales", results["machine"], "```sh"]
    head += [".venv/bin/python benchmarks/scaling --photos DATA", "```"]
    head += ["![Images per second by cores](scaling.png)"]
    return "\n".join([*head, *(line for section in sections for line in section)]) + "\n"


def _measured(found: Findings) -> Iterator[str]:
    rounds = 1 + max(each["round"] for each in found.results["records"])
    yield from (
        "",
        "## Measured",
        f"Medians of {rounds} alternating rounds; 42 KB photos, MobileNetV2, fp32, ONNX Runtime,",
    )
    yield f"{CLIENTS} clients (wrk, on the same two cores, outside the quota). CPU time is the service's own, an image:"
    yield "the event loop's thread, and all other threads: decoding and inference."
    yield "\n| service on | images/s | an allowed core | p50 ms | p99 ms | errors | loop ms | streams ms | wrk ms |"
    yield "|---|---|---|---|---|---|---|---|---|"
    here = {each["setting"] for each in found.results["records"]}
    for setting in (each for each in SETTINGS if each.name in here):
        rate = found.median(setting.name, "rate")
        cells = [setting.name, f"{rate:.0f}", f"{rate / setting.cores:.0f}"]
        cells += [f"{found.median(setting.name, key):.0f}" for key in ("p50", "p99", "errors")]
        cells += [f"{found.median(setting.name, key):.2f}" for key in ("loop_ms", "stream_ms", "client_ms")]
        yield f"| {' | '.join(cells)} |"
    yield from (f"\nLeft out here: {each}." for each in found.results["left out"])
    stages = found.results["stages"]
    yield "\nIn process, one thread:"
    yield f"decoding and preprocessing {stages['decode']:.2f} ms, the model {stages['model']:.2f} ms an image."
    yield f"A photo has {found.results['bytes'] / 1000:.1f} KB in the mean."


def _fit(found: Findings) -> Iterator[str]:
    costs, rate = found.local, found.median(WHOLE, "rate")
    again = simulated(costs, 2, clients=CLIENTS).rate
    yield from ("", "## Fitted")
    loop, stream, python, client = (
        f"{1e3 * each:.2f} ms" for each in (costs.loop, costs.stream, costs.python, costs.client)
    )
    yield f"The simulation takes {loop} an image in the loop, {stream} in a stream and {client} for the client, as"
    yield "measured. Its one free figure, the part of the stream's time that holds Python's lock, came out as"
    yield f"{python}: it then gives {again:.0f} images/s on two cores, {rate:.0f} were measured. Where it was not"
    two, apart = found.median(SETTINGS[-2].name, "rate"), simulated(costs, 2, 2, CLIENTS).rate
    yield f"fitted, with two processes, it gives {apart:.0f}, and {two:.0f} were measured."
    lowest, highest = (
        1 / (each.loop + each.python)
        for each in (fitted(found.local, 2, pick(found.rates(WHOLE)), CLIENTS) for pick in (min, max))
    )
    yield "That figure hangs on a few per cent: fitted to the slowest and to the fastest round instead, a process would"
    yield f"end at {lowest:.0f} and at {highest:.0f} images/s."
    yield f"The universal scalability law on one and two cores gives a contention of {found.contention:.3f}; its"
    yield "coherency term needs a third point and is taken as 0."


def _cores(found: Findings) -> Iterator[str]:
    yield from ("", "## More cores: extrapolated, not measured")
    yield "Images/s by the simulation, clients on another machine; p50 at four clients a core. Memory bandwidth, shared"
    yield "caches and hyperthreads are not in it: take the figures as upper bounds."
    yield "\n| cores | the law, 1 process | " + " | ".join(f"{count} process(es)" for count in PROCESSES) + " |"
    yield "|---|---|" + "---|" * len(PROCESSES)
    for cores in CORES:
        cells = [f"{found.law(cores):.0f}"]
        for count in PROCESSES:
            outcome = simulated(found.costs, cores, count) if count <= cores else None
            cells.append(
                f"{outcome.rate:.0f} (cores {outcome.cores:.0%}, lock {outcome.lock:.0%}, p50 {outcome.p50:.0f} ms)"
                if outcome
                else ""
            )
        yield f"| {cores} | {' | '.join(cells)} |"


def _bottlenecks(found: Findings) -> Iterator[str]:
    costs, size, stages = found.costs, found.results["bytes"], found.results["stages"]
    decode, model = stages["decode"] / 1e3, stages["model"] / 1e3
    yield from ("", "## Where the bottleneck is: arithmetic on the figures above")
    yield "\n| limit | images/s | arithmetic |"
    yield "|---|---|---|"
    yield f"| a core, model | {1 / model:.0f} | 1 ÷ {1e3 * model:.2f} ms |"
    yield f"| a core, decoding | {1 / decode:.0f} | 1 ÷ {1e3 * decode:.2f} ms |"
    total, held = costs.loop + costs.stream, costs.loop + costs.python
    loop, stream, python = (f"{1e3 * each:.2f}" for each in (costs.loop, costs.stream, costs.python))
    yield f"| a core, the whole request | {1 / total:.0f} | 1 ÷ ({loop} + {stream}) ms |"
    yield f"| a process, Python's lock | {1 / held:.0f} | 1 ÷ ({loop} + {python}) ms |"
    for link, speed in LINKS.items():
        yield f"| {link} of network | {speed / size:,.0f} | {speed / 1e6:,.0f} MB/s ÷ {size / 1e3:.1f} KB |"
    full = LINKS["1 Gbit/s"] / size * total
    yield f"\nSo a process is held by its cores up to about {total / held:.0f} of them and by Python's lock from there"
    yield f"on: more processes. 1 Gbit/s is full at the work of about {full:.0f} cores, sooner with larger photos."


def _gpus(found: Findings) -> Iterator[str]:
    decode, size = found.results["stages"]["decode"] / 1e3, found.results["bytes"]
    yield from ("", "## GPUs: on paper, none was here")
    yield "Model images/s = peak × assumed share ÷ work an image. Peaks are dense fp16 after data sheets, the shares"
    yield f"are assumptions ({', '.join(f'{name} {share:.0%}' for name, share in SHARE.items())}), work is"
    yield f"{', '.join(f'{work:g} GFLOP' for work in GFLOP.values())}. Beside it: the cores that must decode for it at"
    yield f"{1e3 * decode:.2f} ms a photo, the processes that Python's lock asks for, and the network."
    yield "\n| GPU | network | arithmetic | model images/s | cores to decode | processes | Gbit/s |"
    yield "|---|---|---|---|---|---|---|"
    held = found.costs.loop + found.costs.python
    for gpu in GPUS:
        for name in GFLOP:
            rate = model_rate(gpu, name)
            sum_ = f"{gpu.tflops:g} TFLOP/s × {SHARE[name]:.0%} ÷ {GFLOP[name]:g} GFLOP"
            cells = [gpu.name, name, sum_, f"{rate:,.0f}", f"{rate * decode:.1f}", f"{rate * held:.1f}"]
            yield f"| {' | '.join([*cells, f'{rate * size * 8 / 1e9:.1f}'])} |"
    yield "\nWhere a row asks for more cores than a machine has beside its GPU, the GPU waits for decoding: it pays for"
    yield "large networks, or where it decodes too (nvJPEG), which the service does not do."


def _cost(found: Findings) -> Iterator[str]:
    yield from ("", "## Cost of a million photos, MobileNetV2: arithmetic on inputs")
    yield f"Prices are inputs (paper.py), round figures of {PRICED} that nobody looked up: look yours up and run"
    yield "`--report` again. Cost = dollars an hour ÷ (images/s × 3600) × 1,000,000. Rates are the simulated ones, for"
    yield "a machine that is always full and whose virtual CPUs are like this one's; with a GPU the lower of its model"
    yield "rate and what the cores can decode and serve."
    yield "\n| machine | $/h | images/s | limited by | $ a million |"
    yield "|---|---|---|---|---|"
    gpus = {gpu.name: gpu for gpu in GPUS}
    for machine in MACHINES:
        rate, limit = _rate(found, machine.cores, gpus.get(machine.gpu or ""))
        cost = per_million(machine.dollars, rate)
        yield f"| {machine.name} | {machine.dollars:.2f} | {rate:,.0f} | {limit} | {cost:.2f} |"


def _rate(found: Findings, cores: int, gpu: Gpu | None) -> tuple[float, str]:
    if gpu is None:
        rate, count = found.best(cores)
        return rate, f"cores, {count} process(es)"
    model, work = found.results["stages"]["model"] / 1e3, found.costs.loop + found.costs.stream
    edge = cores / (work - model)
    return min((edge, "cores: decoding and HTTP"), (model_rate(gpu, "mobilenet_v2"), "the GPU"))


def draw(path: Path, results: dict[str, Any]) -> None:
    """Measured points, and the extrapolation in dashes."""
    found = Findings(results)

    def fill(figure: Figure) -> None:
        axes = figure.add_subplot()
        here = {each["setting"] for each in results["records"]}
        points = [(each.cores, found.median(each.name, "rate")) for each in SETTINGS if each.name in here]
        axes.plot(*zip(*points, strict=True), "o", color=BLUE, label="measured", zorder=3)
        lines = (("1 process, simulated", lambda cores: simulated(found.costs, cores).rate, ORANGE),)
        lines += (("best number of processes, simulated", lambda cores: found.best(cores)[0], RED),)
        for label, rate, colour in lines:
            axes.plot(CORES, [rate(cores) for cores in CORES], "--", color=colour, label=f"{label} (extrapolated)")
        axes.set(title="Images/s by cores", xlabel="cores", ylabel="images/s", ylim=(0, None))
        axes.legend()

    save(path, (6.5, 4.2), fill)
