"""A decoder that reduces large photos must show, on such photos, that it keeps the labels."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

import petalpaw
from inference.errors import DataInvalid, PublishRefused, RecipeInvalid
from inference.manifest import LEAST_DRAFTS, MANIFEST, PARITY, DecoderFigure, ParityReport
from inference.repository import Artifact, Repository
from training.drafts import compare_decoders, files_in
from training.finetune import train
from training.recipe import Recipe

Picture = Callable[..., bytes]


@pytest.fixture
def drafted(exported: Path) -> Artifact:
    artifact = Artifact.open(exported)
    preprocessing = artifact.manifest.preprocessing.model_copy(update={"decoder": "pillow-draft"})
    manifest = artifact.manifest.model_copy(update={"preprocessing": preprocessing})
    (exported / MANIFEST).write_text(manifest.to_json())
    return Artifact.open(exported)


@pytest.fixture
def large(tmp_path: Path, picture: Picture) -> Path:
    """Photos that are reduced, and others, and what is none."""
    folder = tmp_path / "large"
    (folder / "more").mkdir(parents=True)
    for index in range(LEAST_DRAFTS):
        colour = [(220, 30, 30), (30, 200, 40), (30, 40, 210)][index % 3]
        (folder / "more" / f"{index}.jpg").write_bytes(picture(colour, (400 + index, 300)))
    for index in range(3):
        (folder / f"small-{index}.jpg").write_bytes(picture((30, 200, 40), (100 + index, 80)))
    (folder / "notes.txt").write_text("no picture")
    return folder


def test_only_reduced_photos_count(drafted: Artifact, large: Path) -> None:
    figure = compare_decoders(drafted, files_in(large), 128)
    assert figure
    assert (figure.decoder, figure.images) == ("pillow-draft", LEAST_DRAFTS)
    assert (figure.agreement, figure.agreement_high) == (1, 1)
    assert 0.96 < figure.agreement_low < 0.97  # Wilson's interval of a hundred of a hundred
    assert figure.max_difference > 0
    assert figure.passed


def test_an_exact_decoder_needs_no_comparison(exported: Path, large: Path) -> None:
    assert compare_decoders(Artifact.open(exported), files_in(large), 128) is None


@pytest.mark.parametrize("count", [0, LEAST_DRAFTS - 1])
def test_too_few_large_photos_show_nothing(drafted: Artifact, large: Path, count: int) -> None:
    figure = compare_decoders(drafted, [*large.glob("*.*"), *sorted((large / "more").iterdir())[:count]], 128)
    assert figure
    assert figure.images == count
    assert not figure.passed
    assert f"{count} of the photos" in str(figure)
    assert "--large" in str(figure)


def test_a_folder_without_files_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataInvalid, match="holds no files"):
        files_in(tmp_path)


@pytest.mark.parametrize(("agreement", "passed"), [(0.99, True), (0.989, False)])
def test_labels_may_hardly_change(agreement: float, passed: bool) -> None:
    figure = DecoderFigure(
        decoder="pillow-draft",
        images=1000,
        agreement=agreement,
        agreement_low=0.9,
        agreement_high=1,
        max_difference=1,
        mean_difference=0.1,
    )
    assert figure.passed == passed


@pytest.fixture
def finished_run(finished: Path, exported: Path, tmp_path: Path) -> Path:
    """A run whose artifact is `exported`."""
    run = tmp_path / "finished"
    shutil.copytree(finished, run)
    shutil.copytree(exported, run / "artifact")
    return run


@pytest.mark.usefixtures("drafted")
def test_a_wrong_folder_of_large_photos_costs_no_comparison(finished_run: Path, tmp_path: Path) -> None:
    result = CliRunner().invoke(petalpaw.app, ["parity", str(finished_run), "--large", str(tmp_path / "absent")])
    assert isinstance(result.exception, DataInvalid)
    assert "holds no files" in result.exception.detail
    assert "batch" not in result.stderr


def test_large_photos_mean_nothing_to_an_exact_decoder(finished_run: Path, large: Path) -> None:
    result = CliRunner().invoke(petalpaw.app, ["parity", str(finished_run), "--large", str(large)])
    assert result.exit_code == 2
    assert "--large belongs to a decoder" in result.stderr


@pytest.mark.parametrize(
    "augmentation", [{"size": 41}, {"size": 32, "shrink_to": 81}, {"size": 81, "crop": "padded"}], ids=str
)
def test_training_photos_are_never_smaller_than_augmentation_wants(
    make_recipe: Callable[..., Recipe], augmentation: dict[str, object]
) -> None:
    preprocessing: dict[str, object] = {"resize": 40, "crop": 32}
    make_recipe(preprocessing=preprocessing, augmentation=augmentation)
    preprocessing["decoder"] = "pillow-draft"
    make_recipe(preprocessing=preprocessing, augmentation={"size": 40})
    with pytest.raises(RecipeInvalid, match=r"may leave 80 pixels .* augmentation wants 8[12] "):
        make_recipe(preprocessing=preprocessing, augmentation=augmentation)


def test_parity_passes_only_where_the_labels_are_shown_to_stay(
    make_recipe: Callable[..., Recipe], photos_root: Path, large: Path, tmp_path: Path
) -> None:
    recipe = make_recipe(preprocessing={"resize": 40, "crop": 32, "decoder": "pillow-draft"})
    run = tmp_path / "run"
    train(recipe, photos_root, None, run, device="cpu", workers=0)
    invoke = CliRunner().invoke
    assert invoke(petalpaw.app, ["export", str(run)]).exit_code == 0
    refused = invoke(petalpaw.app, ["parity", str(run)])
    assert refused.exit_code == 1
    report = ParityReport.model_validate_json((run / "artifact" / PARITY).read_bytes())
    assert report.decoder
    assert report.decoder.images == 0
    assert str(report.decoder) in report.problems
    passed = invoke(petalpaw.app, ["parity", str(run), "--large", str(large)])
    report = ParityReport.model_validate_json((run / "artifact" / PARITY).read_bytes())
    assert report.decoder
    assert report.decoder.images == LEAST_DRAFTS
    assert report.problems == ()
    assert passed.exit_code == 0
    published = Repository(tmp_path / "models").publish(run / "artifact")
    assert published.manifest.preprocessing.decoder == "pillow-draft"
    (run / "artifact" / PARITY).write_text(report.model_copy(update={"decoder": None}).model_dump_json())
    with pytest.raises(PublishRefused, match="decoder keeps the labels"):
        Repository(tmp_path / "models").publish(run / "artifact")
