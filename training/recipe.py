"""What a training run does, as data: one YAML file, typed, frozen, complete. Recipes never inherit.

`load_recipe` checks everything that can be checked before work begins and lists every problem at once.
"""

import difflib
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import yaml
from pydantic import BaseModel, Field, ValidationError, model_validator

from inference.errors import DataInvalid, RecipeInvalid
from inference.manifest import Digest, Name, digest_of
from inference.preprocessing import DRAFT, Preprocessing
from training.sections import (
    Abstention,
    Augmentation,
    Backbone,
    Data,
    Normalization,
    Parity,
    Positive,
    Section,
    Selection,
    Stage,
)

RECIPES = Path(__file__).parent / "recipes"
"""The shipped recipes, one YAML file each; the file's name is the recipe's."""


class Recipe(Section):
    """The whole of a recipe file."""

    name: Name
    title: str
    description: str
    data: Data
    backbone: Backbone
    preprocessing: Preprocessing = Preprocessing()
    normalization: Normalization = Normalization()
    stages: Annotated[tuple[Stage, ...], Field(min_length=1)]
    augmentation: Augmentation = Augmentation()
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0
    class_weights: Literal["none", "balanced"] = Field(
        "none", description="balanced: a photo of a rare class counts more, n / (classes · photos of its class)"
    )
    average: Annotated[float, Field(gt=0, lt=1)] | None = Field(
        None, description="decay per step of the moving average of weights that is kept; None: no average"
    )
    batch_size: Annotated[int, Field(ge=2, le=65_536)] = 32
    accumulate: Annotated[int, Field(ge=1, le=65_536)] = Field(1, description="batches whose gradients make one step")
    clip_norm: Positive | None = Field(None, description="largest norm of all gradients together")
    precision: Literal["auto", "fp32", "bf16", "fp16"] = Field("auto", description="of training, not of the artifact")
    channels_last: bool = True
    selection: Selection = Selection()
    abstention: Abstention = Abstention()
    parity: Parity = Parity()
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0

    @model_validator(mode="after")
    def _stages_differ(self) -> "Recipe":
        names = [stage.name for stage in self.stages]
        if len(set(names)) != len(names):
            raise ValueError(f"two stages have the same name: {', '.join(names)}")
        return self

    @model_validator(mode="after")
    def _normalization_per_channel(self) -> "Recipe":
        channels, normalization = self.backbone.channels, self.normalization
        if normalization.source == "training":
            if normalization != Normalization(source="training"):
                raise ValueError("`normalization.source: training` measures mean and std; leave these out")
            return self
        for key, values in (("mean", normalization.mean), ("std", normalization.std)):
            if len(values) != channels:
                raise ValueError(
                    f"`normalization.{key}` has {len(values)} values and `backbone.channels` is {channels}; "
                    "give one value per channel"
                )
        return self

    @model_validator(mode="after")
    def _draft_suffices(self) -> "Recipe":
        least, wanted = DRAFT * self.preprocessing.resize, self.augmentation.source_side
        if self.preprocessing.decoder == "pillow-draft" and wanted > least:
            raise ValueError(
                f"`preprocessing.decoder: pillow-draft` may leave {least} pixels of a photo's shorter side, twice "
                f"`preprocessing.resize`, and augmentation wants {wanted} (`augmentation.shrink_to`, or twice `size`); "
                f"make that {least} at most, or `resize` larger, or take `decoder: pillow`"
            )
        return self

    def to_yaml(self) -> str:
        """The resolved recipe with every default written out; equal recipes give equal text."""
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False, allow_unicode=True, width=100)

    @property
    def digest(self) -> Digest:
        """`sha256:` of the resolved recipe: what a checkpoint must belong to."""
        return digest_of(self.to_yaml().encode())


def recipe_names() -> list[str]:
    """Names of the shipped recipes, sorted."""
    return sorted(path.stem for path in RECIPES.glob("*.yaml"))


def load_recipe(source: str | Path, data_root: Path | None = None, changes: Sequence[str] = ()) -> Recipe:
    """Read a recipe by the path of its YAML file or by the name of a shipped one.

    `changes` are laid over the file first, each `KEY=VALUE` with a dotted key (`stages.0.epochs=3`) and the value as
    YAML. With a data root, its folders and classes are checked too, and the network is laid out (without memory for its
    weights) to check its name and its layers. Raises RecipeInvalid with every problem found, or DataInvalid where
    the recipe is right and the photos are not.
    """
    path = _path_of(source)
    content, wrong = _read(path)
    return recipe_of(content, f"the recipe {path}", data_root, changes, wrong)


def recipe_of(
    content: dict[str, Any],
    called: str,
    data_root: Path | None = None,
    changes: Sequence[str] = (),
    wrong: Sequence[str] = (),
) -> Recipe:
    """The recipe of a content that may have come from elsewhere than a file; `wrong` is what is known to be wrong.

    Checks and raises as `load_recipe`; `called` names it in messages.
    """
    # Written and read again: changes shall reach neither the caller's content nor another place of the same anchor.
    content = json.loads(json.dumps(content, default=str))
    wrong = [*wrong, *_changed(content, changes)]
    recipe: Recipe | None = None
    try:
        recipe = Recipe.model_validate_json(json.dumps(content, default=str), strict=True)
    except ValidationError as error:
        wrong += _problems(error)
    missing: list[str] = []
    if data_root is not None:
        missing += _data_problems(content, data_root)
        if recipe is not None:
            wrong += _network_problems(recipe)
    if wrong or recipe is None:
        raise RecipeInvalid(_listed(f"{called} cannot be run", wrong + missing))
    if missing:
        raise DataInvalid(_listed(f"the photos under {data_root} do not fit the recipe {recipe.name}", missing))
    return recipe


def _listed(what: str, problems: list[str]) -> str:
    count = "one problem" if len(problems) == 1 else f"{len(problems)} problems"
    return f"{what}, {count} to correct:\n" + "\n".join(f"  - {problem}" for problem in problems)


def _path_of(source: str | Path) -> Path:
    path = Path(source)
    if path.suffix in (".yaml", ".yml"):
        return path
    if str(source) in recipe_names():
        return RECIPES / f"{source}.yaml"
    raise RecipeInvalid(
        f"no shipped recipe is called {str(source)!r}{_hint(str(source), recipe_names())}; "
        f"shipped are {', '.join(recipe_names())}; give the path of a .yaml file for another"
    )


def _read(path: Path) -> tuple[dict[str, Any], list[str]]:
    """The content of a YAML file, and keys that stand in it twice. Raises RecipeInvalid where there is no content."""
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise RecipeInvalid(f"{path} cannot be read ({error.strerror}); check the path") from error
    except UnicodeDecodeError as error:
        raise RecipeInvalid(f"{path} is not UTF-8 text ({error.reason}); save it as UTF-8") from error
    try:
        loader = _Loader(text)
        content = loader.get_single_data()
        json.dumps(content, default=str)
    # Beside its own errors PyYAML lets those of Python's types through: an impossible date, a list as a key, a circle.
    except (yaml.YAMLError, ValueError, TypeError, AttributeError, RecursionError) as error:
        raise RecipeInvalid(f"{path} is not YAML that can be read: {error}") from error
    if not isinstance(content, dict):
        raise RecipeInvalid(f"{path} holds no keys; a recipe is a YAML mapping, see {RECIPES.name}/ for examples")
    return {str(key): value for key, value in content.items()}, loader.repeated


def _changed(content: dict[str, Any], changes: Sequence[str]) -> list[str]:
    """Lay changes over a recipe's content; what is wrong with them. Keys that no recipe knows are found later."""
    return [
        f"{change!r} changes nothing; write KEY=VALUE, the value in plain YAML, as stages.0.epochs=3"
        for change in changes
        if "=" not in change or not _set(content, *change.split("=", 1))
    ]


def _set(content: dict[str, Any], key: str, value: str) -> bool:
    """Set a dotted key to a YAML value; False where the key leads nowhere or the value is not YAML."""
    *way, last = key.split(".")
    try:
        new = yaml.load(value, _Loader)  # noqa: S506 – a SafeLoader
        json.dumps(new, default=str)
        place: Any = content
        for step in way:
            place = place[int(step)] if isinstance(place, list) else place.setdefault(step, {})
        place[int(last) if isinstance(place, list) else last] = new
    except (IndexError, ValueError, TypeError, AttributeError, RecursionError, yaml.YAMLError):
        return False
    return True


class _Loader(yaml.SafeLoader):
    """YAML with numbers such as 1e-3 read as numbers (YAML 1.1 takes them for text), and repeated keys noted."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.repeated: list[str] = []

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[object] = set()
        for key, _ in node.value:
            if key.value in seen:
                self.repeated.append(f"{key.value}: stands twice (line {key.start_mark.line + 1}); keep one")
            seen.add(key.value)
        return super().construct_mapping(node, deep)


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(\d+\.\d*|\.\d+|\d+)[eE][-+]?\d+$"),
    list("-+0123456789."),
)


def _problems(error: ValidationError) -> list[str]:
    """Every problem as `key: what is wrong`, unknown keys with the nearest known one."""
    lines = []
    for item in error.errors():
        place = list(item["loc"])
        where = ".".join(map(str, place)) or "the recipe"
        message = item["msg"].removeprefix("Value error, ")
        if item["type"] == "extra_forbidden":
            known = _keys_at(place[:-1])
            message = f"unknown key{_hint(str(place[-1]), known)} (known here: {', '.join(known)})"
        elif item["type"] == "missing":
            message = "is missing"
        elif not isinstance(item["input"], dict | list):
            message += f", not {item['input']!r}"
        lines.append(f"{where}: {message}")
    return lines


def _keys_at(place: list[int | str]) -> list[str]:
    """The keys that a section knows, found by walking the models along a problem's place."""
    model: type[BaseModel] = Recipe
    for part in place:
        if isinstance(part, str):
            found = _model_in(model.model_fields[part].annotation)
            if found is None:
                return []
            model = found
    return list(model.model_fields)


def _model_in(annotation: Any) -> type[BaseModel] | None:
    """The section in `Section`, `Section | None`, `tuple[Section, ...]` or their annotated forms."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((found for part in get_args(annotation) if (found := _model_in(part))), None)


def _hint(word: str, known: list[str]) -> str:
    near = difflib.get_close_matches(word, known, n=1)
    return f"; did you mean `{near[0]}`?" if near else ""


def _data_problems(content: dict[str, Any], data_root: Path) -> list[str]:
    """Missing folders and classes, looked for even where other sections of the recipe are wrong."""
    from training.splits import check_data

    try:
        data = Data.model_validate_json(json.dumps(content.get("data"), default=str), strict=True)
    except ValidationError:
        return []
    return check_data(data, data_root)


def _network_problems(recipe: Recipe) -> list[str]:
    # Imported here: torch takes seconds, and listing or showing recipes needs none of it.
    from training.compatibility import check_network
    from training.solver import check_solver

    return check_network(recipe) or check_solver(recipe)
