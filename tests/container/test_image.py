"""What is inside the image, and what is not."""

from pathlib import Path

import pytest

from tests.container.conftest import BASE_IMAGE, IMAGE, docker, inspected, running

pytestmark = pytest.mark.container

LIMIT_MB = 450


@pytest.fixture(scope="module")
def paths() -> list[Path]:
    """Everything in the image."""
    found = docker(
        "run", "--rm", "--user", "0", "--entrypoint", "find", IMAGE, "/", "-xdev", "-not", "-path", "/proc/*"
    )
    return [Path(line) for line in found.splitlines()]


def test_it_is_small() -> None:
    above_base = (inspected("image", IMAGE)["Size"] - inspected("image", BASE_IMAGE)["Size"]) / 1e6
    print(docker("history", "--format", "{{.Size}}\t{{.CreatedBy}}", IMAGE))
    assert above_base <= LIMIT_MB, f"{above_base:.0f} MB above its base"


def test_it_holds_what_serves_and_nothing_that_builds_or_trains(paths: list[Path]) -> None:
    packages = {path.name for path in paths if path.match("/opt/petalpaw/lib/*/site-packages/*")}
    assert {"bentoml", "onnxruntime", "service", "scoring"} <= packages
    assert packages.isdisjoint({"torch", "torchvision", "onnx", "sklearn", "ray", "nvidia", "pip", "setuptools"})
    commands = {path.name for path in paths if path.parent.name in ("bin", "sbin")}
    assert {"tini", "petalpaw"} <= commands
    assert commands.isdisjoint({"gcc", "cc", "ld", "make", "uv", "curl", "wget", "git"})
    for forbidden in ("libonnxruntime_providers_cuda", "libcublas", "libcudnn", "libcudart"):
        assert not [path for path in paths if path.name.startswith(forbidden)]


def test_nothing_else_of_the_working_tree_came_along(paths: list[Path]) -> None:
    assert [str(path) for path in sorted(paths) if path.match("/models/*")] == ["/models/catdog", "/models/flowers"]
    # The ways to the top level: what the base image has, and these.
    top = {path.parts[1] for path in paths if len(path.parts) > 1}
    assert {"models", "opt"} <= top
    assert top.isdisjoint({"source", "project", "library", "data", "runs", "work"})
    assert not [path for path in paths if path.name in (".git", ".venv", ".ci", "bentofile.yaml")]


def test_it_names_itself_and_nobody_privileged() -> None:
    config = inspected("image", IMAGE)["Config"]
    assert config["User"] == "10001:10001"
    assert config["Labels"]["org.opencontainers.image.title"] == "Petalpaw"
    assert config["Labels"]["org.opencontainers.image.licenses"] == "Apache-2.0"
    assert config["Entrypoint"][0] == "tini"
    assert "/readyz" in " ".join(config["Healthcheck"]["Test"])


def test_everything_is_readable_by_any_user_and_writable_by_none() -> None:
    odd = docker(
        *("run", "--rm", "--user", "12345:12345", "--entrypoint", "find", IMAGE),
        *("/opt/petalpaw", "/models", "(", "-not", "-type", "l", "-writable", ")", "-o", "-not", "-readable"),
    )
    assert odd == ""


def test_any_command_runs_in_it_without_a_network() -> None:
    with running("--network", "none", command=("models", "verify")) as one:
        assert one.ended() == 0, one.said()
