"""Two replicas behind a proxy of deploy/proxy: what clients notice when one is replaced, and when one breaks."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from tests.container.conftest import GUARDED, Container, running
from tests.container.load import Load
from tests.deploy.proxy import PROXIES, proxied

pytestmark = pytest.mark.container


@pytest.fixture
def replicas() -> Iterator[list[Container]]:
    with running(*GUARDED) as one, running(*GUARDED) as other:
        started = [one, other]
        for each in started:
            each.ready()
        yield started
        for each in started[2:]:
            each.remove()


@pytest.fixture(params=PROXIES)
def proxy(request: pytest.FixtureRequest, replicas: list[Container], tmp_path: Path) -> Iterator[str]:
    """The proxy's address, once it passes requests on."""
    with proxied(request.param, (replicas[0].port, replicas[1].port), tmp_path) as address:
        with Load(f"{address}/classify?model=catdog", b"", clients=1) as load:
            until = time.monotonic() + 20
            while not load.outcomes["422"]:
                assert time.monotonic() < until, load.outcomes
                time.sleep(0.1)
        yield address


def test_replicas_are_replaced_without_a_failed_request(
    proxy: str, replicas: list[Container], picture: Callable[..., bytes]
) -> None:
    with Load(f"{proxy}/classify?model=catdog", picture(), clients=3) as load:
        time.sleep(2)
        for old in replicas[:2]:
            old.kill()
            assert old.ended() == 0, old.said()
            print(f"{old.name} ended; so far {dict(load.outcomes)}")
            new = Container(*GUARDED, port=old.port)
            replicas.append(new)
            print(f"{new.name} ready after {new.ready():.1f} s; so far {dict(load.outcomes)}")
            time.sleep(2)
    print(f"in all {dict(load.outcomes)}")
    assert set(load.outcomes) == {"200"}


CLIENTS = 8


def test_a_killed_worker_costs_what_it_had_under_way_and_the_other_replica_answers(
    proxy: str, replicas: list[Container], picture: Callable[..., bytes]
) -> None:
    with Load(f"{proxy}/classify?model=catdog", picture(size=(640, 480)), clients=CLIENTS) as load:
        time.sleep(3)
        before, killed_at = load.answered, time.monotonic()
        replicas[0].kill_worker()
        # A new connection waits in the listening socket until the next worker takes it.
        assert httpx.get(f"{replicas[0].url}/readyz", timeout=60, trust_env=False).status_code == 200
        took, meanwhile = time.monotonic() - killed_at, load.answered - before
        time.sleep(2)
    print(f"back after {took:.1f} s, {meanwhile} answered meanwhile; in all {dict(load.outcomes)}")
    assert meanwhile > CLIENTS
    assert sum(load.lost.values()) <= CLIENTS
