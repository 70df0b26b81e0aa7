"""The front door: one command line from labelled photos to predictions.

stdout carries data, stderr carries progress and messages. Exit status: 0 done, 1 some inputs failed, 2 wrong usage,
3 nothing could be done. The commands live in `commands/`; a command's package is imported when the command is chosen.
"""

import os
import sys
import time

import typer

from commands import data, evaluating, explaining, exporting, models, recipes, scoring, serving, training
from commands.options import NOTHING_DONE, WRONG_USAGE, messages
from inference import torchrun
from inference.errors import ParameterInvalid, PetalpawError

app = typer.Typer(
    help="From a folder of labelled photos to a served image classifier that gives PyTorch's answers.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
for part in (serving, scoring, evaluating, training, exporting, explaining):
    app.add_typer(part.app)
app.add_typer(models.app, name="models")
app.add_typer(recipes.app, name="recipes")
app.add_typer(data.app, name="data")


def main() -> None:
    """Run the command line; Petalpaw's own errors become one line and exit status 3, or 2 for a wrong value."""
    if sys.stderr is None:  # closed, and the next file that is opened would take its place
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115, PTH123 – as long as the process
    try:
        app()
    except PetalpawError as error:
        _wait_for_the_first()
        messages.print(f"petalpaw: {error.detail} [{error.code}]", style="red", markup=False)
        sys.exit(WRONG_USAGE if isinstance(error, ParameterInvalid) else NOTHING_DONE)
    except OSError as error:  # a full disk, a folder that may not be written: the system's own words say which
        _wait_for_the_first()
        messages.print(f"petalpaw: {error}; make room or check the path, its owner and mode", style="red", markup=False)
        sys.exit(NOTHING_DONE)


def _wait_for_the_first() -> None:
    """Under torchrun all processes meet the same error, and the first to end ends the others: let that one speak."""
    if torchrun.rank() > 0:
        time.sleep(30)


if __name__ == "__main__":
    main()
