"""The service in a container with nothing that it does not need: read-only, no capability, 600 MB."""

import contextlib
import time
from collections.abc import Callable

import httpx
import pytest

from tests.container.conftest import GUARDED, Container, docker, running
from tests.container.load import Load

pytestmark = pytest.mark.container


def test_it_classifies_and_counts(container: Container, picture: Callable[..., bytes]) -> None:
    for model, labels in (("catdog", 2), ("flowers", 5)):
        answer = container.client.post("/classify", files={"images": ("a.jpg", picture())}, data={"model": model})
        assert answer.status_code == 200, answer.text
        assert len(answer.json()["predictions"][0]["top_k"]) == labels
        assert answer.json()["runtime"]["device"] == "cpu"
    assert container.client.get("/v2/health/ready").status_code == 200
    assert "<html" in container.client.get("/ui", follow_redirects=True).text
    metrics = container.client.get("/metrics").text
    assert 'petalpaw_pictures_total{code="ok",model="flowers"} 1.0' in metrics


def test_it_runs_as_nobody_in_particular_with_no_capability(container: Container) -> None:
    status = docker("exec", container.name, "cat", "/proc/1/status").splitlines()
    fields = {line.partition(":")[0]: line.partition(":")[2].split() for line in status}
    assert fields["Uid"] == ["10001"] * 4
    assert fields["CapEff"] == fields["CapBnd"] == ["0" * 16]
    assert fields["NoNewPrivs"] == ["1"]


def test_its_health_is_seen(container: Container) -> None:
    for _ in range(60):
        if container.state["Health"]["Status"] == "healthy":
            return
        time.sleep(0.5)
    raise AssertionError(container.state["Health"])


def test_it_sizes_itself_to_its_quota() -> None:
    with running(*GUARDED, "--cpus", "1") as one:
        one.ready()
        assert "budget: 1 cores" in one.said()


def test_any_user_may_run_it() -> None:
    with running(*GUARDED, "--user", "54321:0") as one:
        one.ready()


def test_a_termination_under_load_loses_nothing_and_memory_suffices(picture: Callable[..., bytes]) -> None:
    with running(*GUARDED) as one:
        print(f"ready after {one.ready():.2f} s")
        with Load(f"{one.url}/classify?model=catdog", picture(size=(640, 480))) as load:
            time.sleep(3)
            one.kill()
            assert one.ended() == 0, one.said()
        print(f"outcomes: {dict(load.outcomes)}")
        assert load.answered > 20
        assert load.lost == {}
        assert not one.state["OOMKilled"]
        assert "Traceback" not in one.said()


def test_a_killed_worker_leaves_no_container_that_only_seems_to_serve(picture: Callable[..., bytes]) -> None:
    with running(*GUARDED) as one:
        one.ready()
        one.kill_worker()
        until = time.monotonic() + 30
        while one.state["Running"] and time.monotonic() < until:
            with contextlib.suppress(httpx.TransportError):
                if one.client.post("/classify?model=catdog", files={"images": picture()}).is_success:
                    return
            time.sleep(0.2)
        assert not one.state["Running"], one.said()
