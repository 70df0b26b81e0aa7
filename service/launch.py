"""Starting the server, and ending all of it when its worker cannot start.

`bentoml serve` is two processes: a supervisor, and the worker that loads the models. The supervisor would start a
worker that ends again and again, for ever; so the worker tells it to end, with exit status 3.
"""

import ipaddress
import logging
import os
import signal
import socket
import sys
import threading
from types import FrameType, TracebackType
from typing import Any, NoReturn

import click

from inference import memory
from inference.errors import AddressUnavailable, MemoryShort, ParameterInvalid, PetalpawError

TARGET = "service.app:Petalpaw"

REFUSED = 3
"""Exit status of a start that was refused: nothing could be done."""

LEAST_MEMORY = 200_000_000
"""Bytes that the two processes hold with two small models, once these are loaded; loading takes more for a moment."""

_SERVE = ("serve", "serve-http")
_LOOK_S = 1.0
_SUPERVISOR = "PETALPAW_SERVICE_SUPERVISOR"
_log = logging.getLogger("bentoml.petalpaw")


def serve_command(host: str, port: int) -> list[str]:
    """The command line that serves in production; the settings travel in the environment."""
    return [
        *(sys.executable, "-m", "bentoml", "serve", TARGET),
        *("--host", host, "--port", str(port)),
    ]


def check_address(host: str, port: int) -> None:
    """Try to listen there, and stop again: BentoML would fail with the tracebacks of three libraries.

    Raises ParameterInvalid for a host that is no IP address, AddressUnavailable when the system refuses.
    """
    try:
        family = socket.AF_INET6 if ipaddress.ip_address(host).version == 6 else socket.AF_INET
    except ValueError:
        raise ParameterInvalid(f"--host takes an IP address, such as 127.0.0.1 or 0.0.0.0, not {host!r}") from None
    with socket.socket(family) as probe:
        # As the server does: a port whose last connections are only fading away is free.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
            probe.listen()
        except OSError as error:
            raise AddressUnavailable(
                f"cannot listen on {host} port {port} ({error.strerror}); choose another with --port or PORT, "
                "or end what listens there"
            ) from error


def check_memory() -> None:
    """Raises MemoryShort in a container whose limit no start can keep to: it would be killed without a word."""
    granted = memory.limit()
    if granted is not None and granted < LEAST_MEMORY:
        raise MemoryShort(
            f"this container may use {granted / 1e6:.0f} MB of memory, and the service holds "
            f"{LEAST_MEMORY / 1e6:.0f} MB even when idle; raise the limit (docs/operations.md, Sizing)"
        )


def report_kills() -> None:
    """In a worker: say whether others of this container were killed for their memory; the system tells nobody."""
    granted, kills = memory.limit(), memory.kills()
    if granted is not None and kills:
        _log.error(
            "the system has killed %d process(es) of this container, for which %.0f MB of memory were not enough; "
            "raise the limit (docs/operations.md, Sizing)",
            kills,
            granted / 1e6,
        )


def supervising() -> bool:
    """Whether this is the process of `bentoml serve` that starts the worker and answers no requests itself."""
    # Not above: `petalpaw serve` asks this module for a command line only, and would wait for BentoML twice.
    import bentoml

    context = click.get_current_context(silent=True)
    return context is not None and context.info_name in _SERVE and bentoml.server_context.worker_index is None


def supervise() -> None:
    """In the supervisor: log as the worker does, and be ready to end with `REFUSED` when the worker asks for it."""
    # Here, as above; and read without the settings, whose import would cost more than all else that this process does.
    from service import logs

    logs.configure("json" if os.environ.get("PETALPAW_LOG_FORMAT") == "json" else "text")
    context = click.get_current_context(silent=True)
    if context is None or threading.current_thread() is not threading.main_thread():
        return  # started from Python, whose owner sees the worker end
    refused = threading.Event()

    def end(_signal: int, _frame: FrameType | None) -> None:
        refused.set()
        # Circus, which BentoML supervises with, stops in order on this one.
        os.kill(os.getpid(), signal.SIGTERM)

    def exit_status() -> None:
        if refused.is_set():
            sys.exit(REFUSED)

    _look_often()
    signal.signal(signal.SIGUSR1, end)
    context.call_on_close(exit_status)
    os.environ[_SUPERVISOR] = str(os.getpid())


def _look_often() -> None:
    """Let the supervisor look every second whether its worker lives; BentoML's ten would be ten more of outage."""
    from bentoml._internal.utils import circus

    class Attentive(circus.Arbiter):
        def __init__(self, *arguments: Any, **options: Any) -> None:
            super().__init__(*arguments, **{**options, "check_delay": _LOOK_S})

    circus.Arbiter = Attentive  # type: ignore[misc]


def refuse_what_nobody_catches() -> None:
    """In the worker, until it is `started`: an error of an import ends the whole server, as one of the start does."""

    def end(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        if isinstance(error, Exception):
            refuse(error)
        sys.__excepthook__(kind, error, trace)

    sys.excepthook = end


def started() -> None:
    """In the worker: what goes wrong from now on is worth another start."""
    sys.excepthook = sys.__excepthook__


def refuse(error: Exception) -> NoReturn:
    """In the worker: say why there is no start, on stderr, and end the whole server."""
    if isinstance(error, PetalpawError):
        sys.stderr.write(f"petalpaw cannot start: {error.detail}\n")
    else:
        _log.error("petalpaw cannot start", exc_info=error)
    supervisor = os.environ.get(_SUPERVISOR)
    if supervisor != str(os.getppid()):
        sys.exit(REFUSED)
    os.kill(int(supervisor), signal.SIGUSR1)
    logging.shutdown()
    sys.stderr.flush()
    # An exception would be reported by each of uvicorn, starlette and BentoML, with a traceback.
    os._exit(REFUSED)
