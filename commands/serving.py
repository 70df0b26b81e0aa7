"""`petalpaw serve`."""

import os
from pathlib import Path
from typing import Annotated

import typer

from commands.options import Device, DeviceOption, Models, Runtime, RuntimeOption

LOOPBACK = "127.0.0.1"

PATHS = ("PETALPAW_PROBES", "PETALPAW_API_KEYS_FILE", "PETALPAW_CACHE")
"""Settings of the service that are paths, beside the repository: they begin where the command is given."""

app = typer.Typer()


@app.command(epilog="Example: petalpaw serve --port 8080")
def serve(
    host: Annotated[str, typer.Option(help="The address to listen on; 0.0.0.0 is every one.")] = LOOPBACK,
    port: Annotated[int, typer.Option(envvar="PORT", min=1, max=65535, help="The port to listen on.")] = 3000,
    models: Models = Path("models"),
    runtime: Runtime = RuntimeOption.onnx,
    device: Device = DeviceOption.auto,
) -> None:
    """Serve every model of the repository over HTTP. docs/settings.md lists the further settings."""
    import service
    from service.launch import check_address, check_memory, serve_command

    check_memory()
    check_address(host, port)
    os.environ.update(
        PETALPAW_MODELS=str(models.resolve()), PETALPAW_RUNTIME=runtime.value, PETALPAW_DEVICE=device.value
    )
    os.environ.update({name: os.path.abspath(path) for name in PATHS if (path := os.environ.get(name))})  # noqa: PTH100
    # BentoML would report each start to its makers.
    os.environ.setdefault("BENTOML_DO_NOT_TRACK", "True")
    # BentoML looks for the service in the working folder first, where a user may have a `service` of his own.
    os.chdir(Path(next(iter(service.__path__))).parent)
    command = serve_command(host, port)
    os.execv(command[0], command)  # noqa: S606 – the server takes this process's place, its signals included
