"""A version that is damaged, wrong or of another opinion never takes over."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from inference.classifier import Classifier
from inference.errors import (
    AgreementTooLow,
    DigestMismatch,
    ManifestInvalid,
    ModelUnknown,
    ParameterInvalid,
    SelfTestFailed,
)
from service.catalog import Catalog
from tests.conftest import BLUE
from tests.service.catalogs import GERMAN, Publish, damage, live, opened, states


def test_a_damaged_version_is_refused_and_the_old_one_goes_on(tmp_path: Path, publish: Publish) -> None:
    publish()

    async def work(catalog: Catalog) -> None:
        publish()
        damage(tmp_path, "2")
        with pytest.raises(DigestMismatch):
            await catalog.load("colours")
        old, new = catalog.index()
        assert (old.state, old.default, old.refused) == ("READY", True, False)
        assert (new.state, new.refused) == ("UNAVAILABLE", True)
        assert "is not the file that was published" in new.reason
        with catalog.use("colours") as classifier:
            assert classifier.artifact.version == "1"

    live(work, opened(tmp_path))


def test_a_version_that_fails_its_self_test_is_refused(
    tmp_path: Path, publish: Publish, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish()

    async def work(catalog: Catalog) -> None:
        publish()

        def failing(_self: Classifier, _sizes: object = ()) -> None:
            raise SelfTestFailed("logits differ")

        monkeypatch.setattr(Classifier, "self_test", failing)
        with pytest.raises(SelfTestFailed):
            await catalog.load("colours")
        assert states(catalog) == ["colours/1 READY *", "colours/2 UNAVAILABLE"]
        assert catalog.index()[1].reason == "logits differ"

    live(work, opened(tmp_path))


@pytest.mark.parametrize("harm", [lambda folder: damage(folder, "1"), lambda folder: shutil.rmtree(folder / "models")])
def test_a_served_model_outlives_its_files(
    tmp_path: Path, publish: Publish, picture: Callable[..., bytes], harm: Callable[[Path], object]
) -> None:
    publish()

    async def work(catalog: Catalog) -> None:
        harm(tmp_path)
        with pytest.raises((DigestMismatch, ModelUnknown, ManifestInvalid)) as refused:
            await catalog.load("colours", "1")
        (entry,) = catalog.index()
        assert (entry.state, entry.default) == ("READY", True)
        assert entry.reason in ("", refused.value.detail)
        with catalog.use("colours") as classifier:
            (outcome,) = classifier.classify([picture(BLUE)])
        assert getattr(outcome, "label", outcome) == "blue"

    live(work, opened(tmp_path))


def test_nothing_unknown_is_remembered(tmp_path: Path, publish: Publish) -> None:
    publish()

    async def work(catalog: Catalog) -> None:
        for name, version in (
            ("roses", None),
            ("../colours", None),
            ("colours", "2"),
            ("colours", "../1"),
            ("colours", ""),
        ):
            with pytest.raises(ModelUnknown):
                await catalog.load(name, version)
            with pytest.raises(ModelUnknown):
                await catalog.unload(name, version)
        assert states(catalog) == ["colours/1 READY *"]

    live(work, opened(tmp_path))


def test_a_version_that_disagrees_is_refused(tmp_path: Path, publish: Publish, probes: Path) -> None:
    publish()

    async def work(catalog: Catalog) -> None:
        publish(("red", "green", "cyan"))
        with pytest.raises(
            AgreementTooLow, match=r"colours/2 agrees with colours/1 on 3 of 4 photos, 80.0% are asked for"
        ):
            await catalog.load("colours")
        assert states(catalog) == ["colours/1 READY *", "colours/2 UNAVAILABLE"]
        publish()
        await catalog.load("colours")
        assert states(catalog)[2] == "colours/3 READY *"

    live(work, opened(tmp_path, agreement=0.8, probes=probes))


def test_the_gate_holds_at_the_start_too(tmp_path: Path, publish: Publish, probes: Path) -> None:
    publish()
    publish(GERMAN)
    catalog = opened(tmp_path, agreement=1, probes=probes)
    assert states(catalog) == ["colours/1 READY *", "colours/2 UNAVAILABLE"]
    assert "colours/2 agrees with colours/1 on 0 of 4 photos" in catalog.index()[1].reason
    publish(GERMAN)
    assert states(opened(tmp_path, agreement=1, probes=probes))[1:] == ["colours/2 UNAVAILABLE", "colours/3 READY *"]


def test_the_gate_needs_photos(tmp_path: Path, publish: Publish, probes: Path) -> None:
    publish()
    with pytest.raises(ParameterInvalid, match="PETALPAW_AGREEMENT is set, but not PETALPAW_PROBES"):
        opened(tmp_path, agreement=0.9)
    (probes / "colours" / "notes.txt").write_text("no photo")
    publish()
    with pytest.raises(ParameterInvalid, match=r"notes\.txt is no photo to compare the versions on"):
        opened(tmp_path, agreement=0.9, probes=probes)
    shutil.rmtree(probes / "colours")
    with pytest.raises(ParameterInvalid, match=r"there is no photo in .*colours"):
        opened(tmp_path, agreement=0.9, probes=probes)
