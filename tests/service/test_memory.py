import platform
import subprocess
import sys
from pathlib import Path

import pytest

from inference import memory
from inference.errors import MemoryShort
from service import launch

ROOT = Path(__file__).parents[2]


def written(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    ("text", "granted"), [("629145600\n", 629145600), ("max\n", None), ("9223372036854771712\n", None)]
)
def test_the_limit_of_either_version_of_control_groups(tmp_path: Path, text: str, granted: int | None) -> None:
    assert memory.limit([tmp_path / "absent", written(tmp_path, "limit", text)]) == granted


def test_no_control_group_limits_nothing(tmp_path: Path) -> None:
    assert memory.limit([tmp_path / "absent"]) is None
    assert memory.kills([tmp_path / "absent"]) == 0


@pytest.mark.parametrize(
    "text", ["low 0\nhigh 0\noom 2\noom_kill 3\n", "oom_kill_disable 0\nunder_oom 0\noom_kill 3\n"]
)
def test_kills_of_either_version_are_counted(tmp_path: Path, text: str) -> None:
    assert memory.kills([tmp_path / "absent", written(tmp_path, "events", text)]) == 3


def test_a_limit_that_no_start_keeps_to_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "limit", lambda: 64_000_000)
    with pytest.raises(MemoryShort, match=r"may use 64 MB of memory.*raise the limit"):
        launch.check_memory()
    monkeypatch.setattr(memory, "limit", lambda: None)
    launch.check_memory()


def test_kills_are_reported_where_a_limit_explains_them(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(memory, "kills", lambda: 2)
    monkeypatch.setattr(memory, "limit", lambda: None)
    launch.report_kills()
    assert not caplog.records
    monkeypatch.setattr(memory, "limit", lambda: 300_000_000)
    launch.report_kills()
    assert "killed 2 process(es) of this container, for which 300 MB" in caplog.text


_FAULTS = """
import resource, sys
from inference import memory
if sys.argv[1:]:
    memory.keep()
def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
b"x" * (64 << 20)  # not yet counted
before = faults()
for _ in range(10):
    b"x" * (64 << 20)
print(faults() - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries have no such choice")
def test_kept_memory_is_not_taken_anew() -> None:
    def faults(*arguments: str) -> int:
        command = [sys.executable, "-c", _FAULTS, *arguments]
        return int(subprocess.run(command, cwd=ROOT, capture_output=True, check=True, timeout=60).stdout)

    assert faults("keep") < faults() / 10
