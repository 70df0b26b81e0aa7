"""What an artifact is: the typed content of models/<name>/<version>/manifest.json."""

import hashlib
import json
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from inference.errors import DigestMismatch, ManifestInvalid
from inference.golden import GOLDEN_COUNT
from inference.preprocessing import Preprocessing

FORMAT_VERSION = 1
"""What this code reads and writes; `Manifest.format_version` admits no other."""

MANIFEST = "manifest.json"
PARITY = "parity.json"
INT8 = "model.int8.onnx"
"""The optional file in 8-bit integers; what it answers is not what PyTorch answers, and `Quantized` says how near."""

LEAST_AGREEMENT, MOST_LOST = 0.995, 0.003
"""What an int8 file must hold on validation photos to be published: the share of equal labels, and of accuracy lost."""

LEAST_DRAFTS, LEAST_DRAFT_AGREEMENT = 100, 0.99
"""How many photos a decoder that reduces photos must have reduced, and the share of equal labels that it must hold."""

Digest = Annotated[str, Field(pattern=r"^sha256:[0-9a-f]{64}$")]
Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,63}$")]
FileName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$")]
Probability = Annotated[float, Field(ge=0, le=1)]
CalibrationName = Literal["minmax", "percentile"]
"""How photos give the range of an activation: the extremes, or all but one value in a hundred thousand."""


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=(), ser_json_inf_nan="strings")


class FileEntry(_Frozen):
    """Size in bytes and digest of one file of the artifact."""

    sha256: Digest
    size: int = Field(ge=0)


class Tensor(_Frozen):
    """One side of the signature; None in `shape` is the dynamic batch axis."""

    name: str
    dtype: Literal["uint8", "float32"]
    shape: tuple[int | None, ...]


class Signature(_Frozen):
    """`images` uint8 (batch, height, width, 3) → `logits` float32 (batch, classes)."""

    input: Tensor
    output: Tensor

    @classmethod
    def of(cls, side: int, classes: int) -> "Signature":
        """The signature of every Petalpaw model with square crops of `side` pixels."""
        return cls(
            input=Tensor(name="images", dtype="uint8", shape=(None, side, side, 3)),
            output=Tensor(name="logits", dtype="float32", shape=(None, classes)),
        )


class Golden(_Frozen):
    """PyTorch's logits for `inference.golden.golden_crops`, float32 (count, classes), and what may differ."""

    crops_sha256: Digest
    logits: tuple[tuple[float, ...], ...]
    tolerance: float = Field(gt=0, description="largest |Δlogit| that counts as equal")

    def allowed(self, deviation: float) -> float:
        """The largest |Δlogit| for a runtime that may deviate by this share of the logits' span."""
        logits = [logit for row in self.logits for logit in row]
        return self.tolerance + deviation * (max(logits) - min(logits))


class Calibration(_Frozen):
    """Probabilities are softmax(logits / temperature); below `threshold` the classifier abstains.

    The other figures say how both were fitted: on which split, on how many pictures, expected calibration error
    (15 equal bins) before and after, and what abstaining costs and buys there.
    """

    temperature: float = Field(1.0, gt=0)
    threshold: Probability = 0.0
    split: str = "none"
    images: int = 0
    ece_before: Probability | None = None
    ece_after: Probability | None = None
    coverage: Probability | None = Field(None, description="share of pictures not abstained on")
    accuracy_when_answering: Probability | None = None


class Metrics(_Frozen):
    """Accuracy on pictures that were neither trained on nor used for any choice, with a 95 % Wilson interval."""

    split: str
    images: int
    accuracy: Probability
    accuracy_low: Probability
    accuracy_high: Probability
    macro_f1: Probability
    ece: Probability


class ParityFigure(_Frozen):
    """One runtime on one device against PyTorch eager: a row of parity.json."""

    runtime: str
    device: str
    max_difference: float
    mean_difference: float
    top1_agreement: Probability
    images: int
    tolerance: float


class Agreement(_Frozen):
    """Two answers to the same photos: how often the label is the same, with its 95 % Wilson interval, and |Δlogit|."""

    images: int
    agreement: Probability
    agreement_low: Probability
    agreement_high: Probability
    max_difference: float
    mean_difference: float


class QuantizedFigure(Agreement):
    """The int8 file on one runtime against model.onnx on ONNX Runtime, on the validation photos.

    `accuracy` is the int8 file's, `accuracy_fp32` that of model.onnx on the same photos.
    """

    runtime: str
    accuracy: Probability
    accuracy_fp32: Probability

    @property
    def passed(self) -> bool:
        """Whether this is near enough to be published. The slack forgives the last bit of a difference of shares."""
        return self.agreement >= LEAST_AGREEMENT and self.accuracy_fp32 - self.accuracy <= MOST_LOST + 1e-9

    def __str__(self) -> str:
        return (
            f"{self.runtime} gives model.onnx's label on {self.agreement:.2%} of {self.images} validation photos "
            f"(95 % interval {self.agreement_low:.2%} to {self.agreement_high:.2%}; {LEAST_AGREEMENT:.1%} is needed) "
            f"and is right on {self.accuracy:.2%} of them instead of {self.accuracy_fp32:.2%} "
            f"({MOST_LOST * 100:.1f} points may be lost)"
        )


class DecoderFigure(Agreement):
    """A decoder that reduces large photos against the exact one, by the model's answers on ONNX Runtime.

    Only the photos that were reduced count.
    """

    decoder: str

    @property
    def passed(self) -> bool:
        """Whether there were photos to tell by, and their labels stayed."""
        return self.images >= LEAST_DRAFTS and self.agreement >= LEAST_DRAFT_AGREEMENT

    def __str__(self) -> str:
        if self.images < LEAST_DRAFTS:
            return (
                f"{self.images} of the photos are large enough for {self.decoder} to reduce them, too few to show that "
                f"it keeps the labels; name a folder with {LEAST_DRAFTS} large photos with --large, or train with the "
                "decoder pillow"
            )
        return (
            f"{self.decoder} gives the same label as pillow on {self.agreement:.2%} of the {self.images} photos that "
            f"it reduces (95 % interval {self.agreement_low:.2%} to {self.agreement_high:.2%}; "
            f"{LEAST_DRAFT_AGREEMENT:.0%} is needed), largest |Δlogit| {self.max_difference:.2g}"
        )


class Quantized(_Frozen):
    """How model.int8.onnx was made, what it answers to the golden inputs, and how it does on the validation photos.

    `images` training photos gave the ranges by `calibration`; `excluded` nodes stayed in float32. `golden` has the
    file's own logits, as ONNX Runtime gave them at export: a runtime proves itself against these.
    """

    calibration: CalibrationName
    images: int = Field(gt=0)
    excluded: tuple[str, ...]
    golden: Golden
    figures: Annotated[tuple[QuantizedFigure, ...], Field(min_length=1)]


class ParityReport(_Frozen):
    """The whole of parity.json: what was compared, how far apart it was, and whether that is near enough.

    `files` are the digests of the files that were compared; `problems` is empty when `passed`. `quantized` has the
    int8 file's figures, where there is one, and `decoder` those of a decoder that is not exact.
    """

    passed: bool
    files: dict[FileName, Digest]
    figures: tuple[ParityFigure, ...]
    quantized: tuple[QuantizedFigure, ...] = ()
    decoder: DecoderFigure | None = None
    problems: tuple[str, ...] = ()
    batches: tuple[int, ...]
    photos: int
    golden: int
    created: str


class Provenance(_Frozen):
    """Where the artifact came from."""

    recipe: str
    recipe_sha256: Digest
    backbone: str
    weights: str
    weights_sha256: Digest | None
    data_fingerprint: Digest
    packages: dict[str, str]
    commit: str | None
    created: str


class Manifest(_Frozen):
    """The whole of manifest.json. `version` is "0" until the artifact is published."""

    format_version: Literal[1] = 1
    name: Name
    version: Annotated[str, Field(pattern=r"^(0|[1-9][0-9]{0,8})$")] = "0"
    title: str
    labels: Annotated[tuple[str, ...], Field(min_length=2)]
    signature: Signature
    preprocessing: Preprocessing
    preprocessing_golden: Digest
    files: dict[FileName, FileEntry]
    golden: Golden
    quantized: Quantized | None = None
    calibration: Calibration
    metrics: Metrics | None = None
    parity: tuple[ParityFigure, ...] = ()
    provenance: Provenance

    @model_validator(mode="after")
    def _consistent(self) -> "Manifest":
        classes = len(self.labels)
        if len(set(self.labels)) != classes:
            raise ValueError("labels repeat")
        if self.signature != Signature.of(self.preprocessing.crop, classes):
            raise ValueError("signature does not fit the preprocessing's crop and the number of labels")
        for golden in (self.golden, *([self.quantized.golden] if self.quantized else ())):
            if len(golden.logits) != GOLDEN_COUNT or any(len(row) != classes for row in golden.logits):
                raise ValueError(f"golden logits are not {GOLDEN_COUNT} rows of {classes} numbers, one per label")
        if (self.quantized is None) == (INT8 in self.files):
            raise ValueError(f"`quantized` describes {INT8}, and only one of the two is there")
        return self

    def golden_of(self, file: str) -> Golden:
        """What the runtimes that read this file of the artifact are held to."""
        return self.quantized.golden if self.quantized and file == INT8 else self.golden

    def to_json(self) -> str:
        """The text of manifest.json, stable for equal content."""
        return json.dumps(self.model_dump(mode="json"), indent=2, ensure_ascii=False) + "\n"


def read_manifest(folder: Path) -> tuple[Manifest, str]:
    """The manifest of an artifact folder, and its digest, which identifies the artifact.

    Raises ManifestInvalid, naming the file and what to do.
    """
    path = folder / MANIFEST
    try:
        raw = path.read_bytes()
    except FileNotFoundError:
        raise ManifestInvalid(
            f"{path} is missing: the folder is not an artifact or was copied half; copy it again or remove {folder}"
        ) from None
    except OSError as error:
        raise ManifestInvalid(f"{path} cannot be read ({error.strerror}); check its owner and mode") from error
    try:
        content: Any = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise ManifestInvalid(f"{path} is not JSON ({error}); copy the folder again or remove it") from error
    found = content.get("format_version") if isinstance(content, dict) else None
    if found != FORMAT_VERSION:
        raise ManifestInvalid(
            f"{path} has format version {found!r}, this Petalpaw reads {FORMAT_VERSION}; "
            "publish the model again with this version, or serve it with the one that wrote it"
        )
    try:
        manifest = Manifest.model_validate(content)
    except ValidationError as error:
        raise ManifestInvalid(f"{path} is invalid: {problems(error)}; publish the model again") from error
    return manifest, digest_of(raw)


def verify_files(folder: Path, manifest: Manifest, names: set[str] | None = None) -> None:
    """Compare every file (or those named) with the manifest. Raises DigestMismatch, naming the first wrong file."""
    for name, entry in manifest.files.items():
        if names is not None and name not in names:
            continue
        path = folder / name
        try:
            actual = file_entry(path)
        except OSError as error:
            raise DigestMismatch(
                f"{path} cannot be read ({error.strerror}); copy the artifact again or remove {folder}"
            ) from error
        if actual != entry:
            raise DigestMismatch(
                f"{path} is not the file that was published: {actual.size} bytes, {actual.sha256}, "
                f"expected {entry.size} bytes, {entry.sha256}; copy the artifact again or remove {folder}"
            )


def file_entry(path: Path) -> FileEntry:
    """Size and digest of a file. Raises OSError."""
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        return FileEntry(sha256=f"sha256:{digest}", size=file.tell())


def digest_of(data: bytes) -> str:
    """`sha256:` and the hexadecimal digest of `data`."""
    return "sha256:" + hashlib.sha256(data).hexdigest()


def problems(error: ValidationError) -> str:
    """Every problem of a validation, one after the other: `key: what is wrong`."""
    return "; ".join(
        f"{'.'.join(map(str, item['loc'])) or 'whole'}: {item['msg'].removeprefix('Value error, ')}"
        for item in error.errors()
    )
