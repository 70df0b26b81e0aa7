"""Two replicas behind the nginx of deploy/proxy: each is replaced in turn, and no client notices."""

import shutil
import ssl
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.container.conftest import GUARDED, Container, free_port, running
from tests.container.load import Load

pytestmark = pytest.mark.container

EXAMPLE = Path(__file__).parents[2] / "deploy" / "proxy" / "nginx.conf"
PORTS = (3001, 3002)
"""What the example names."""


@pytest.fixture
def replicas() -> Iterator[list[Container]]:
    with running(*GUARDED) as one, running(*GUARDED) as other:
        started = [one, other]
        for each in started:
            each.ready()
        yield started
        for each in started[2:]:
            each.remove()


@pytest.fixture
def proxy(replicas: list[Container], tmp_path: Path) -> Iterator[str]:
    """The address of an nginx with the example's configuration, on other ports and with a certificate of its own."""
    nginx = shutil.which("nginx") or pytest.skip("needs nginx")
    name = ("-subj", "/CN=petalpaw.example", "-keyout", tmp_path / "privkey.pem", "-out", tmp_path / "fullchain.pem")
    openssl = ("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1")
    subprocess.run([*openssl, *name], check=True, capture_output=True)
    port = free_port()
    text = EXAMPLE.read_text().replace("/etc/ssl/petalpaw", str(tmp_path)).replace("443 ssl", f"127.0.0.1:{port} ssl")
    for named, replica in zip(PORTS, replicas, strict=True):
        text = text.replace(f"127.0.0.1:{named}", f"127.0.0.1:{replica.port}")
    configuration = tmp_path / "nginx.conf"
    configuration.write_text(
        f"daemon off; pid {tmp_path}/pid; error_log stderr; events {{}}\nhttp {{\naccess_log off;\n{text}}}\n"
    )
    server = subprocess.Popen([nginx, "-c", configuration], stderr=subprocess.DEVNULL)
    try:
        for _ in range(100):
            try:
                ssl.get_server_certificate(("127.0.0.1", port))
                break
            except OSError:
                time.sleep(0.1)
        yield f"https://127.0.0.1:{port}"
    finally:
        server.terminate()
        server.wait(30)


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
