"""Who is measured: how each is installed, started, asked, and how its answer names a label."""

import base64
import json
import os
import subprocess
import sys
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

APPS = Path(__file__).parent / "apps"
COMMON = ("numpy", "pillow==12.3.0", "onnxruntime==1.31.0")


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

    `python` is the interpreter to make the venv with; `prepare` runs once before the first start.
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
        if not (home / "complete").exists():
            uv = Path(sys.executable).with_name("uv")
            subprocess.run([uv, "venv", "--quiet", "--clear", "--python", self.python, home], check=True)
            subprocess.run([uv, "pip", "install", "--quiet", "--python", python, *self.packages, *COMMON], check=True)
            (home / "complete").touch()
        return python

    def started(self, python: Path, port: int, folder: Path, log: Path, model: Path) -> subprocess.Popen[bytes]:
        """The running server; its output goes to `log`, what it writes itself to `folder`."""
        environment = {
            name: value for name, value in os.environ.items() if not name.startswith(("PETALPAW_", "BENTOML_"))
        } | {
            "PORT": str(port),
            "BENCHMARK_MODEL": str(model),
            "PYTHONPATH": str(APPS),
            "PATH": f"{python.parent}:{os.environ['PATH']}",
            "BENTOML_DO_NOT_TRACK": "True",
            "BENTOML_HOME": str(folder / "bentoml"),
            "RAY_USAGE_STATS_ENABLED": "0",
            **self.environment,
        }
        with log.open("ab") as output:
            return subprocess.Popen(
                self.command(python, port), cwd=folder, env=environment, stdout=output, stderr=output,
                start_new_session=True,
            )  # fmt: skip


def _petalpaw(python: Path, port: int) -> list[str]:
    return [str(python), "-m", "petalpaw", "serve", "--port", str(port), "--models", os.environ["BENCHMARK_REPOSITORY"]]


def _torchserve(python: Path, port: int) -> list[str]:
    return ["bash", str(APPS / "torchserve.sh"), str(python), str(port)]


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
            "petalpaw", (), _petalpaw, "/classify?model=flowers", multipart("images"), _petalpaw_label, "/readyz"
        ),
        Contender(
            "fastapi",
            ("fastapi[standard]==0.121.3",),
            lambda python, port: [
                str(python), "-m", "uvicorn", "fastapi_plain:app", "--port", str(port), "--workers", "2",
                "--log-level", "warning", "--no-access-log",
            ],
            "/classify", multipart("image"), _plain_label, "/ready",
        ),
        Contender(
            "litserve",
            ("litserve==0.2.19", "python-multipart"),
            lambda python, _: [str(python), str(APPS / "litserve_plain.py")],
            "/classify", multipart("image"), _plain_label, "/health",
        ),
        Contender(
            "bentoml",
            ("bentoml==1.4.39",),
            lambda python, port: [
                str(python), "-m", "bentoml", "serve", "bentoml_plain:Plain",
                "--host", "127.0.0.1", "--port", str(port),
            ],
            "/classify", multipart("image"), _plain_label, "/readyz",
        ),
        Contender(
            "mlserver",
            ("mlserver==1.7.1",),
            lambda python, _: [str(python.with_name("mlserver")), "start", "."],
            "/v2/models/plain/infer", v2_json, _v2_label, "/v2/models/plain/ready",
            environment={"MLSERVER_PARALLEL_WORKERS": "2", "MLSERVER_HOST": "127.0.0.1"},
        ),
        Contender(
            "ray",
            ("ray[serve]",),
            lambda python, _: [str(python), str(APPS / "ray_plain.py")],
            "/classify", raw, _plain_label, "/-/healthz",
        ),
        Contender(
            "torchserve",
            ("torchserve==0.12.0", "torch-model-archiver==0.12.0", "torch", "setuptools<80"),
            _torchserve, "/predictions/plain", raw, _plain_label, "/ping",
        ),
        Contender(
            "triton",
            ("nvidia-pytriton",),
            lambda python, _: [str(python), str(APPS / "triton_plain.py")],
            "/v2/models/plain/infer", v2_binary, _v2_label, "/v2/models/plain/ready",
            python="/usr/bin/python3.11",
        ),
    )
}  # fmt: skip
