from pathlib import Path

import pytest

from inference.errors import RunInvalid
from training import pictures
from training.steps import STEPS, append_steps, cut_steps, rates_of, read_steps


def test_rates_are_the_heads_and_the_largest_of_the_backbone() -> None:
    groups = [{"name": "head", "lr": 0.1}, {"name": "backbone", "lr": 0.01}, {"name": "backbone", "lr": 0.02}]
    assert rates_of(groups) == (0.1, 0.02)
    assert rates_of(groups[:1]) == (0.1, None)
    assert rates_of(groups[1:]) == (None, 0.02)


def test_epochs_are_appended_and_read_again(tmp_path: Path) -> None:
    path = tmp_path / STEPS
    assert read_steps(path) == []
    first = append_steps(path, 1, "head", [1.5, 1.25], [(0.5, None), (0.25, None)])
    second = append_steps(path, 2, "all", [1.0], [(0.25, 0.125)])
    assert [step.step for step in first + second] == [1, 2, 3]
    assert read_steps(path) == first + second
    assert path.read_text().splitlines()[:2] == ["step,epoch,stage,loss,head_rate,backbone_rate", "1,1,head,1.5,0.5,"]


@pytest.mark.parametrize("cut", [0, 1, 4, 30])
def test_what_a_kill_left_behind_is_cut_away(tmp_path: Path, cut: int) -> None:
    path = tmp_path / STEPS
    cut_steps(path, 0)  # nothing there
    append_steps(path, 1, "head", [1.5, 1.25], [(0.5, None), (0.25, None)])
    whole = path.read_bytes()
    append_steps(path, 2, "head", [1.0, 0.5], [(0.25, None), (0.125, None)])
    path.write_bytes(path.read_bytes()[: -cut or None])
    cut_steps(path, 1)
    assert path.read_bytes() == whole
    assert append_steps(path, 2, "head", [1.0], [(0.25, None)])[0].step == 3
    cut_steps(path, 0)
    assert read_steps(path) == []
    assert append_steps(path, 1, "head", [1.0], [(0.25, None)])[0].step == 1


def test_a_header_cut_short_is_no_row(tmp_path: Path) -> None:
    path = tmp_path / STEPS
    path.write_text("step,ep")
    cut_steps(path, 3)
    assert append_steps(path, 1, "head", [1.0], [(0.25, None)]) == read_steps(path)


def test_a_damaged_file_and_a_full_disk_are_said(tmp_path: Path) -> None:
    path = tmp_path / STEPS
    path.write_text("step,epoch,stage,loss,head_rate,backbone_rate\n1,one,head,1,,\n")
    with pytest.raises(RunInvalid, match="is damaged"):
        read_steps(path)
    with pytest.raises(RunInvalid, match=r"could not be written.*make room"):
        append_steps(Path("/dev/full"), 1, "head", [1.0], [(0.25, None)])


def test_the_smoothed_curve_begins_at_the_first_value_and_keeps_a_constant() -> None:
    assert pictures.smoothed([]) == []
    assert pictures.smoothed([3.0, 1.0]) == [3.0, 1.0]
    assert pictures.smoothed([2.0] * 200) == pytest.approx([2.0] * 200)
    means = pictures.smoothed([4.0] * 100 + [0.0] * 100)
    assert means[0] == pytest.approx(4)
    assert 0 < means[-1] < 0.1 < 3.0 < means[100]
