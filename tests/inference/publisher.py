"""Publishes an artifact in a process of its own: `publisher.py ROOT SOURCE kill STEP` or `… times COUNT`.

`kill STEP` ends as kill -9 would just before the given step of publishing; without so many steps it publishes.
"""

import json
import os
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from inference import repository
from inference.errors import PublishRefused
from inference.repository import Repository


def killed_at(step: int) -> None:
    """Count every copy, write, sync and rename, and die before number `step`."""
    steps = iter(range(step + 1))

    def dying(function: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(*arguments: Any, **options: Any) -> Any:
            if next(steps) == step:
                os.kill(os.getpid(), signal.SIGKILL)
            return function(*arguments, **options)

        return wrapped

    for owner, name in [(shutil, "copyfile"), (Path, "write_text"), (repository, "sync"), (Path, "rename")]:
        setattr(owner, name, dying(getattr(owner, name)))


def main(root: str, source: str, how: str, number: int) -> None:
    if how == "kill":
        killed_at(number)
        print(Repository(Path(root)).publish(Path(source)).version)
        return
    versions = []
    for _ in range(number):
        try:
            versions.append(Repository(Path(root)).publish(Path(source)).version)
        except PublishRefused as error:
            versions.append(error.detail)
    print(json.dumps(versions))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4]))
