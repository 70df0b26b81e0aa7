import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from inference.errors import DataInvalid
from tests.training.conftest import files
from training.sections import Data
from training.splits import check_data, find_splits, fingerprint, read_splits, write_splits

SHARED_OUT: dict[str, Any] = {
    "train": {"folder": "."},
    "validation": {"share": 0.25, "of": "train"},
    "test": {"share": 0.25, "of": "train"},
}


def data_of(**changes: Any) -> Data:
    return Data.model_validate(SHARED_OUT | changes)


def members(root: Path, seed: int = 0) -> dict[str, set[str]]:
    splits, _, _ = find_splits(data_of(), root, seed)
    return {split: {item.path for item in items} for split, items in splits.items()}


def test_shares_are_stratified_and_disjoint(tmp_path: Path) -> None:
    root = files(tmp_path, a=40, b=20)
    splits, labels, left_out = find_splits(data_of(), root, 0)
    assert labels == ("a", "b")
    assert left_out == []
    assert {split: [sum(item.label == k for item in items) for k in (0, 1)] for split, items in splits.items()} == {
        "train": [20, 10],
        "validation": [10, 5],
        "test": [10, 5],
    }
    paths = [item.path for items in splits.values() for item in items]
    assert len(paths) == len(set(paths)) == 60


def test_split_depends_on_seed_and_contents_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = files(tmp_path / "one", a=30, b=30)
    first, labels, _ = find_splits(data_of(), root, 7)
    listing = Path.iterdir
    monkeypatch.setattr(Path, "iterdir", lambda self: reversed(list(listing(self))))
    second, _, _ = find_splits(data_of(), root, 7)
    assert first == second
    assert fingerprint(first, labels) == fingerprint(second, labels)
    assert members(root, 7) != members(root, 8)


def test_a_new_photo_moves_at_most_one_other_per_class(tmp_path: Path) -> None:
    root = files(tmp_path, a=40, b=40)
    before = members(root)
    (root / "a" / "new.jpg").write_text("new")
    after = members(root)
    moved = sum(len(before[split] - after[split]) for split in before)
    assert moved <= 2


def test_copies_of_a_file_share_a_split(tmp_path: Path) -> None:
    root = files(tmp_path, a=12, b=12)
    for number in range(12):
        shutil.copy(root / "a" / f"{number}.jpg", root / "a" / f"copy-{number}.jpg")
    for paths in members(root).values():
        numbers = [Path(path).stem.removeprefix("copy-") for path in paths if path.startswith("a/")]
        assert all(numbers.count(number) == 2 for number in numbers)


def test_fingerprint_sees_every_change(tmp_path: Path) -> None:
    root = files(tmp_path, a=8, b=8)

    def now() -> str:
        splits, labels, _ = find_splits(data_of(), root, 0)
        return fingerprint(splits, labels)

    first = now()
    (root / "a" / "0.jpg").write_text("other content")
    second = now()
    (root / "a" / "1.jpg").rename(root / "a" / "renamed.jpg")
    third = now()
    assert len({first, second, third}) == 3


def test_small_classes_keep_one_photo_in_every_split(tmp_path: Path) -> None:
    splits, _, _ = find_splits(data_of(), files(tmp_path, a=3, b=4), 0)
    assert all({item.label for item in items} == {0, 1} for items in splits.values())


def test_hidden_nested_and_linked_files(tmp_path: Path) -> None:
    outside = files(tmp_path / "outside", secret=1)
    root = files(tmp_path / "root", a=4, b=4)
    files(root / "a", nested=2)
    (root / "a" / ".hidden.jpg").write_text("x")
    (root / ".cache").mkdir()
    (root / "a" / "loop").symlink_to(root / "a")
    (root / "b" / "inside.jpg").symlink_to(root / "b" / "0.jpg")
    (root / "b" / "leaves.jpg").symlink_to(outside / "secret" / "0.jpg")
    (root / "c").symlink_to(outside / "secret")
    (root / "b" / "broken.jpg").symlink_to(root / "absent.jpg")
    splits, labels, left_out = find_splits(data_of(classes=("a", "b")), root, 0)
    paths = {item.path for items in splits.values() for item in items}
    assert paths == {
        *(f"a/{number}.jpg" for number in range(4)),
        *(f"b/{number}.jpg" for number in range(4)),
        "a/nested/0.jpg",
        "a/nested/1.jpg",
        "b/inside.jpg",
    }
    assert labels == ("a", "b")
    assert {entry.path for entry in left_out} == {"b/leaves.jpg", "b/broken.jpg", "c"}


def test_every_link_out_of_the_data_root_is_left_out(tmp_path: Path) -> None:
    root, outside = files(tmp_path / "root", a=4, b=4), files(tmp_path / "outside", secret=5)
    for number in range(5):
        (root / "a" / f"link-{number}.jpg").symlink_to(outside / "secret" / f"{number}.jpg")
    _, _, left_out = find_splits(data_of(), root, 0)
    assert len(left_out) == 5


def test_files_beside_the_class_folders_are_left_out(tmp_path: Path) -> None:
    root = files(tmp_path, a=4, b=4)
    for name in ("stray.jpg", ".hidden.jpg"):
        (root / name).write_text("x")
    (root / "__MACOSX" / "a").mkdir(parents=True)
    splits, labels, left_out = find_splits(data_of(), root, 0)
    assert (labels, sum(map(len, splits.values()))) == (("a", "b"), 8)
    assert [(entry.path, "beside the class folders" in entry.detail) for entry in left_out] == [("stray.jpg", True)]


def test_a_class_without_photos_says_why(tmp_path: Path) -> None:
    root, outside = files(tmp_path / "root", a=4, b=4, none=0), files(tmp_path / "outside", secret=5)
    for number in range(5):
        (root / "a" / f"link-{number}.jpg").symlink_to(outside / "secret" / f"{number}.jpg")
    (root / "linked").symlink_to(outside / "secret")
    leaves = "the link leaves the data root; copy the photos into it, or move the data root up"
    assert check_data(data_of(), root) == [
        f"data.train: class 'linked' has no photos: linked: {leaves}",
        "data.train: class 'none' has no photos: its folder is empty; add photos, or leave the class out",
    ]
    (root / "linked").unlink()
    (root / "none").rmdir()
    (root / "links").mkdir()
    for number in range(5):
        (root / "links" / f"{number}.jpg").symlink_to(outside / "secret" / f"{number}.jpg")
    assert check_data(data_of(), root) == [
        f"data.train: class 'links' has no photos: links/{number}.jpg: {leaves}" for number in range(3)
    ]


def test_labels_with_spaces_chinese_and_emoji(tmp_path: Path) -> None:
    root = files(tmp_path / "data", **{"two words": 4, "蒲公英": 4, "🌹": 4})
    splits, labels, _ = find_splits(data_of(), root, 0)
    assert labels == ("two words", "蒲公英", "🌹")
    write_splits(tmp_path / "splits.csv", splits, labels)
    assert read_splits(tmp_path / "splits.csv") == splits


def test_explicit_classes_choose_and_order(tmp_path: Path) -> None:
    splits, labels, _ = find_splits(data_of(classes=("c", "a")), files(tmp_path, a=4, b=4, c=4), 0)
    assert labels == ("c", "a")
    assert {Path(item.path).parts[0]: item.label for item in splits["train"]} == {"c": 0, "a": 1}


def test_folder_problems_are_listed_together(tmp_path: Path) -> None:
    root = files(tmp_path, **{"train/a": 3, "train/b": 3, "validation/a": 1, "validation/extra": 1})
    (root / "train" / "empty").mkdir()
    data = Data.model_validate({"train": {"folder": "train"}, "validation": {"folder": "validation"}})
    problems = "\n".join(check_data(data, root))
    assert "data.train: class 'empty' has no photos: its folder is empty" in problems
    assert "data.validation: there is no folder for class 'b'" in problems
    assert "data.validation: class 'extra' is not among the training classes" in problems
    with pytest.raises(DataInvalid, match="'empty' has no photos"):
        find_splits(data, root, 0)


@pytest.mark.parametrize(
    ("counts", "message"),
    [
        ({}, "holds none"),
        ({"a": 9}, "holds only 'a'"),
        ({"a": 9, "b": 1}, "class 'b' has 1 photo, its 3 splits need one each"),
    ],
)
def test_too_few_classes_or_photos(tmp_path: Path, counts: dict[str, int], message: str) -> None:
    assert message in "\n".join(check_data(data_of(), files(tmp_path, **counts)))


def test_a_folder_may_not_leave_the_data_root(tmp_path: Path) -> None:
    files(tmp_path, **{"outside/a": 3, "root/a": 3})
    problems = check_data(data_of(train={"folder": "../outside"}), tmp_path / "root")
    assert len(problems) == 1
    assert "leaves the data root" in problems[0]


def test_an_unreadable_file_is_left_out(tmp_path: Path, make_photos: Callable[..., Path]) -> None:
    if os.geteuid() == 0:
        pytest.skip("the superuser reads every file")
    root = files(tmp_path, a=4, b=4)
    (root / "a" / "0.jpg").chmod(0)
    _, _, left_out = find_splits(data_of(), root, 0)
    assert [entry.path for entry in left_out] == ["a/0.jpg"]


def test_what_was_trained_on_is_measured_nowhere(tmp_path: Path) -> None:
    files(tmp_path / "train", a=4, b=4)
    files(tmp_path / "test", a=6, b=6)
    shutil.copy(tmp_path / "test/a/5.jpg", tmp_path / "test/a/again.jpg")
    data = Data.model_validate(
        {"train": {"folder": "train"}, "validation": {"folder": "train"}, "test": {"folder": "test"}}
    )
    splits, _, left_out = find_splits(data, tmp_path, 0)
    assert splits["validation"] == []
    assert [item.path for item in splits["test"]] == [
        *("test/a/4.jpg", "test/a/5.jpg", "test/a/again.jpg", "test/b/4.jpg", "test/b/5.jpg")
    ]
    assert len(left_out) == 8 + 8
    assert "not in validation: the same file as train/a/0.jpg" in {entry.detail for entry in left_out}


def test_a_class_folder_whose_name_is_no_text_is_refused(tmp_path: Path) -> None:
    files(tmp_path, a=4, b=4)
    (tmp_path / os.fsdecode(b"c\xff")).mkdir()
    assert any("is not UTF-8; rename it" in problem for problem in check_data(data_of(), tmp_path))


def test_a_class_may_come_from_any_folder(tmp_path: Path) -> None:
    root = files(tmp_path, **{"one/cat": 4, "two/ant/deep": 3, "two/bee": 3})
    sources = {"ants": "two/ant", "cats": "one/cat"}
    data = data_of(train={"folders": sources})
    splits, labels, left_out = find_splits(data, root, 0)
    assert (labels, left_out) == (("ants", "cats"), [])
    assert sum(map(len, splits.values())) == 7
    assert {Path(item.path).parts[:2] for items in splits.values() for item in items if item.label == 0} == {
        ("two", "ant")
    }
    problems = check_data(data_of(train={"folders": sources | {"owls": "no/owls"}}), root)
    assert len(problems) == 1
    assert "data.train.folders.owls: 'no/owls' is not a folder" in problems[0]


def test_at_most_so_many_photos_of_a_class_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    root = files(tmp_path, **{"train/a": 12, "train/b": 5, "seen/a": 3, "seen/b": 3})
    data = Data.model_validate(
        {"train": {"folder": "train", "most": {"a": 11}}, "validation": {"folder": "seen", "most": {"b": 2, "a": 9}}}
    )
    splits, _, _ = find_splits(data, root, 0)
    names = [Path(item.path).stem for item in splits["train"] if item.label == 0]
    assert sorted(names, key=int) == [str(number) for number in range(11)]
    assert [sum(item.label == k for item in splits["validation"]) for k in (0, 1)] == [3, 2]
    assert "data.train.most: there is no class 'c'; its classes are a, b" in check_data(
        data_of(train={"folder": "train", "most": {"c": 3}}), root
    )
