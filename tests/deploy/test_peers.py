"""The deployment's files, each held to what those who will read it publish in package registries."""

import json
import time
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from tests.container.conftest import free_port
from tests.deploy.proxy import PROXIES, proxied
from tests.deploy.test_files import DEPLOY, KUBECTL, TOOLS, documents, ran
from tests.peers.environment import PEERS, installed


@pytest.mark.parametrize("name", PROXIES)
def test_a_proxy_takes_its_file_and_hides_the_metrics(name: str, tmp_path: Path) -> None:
    with proxied(name, (free_port(), free_port()), tmp_path) as address, httpx.Client(verify=False) as client:
        until = time.monotonic() + 20
        # Traefik knows no route until it has read its file.
        while client.get(f"{address}/classify").status_code != 502:
            assert time.monotonic() < until
            time.sleep(0.1)
        assert client.get(f"{address}/metrics").status_code == 404


def as_kserve_says(*manifests: dict[str, Any]) -> str:
    lines = "\n".join(map(json.dumps, manifests))
    return ran(installed("kserve") / "python", PEERS / "kserve_manifest.py", input=lines)


@KUBECTL
def test_kserve_would_take_it(tmp_path: Path) -> None:
    runtime, service = documents("kserve")
    assert as_kserve_says(runtime, service).count("is as KServe's v1") == 2
    pod = {key: runtime["spec"][key] for key in ("containers", "volumes")}
    path = tmp_path / "pod.yaml"
    path.write_text(yaml.safe_dump({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "petalpaw"}, "spec": pod}))
    ran(TOOLS / "kubernetes-validate", "--strict", path)


@KUBECTL
@pytest.mark.parametrize(
    ("part", "key", "value"), [(0, "protocolVersion", ["v2"]), (1, "predictors", {}), (0, "containers", None)]
)
def test_what_kserve_would_not_take_is_seen(part: int, key: str, value: object) -> None:
    changed = documents("kserve")[part]
    changed["spec"][key] = value
    with pytest.raises(AssertionError, match=key):
        as_kserve_says(changed)


def lost(given: Any, kept: Any, at: str = "") -> list[str]:
    """The places of a document that another, which may hold more, does not have."""
    if isinstance(given, dict):
        return [
            place
            for key, value in given.items()
            for place in (lost(value, kept[key], f"{at}.{key}") if key in kept else [f"{at}.{key}"])
        ]
    if isinstance(given, list):
        return [
            place
            for index, (one, other) in enumerate(zip(given, kept, strict=True))
            for place in lost(one, other, f"{at}[{index}]")
        ]
    return [] if given == kept else [at]


def test_grafana_knows_every_field_of_the_dashboard() -> None:
    dashboard = json.loads((DEPLOY / "grafana" / "petalpaw.json").read_text())
    with_a_slip = json.loads(json.dumps(dashboard).replace('"reqps"', '"reqps", "mininum": 0', 1))
    program = (installed("grafana") / "python", PEERS / "grafana_dashboard.py")
    kept = json.loads(ran(*program, input=json.dumps(with_a_slip)))
    assert lost(dashboard, kept) == []
    assert lost(with_a_slip, kept) == [".panels[0].fieldConfig.defaults.mininum"]
