"""The running service on so many cores: by affinity, by a control group's quota, as two processes of a core each."""

import dataclasses
import os
import statistics
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path.append(str(ROOT / "benchmarks" / "serving"))

from contenders import APPS, CONTENDERS  # noqa: E402
from load import Bodies, closed  # noqa: E402
from processes import free_port, ready, stop, tree  # noqa: E402

CLIENTS = 16
_GROUPS = Path("/sys/fs/cgroup")


@dataclass(frozen=True)
class Setting:
    """`quota` in cores, or `pinned` to these cores one process each; neither is the whole machine."""

    name: str
    cores: float
    quota: float | None = None
    pinned: tuple[int, ...] = ()


SETTINGS = (
    Setting("quota of half a core", 0.5, quota=0.5),
    Setting("quota of one core", 1, quota=1),
    Setting("one core by affinity", 1, pinned=(0,)),
    Setting("quota of one and a half", 1.5, quota=1.5),
    Setting("two processes, a core each", 2, pinned=(0, 1)),
    Setting("the whole machine", 2),
)
WHOLE = SETTINGS[-1].name
ONE = SETTINGS[2].name

Server = subprocess.Popen[bytes]
Record = dict[str, float | str]


class Service:
    """One setting, up and warm."""

    def __init__(self, setting: Setting, folder: Path, pictures: list[bytes], stack: ExitStack) -> None:
        self.setting = setting
        contender = CONTENDERS["petalpaw"]
        self.bodies = Bodies(folder / "bodies", [contender.body(data) for data in pictures])
        prefixes = [["taskset", "-c", str(core)] for core in setting.pinned] or [[]]
        if setting.quota:
            prefixes = [_into(stack.enter_context(group(setting.quota)))]
        environment = {**contender.environment, "PYTHONPATH": f"{APPS}{os.pathsep}{ROOT}"}
        self.servers: list[Server] = []
        self.urls: list[str] = []
        for number, prefix in enumerate(prefixes):
            home, port = folder / str(number), free_port()
            home.mkdir()

            def command(python: Path, port: int, prefix: list[str] = prefix) -> list[str]:
                return [*prefix, *contender.command(python, port)]

            started = dataclasses.replace(contender, command=command, environment=environment).started
            server = started(Path(sys.executable), port, home, home / "log", ROOT / "models" / "flowers" / "1")
            stack.callback(stop, server)
            ready(server, f"http://127.0.0.1:{port}{contender.ready}")
            self.servers.append(server)
            self.urls.append(f"http://127.0.0.1:{port}{contender.path}")
        self.measured(2)

    def measured(self, seconds: float) -> Record:
        """Rate of all processes together, and where their CPU time went, in milliseconds an image."""
        before = [_threads(server) for server in self.servers]
        with ThreadPoolExecutor(len(self.urls)) as clients:
            loads = list(
                clients.map(lambda url: closed(url, self.bodies, CLIENTS // len(self.urls), round(seconds)), self.urls)
            )
        spent = [_threads(server) for server in self.servers]
        images = sum(load.rate for load in loads) * round(seconds)
        loop, rest = (
            1e3 * sum(after[part] - was[part] for after, was in zip(spent, before, strict=True)) / images
            for part in (0, 1)
        )
        return {
            "setting": self.setting.name,
            "rate": sum(load.rate for load in loads),
            "p50": statistics.mean(load.p50 for load in loads),
            "p99": max(load.p99 for load in loads),
            "errors": sum(load.errors for load in loads),
            "loop_ms": loop,
            "stream_ms": rest,
            "client_ms": 1e3 * sum(load.client_cpu for load in loads) * round(seconds) / images,
        }


@contextmanager
def group(cores: float) -> Iterator[Path]:
    """A control group with that quota, of version 1 or 2. Raises OSError where none can be made."""
    first = (_GROUPS / "cpu").is_dir()
    folder = (_GROUPS / "cpu" if first else _GROUPS) / f"petalpaw-scaling-{os.getpid()}-{cores}"
    folder.mkdir()
    try:
        if first:
            (folder / "cpu.cfs_quota_us").write_text(str(round(cores * 100_000)))
        else:
            (folder / "cpu.max").write_text(f"{round(cores * 100_000)} 100000")
        yield folder
    finally:
        folder.rmdir()


def _into(folder: Path) -> list[str]:
    """What starts a command inside a group."""
    return ["sh", "-c", f'echo $$ > {folder}/cgroup.procs && exec "$@"', "sh"]


def _threads(server: Server) -> tuple[float, float]:
    """CPU seconds of the main thread of the process that works most, the event loop, and of all else."""
    threads = {}
    for process in tree(server):
        threads |= {(process.pid, thread.id): thread.user_time + thread.system_time for thread in process.threads()}
    totals = {pid: sum(time for (of, _), time in threads.items() if of == pid) for pid, _ in threads}
    worker = max(totals, key=lambda pid: totals[pid])
    return threads[worker, worker], sum(threads.values()) - threads[worker, worker]
