"""The sections of a recipe: what each key means, its unit and its default."""

import difflib
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from inference.manifest import Name
from training.datasets.catalog import CATALOG

Share = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Finite = Annotated[float, Field(allow_inf_nan=False)]
NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]


def _words(value: object) -> object:
    """One word stands for a list of one."""
    return (value,) if isinstance(value, str) else tuple(value) if isinstance(value, list) else value


DropoutShare = Annotated[float, Field(ge=0, lt=1)]

Layers = Annotated[tuple[str, ...], BeforeValidator(_words)]
"""`head`, `all`, `last N` blocks, or names of layers and parameters as in `named_modules()`; * ? and [0-9] match."""


def _known_set(name: str) -> str:
    if name not in CATALOG:
        near = difflib.get_close_matches(name, CATALOG, n=1)
        hint = f"did you mean `{near[0]}`? " if near else ""
        raise ValueError(f"no data set has this name; {hint}Known are {', '.join(CATALOG)}")
    return name


SetName = Annotated[str, AfterValidator(_known_set)]
"""A name of `petalpaw data list`."""


class Section(BaseModel):
    """Part of a recipe: unknown keys and wrong types are errors, and nothing changes once it is read."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, protected_namespaces=())


class Source(Section):
    """Where a split's photos come from: a folder of class folders, a folder for each class, or a stratified share of
    another split.
    """

    folder: str | None = Field(None, description="relative to the data root; '.' is the root itself")
    folders: Annotated[dict[str, str], Field(min_length=1)] | None = Field(
        None, description="class name to folder, relative to the data root"
    )
    most: dict[str, Annotated[int, Field(ge=1)]] = Field(
        {}, description="class name to the number of photos taken, the first by name, numbers in names counted"
    )
    share: Annotated[float, Field(gt=0, lt=1)] | None = Field(None, description="of each class of `of`")
    of: Literal["train", "validation"] | None = None

    @model_validator(mode="after")
    def _one_way(self) -> "Source":
        if [self.folder, self.folders, self.share].count(None) != 2:
            raise ValueError("give either `folder`, or `folders`, or `share` and `of`")
        if self.share is not None and self.most:
            raise ValueError("`most` goes with `folder` or `folders`, not with a share")
        if (self.share is None) != (self.of is None):
            raise ValueError("`share` and `of` belong together")
        return self


class Data(Section):
    """The three splits. Validation serves every choice; test is measured once, at the end, and serves none."""

    train: Source
    validation: Source
    test: Source | None = None
    classes: tuple[str, ...] | None = Field(None, description="class folders in label order; None: all, sorted")
    sets: Annotated[tuple[SetName, ...], BeforeValidator(_words)] = Field(
        (), description="public data sets that the folders lie in, by name; fetched when no data root is given"
    )
    near_duplicates: Literal["keep", "drop"] = Field(
        "keep", description="training photos that are nearly a validation or test photo: only said, or left out"
    )

    @model_validator(mode="after")
    def _possible(self) -> "Data":
        if self.train.share is not None:
            raise ValueError("`train` must be a folder, or `folders`")
        if self.validation.of == "validation":
            raise ValueError("`validation` cannot be a share of itself")
        taken = sum(source.share or 0 for source in (self.validation, self.test) if source and source.of == "train")
        if taken >= 1:
            raise ValueError(f"validation and test take {taken:.2f} of train; nothing would be left to train on")
        if self.test and self.test.of == "validation" and self.validation.share is not None:
            raise ValueError("`test` can be a share of `validation` only where validation is a folder")
        if self.classes is not None and len(set(self.classes)) != len(self.classes):
            raise ValueError("`classes` repeats a name")
        return self


class Pooling(Section):
    """Max pooling."""

    kernel: Annotated[int, Field(ge=1, le=64)] = Field(description="side in pixels")
    stride: Annotated[int, Field(ge=1, le=64)] = Field(description="in pixels")


class Stem(Section):
    """The first convolution and first pooling, in place of the network's own: for small pictures as a rule."""

    kernel: Annotated[int, Field(ge=1, le=64)] = Field(description="side of the first convolution's kernels in pixels")
    stride: Annotated[int, Field(ge=1, le=64)] = 1
    padding: Annotated[int, Field(ge=0, le=64)] = 0
    bias: bool | None = Field(None, description="None: where the network's own has one")
    pool: Pooling | Literal["keep", "none"] = Field("keep", description="of the first max pooling")


class Head(Section):
    """Layers in place of the last one: for each width a layer, ReLU and dropout, then the one for the classes."""

    widths: Annotated[tuple[Annotated[int, Field(ge=1, le=65_536)], ...], Field(min_length=1)]
    dropouts: tuple[DropoutShare, ...] = Field(description="after each of the layers; 0: none")

    @model_validator(mode="after")
    def _pairs(self) -> "Head":
        if len(self.widths) != len(self.dropouts):
            raise ValueError(f"{len(self.widths)} widths and {len(self.dropouts)} dropouts; give a dropout per width")
        return self


class Backbone(Section):
    """A network with its last layer made for the recipe's classes, and what else of it is replaced."""

    name: str
    weights: str = Field("imagenet", description="none, imagenet (torchvision's best), or a torchvision weights name")
    dropout: DropoutShare | None = Field(None, description="before the head; None: its own")
    channels: Literal[1, 3] = Field(3, description="1: pixels become grey inside the network, after ITU-R 601")
    fill: Literal["sum", "mean"] = Field("sum", description="what one channel's first kernels make of three")
    stem: Stem | None = None
    head: Head | None = None
    fresh: Layers = Field((), description="keep random weights although the weights have them")


class Normalization(Section):
    """What the exported graph does to a pixel in 0…1 first: (pixel - mean) / std, per channel."""

    source: Literal["constants", "training"] = Field(
        "constants", description="training: mean and std are measured on the training photos when the run begins"
    )
    mean: Annotated[tuple[Finite, ...], Field(min_length=1, max_length=3)] = (0.485, 0.456, 0.406)
    std: Annotated[tuple[Positive, ...], Field(min_length=1, max_length=3)] = (0.229, 0.224, 0.225)

    def over(self, channels: int) -> "Normalization":
        """Itself, or mean 0 and deviation 1 for so many channels until they are measured."""
        if self.source == "constants":
            return self
        return Normalization(source="training", mean=(0.0,) * channels, std=(1.0,) * channels)


class Optimizer(Section):
    """How gradients move weights. Norms and biases are never decayed; momentum is SGD's, betas are Adam's."""

    kind: Literal["sgd", "adam", "adamw"] = "sgd"
    weight_decay: NotNegative = 1e-4
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    nesterov: bool = Field(True, description="SGD looks ahead along its momentum (Sutskever et al. 2013)")
    betas: tuple[Share, Share] = (0.9, 0.999)


_KINDS = {
    "warm_up": ("cosine", "constant", "step", "plateau"),
    "final": ("cosine",),
    "every": ("step",),
    "factor": ("step", "plateau"),
    "rise": ("onecycle",),
    "patience": ("plateau",),
}
"""Which schedules a key means something to."""


class Schedule(Section):
    """The factor on every learning rate, per step of its stage: a linear warm-up, then `kind`."""

    kind: Literal["cosine", "constant", "step", "onecycle", "plateau"] = "cosine"
    warm_up: NotNegative = Field(0.0, description="in epochs")
    final: Share = Field(0.0, description="what the cosine ends at")
    every: Annotated[int, Field(ge=1)] = Field(10, description="epochs between two drops of `step`")
    factor: Annotated[float, Field(gt=0, lt=1)] | None = Field(
        None, description="of a drop; None: 0.1 for `step`, 0.5 for `plateau`"
    )
    rise: Annotated[float, Field(gt=0, lt=1)] = Field(0.3, description="share of `onecycle` that goes up")
    patience: Annotated[int, Field(ge=0)] = Field(
        2, description="epochs without a lower validation loss that `plateau` bears before a drop"
    )

    @model_validator(mode="after")
    def _belonging(self) -> "Schedule":
        for key, kinds in _KINDS.items():
            if self.kind not in kinds and getattr(self, key) != type(self).model_fields[key].default:
                raise ValueError(f"`{key}` means nothing to {self.kind}, only to {', '.join(kinds)}; leave it out")
        return self

    @property
    def drop(self) -> float:
        """What a drop multiplies the learning rates by."""
        return self.factor or (0.1 if self.kind == "step" else 0.5)


class Rates(Section):
    """Learning rates per group at the top of the schedule."""

    head: Positive
    backbone: Positive | None = Field(None, description="None: the head's")
    decay: Annotated[float, Field(gt=0, le=1)] = Field(
        1.0, description="of the backbone's, block by block away from the head, as ELECTRA and BEiT are fine-tuned"
    )


class Solver(Section):
    """What finds the head's weights: gradient steps, or scikit-learn's linear SVM or logistic regression."""

    kind: Literal["gradient", "svm", "logistic"] = "gradient"
    strengths: Annotated[tuple[Positive, ...], Field(min_length=1)] = Field(
        (0.001, 0.01, 0.1, 1.0, 10.0), description="scikit-learn's C, of which validation chooses one"
    )


class Stage(Section):
    """A number of epochs with the same layers trained, or a head that is solved."""

    name: Name
    epochs: Annotated[int, Field(ge=1, le=10_000)]
    trains: Annotated[Layers, Field(min_length=1)] = ("all",)
    freezes: Layers = Field((), description="taken out of `trains`")
    rates: Rates | None = Field(None, description="required for gradient steps, of no use to other solvers")
    optimizer: Optimizer = Optimizer()
    schedule: Schedule = Schedule()
    frozen_statistics: bool = Field(False, description="batch norm keeps its running statistics in trained layers too")
    cached_features: bool = Field(False, description="run the frozen backbone once, on plain crops, not every epoch")
    solver: Solver = Solver()

    @model_validator(mode="after")
    def _possible(self) -> "Stage":
        if self.solver.kind == "gradient":
            if self.rates is None:
                raise ValueError("`rates` is missing")
        elif not self.cached_features or self.epochs != 1 or self.rates is not None:
            raise ValueError(
                f"the {self.solver.kind} solver needs `trains: head`, `cached_features: true` and `epochs: 1`, "
                "and takes no `rates`"
            )
        if self.cached_features and self.trains != ("head",):
            raise ValueError("`cached_features` needs `trains: head`: other layers change the features")
        if self.schedule.warm_up >= self.epochs:
            raise ValueError(f"a warm-up of {self.schedule.warm_up} epochs fills the whole stage of {self.epochs}")
        return self


class Jitter(Section):
    """torchvision's ColorJitter: the largest relative change, hue as a share of the colour circle."""

    brightness: NotNegative = 0.0
    contrast: NotNegative = 0.0
    saturation: NotNegative = 0.0
    hue: Annotated[float, Field(ge=0, le=0.5)] = 0.0


class Augmentation(Section):
    """How a training photo varies from epoch to epoch. Evaluation photos never vary."""

    size: Annotated[int, Field(ge=8, le=1024)] = Field(224, description="side of the training crop in pixels")
    crop: Literal["resized", "padded"] = Field(
        "resized", description="padded: the photo's shorter side becomes `size`, and the crop shifts by up to `padding`"
    )
    padding: Annotated[int, Field(ge=0)] = Field(4, description="black pixels on every side of a `padded` photo")
    scale: tuple[Positive, Positive] = Field((0.35, 1.0), description="share of the photo's area in the random crop")
    ratio: tuple[Positive, Positive] = Field((0.75, 4 / 3), description="width by height of the random crop")
    flip: Share = Field(0.5, description="probability of mirroring left to right")
    jitter: Jitter = Jitter()
    rotation: Annotated[float, Field(ge=0, le=180)] = Field(0.0, description="degrees, at most, either way")
    policy: Literal["none", "randaugment", "trivialaugment"] = "none"
    erasing: Share = Field(0.0, description="probability of a blank rectangle")
    mixup: NotNegative = Field(0.0, description="alpha of the mixing weight's beta distribution; 0: off")
    cutmix: NotNegative = Field(0.0, description="as mixup; with both, each batch draws one of the two")
    shrink_to: Annotated[int, Field(ge=8)] | None = Field(
        None,
        description="larger photos are first reduced to this shorter side; None: twice `size`, or `size` if padded",
    )

    @model_validator(mode="after")
    def _ordered(self) -> "Augmentation":
        for name, (low, high) in (("scale", self.scale), ("ratio", self.ratio)):
            if low > high:
                raise ValueError(f"`{name}` must go from small to large, not {low} to {high}")
        for name in ("padding",) if self.crop == "resized" else ("scale", "ratio"):
            if getattr(self, name) != type(self).model_fields[name].default:
                raise ValueError(f"`{name}` means nothing to a {self.crop} crop; leave it out")
        if self.padding >= self.size:
            raise ValueError(f"a `padding` of {self.padding} can push all of the photo out of its `size` {self.size}")
        if self.scale[1] > 1:
            raise ValueError("`scale` cannot exceed 1, the whole photo")
        if self.shrink_to is not None and self.shrink_to < self.size:
            raise ValueError(f"`shrink_to` {self.shrink_to} is smaller than `size` {self.size}")
        return self

    @property
    def source_side(self) -> int:
        """The shorter side in pixels above which a photo is reduced before it is augmented."""
        return self.shrink_to or (2 * self.size if self.crop == "resized" else self.size)


class Selection(Section):
    """Which epoch's weights a run keeps, and when a stage stops early. Only validation figures count."""

    keep: Literal["best", "last"] = "best"
    metric: Literal["accuracy", "loss"] = Field(
        "accuracy",
        description="equal accuracies are decided by the loss; the loss is taken at the temperature that fits best, "
        "for label smoothing alone raises the plain one",
    )
    patience: Annotated[int, Field(ge=1)] | None = Field(None, description="epochs without a better one; None: never")


class Abstention(Section):
    """When the classifier should rather say nothing."""

    target_accuracy: Annotated[float, Field(gt=0, le=1)] = Field(0.99, description="on validation, when it answers")


class Parity(Section):
    """What may differ between PyTorch and an exported artifact."""

    tolerance: Positive = Field(1e-3, description="largest |Δlogit|")
