"""A model: metadata, readiness, configuration."""

import json
from typing import Any

from fastapi import APIRouter
from pydantic_core import to_json
from starlette.requests import Request
from starlette.responses import Response

from inference.classifier import Classifier
from service.openinference import signature
from service.openinference.messages import ModelMetadata, ModelReady, TensorMetadata
from service.openinference.paths import of_model, refusals, used_model
from service.openinference.server import said
from service.openinference.signature import TensorSignature

# The names of Triton's model configuration for the protocol's data types.
_CONFIG_TYPES = {"UINT8": "TYPE_UINT8", "FP32": "TYPE_FP32", "BOOL": "TYPE_BOOL", "BYTES": "TYPE_STRING"}

router = APIRouter()


@of_model(router, "GET", "", response_model=ModelMetadata, responses=refusals(404))
async def metadata(request: Request) -> Response:
    """Inputs and outputs of a model, and its versions."""
    with used_model(request) as classifier:
        artifact = classifier.artifact
        return said(
            ModelMetadata(
                name=artifact.name,
                versions=_versions(request, artifact.name),
                platform=_platform(classifier),
                inputs=tuple(map(_described, signature.inputs(classifier))),
                outputs=tuple(map(_described, signature.outputs(classifier))),
            )
        )


@of_model(router, "GET", "/ready", response_model=ModelReady, responses=refusals(404))
async def ready(request: Request) -> Response:
    """Whether a model can be used; a model that is not served answers 404."""
    with used_model(request) as classifier:
        return said(ModelReady(name=classifier.artifact.name, ready=True))


@of_model(router, "GET", "/config", responses=refusals(404))
async def configuration(request: Request) -> Response:
    """A model in the form of Triton's model configuration."""
    with used_model(request) as classifier:
        settings = request.app.state.settings
        config = _configuration(classifier, settings.max_images, request.app.state.streams.count)
        versions = _versions(request, classifier.artifact.name)
    config["version_policy"] = {"specific": {"versions": list(map(int, versions))}}
    return Response(to_json(config), media_type="application/json")


def _configuration(classifier: Classifier, max_images: int, streams: int) -> dict[str, Any]:
    """`max_batch_size` is what one request may hold; `parameters` holds what Triton has no word for, as strings."""
    manifest = classifier.artifact.manifest
    kind = "KIND_GPU" if classifier.runtime.device == "cuda" else "KIND_CPU"
    return {
        "name": classifier.artifact.name,
        "platform": _platform(classifier),
        "backend": classifier.runtime.name,
        "max_batch_size": max_images,
        "input": [{**_configured(tensor), "optional": True} for tensor in signature.inputs(classifier)],
        "output": [_configured(tensor) for tensor in signature.outputs(classifier)],
        "instance_group": [{"name": classifier.artifact.name, "kind": kind, "count": streams}],
        "parameters": {
            "labels": {"string_value": json.dumps(manifest.labels, ensure_ascii=False)},
            "threshold": {"string_value": str(manifest.calibration.threshold)},
            "temperature": {"string_value": str(manifest.calibration.temperature)},
        },
    }


def _versions(request: Request, name: str) -> tuple[str, ...]:
    """The versions of a model that are served."""
    served = [classifier.artifact for classifier in request.app.state.catalog.served]
    return tuple(artifact.version for artifact in served if artifact.name == name)


def _platform(classifier: Classifier) -> str:
    return f"petalpaw_{classifier.runtime.name}"


def _described(tensor: TensorSignature) -> TensorMetadata:
    return TensorMetadata(name=tensor.name, datatype=tensor.datatype, shape=(-1, *tensor.row))


def _configured(tensor: TensorSignature) -> dict[str, Any]:
    image = {"format": "FORMAT_NHWC"} if tensor.name == signature.IMAGES else {}
    return {"name": tensor.name, "data_type": _CONFIG_TYPES[tensor.datatype], "dims": list(tensor.row), **image}
