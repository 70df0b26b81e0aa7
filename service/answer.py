"""What the service says, as types: the JSON of its answers and, through FastAPI, its OpenAPI document.

The client reads it with the same types, so nothing of serving is imported here.
"""

from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from inference.errors import PetalpawError
from inference.manifest import Calibration, Metrics
from inference.prediction import Prediction
from inference.preprocessing import Preprocessing

if TYPE_CHECKING:
    from inference.classifier import Classifier
    from service.body import Picture
    from service.catalog import Entry
    from service.streams import Outcome

FileName = Annotated[
    str | None,
    Field(description="what the client called the picture, if it did", exclude_if=lambda name: name is None),
]


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
    filename: FileName = None
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
    filename: FileName = None
    error: ImageProblem


class Answer(_Said):
    """One outcome per picture, in the order of the request."""

    model: ModelIdentity
    runtime: RuntimeIdentity
    predictions: list[Classified | Failed]


class Problem(_Said):
    """RFC 9457. When no picture of a request could be classified, the members of `Answer` are there as well."""

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


class ReadyModel(_Said):
    """One version that is served, and what runs it."""

    model: ModelIdentity
    runtime: RuntimeIdentity


class Ready(_Said):
    """The service takes requests; `device` is where its models run."""

    device: str
    models: list[ReadyModel]


class ModelVersion(_Said):
    """One version in the repository. `default`: it answers where no version is named."""

    name: str
    version: str
    state: Literal["READY", "LOADING", "UNAVAILABLE"]
    reason: str
    default: bool


class ModelList(_Said):
    """The served models, each with its default version, and every version that there is."""

    models: list[ModelSummary]
    versions: list[ModelVersion]


class ModelDetail(_Said):
    """What a client may want to know about a model; the nested objects are those of its manifest."""

    name: str
    version: str
    digest: str
    title: str
    labels: list[str]
    preprocessing: Preprocessing
    calibration: Calibration
    metrics: Metrics | None
    runtime: RuntimeIdentity
    versions: list[ModelVersion]


def answer(classifier: "Classifier", pictures: "Sequence[Picture]", outcomes: "Sequence[Outcome]") -> Answer:
    """The JSON of a request's outcomes."""
    predictions = [
        _outcome(index, picture, outcome)
        for index, (picture, outcome) in enumerate(zip(pictures, outcomes, strict=True))
    ]
    return Answer(model=_identity(classifier), runtime=_runtime(classifier), predictions=predictions)


def summary(classifier: "Classifier", *, default: bool) -> ModelSummary:
    """One line of GET /models."""
    manifest = classifier.artifact.manifest
    return ModelSummary(
        **_identity(classifier).model_dump(), title=manifest.title, classes=len(manifest.labels), default=default
    )


def ready(device: str, served: "Iterable[Classifier]") -> Ready:
    """GET /readyz."""
    models = [ReadyModel(model=_identity(one), runtime=_runtime(one)) for one in served]
    return Ready(device=device, models=models)


def version(entry: "Entry") -> ModelVersion:
    """One line of the catalog's index."""
    return ModelVersion.model_validate(asdict(entry))


def detail(classifier: "Classifier", entries: "Iterable[Entry]") -> ModelDetail:
    """GET /models/{name}. `metrics` is null for a model that was never measured."""
    manifest = classifier.artifact.manifest
    return ModelDetail(
        **_identity(classifier).model_dump(),
        title=manifest.title,
        labels=list(manifest.labels),
        preprocessing=manifest.preprocessing,
        calibration=manifest.calibration,
        metrics=manifest.metrics,
        runtime=_runtime(classifier),
        versions=[version(entry) for entry in entries if entry.name == classifier.artifact.name],
    )


def _identity(classifier: "Classifier") -> ModelIdentity:
    artifact = classifier.artifact
    return ModelIdentity(name=artifact.name, version=artifact.version, digest=artifact.digest)


def _runtime(classifier: "Classifier") -> RuntimeIdentity:
    runtime = classifier.runtime
    return RuntimeIdentity(name=runtime.name, device=runtime.device, execution_provider=runtime.execution_provider)


def _outcome(index: int, picture: "Picture", outcome: "Outcome") -> Classified | Failed:
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
