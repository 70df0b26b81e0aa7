"""Who is measured: how each is installed, started, asked, and how its answer names a label."""

import base64
import json
import os
import subprocess
import sys
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path

CORES = len(os.sched_getaffinity(0))
APPS = Path(__file__).parent / "apps"
_SHARED = {"pillow": "pillow", "onnxruntime": "onnxruntime-gpu"}
COMMON = ("numpy", *(f"{ours}=={version(theirs)}" for ours, theirs in _SHARED.items()))
"""The same Pillow and ONNX Runtime for all. Petalpaw has ONNX Runtime's GPU build, whose CPU code is the same."""


@dataclass(frozen=True)
class Body:
    """One request's headers and body."""

    headers: Mapping[str, str]
    data: bytes


def raw(picture: bytes) -> Body:
    return Body({"Content-Type": "image/jpeg"}, picture)


def multipart(field_name: str) -> Callable[[bytes], Body]:
    def body(picture: bytes) -> Body:
        boundary = uuid.uuid4().hex
        head = (
            f'--{boundary}\r\nContent-Disposition: form-data; name="{field_name}"; filename="a.jpg"\r\n'
            "Content-Type: image/jpeg\r\n\r\n"
        )
        data = head.encode() + picture + f"\r\n--{boundary}--\r\n".encode()
        return Body({"Content-Type": f"multipart/form-data; boundary={boundary}"}, data)

    return body


def v2_json(picture: bytes) -> Body:
    text = base64.b64encode(picture).decode()
    tensor = {
        "name": "image",
        "datatype": "BYTES",
        "shape": [1],
        "data": [text],
        "parameters": {"content_type": "base64"},
    }
    return Body({"Content-Type": "application/json"}, json.dumps({"inputs": [tensor]}).encode())


def v2_binary(picture: bytes) -> Body:
    element = len(picture).to_bytes(4, "little") + picture
    tensor = {
        "name": "encoded",
        "datatype": "BYTES",
        "shape": [1, 1],
        "parameters": {"binary_data_size": len(element)},
    }
    head = json.dumps({"inputs": [tensor]}).encode()
    return Body(
        {"Content-Type": "application/octet-stream", "Inference-Header-Content-Length": str(len(head))}, head + element
    )


@dataclass(frozen=True)
class Contender:
    """`command` gets the port; `packages` go into a venv of their own, Petalpaw uses the project's.

    `python` is the interpreter to make the venv with.
    """

    name: str
    packages: tuple[str, ...]
    command: Callable[[Path, int], list[str]]
    path: str
    body: Callable[[bytes], Body]
    label: Callable[[dict[str, object]], str]
    ready: str
    python: str = sys.executable
    environment: Mapping[str, str] = field(default_factory=dict)

    def interpreter(self, venvs: Path) -> Path:
        """The Python that runs it, installed when it is not there yet."""
        if not self.packages:
            return Path(sys.executable)
        home = venvs / self.name
        python = home / "bin" / "python"
        packages = [*self.packages, *COMMON]
        complete = home / "complete"
        if not complete.exists() or complete.read_text().split() != packages:
            uv = Path(sys.executable).with_name("uv")
            subprocess.run([uv, "venv", "--quiet", "--clear", "--python", self.python, home], check=True)
            subprocess.run([uv, "pip", "install", "--quiet", "--python", python, *packages], check=True)
            complete.write_text(" ".join(packages))
        return python

    def started(self, python: Path, port: int, folder: Path, log: Path, model: Path) -> subprocess.Popen[bytes]:
        """The running server; its output goes to `log`, what it writes itself to `folder`."""
        environment = {
            name: value for name, value in os.environ.items() if not name.startswith(("PETALPAW_", "BENTOML_"))
        } | {
            "PORT": str(port),
            "BENCHMARK_MODEL": str(model),
            "BENCHMARK_WORKERS": str(CORES),
            "PYTHONPATH": str(APPS),
            "PATH": f"{python.parent}:{os.environ['PATH']}",
            "BENTOML_DO_NOT_TRACK": "True",
            "BENTOML_HOME": str(folder / "bentoml"),
            "RAY_USAGE_STATS_ENABLED": "0",
            **self.environment,
        }
        with log.open("wb") as output:
            return subprocess.Popen(
                self.command(python, port), cwd=folder, env=environment, stdout=output, stderr=output,
                start_new_session=True,
            )  # fmt: skip


def _petalpaw(repository: str) -> Callable[[Path, int], list[str]]:
    """The service, with the repository that a variable names."""
    return lambda python, port: [
        str(python), "-m", "petalpaw", "serve", "--port", str(port), "--models", os.environ[repository],
    ]  # fmt: skip


def _app(name: str) -> Callable[[Path, int], list[str]]:
    """A Python program or a shell script of apps/; the script gets the interpreter and the port."""
    path = str(APPS / name)
    if name.endswith(".sh"):
        return lambda python, port: ["bash", path, str(python), str(port)]
    return lambda python, _: [str(python), path]


def _v2_label(answer: dict[str, object]) -> str:
    return str(answer["outputs"][0]["data"][0])  # type: ignore[index]


def _plain_label(answer: dict[str, object]) -> str:
    return str(answer["label"])


def _petalpaw_label(answer: dict[str, object]) -> str:
    return str(answer["predictions"][0]["label"])  # type: ignore[index]


CONTENDERS = {
    each.name: each
    for each in (
        Contender(
            "petalpaw", (), _petalpaw("BENCHMARK_REPOSITORY"),
            "/classify?model=flowers", multipart("images"), _petalpaw_label, "/readyz",
            environment={"PYTHONPATH": str(APPS.parents[2])},  # this tree, wherever the environment's is
        ),
        Contender(
            "petalpaw-draft", (), _petalpaw("BENCHMARK_DRAFTS"),  # preprocessing.decoder: pillow-draft
            "/classify?model=flowers", multipart("images"), _petalpaw_label, "/readyz",
            environment={"PYTHONPATH": str(APPS.parents[2])},
        ),
        Contender(
            "petalpaw-int8", (), _petalpaw("BENCHMARK_INT8"),  # --int8 names the repository
            "/classify?model=flowers", multipart("images"), _petalpaw_label, "/readyz",
            environment={"PYTHONPATH": str(APPS.parents[2]), "PETALPAW_RUNTIME": "onnx-int8"},
        ),
        Contender(
            "fastapi", ("fastapi[standard]==0.121.3",),
            lambda python, port: [
                str(python), "-m", "uvicorn", "fastapi_plain:app", "--port", str(port), "--workers", str(CORES),
                "--log-level", "warning", "--no-access-log",
            ],
            "/classify", multipart("image"), _plain_label, "/ready",
        ),
        Contender(
            "litserve", ("litserve==0.2.19", "python-multipart==0.0.34"), _app("litserve_plain.py"),
            "/classify", multipart("image"), _plain_label, "/health",
        ),
        Contender(
            "bentoml", ("bentoml==1.4.39",),
            lambda python, port: [
                str(python), "-m", "bentoml", "serve", "bentoml_plain:Plain",
                "--host", "127.0.0.1", "--port", str(port),
            ],
            "/classify", multipart("image"), _plain_label, "/readyz",
        ),
        Contender(
            "mlserver", ("mlserver==1.7.1", "uvloop==0.21.0"), _app("mlserver.sh"),
            "/v2/models/plain/infer", v2_json, _v2_label, "/v2/models/plain/ready",
        ),
        Contender(
            "ray", ("ray[serve]==2.60.0",), _app("ray_plain.py"),
            "/classify", raw, _plain_label, "/-/healthz",
            environment={"RAY_SERVE_ENABLE_HA_PROXY": "1", "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1"},
        ),
        Contender(
            "torchserve",
            ("torchserve==0.12.0", "torch-model-archiver==0.12.0", "torch==2.15.0", "pyyaml==6.0.3", "setuptools<80"),
            _app("torchserve.sh"), "/predictions/plain", raw, _plain_label, "/ping",
        ),
        Contender(
            "triton", ("nvidia-pytriton==0.7.0",), _app("triton_plain.py"),
            "/v2/models/plain/infer", v2_binary, _v2_label, "/v2/models/plain/ready",
            python="/usr/bin/python3.11",
        ),
    )
}  # fmt: skip
