"""A real Ray cluster of two nodes on this machine."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

ROOT = Path(__file__).parents[1]

CLUSTER = """
import json, sys
from ray.cluster_utils import Cluster

# No more processes than scoring needs: they all start at once.
node = {"num_cpus": 1, "object_store_memory": 80 * 2**20, "include_log_monitor": False}
head = {**node, "num_gpus": 0, "no_monitor": True, "include_dashboard": False}
for attempt in range(3):  # on a busy machine Ray's own limit of 15 s may be too short
    try:
        cluster = Cluster(initialize_head=True, head_node_args=head)
        raylet = cluster.add_node(num_gpus=1, **node).all_processes["raylet"][0].process.pid
        break
    except Exception:
        if attempt == 2:
            raise
print(json.dumps({"address": cluster.address, "raylet": raylet}), flush=True)
sys.stdin.read()
cluster.shutdown()
"""


@dataclass(frozen=True)
class Cluster:
    """`raylet` is the process that is the second node; the others die with it. That node says that it has a GPU."""

    address: str
    raylet: int
    environment: dict[str, str]

    def score(self, models: Path, *arguments: str | Path) -> "subprocess.Popen[bytes]":
        """`petalpaw score` on this cluster; its pipes hold nothing back from `communicate`."""
        command = ("score", *arguments, "--models", models, "--engine", "ray")
        return subprocess.Popen(
            [sys.executable, "-m", "petalpaw", *map(str, command), "--ray-address", self.address],
            env=self.environment,
            bufsize=0,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )

    def actors(self) -> list[psutil.Process]:
        """The processes that score, on whatever node."""
        running = psutil.process_iter(["cmdline"])
        return [each for each in running if "MapWorker(MapBatches(Actor))" in " ".join(each.info["cmdline"] or ())]

    def servers(self) -> list[psutil.Process]:
        """What the cluster is: its head's server and a raylet for each node."""
        lines = [(each, each.info["cmdline"] or [""]) for each in psutil.process_iter(["cmdline"])]
        return [
            process
            for process, line in lines
            if Path(line[0]).name in ("gcs_server", "raylet") and self.environment["RAY_TMPDIR"] in " ".join(line)
        ]


@contextmanager
def running() -> Iterator[Cluster]:
    # A socket's path has at most 107 characters, too few for a folder of pytest's.
    folder = tempfile.mkdtemp(prefix="ray-", dir="/tmp")
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        # Ray starts a dozen Pythons, and gives up on those that have not compiled Ray after 15 s.
        "PYTHONPYCACHEPREFIX": folder,
        "PYTHONDONTWRITEBYTECODE": "",
        "RAY_TMPDIR": folder,
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_health_check_initial_delay_ms": "1000",
        "RAY_health_check_period_ms": "500",
    }
    with subprocess.Popen(
        [sys.executable, "-c", CLUSTER], env=environment, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            yield Cluster(**json.loads(process.stdout.readline()), environment=environment)
        finally:
            process.stdin.close()
            process.wait(60)
            shutil.rmtree(folder, ignore_errors=True)
