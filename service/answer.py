"""What the service says, as types: the JSON of its answers and, through FastAPI, its OpenAPI document."""

from collections.abc import Sequence
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, WithJsonSchema

from inference.classifier import Classifier
from inference.errors import PetalpawError
from inference.prediction import Prediction
from service.body import Picture
from service.streams import Outcome

# Fields that may be absent are left out of an answer rather than null: BentoML's document is OpenAPI 3.0, which has
# no null.
Absent = WithJsonSchema({"type": "string"})


class _Said(BaseModel):
    model_config = ConfigDict(frozen=True, protected_namespaces=())


class ModelIdentity(_Said):
    """Which artifact answered; `digest` is its manifest's."""

    name: str
    version: str
    digest: str


class RuntimeIdentity(_Said):
    """What ran it, and where."""

    name: str
    device: str
    execution_provider: str


class Candidate(_Said):
    """One class."""

    label: str
    class_index: int
    probability: float


class Classified(_Said):
    """The answer for one picture; `abstained` means "not sure"."""

    index: int
    filename: Annotated[str | None, Absent] = Field(None, exclude_if=lambda name: name is None)
    label: str
    probability: float
    abstained: bool
    top_k: list[Candidate]


class ImageProblem(_Said):
    """Why there is no answer for one picture."""

    code: str
    status: int
    detail: str


class Failed(_Said):
    """A picture without an answer."""

    index: int
    filename: Annotated[str | None, Absent] = Field(None, exclude_if=lambda name: name is None)
    error: ImageProblem


class Answer(_Said):
    """One outcome per picture, in the order of the request."""

    model: ModelIdentity
    runtime: RuntimeIdentity
    predictions: list[Classified | Failed]


class Problem(_Said):
    """RFC 9457. When none of several pictures could be classified, the members of `Answer` are there as well."""

    type: str
    title: str
    status: int
    code: str
    detail: str


class ModelSummary(_Said):
    """A served model."""

    name: str
    version: str
    digest: str
    title: str
    classes: int
    default: bool


class ModelList(_Said):
    """All served models."""

    models: list[ModelSummary]


class ModelDetail(_Said):
    """Everything that a client may want to know about a model; the nested objects are those of its manifest."""

    name: str
    version: str
    digest: str
    title: str
    labels: list[str]
    preprocessing: dict[str, Any]
    calibration: dict[str, Any]
    metrics: dict[str, Any]
    runtime: RuntimeIdentity


def answer(classifier: Classifier, pictures: Sequence[Picture], outcomes: Sequence[Outcome]) -> Answer:
    """The JSON of a request's outcomes."""
    predictions = [
        _outcome(index, picture, outcome)
        for index, (picture, outcome) in enumerate(zip(pictures, outcomes, strict=True))
    ]
    return Answer(model=_identity(classifier), runtime=_runtime(classifier), predictions=predictions)


def summary(classifier: Classifier, *, default: bool) -> ModelSummary:
    """One line of GET /models."""
    manifest = classifier.artifact.manifest
    return ModelSummary(
        **_identity(classifier).model_dump(), title=manifest.title, classes=len(manifest.labels), default=default
    )


def detail(classifier: Classifier) -> ModelDetail:
    """GET /models/{name}. `metrics` is empty for a model that was never measured."""
    manifest = classifier.artifact.manifest
    return ModelDetail(
        **_identity(classifier).model_dump(),
        title=manifest.title,
        labels=list(manifest.labels),
        preprocessing=manifest.preprocessing.model_dump(mode="json"),
        calibration=manifest.calibration.model_dump(mode="json"),
        metrics=manifest.metrics.model_dump(mode="json") if manifest.metrics else {},
        runtime=_runtime(classifier),
    )


def _identity(classifier: Classifier) -> ModelIdentity:
    artifact = classifier.artifact
    return ModelIdentity(name=artifact.name, version=artifact.version, digest=artifact.digest)


def _runtime(classifier: Classifier) -> RuntimeIdentity:
    runtime = classifier.runtime
    return RuntimeIdentity(name=runtime.name, device=runtime.device, execution_provider=runtime.execution_provider)


def _outcome(index: int, picture: Picture, outcome: Outcome) -> Classified | Failed:
    if isinstance(outcome, PetalpawError):
        problem = ImageProblem(code=outcome.code, status=outcome.status, detail=outcome.detail)
        return Failed(index=index, filename=picture.filename, error=problem)
    assert isinstance(outcome, Prediction)
    candidates = [
        Candidate(label=one.label, class_index=one.class_index, probability=one.probability) for one in outcome.top_k
    ]
    return Classified(
        index=index,
        filename=picture.filename,
        label=outcome.label,
        probability=outcome.probability,
        abstained=outcome.abstained,
        top_k=candidates,
    )
