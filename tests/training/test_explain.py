import json
import os
from pathlib import Path

import pytest
from PIL import Image
from typer.testing import CliRunner

from inference.errors import ImageTruncated, ImageUnreadable, OutputUnwritable
from petalpaw import app
from training.explain import Explanation, explain
from training.run import Run


@pytest.fixture
def photo(finished: Path) -> Path:
    return Run.open(finished).photos("test")[0]


def test_a_photo_is_answered_as_by_the_run_and_drawn(finished: Path, photo: Path, tmp_path: Path) -> None:
    ((path, found),) = explain(Run.open(finished), [photo], tmp_path / "deep" / "why", "cpu")
    assert path == photo
    assert isinstance(found, Explanation)
    assert sum(each.probability for each in found.prediction.top_k) == pytest.approx(1)
    assert found.residuals[0].block == "features.3"
    for picture in (found.gradcam, found.residuals_picture):
        assert picture is not None
        assert picture.parent == tmp_path / "deep" / "why"
        assert picture.name.startswith(photo.name)
        with Image.open(picture) as image:
            assert min(image.size) > 200


def test_bad_photos_get_their_error_and_the_others_go_on(finished: Path, photo: Path, tmp_path: Path) -> None:
    (tmp_path / "cut.png").write_bytes(photo.read_bytes()[:200])
    paths = [tmp_path / "none.png", tmp_path / "cut.png", photo, photo]
    outcomes = [outcome for _, outcome in explain(Run.open(finished), paths, tmp_path / "why", "cpu")]
    assert [type(outcome) for outcome in outcomes] == [ImageUnreadable, ImageTruncated, Explanation, Explanation]
    names = {path.name for path in (tmp_path / "why").iterdir()}
    assert len(names) == 4  # the same photo twice has two pairs of pictures
    assert f"{photo.name}-2.gradcam.png" in names


def test_names_that_no_picture_can_have_are_shortened(finished: Path, photo: Path, tmp_path: Path) -> None:
    paths = [tmp_path / name for name in ("l" * 251 + ".png", "l" * 250 + "m.png", "猫" * 83 + ".png", "a\nb\tc.png")]
    for path in paths:
        path.write_bytes(photo.read_bytes())
    outcomes = [outcome for _, outcome in explain(Run.open(finished), paths, tmp_path / "why", "cpu")]
    assert all(isinstance(outcome, Explanation) for outcome in outcomes)
    assert {path.name for path in (tmp_path / "why").glob("*.gradcam.png")} == {
        f"{name}.gradcam.png" for name in ("l" * 120, "l" * 120 + "-2", "猫" * 40, "a_b_c.png")
    }


def test_a_name_that_is_no_text_is_escaped_in_json(finished: Path, photo: Path, tmp_path: Path) -> None:
    path = os.fsdecode(os.fsencode(tmp_path) + b"/\xff.png")
    Path(path).write_bytes(photo.read_bytes())
    arguments = ["explain", str(finished), path, "--out", str(tmp_path / "why"), "--device", "cpu", "--json"]
    answer = json.loads(CliRunner().invoke(app, arguments).stdout_bytes.decode())
    assert answer["path"] == path


def test_a_folder_that_cannot_be_made_is_said(finished: Path, photo: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OutputUnwritable, match="cannot be made"):
        list(explain(Run.open(finished), [photo], tmp_path / "file" / "why", "cpu"))


def test_the_command_prints_a_line_or_an_object_per_photo(finished: Path, photo: Path, tmp_path: Path) -> None:
    arguments = [
        "explain",
        str(finished),
        str(photo),
        str(tmp_path / "no.jpg"),
        "--out",
        str(tmp_path),
        "--device",
        "cpu",
    ]
    result = CliRunner().invoke(app, [*arguments, "--json"])
    assert result.exit_code == 1
    good, bad = (json.loads(line) for line in result.stdout.splitlines())
    assert good["path"] == str(photo)
    assert {"label", "probability", "abstained", "top_k", "gradcam", "residuals_picture", "residuals"} < set(good)
    assert all(row["ratio"] == pytest.approx(row["branch"] / row["shortcut"], rel=1e-4) for row in good["residuals"])
    assert bad["error"]["code"] == "image_unreadable"
    result = CliRunner().invoke(app, arguments[:3] + arguments[4:])
    assert result.exit_code == 0
    assert f"{photo.name}.gradcam.png" in result.stdout
    assert "adds most" in result.stdout
