"""A Ray cluster that ends in the middle of a run: the run says so in time, and goes on without it."""

import os
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from inference.classifier import Classifier
from inference.repository import Repository
from scoring.files import Files
from scoring.local import LocalEngine
from scoring.run import score
from scoring.scorer import Scorer
from scoring.sinks import FileSink
from tests.cluster import Cluster, running
from tests.fresh import python

pytest.importorskip("ray")
PICTURES = 3000
MODEL = ("--model", "colours", "--device", "cpu")


def lost(cluster: Cluster, root: Path, photos: Path, output: Path) -> None:
    """A run whose head and nodes are all killed after its first part."""
    journal = Path(f"{output}.parts/journal.jsonl")
    with cluster.score(root, *MODEL, photos, "--output", output) as run:
        while run.poll() is None and not (journal.exists() and len(journal.read_bytes().splitlines()) > 1):
            time.sleep(0.02)
        own = psutil.Process(run.pid).children(recursive=True)
        victims = cluster.servers()
        assert len(victims) == 3
        for each in victims:
            each.kill()
        _, messages = run.communicate(timeout=120)
    assert run.returncode == 3, messages.decode()
    assert b"petalpaw: the cluster ended, or Ray's processes on this machine did (status 1; " in messages
    assert b"run the same command again to go on [cluster_unavailable]" in messages
    assert b"Traceback" not in messages
    assert psutil.wait_procs(own, timeout=60)[1] == []
    Path(messages.decode().partition("(status 1; ")[2].partition(" has Ray's words")[0]).unlink()


@pytest.mark.timeout(480)
def test_a_cluster_that_ends_is_said_and_the_run_goes_on(
    tmp_path: Path, repository: Repository, classifier: Classifier, picture: Callable[..., bytes]
) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    (photos / "0000.jpg").write_bytes(picture((220, 30, 30), (60, 50)))
    for index in range(1, PICTURES):
        os.link(photos / "0000.jpg", photos / f"{index:04}.jpg")
    score(Files([photos]), LocalEngine(Scorer(classifier)), FileSink(tmp_path / "whole.csv"))
    output = tmp_path / "rows.csv"
    with running() as cluster:
        # The time that Ray gives a head to come back, which is a minute unless one says otherwise.
        cluster.environment["RAY_gcs_rpc_server_reconnect_timeout_s"] = "5"
        lost(cluster, repository.root, photos, output)
        again = cluster.score(repository.root, *MODEL, photos, "--output", output)
        _, messages = again.communicate(timeout=120)
        assert (again.returncode, b"no Ray cluster answers at" in messages) == (3, True), messages.decode()
    arguments = ("score", photos, *MODEL, "--models", repository.root, "--output", output)
    gone_on = python("-m", "petalpaw", *map(str, arguments))
    assert (gone_on.returncode, "of earlier runs" in gone_on.stderr) == (0, True), gone_on.stderr
    assert output.read_bytes() == (tmp_path / "whole.csv").read_bytes()
