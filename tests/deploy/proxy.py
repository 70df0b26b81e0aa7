"""The proxies of deploy/proxy, run before two ports of this machine with a certificate made for the test."""

import shutil
import ssl
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.container.conftest import free_port
from tests.peers.environment import installed

EXAMPLES = Path(__file__).parents[2] / "deploy" / "proxy"
NAMED = (3001, 3002)
"""The replicas' ports in the examples."""


def example(file: str, ports: tuple[int, int], folder: Path) -> str:
    """An example's text for other ports and for a certificate that is made in the folder."""
    name = ("-subj", "/CN=petalpaw.example", "-keyout", folder / "privkey.pem", "-out", folder / "fullchain.pem")
    openssl = ("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1")
    subprocess.run([*openssl, *name], check=True, capture_output=True)
    text = (EXAMPLES / file).read_text().replace("/etc/ssl/petalpaw", str(folder))
    for named, port in zip(NAMED, ports, strict=True):
        text = text.replace(f"127.0.0.1:{named}", f"127.0.0.1:{port}")
    return text


def nginx(ports: tuple[int, int], folder: Path, port: int) -> list[str]:
    program = shutil.which("nginx") or pytest.skip("needs nginx")
    text = example("nginx.conf", ports, folder).replace("443 ssl", f"127.0.0.1:{port} ssl")
    configuration = folder / "nginx.conf"
    configuration.write_text(
        f"daemon off; pid {folder}/pid; error_log stderr; events {{}}\nhttp {{\naccess_log off;\n{text}}}\n"
    )
    return [program, "-c", str(configuration)]


def traefik(ports: tuple[int, int], folder: Path, port: int) -> list[str]:
    configuration = folder / "traefik.yaml"
    # It answers to this name alone.
    configuration.write_text(example("traefik.yaml", ports, folder).replace("petalpaw.example", "127.0.0.1"))
    return [
        *(str(installed("traefik") / "traefik"), f"--providers.file.filename={configuration}"),
        *(f"--entrypoints.websecure.address=127.0.0.1:{port}", "--global.checknewversion=false"),
    ]


PROXIES = {"nginx": nginx, "traefik": traefik}


@contextmanager
def proxied(name: str, ports: tuple[int, int], folder: Path) -> Iterator[str]:
    """The address of the proxy, once it speaks TLS."""
    port = free_port()
    server = subprocess.Popen(PROXIES[name](ports, folder, port), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
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
