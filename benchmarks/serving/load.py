"""Clients: wrk in a closed loop, and an open loop whose requests arrive as a Poisson process, waiting for nobody."""

import asyncio
import json
import random
import resource
import statistics
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

import aiohttp
from contenders import Body

_SCRIPT = """
local bodies, next = {}, 0
function init(args)
  local count = tonumber(args[1])
  for i = 0, count - 1 do
    local h, d = io.open(args[2] .. "/" .. i .. ".headers"), io.open(args[2] .. "/" .. i .. ".body", "rb")
    local headers = {}
    for line in h:lines() do local k, v = line:match("^(.-): (.*)$"); headers[k] = v end
    bodies[i + 1] = wrk.format("POST", nil, headers, d:read("*a")); h:close(); d:close()
  end
end
function request() next = next + 1; return bodies[next % #bodies + 1] end
function done(summary, latency, requests)
  local e = summary.errors
  io.write(string.format('{"requests": %d, "microseconds": %d, "p50": %d, "p95": %d, "p99": %d, "errors": %d}\\n',
    summary.requests, summary.duration, latency:percentile(50), latency:percentile(95), latency:percentile(99),
    e.connect + e.read + e.write + e.status + e.timeout))
end
"""


@dataclass(frozen=True)
class Load:
    """What a client saw: `count` good answers, `rate` per second; latencies in milliseconds, `client_cpu` in cores."""

    rate: float
    count: int
    p50: float
    p95: float
    p99: float
    errors: int
    client_cpu: float


class Bodies:
    """Requests laid down as files for wrk."""

    def __init__(self, folder: Path, bodies: list[Body]) -> None:
        self.folder, self.bodies = folder, bodies
        folder.mkdir(parents=True, exist_ok=True)
        for index, body in enumerate(bodies):
            headers = "".join(f"{name}: {value}\n" for name, value in body.headers.items())
            (folder / f"{index}.headers").write_text(headers)
            (folder / f"{index}.body").write_bytes(body.data)
        (folder / "wrk.lua").write_text(_SCRIPT)


def closed(url: str, bodies: Bodies, clients: int, seconds: float) -> Load:
    """`clients` connections that each ask again as soon as they are answered."""
    command = [
        *("wrk", "-t", "1", "-c", str(clients), "-d", f"{seconds:g}s", "--timeout", "30s"),
        *("-s", str(bodies.folder / "wrk.lua"), url, "--", str(len(bodies.bodies)), str(bodies.folder)),
    ]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    found = json.loads(said.strip().splitlines()[-1])
    elapsed = found["microseconds"] / 1e6
    milliseconds = {name: found[name] / 1e3 for name in ("p50", "p95", "p99")}
    # wrk counts answers with an error status as requests.
    good = found["requests"] - found["errors"]
    return Load(good / elapsed, good, **milliseconds, errors=found["errors"], client_cpu=cpu / elapsed)


def opened(url: str, bodies: Bodies, rate: float, seconds: float, seed: int) -> Load:
    """Requests at random moments, `rate` per second in the mean, whether earlier ones were answered or not."""
    return asyncio.run(_opened(url, bodies.bodies, rate, seconds, random.Random(seed)))


async def _opened(url: str, bodies: list[Body], rate: float, seconds: float, dice: random.Random) -> Load:
    latencies, errors = list[float](), 0

    async def ask(session: aiohttp.ClientSession, body: Body, due: float) -> None:
        nonlocal errors
        try:
            async with session.post(url, data=body.data, headers=body.headers) as answer:
                await answer.read()
                errors += answer.status >= 400
        except (aiohttp.ClientError, TimeoutError):
            errors += 1
        # From when it was due: a client that is late itself must not flatter the server.
        latencies.append(time.perf_counter() - due)

    limits = aiohttp.ClientTimeout(30)
    cpu = time.process_time()
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), timeout=limits) as session:
        began = due = time.perf_counter()
        async with asyncio.TaskGroup() as group:
            for index in range(round(rate * seconds)):
                due += dice.expovariate(rate)
                await asyncio.sleep(max(0.0, due - time.perf_counter()))
                group.create_task(ask(session, bodies[index % len(bodies)], due))
    elapsed = time.perf_counter() - began
    cuts = statistics.quantiles(latencies, n=100)
    p50, p95, p99 = (1e3 * cuts[cut - 1] for cut in (50, 95, 99))
    good = len(latencies) - errors
    return Load(good / elapsed, good, p50, p95, p99, errors, (time.process_time() - cpu) / elapsed)
