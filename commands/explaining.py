"""`petalpaw explain`: why a trained network answers as it does."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from commands.options import SOME_FAILED, Device, DeviceOption, RunFolder
from inference.errors import PetalpawError

app = typer.Typer()


@app.command(epilog="Example: petalpaw explain runs/flowers rose.jpg tulip.jpg --out why/")
def explain(
    run: RunFolder,
    images: Annotated[list[Path], typer.Argument(metavar="IMAGE…", help="Pictures to explain.")],
    out: Annotated[Path | None, typer.Option(help="Where to put the pictures.", show_default="RUN/explained")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object per picture, figures included.")] = False,
    device: Device = DeviceOption.auto,
) -> None:
    """Answer pictures with a run's network, and show where it looked (Grad-CAM) and what its residual blocks add."""
    from training.explain import explain as explain_run
    from training.run import Run

    failed = 0
    for path, outcome in explain_run(Run.open(run), images, out or run / "explained", device.value):
        failed += isinstance(outcome, PetalpawError)
        typer.echo(_json(path, outcome) if as_json else _text(path, outcome))
    raise typer.Exit(SOME_FAILED if failed else 0)


def _text(path: Path, outcome: Any) -> str:
    # One line per picture, whatever its name holds.
    name = "".join(each if each.isprintable() else repr(each)[1:-1] for each in str(path))
    if isinstance(outcome, PetalpawError):
        return f"{name}\t{outcome.code}\t{outcome.detail}"
    prediction = outcome.prediction
    said = f"{'not sure: ' if prediction.abstained else ''}{prediction.label} {prediction.probability:.1%}"
    strongest = max(outcome.residuals, key=lambda each: each.ratio, default=None)
    added = f"{strongest.block} adds most, {strongest.ratio:.2f} of x" if strongest else "no residual blocks"
    return f"{name}\t{said}\t{outcome.gradcam or 'no Grad-CAM'}\t{outcome.residuals_picture or '-'}\t{added}"


def _json(path: Path, outcome: Any) -> str:
    if isinstance(outcome, PetalpawError):
        answer = {"error": {"code": outcome.code, "status": outcome.status, "detail": outcome.detail}}
    else:
        answer = outcome.as_data()
    # Bytes of a name that are no text become escapes, as JSON has them.
    return json.dumps({"path": str(path), **answer}, ensure_ascii=False).encode(errors="backslashreplace").decode()
