"""What a scoring run says about one input: a row, the same in every sink and from every engine."""

from dataclasses import dataclass, replace

from inference.classifier import Classifier
from inference.errors import ParameterInvalid, PetalpawError
from inference.prediction import DEFAULT_TOP_K, Candidate, Prediction
from inference.preprocessing import MAX_PIXELS

OPTIONAL = ("content_hash", "logits", "features")
"""Columns that a row has only when `Settings` ask for them."""


@dataclass(frozen=True, slots=True)
class Settings:
    """What decides over a row besides the input and the model. Picklable, the same for every engine.

    `top_k` classes are named; pictures of more than `max_pixels` are refused; the others add the `OPTIONAL` columns.
    """

    top_k: int = DEFAULT_TOP_K
    max_pixels: int = MAX_PIXELS
    content_hash: bool = False
    logits: bool = False
    features: bool = False

    def __post_init__(self) -> None:
        """Raises ParameterInvalid for a number below 1."""
        for name in ("top_k", "max_pixels"):
            if getattr(self, name) < 1:
                raise ParameterInvalid(f"{name} is {getattr(self, name)}, it must be 1 or more")

    @property
    def columns(self) -> tuple[str, ...]:
        """The names of the columns that rows are written with, in order."""
        return COLUMNS + tuple(name for name in OPTIONAL if getattr(self, name))


@dataclass(frozen=True, slots=True)
class Origin:
    """Who answered: the artifact, and what ran it. Part of every row, so that tables can be put together."""

    model_name: str
    model_version: str
    model_digest: str
    runtime: str
    device: str

    @classmethod
    def of(cls, classifier: Classifier) -> "Origin":
        """The origin of everything that `classifier` answers."""
        artifact, runtime = classifier.artifact, classifier.runtime
        return cls(artifact.name, artifact.version, artifact.digest, runtime.name, runtime.device)


@dataclass(frozen=True, slots=True)
class Row:
    """The outcome for one input: either an answer or an error, never both, never neither.

    `id` is the input's position in the source, from 0; equal sources give equal ids. `path` is fit to print
    (`printable`). `probability` is 0…1, `top_k` is sorted, most probable first. `error_code` is one of
    `inference.errors`, the same as over HTTP. `width` and `height` are those of the upright picture, in pixels, known
    as soon as it could be decoded. `content_hash` is `sha256:…` of the encoded picture, known as soon as it was read;
    `logits` are the model's own, float32, one per class; `features` are what its last layer sees, float32.
    """

    id: int
    path: str
    origin: Origin
    label: str | None = None
    probability: float | None = None
    abstained: bool | None = None
    top_k: tuple[Candidate, ...] = ()
    error_code: str | None = None
    error_detail: str | None = None
    width: int | None = None
    height: int | None = None
    content_hash: str | None = None
    logits: tuple[float, ...] | None = None
    features: tuple[float, ...] | None = None

    def answered(self, answer: Prediction) -> "Row":
        """This row with an answer."""
        return replace(
            self,
            label=answer.label,
            probability=answer.probability,
            abstained=answer.abstained,
            top_k=answer.top_k,
        )

    def failed(self, error: Exception) -> "Row":
        """This row with an error; one that is not Petalpaw's own has the code `internal`."""
        if isinstance(error, PetalpawError):
            code, detail = error.code, error.detail
        else:
            code, detail = PetalpawError.code, f"{type(error).__name__}: {error}; please report it with the picture"
        return replace(self, error_code=code, error_detail=printable(detail))

    def flat(self) -> dict[str, object]:
        """The row as `COLUMNS` and `OPTIONAL`, ready for JSON."""
        return {
            "id": self.id,
            "path": self.path,
            "label": self.label,
            "probability": self.probability,
            "abstained": self.abstained,
            "top_k": [_flat(candidate) for candidate in self.top_k] if self.label is not None else None,
            "error_code": self.error_code,
            "error_detail": self.error_detail,
            "width": self.width,
            "height": self.height,
            "model_name": self.origin.model_name,
            "model_version": self.origin.model_version,
            "model_digest": self.origin.model_digest,
            "runtime": self.origin.runtime,
            "device": self.origin.device,
            "content_hash": self.content_hash,
            "logits": self.logits,
            "features": self.features,
        }


def _flat(candidate: Candidate) -> dict[str, object]:
    return {"label": candidate.label, "class_index": candidate.class_index, "probability": candidate.probability}


COLUMNS = tuple(name for name in Row(0, "", Origin("", "", "", "", "")).flat() if name not in OPTIONAL)
"""The names of the columns that every row has, in order."""


def printable(text: str) -> str:
    r"""Text that UTF-8 can hold: bytes of a file name that are not UTF-8 become `\xNN`.

    Python keeps such bytes as lone surrogates, which no CSV or JSON reader accepts.
    """
    try:
        return text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    except UnicodeEncodeError:  # surrogates that stand for no byte, as JSON can hold them
        return text.encode("utf-8", "backslashreplace").decode("utf-8")
