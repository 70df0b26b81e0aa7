"""The deployment's files, each held to the tool that will read it."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from fastapi.routing import APIRoute
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from typer.main import get_command

from inference.budget import SPARE_STREAMS, Budget
from petalpaw import app
from service import classify
from service.launch import LEAST_MEMORY
from service.openinference import infer
from service.settings import PREFIX, Settings

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
KUBERNETES = DEPLOY / "kubernetes"
TOOLS = Path(sys.executable).parent
KUBECTL = pytest.mark.skipif(shutil.which("kubectl") is None, reason="needs kubectl")
BUILDS = ("overlays/cpu", "overlays/gpu", "kserve")


def ran(*command: str | Path, **more: Any) -> str:
    done = subprocess.run(
        [str(part) for part in command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **more
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


def documents(build: str | Path) -> list[dict[str, Any]]:
    """What kustomize makes of a folder."""
    return [each for each in yaml.safe_load_all(ran("kubectl", "kustomize", KUBERNETES / build)) if each]


@pytest.fixture(scope="session")
def everything(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """The documents of every build, and of the CPU overlay with all components."""
    folder = tmp_path_factory.mktemp("kustomize")
    parts = {
        "resources": [KUBERNETES / "overlays" / "cpu"],
        "components": sorted((KUBERNETES / "components").iterdir()),
    }
    relative = {key: [os.path.relpath(path, folder.resolve()) for path in paths] for key, paths in parts.items()}
    (folder / "kustomization.yaml").write_text(yaml.safe_dump(relative))
    return [each for build in (*BUILDS, folder) for each in documents(build)]


@pytest.mark.parametrize("path", ["Dockerfile", "deploy/ray/Dockerfile"])
def test_the_dockerfiles_are_sound(path: str) -> None:
    ran(TOOLS / "hadolint", ROOT / path)


def test_what_the_dockerfile_copies_passes_the_dockerignore() -> None:
    lines = (ROOT / "Dockerfile").read_text().splitlines()
    copied = [
        part for line in lines if line.startswith("COPY ") and "--from" not in line for part in line.split()[1:-1]
    ]
    allowed = [
        line[1:].removesuffix("/**") for line in (ROOT / ".dockerignore").read_text().splitlines() if line[:1] == "!"
    ]
    assert sorted(allowed) == sorted(copied)


def test_the_yaml_is_tidy() -> None:
    ran(TOOLS / "yamllint", "--strict", "--config-file", DEPLOY / "yamllint.yaml", DEPLOY, ROOT / "bentofile.yaml")


@KUBECTL
def test_kubernetes_would_take_it(everything: list[dict[str, Any]], tmp_path: Path) -> None:
    path = tmp_path / "documents.yaml"
    path.write_text(yaml.safe_dump_all([each for each in everything if _built_in(each)]))
    ran(TOOLS / "kubernetes-validate", "--strict", path)


def test_kubernetes_would_take_the_pods_of_the_ray_job(tmp_path: Path) -> None:
    job = yaml.safe_load((DEPLOY / "ray" / "job.yaml").read_text())
    cluster = job["spec"]["rayClusterSpec"]
    assert (job["apiVersion"], job["kind"]) == ("ray.io/v1", "RayJob")
    templates = [group["template"] for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"])]
    pods = [
        {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": f"pod-{index}"}, **template}
        for index, template in enumerate(templates)
    ]
    path = tmp_path / "pods.yaml"
    path.write_text(yaml.dump_all(pods))
    ran(TOOLS / "kubernetes-validate", "--strict", path)
    for container in [each for pod in pods for each in pod["spec"]["containers"]]:
        assert container["image"] == "petalpaw-ray"
        assert not container["securityContext"]["allowPrivilegeEscalation"]
        assert container["resources"]["limits"] == container["resources"]["requests"]


def test_the_ray_job_is_of_the_locked_ray_and_a_command_that_exists() -> None:
    job = yaml.safe_load((DEPLOY / "ray" / "job.yaml").read_text())["spec"]
    assert f"ray=={job['rayClusterSpec']['rayVersion']} " in (ROOT / "requirements" / "cluster.txt").read_text()
    words = shlex.split(shlex.split(job["entrypoint"])[2].partition("||")[0])
    assert words[:2] == ["petalpaw", "score"]
    # Typer's own parser reads it; nothing runs.
    get_command(app).commands["score"].make_context("score", words[2:])  # type: ignore[attr-defined]


def _built_in(document: dict[str, Any]) -> bool:
    group = document["apiVersion"].rpartition("/")[0]
    return "." not in group or group.endswith(".k8s.io")


@KUBECTL
def test_every_container_is_confined_and_probed(everything: list[dict[str, Any]]) -> None:
    pods = [each["spec"] for each in everything if each["kind"] == "ServingRuntime"]
    pods += [each["spec"]["template"]["spec"] for each in everything if each["kind"] == "Deployment"]
    assert len(pods) == 4
    for one in [container for pod in pods for container in pod["containers"]]:
        security = one["securityContext"]
        assert security["readOnlyRootFilesystem"]
        assert not security["allowPrivilegeEscalation"]
        assert security["capabilities"] == {"drop": ["ALL"]}
        assert {"startupProbe", "livenessProbe", "readinessProbe"} <= one.keys()
        assert one["resources"]["limits"]["memory"] == one["resources"]["requests"]["memory"]


@KUBECTL
def test_the_components_fit(everything: list[dict[str, Any]]) -> None:
    (scaled,) = [each for each in everything if len(each.get("spec", {}).get("metrics", [])) == 2]
    assert scaled["spec"]["metrics"][1]["pods"]["metric"]["name"] == "petalpaw_queue_pictures"
    kinds = [each["kind"] for each in everything]
    assert {"ServiceMonitor", "PrometheusRule", "PersistentVolumeClaim"} <= set(kinds)


@KUBECTL
def test_a_pod_has_time_to_drain(everything: list[dict[str, Any]]) -> None:
    given = [each["data"] for each in everything if each["kind"] == "ConfigMap"]
    notice = max(float(data.get("PETALPAW_DRAIN_NOTICE_S", Settings().drain_notice_s)) for data in given)
    for each in everything:
        if each["kind"] == "Deployment":
            allowed = each["spec"]["template"]["spec"]["terminationGracePeriodSeconds"]
            assert allowed > notice + Settings().drain_timeout_s


@KUBECTL
def test_the_settings_in_the_files_exist(everything: list[dict[str, Any]]) -> None:
    known = {PREFIX + name.upper() for name in Settings.model_fields}
    named = {name for each in everything if each["kind"] == "ConfigMap" for name in each["data"]}
    for file in ("compose.yaml", "compose.gpu.yaml"):
        named |= set(yaml.safe_load((DEPLOY / file).read_text())["services"]["petalpaw"]["environment"])
    assert named
    assert named <= known


BYTES_PER_PIXEL = 12
"""The most that decoding took of any format: docs/operations.md, "Sizing"."""

MIB = 2**20
UNITS = {"Mi": MIB, "Gi": 1024 * MIB, "m": MIB, "g": 1024 * MIB}


def has_room(limit: str, cores: float, given: dict[str, str]) -> bool:
    """Whether a limit of memory holds the most that these settings allow on so many cores, and a full /tmp."""
    number, unit = re.fullmatch(r"(\d+)(\D+)", limit).groups()  # type: ignore[union-attr]
    settings = Settings(
        max_pixels=int(given["PETALPAW_MAX_PIXELS"]), max_uploads_bytes=int(given["PETALPAW_MAX_UPLOADS_BYTES"])
    )
    streams = Budget.plan(cores=cores, spare=SPARE_STREAMS).streams
    pictures = settings.max_pixels * BYTES_PER_PIXEL * streams
    return LEAST_MEMORY + pictures + 2 * settings.max_uploads_bytes + 64 * MIB <= int(number) * UNITS[unit]


@KUBECTL
@pytest.mark.parametrize("build", BUILDS)
def test_the_limit_of_a_pod_holds_what_its_settings_allow(build: str) -> None:
    parts = documents(build)
    given = {name: value for each in parts if each["kind"] == "ConfigMap" for name, value in each["data"].items()}
    specs = [each["spec"]["template"]["spec"] for each in parts if each["kind"] == "Deployment"]
    specs += [each["spec"] for each in parts if each["kind"] == "ServingRuntime"]
    (container,) = specs[0]["containers"]
    given |= {each["name"]: each["value"] for each in container.get("env", ())}
    limits = container["resources"]["limits"]
    assert specs[0]["volumes"][0]["emptyDir"]["sizeLimit"] == "64Mi"
    assert has_room(limits["memory"], float(limits["cpu"]), given)


@pytest.mark.parametrize("files", [("compose.yaml",), ("compose.yaml", "compose.gpu.yaml")])
def test_the_limit_of_compose_holds_what_its_settings_allow(files: tuple[str, ...]) -> None:
    parts = [yaml.safe_load((DEPLOY / file).read_text())["services"]["petalpaw"] for file in files]
    limits = {**parts[0], **parts[-1]}
    given = {name: re.sub(r"\$\{\w+:-(.*)}", r"\1", value) for name, value in parts[0]["environment"].items()}
    assert parts[0]["tmpfs"] == ["/tmp:size=64m"]
    assert has_room(limits["mem_limit"], limits["cpus"], given)


def test_compose_would_take_it() -> None:
    pytest.importorskip("check_jsonschema", reason="needs check-jsonschema")
    schema = ("-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec")
    ran(sys.executable, *schema, *sorted(DEPLOY.glob("compose*.yaml")))


def test_prometheus_would_take_it() -> None:
    promtool = shutil.which("promtool") or pytest.skip("needs promtool (Debian's package prometheus)")
    ran(promtool, "check", "config", DEPLOY / "prometheus" / "prometheus.yml")


def rules() -> list[dict[str, Any]]:
    groups = yaml.safe_load((DEPLOY / "prometheus" / "alerts.yml").read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]


def panels() -> list[tuple[str, str]]:
    """Every query of the dashboard as Prometheus gets it, and the legend of its series."""
    dashboard = json.loads((DEPLOY / "grafana" / "petalpaw.json").read_text())
    targets = [target for panel in dashboard["panels"] for target in panel["targets"]]
    return [(target["expr"].replace("$__rate_interval", "20s"), target["legendFormat"]) for target in targets]


def metrics(query: str) -> set[str]:
    """What a query asks for, histograms by the name that docs/metrics.md has."""
    named = re.findall(r"\b((?:petalpaw|process|bentoml)_\w+|ALERTS)[{\[]", query)
    return {re.sub(r"_(bucket|sum|count)$", "", name) for name in named}


QUERIES = [(rule["expr"], "") for rule in rules()] + panels()


@pytest.mark.parametrize(("query", "legend"), QUERIES)
def test_every_query_is_promql_on_metrics_and_labels_that_exist(query: str, legend: str) -> None:
    parser = pytest.importorskip("promql_parser", reason="needs promql-parser")
    parser.parse(query)
    page = (ROOT / "docs" / "metrics.md").read_text()
    labels = {
        name: set(re.findall(r"`(\w+)`", cell))
        for name, cell in re.findall(r"^\| `(\w+)` \| \w+ \|(.*?)\|", page, re.M)
    }
    # Prometheus' own.
    labels["ALERTS"] = {"alertname", "alertstate"}
    assert metrics(query) <= {*labels, *re.findall(r"`(process_\w+)`", page)}
    given = set().union({"instance", "job", "le"}, *(labels.get(name, ()) for name in metrics(query)))
    kept = {label for group in re.findall(r"\bby \((.*?)\)", query) for label in group.split(", ")}
    assert kept | set(re.findall(r'(\w+)(?:=~|!~|!=|=)"', query)) <= given
    assert set(re.findall(r"{{(\w+)}}", legend)) <= (kept or given)


ROUTES = [each.path_format for part in (classify, infer) for each in part.router.routes if isinstance(each, APIRoute)]
"""Where pictures are classified, on either protocol."""


@pytest.mark.parametrize("route", ROUTES)
def test_overload_and_slowness_are_seen_on_either_protocol(tmp_path: Path, route: str) -> None:
    promtool = shutil.which("promtool") or pytest.skip("needs promtool (Debian's package prometheus)")
    series = {
        f'petalpaw_requests_total{{route="{route}",code="ok"}}': "0+50x30",
        f'petalpaw_requests_total{{route="{route}",code="overloaded"}}': "0+50x30",
        'petalpaw_requests_total{route="/metrics",code="ok"}': "0+9000x30",
        f'petalpaw_request_seconds_bucket{{route="{route}",le="2.5"}}': "0+0x30",
        f'petalpaw_request_seconds_bucket{{route="{route}",le="5.0"}}': "0+100x30",
        f'petalpaw_request_seconds_bucket{{route="{route}",le="+Inf"}}': "0+100x30",
    }
    expected = {
        "PetalpawOverloaded": "50% of the requests are refused or come too late",
        "PetalpawSlow": "One request in a hundred takes more than 4.975s",
    }
    test = {
        "interval": "1m",
        "input_series": [{"series": name, "values": values} for name, values in series.items()],
        "alert_rule_test": [
            {
                "eval_time": "25m",
                "alertname": name,
                "exp_alerts": [{"exp_labels": {"severity": "warning"}, "exp_annotations": {"summary": summary}}],
            }
            for name, summary in expected.items()
        ],
    }
    path = tmp_path / "test.yaml"
    path.write_text(yaml.safe_dump({"rule_files": [str(DEPLOY / "prometheus" / "alerts.yml")], "tests": [test]}))
    ran(promtool, "test", "rules", path)


def test_every_alert_is_explained() -> None:
    page = (ROOT / "docs" / "operations.md").read_text()
    named = [rule["alert"] for rule in rules()]
    assert [line.split("`")[1] for line in page.splitlines() if line.startswith("| `Petalpaw")] == named


def test_the_operator_gets_the_same_alerts() -> None:
    spec = yaml.safe_load((KUBERNETES / "components" / "monitoring" / "alerts.yaml").read_text())["spec"]
    assert spec == yaml.safe_load((DEPLOY / "prometheus" / "alerts.yml").read_text())


def test_the_licences_are_those_of_the_lock() -> None:
    image = {
        "implementation_name": "cpython",
        "platform_machine": "x86_64",
        "python_full_version": "3.11.0",
        "sys_platform": "linux",
    }
    lock = (ROOT / "requirements" / "serve.txt").read_text().splitlines()
    wanted = [Requirement(line.rstrip(" \\")) for line in lock if line[:1].isalnum()]
    locked = [each for each in wanted if each.marker is None or each.marker.evaluate(image)]
    page = (ROOT / "requirements" / "licences.md").read_text().splitlines()
    rows = [line.split("|")[1:3] for line in page if line.startswith("| ")][1:]
    assert {(canonicalize_name(name.strip()), f"=={version.strip()}") for name, version in rows} == {
        (canonicalize_name(each.name), str(each.specifier)) for each in locked
    }
