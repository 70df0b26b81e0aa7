"""What an operator can set, each from the environment variable PETALPAW_<NAME>. docs/settings.md is the same list."""

import difflib
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from pydantic import Field, SecretStr, ValidationError, ValidationInfo, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from inference.errors import ParameterInvalid
from inference.prediction import DEFAULT_TOP_K
from inference.preprocessing import MAX_PIXELS
from inference.runtimes.base import Device

PREFIX = "PETALPAW_"

# Kubernetes sets these in every container beside a Service named petalpaw.
_FROM_KUBERNETES = re.compile(r"PETALPAW_(SERVICE_|PORT$|PORT_)")

_MODEL = r"[a-z0-9][a-z0-9_-]{0,63}(/[1-9][0-9]{0,8})?"
_SERVED = rf"^{_MODEL}(,{_MODEL})*$"

RuntimeChoice = Literal[
    "auto",
    "auto-int8",
    "onnx",
    "tensorrt",
    "torchscript",
    "openvino",
    "openvino-bf16",
    "onnx-int8",
    "openvino-int8",
]
"""What `petalpaw serve --runtime` takes too."""


class Settings(BaseSettings):
    """The whole configuration of the service, validated before anything is loaded.

    Empty variables count as not set. Raises pydantic's ValidationError; `read_settings` turns it into words.
    """

    model_config = SettingsConfigDict(env_prefix=PREFIX, env_ignore_empty=True, frozen=True, extra="forbid")

    models: Path = Field(Path("models"), description="The model repository.")
    serve: str | None = Field(
        None,
        pattern=_SERVED,
        description="What of it is served, such as `catdog,flowers/2`: a model's latest versions, or the one named. By "
        "default every model.",
    )
    versions: int = Field(1, ge=1, le=64, description="How many of its latest versions are served for each model.")
    default_version: Literal["latest", "kept"] = Field(
        "latest",
        description="Which version answers requests that name none: the `latest`, or, with `kept`, the one that did so "
        "before, until it is unloaded.",
    )
    agreement: float | None = Field(
        None,
        ge=0,
        le=1,
        description="Least share of the photos in `PETALPAW_PROBES` on which a new version must agree with the one "
        "that it replaces; by default none is asked for.",
    )
    probes: Path | None = Field(None, description="A folder of photos for that, with a folder for each model.")
    poll_s: float | None = Field(
        None,
        ge=1,
        description="Seconds between looks for new versions in the repository; by default only a request loads them.",
    )
    default_model: str | None = Field(
        None, description="The model for requests that name none. Not needed where one model is served."
    )
    runtime: RuntimeChoice = Field(
        "onnx",
        description="What runs the models; `auto` is the fastest of ONNX Runtime and OpenVINO that passes the "
        "self-test, tried at the start, `auto-int8` tries the models' int8 files too.",
    )
    cache: Path | None = Field(
        None, description="Where the engines that TensorRT builds are kept; by default `~/.cache/petalpaw`."
    )
    device: Literal["auto", "cpu", "cuda"] = Field(
        "auto",
        description="Where they run: `auto` takes CUDA where every model passes its self-test there and otherwise logs "
        "why and takes the CPU; `cuda` refuses to start without it.",
    )
    streams: int | None = Field(
        None,
        ge=1,
        le=256,
        description="Pictures decoded and classified at the same time; by default one per core and, from two cores on, "
        "one more.",
    )
    threads: int = Field(1, ge=1, le=256, description="Threads inside the runtime per stream.")
    batching: Literal["auto", "streams", "adaptive"] = Field(
        "auto",
        description="`streams` runs every picture alone, `adaptive` gathers crops of concurrent requests into batches; "
        "`auto` is `adaptive` on CUDA and `streams` on the CPU.",
    )
    max_batch_size: int = Field(
        16, ge=1, le=256, description="Largest adaptive batch; on CUDA every size up to it is warmed at the start."
    )
    max_batch_latency_ms: int = Field(
        10_000,
        ge=10,
        description="With adaptive batching, pictures that would wait longer than this many milliseconds are refused "
        "as `overloaded`.",
    )
    top_k: int = Field(DEFAULT_TOP_K, ge=1, description="Classes per answer when a request does not say.")
    max_body_bytes: int = Field(
        32 * 1024 * 1024, ge=1024, description="Largest request body; a larger one is refused while it arrives."
    )
    max_uploads_bytes: int = Field(
        256 * 1024 * 1024,
        ge=1024,
        description="Most bytes of request bodies that all requests under way hold together, at least "
        "`PETALPAW_MAX_BODY_BYTES`; more is refused as `overloaded`.",
    )
    max_images: int = Field(64, ge=1, le=4096, description="Most pictures in one request.")
    max_pixels: int = Field(
        MAX_PIXELS, ge=1, description="Most pixels (width × height) per picture; checked before decoding."
    )
    request_timeout_s: float = Field(
        30, gt=0, le=55, description="Seconds from the head of a request to its answer, upload included."
    )
    max_queue_s: float = Field(
        5,
        gt=0,
        description="Longest queue, in seconds of expected work; requests that come on top of it are refused as "
        "`overloaded`.",
    )
    max_connections: int = Field(
        1024, ge=4, description="Most connections; the one that is idle for the longest makes room for the next."
    )
    max_header_bytes: int = Field(32 * 1024, ge=1024, description="Largest request line and headers of a request.")
    header_timeout_s: float = Field(
        10, gt=0, description="Seconds from the first byte of a request, or from the connection, to its last header."
    )
    keep_alive_s: int = Field(
        120,
        ge=1,
        description="Seconds that a connection is kept for its next request; a proxy in front must let go first.",
    )
    min_upload_rate: int = Field(
        1000,
        ge=0,
        description="Bytes per second that a body must bring on average once it takes longer than 5 s; 0 is no limit.",
    )
    api_keys: SecretStr | None = Field(
        None,
        description="Keys, separated by commas, each `predict:` or `admin:` and then the key, or `sha256:` and its "
        "digest (docs/security.md).",
    )
    api_keys_file: Path | None = Field(None, description="A file of such keys, one a line, for mounted secrets.")
    open_metrics: bool = Field(True, description="Whether `/metrics` needs no key even where prediction does.")
    cors_origins: str | None = Field(
        None,
        pattern=r"^(\*|https?://[^/\s]+(\s+https?://[^/\s]+)*)$",
        description="Origins, separated by spaces, whose pages may ask this service from a browser; `*` is every one.",
    )
    drain_notice_s: float = Field(
        1,
        ge=0,
        description="After SIGTERM, seconds during which `/readyz` answers 503 and requests are still taken, for load "
        "balancers to notice.",
    )
    drain_timeout_s: float = Field(
        30, ge=1, description="After that, most seconds for the requests that were taken; then they are cut off."
    )
    log_format: Literal["text", "json"] = Field(
        "text", description="Log lines for people, or one JSON object per line; docs/metrics.md lists the fields."
    )

    @field_validator("max_uploads_bytes")
    @classmethod
    def _holds_one_body(cls, count: int, before: ValidationInfo) -> int:
        """Otherwise a body that is allowed would be refused as `overloaded`, and sent again for ever."""
        largest = before.data.get("max_body_bytes", 0)
        if count < largest:
            raise ValueError(f"it must be at least the {largest:,} of {PREFIX}MAX_BODY_BYTES")
        return count

    def batched(self, device: Device) -> bool:
        """Whether crops are gathered into adaptive batches on this device."""
        return device == "cuda" if self.batching == "auto" else self.batching == "adaptive"


def read_settings() -> Settings:
    """The settings of this process. Raises ParameterInvalid that names each wrong variable and what it may be."""
    try:
        return Settings()
    except ValidationError as error:
        wrong = "; ".join(
            f"{PREFIX}{'.'.join(map(str, item['loc'])).upper()} is {item['input']!r}: {item['msg']}"
            for item in error.errors()
        )
        raise ParameterInvalid(f"{wrong}; docs/settings.md lists the allowed values") from None


def misspelt(environment: Mapping[str, str] = os.environ) -> list[str]:
    """A line for each PETALPAW_ variable that sets nothing, with the nearest name that would."""
    known = [PREFIX + name.upper() for name in Settings.model_fields]
    lines = []
    for name in sorted(environment):
        if name.startswith(PREFIX) and name not in known and not _FROM_KUBERNETES.match(name):
            nearest = difflib.get_close_matches(name, known, n=1)
            lines.append(f"{name} is not a setting{f'; {nearest[0]} is' if nearest else ''}")
    return lines
