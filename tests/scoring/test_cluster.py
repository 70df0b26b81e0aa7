"""The cluster engine on a real Ray cluster of two nodes: the local engine's rows, whatever dies meanwhile."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest

import scoring.cluster
import scoring.driver
from inference.classifier import Classifier
from inference.errors import ClusterUnavailable
from inference.repository import Artifact, Repository
from scoring.actor import Actor
from scoring.cluster import ClusterEngine, _blocks
from scoring.driver import Driver
from scoring.files import Files
from scoring.local import LocalEngine
from scoring.run import score
from scoring.scorer import Scorer
from scoring.sinks import FileSink
from tests.cluster import ROOT, Cluster

pytest.importorskip("ray")
PICTURES = 3000
MODEL = ("--model", "colours", "--device", "cpu")


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory, picture: Callable[..., bytes]) -> Path:
    """A folder with PICTURES pictures, of which every sixth is damaged."""
    folder = tmp_path_factory.mktemp("many")
    colours = [(220, 30, 30), (30, 200, 40), (30, 40, 210)]
    for index in range(PICTURES):
        path = folder / f"{index:04}.jpg"
        if index >= 30:
            os.link(folder / f"{index % 30:04}.jpg", path)
        else:
            data = picture(colours[index % 3], (60 + index, 50), seed=index)
            path.write_bytes(data[:300] if index % 6 == 5 else data)
    return folder


@pytest.fixture(scope="module")
def expected(many: Path, classifier: Classifier, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """What the local engine makes of them, per format."""
    folder = tmp_path_factory.mktemp("local")
    engine = LocalEngine(Scorer(classifier))
    for name in ("rows.csv", "rows.jsonl"):
        score(Files([many]), engine, FileSink(folder / name))
    return {path.suffix: path.read_bytes() for path in folder.iterdir()}


def test_a_gpu_that_does_not_work_is_never_replaced(cluster: Cluster, many: Path, repository: Repository) -> None:
    with cluster.score(repository.root, many, "--model", "colours", "--device", "auto") as run:
        rows, messages = run.communicate(timeout=120)
    assert (run.returncode, rows) == (3, b""), messages
    assert b"[device_unavailable]" in messages


@pytest.mark.parametrize("victim", ["actor", "node"])
def test_a_killed_actor_or_node_costs_no_row(
    cluster: Cluster, many: Path, expected: dict[str, bytes], repository: Repository, victim: str
) -> None:
    with cluster.score(repository.root, *MODEL, many) as run:
        assert run.stdout is not None
        first = run.stdout.readline()
        working = cluster.actors()
        assert working
        if victim == "actor":
            working[0].kill()
        else:
            os.kill(cluster.raylet, signal.SIGKILL)
        rest, messages = run.communicate(timeout=120)
    assert run.returncode == 1, messages  # every sixth failed
    assert first + rest == expected[".jsonl"]


def test_an_interrupted_run_goes_on_without_the_cluster(
    cluster: Cluster, many: Path, expected: dict[str, bytes], repository: Repository, tmp_path: Path
) -> None:
    output = tmp_path / "rows.csv"
    journal = tmp_path / "rows.csv.parts" / "journal.jsonl"
    with cluster.score(repository.root, *MODEL, many, "--output", output) as run:
        while run.poll() is None and not (journal.exists() and len(journal.read_bytes().splitlines()) > 1):
            time.sleep(0.02)
        run.send_signal(signal.SIGINT)
        _, messages = run.communicate(timeout=120)
    assert run.returncode == 130, messages
    assert b"run the same command again to go on" in messages
    again = subprocess.run(
        (sys.executable, *("-m", "petalpaw", "score", many, "--output", output, "--models", repository.root), *MODEL),
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert "of earlier runs" in again.stderr
    assert output.read_bytes() == expected[".csv"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_second_signal_leaves_no_process(
    cluster: Cluster, many: Path, repository: Repository, number: signal.Signals
) -> None:
    with cluster.score(repository.root, *MODEL, many) as run:
        assert run.stdout is not None
        run.stdout.readline()
        assert cluster.actors()
        run.send_signal(number)
        time.sleep(0.1)
        run.send_signal(number)
        _, messages = run.communicate(timeout=120)
    assert run.returncode == 130, messages.decode()
    assert b"Traceback" not in messages
    until = time.monotonic() + 60
    while cluster.actors():
        assert time.monotonic() < until
        time.sleep(0.1)


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, {130}), (signal.SIGHUP, {130, -signal.SIGHUP})])
def test_a_signal_to_the_driver_as_well_leaves_no_log(
    cluster: Cluster, many: Path, repository: Repository, tmp_path: Path, number: signal.Signals, status: set[int]
) -> None:
    """As a terminal or a supervisor sends it, to the whole group of processes."""
    here = replace(cluster, environment={**cluster.environment, "TMPDIR": str(tmp_path)})
    with here.score(repository.root, *MODEL, many) as run:
        assert run.stdout is not None
        run.stdout.readline()
        driver = driver_of(run)
        assert len(list(tmp_path.glob("petalpaw-ray-*.log"))) == 1
        run.send_signal(number)
        driver.send_signal(number)
        _, messages = run.communicate(timeout=120)
    assert run.returncode in status, messages.decode()
    assert b"petalpaw-ray-" not in messages
    assert psutil.wait_procs([driver], timeout=60)[1] == []
    assert list(tmp_path.glob("petalpaw-ray-*.log")) == []


def test_an_engine_takes_runs_until_one_is_closed_early(
    cluster: Cluster, many: Path, artifact: Artifact, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in cluster.environment.items():
        monkeypatch.setenv(name, value)
    with ClusterEngine(artifact, address=cluster.address, device="cpu") as engine:
        assert list(engine.rows([])) == []
        rows = engine.rows(islice(Files([many]), 100))
        assert next(rows).id == 0
        rows.close()
        with pytest.raises(RuntimeError, match="make another engine"):
            next(engine.rows([]))


def test_a_source_that_goes_away_is_said_as_by_the_local_engine(
    cluster: Cluster, many: Path, repository: Repository, tmp_path: Path
) -> None:
    folder = tmp_path / "going"
    shutil.copytree(many, folder, copy_function=os.link)
    with cluster.score(repository.root, *MODEL, folder) as run:
        assert run.stdout is not None
        run.stdout.readline()
        shutil.rmtree(folder)
        _, messages = run.communicate(timeout=120)
    assert run.returncode == 3, messages
    assert b"[source_gone]" in messages


def test_a_driver_that_ray_ends_is_told(cluster: Cluster, many: Path, repository: Repository, tmp_path: Path) -> None:
    """Before it joined, and whatever ends it."""
    output = tmp_path / "rows.csv"
    with cluster.score(repository.root, *MODEL, many, "--output", output) as run:
        driver_of(run).kill()
        _, messages = run.communicate(timeout=120)
    assert run.returncode == 3, messages.decode()
    assert b"the process that drives Ray ended before it joined a cluster (status -9; " in messages
    assert b"run the same command again to go on [cluster_unavailable]" in messages
    assert b"Traceback" not in messages
    assert list(tmp_path.iterdir()) == []
    Path(messages.decode().partition("(status -9; ")[2].partition(" has Ray's words")[0]).unlink()


def test_a_script_without_its_guard_is_told(cluster: Cluster, repository: Repository, tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "from pathlib import Path\n"
        "from inference.repository import Repository\n"
        "from scoring.cluster import ClusterEngine\n"
        f"ClusterEngine(Repository(Path({str(repository.root)!r})).open('colours'), address={cluster.address!r})\n"
    )
    run = subprocess.run(
        (sys.executable, script),
        env={**cluster.environment, "TMPDIR": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert "the process that drives Ray ended before it joined a cluster (status 1; " in run.stderr
    logs = list(tmp_path.glob("petalpaw-ray-*.log"))
    assert len(logs) == 1  # the one that the message names
    assert str(logs[0]) in run.stderr


def test_a_run_that_is_killed_leaves_no_process(cluster: Cluster, many: Path, repository: Repository) -> None:
    with cluster.score(repository.root, *MODEL, many) as run:
        assert run.stdout is not None
        run.stdout.readline()
        left = [driver_of(run), *cluster.actors()]
        run.kill()
        run.communicate()
    assert psutil.wait_procs(left, timeout=60)[1] == []


def test_what_is_no_cluster_is_not_waited_for(artifact: Artifact, monkeypatch: pytest.MonkeyPatch) -> None:
    """It takes the connection, and never says a word."""
    monkeypatch.setattr(scoring.cluster, "JOIN_SECONDS", 3.0)
    with (
        socket.create_server(("127.0.0.1", 0)) as mute,
        pytest.raises(ClusterUnavailable, match="let nobody join within 3 s; check that it is the port of a Ray"),
    ):
        ClusterEngine(artifact, address=f"127.0.0.1:{mute.getsockname()[1]}", device="cpu")


@pytest.mark.parametrize(
    ("address", "says"),
    [("ray://127.0.0.1:10001", "ray job submit"), ("127.0.0.1:1", "no Ray cluster answers at 127.0.0.1:1")],
)
def test_addresses_where_no_run_can_begin(many: Path, repository: Repository, address: str, says: str) -> None:
    run = Cluster(address, 0, {**os.environ, "PYTHONPATH": str(ROOT)}).score(repository.root, *MODEL, many)
    rest, messages = run.communicate(timeout=120)
    assert (run.returncode, rest) == (3, b"")
    assert says in messages.decode()
    assert b"[cluster_unavailable]" in messages
    assert b"Traceback" not in messages


def test_nodes_that_would_give_other_rows_end_the_run(classifier: Classifier) -> None:
    model: Any = SimpleNamespace(scorer=lambda: Scorer(classifier), streams=1)
    proven = Scorer(classifier).fingerprint
    Actor(model, proven)
    with pytest.raises(ClusterUnavailable, match="the cluster's nodes differ: one has"):
        Actor(model, {**proven, "packages": {"pillow": "1.0"}})


def driver_of(run: "subprocess.Popen[bytes]") -> psutil.Process:
    """The process that drives Ray for a run, as soon as it is there."""
    until = time.monotonic() + 60
    while True:
        for each in psutil.Process(run.pid).children():
            if "spawn_main" in " ".join(each.cmdline()):
                return each
        assert time.monotonic() < until
        time.sleep(0.02)


@dataclass(frozen=True)
class Numbered:
    id: int
    data: bytes = b""


@pytest.mark.parametrize(
    ("inputs", "size", "sizes"),
    # Blocks end where ids are whole multiples of 64, waves at the end of the block that fills them.
    [
        (list(range(40, 400)), 0, [[24, 64, 64], [64, 64, 64], [16]]),
        (list(range(200)), 900, [[64], [64], [64], [8]]),
        ([], 0, []),
    ],
)
def test_what_is_handed_to_ray_at_once_is_bounded(
    monkeypatch: pytest.MonkeyPatch, inputs: list[int], size: int, sizes: list[list[int]]
) -> None:
    monkeypatch.setattr(scoring.driver, "WAVE", 150)
    monkeypatch.setattr(scoring.driver, "WAVE_BYTES", 50_000)
    driver = object.__new__(Driver)
    driver._ray, driver._witnesses = SimpleNamespace(put=lambda table: table.num_rows), None
    items: Any = [Numbered(number, bytes(size)) for number in inputs]
    blocks = _blocks(items)
    assert list(iter(lambda: driver._wave(blocks), [])) == sizes
