"""The BentoML service. `bentoml serve service.app:Petalpaw` starts it.

The supervisor of `bentoml serve` imports this module too, before the worker does and only to learn what to start.
What it would never use is not imported there: that is half a second of every start, and 20 MB.
"""

import logging
from functools import partial
from time import perf_counter
from typing import cast

import bentoml

from service import launch

if not launch.supervising():
    launch.refuse_what_nobody_catches()

    from inference.budget import SPARE_STREAMS, Budget
    from service import classify, logs
    from service.api import api
    from service.catalog import Catalog
    from service.connection import Limits, limit_connections
    from service.drain import Drain, running_server
    from service.metrics import Metrics, forget_ended_processes
    from service.overlay import stand_before
    from service.security import Gate
    from service.settings import misspelt, read_settings
    from service.streams import streams
    from service.telemetry import note_refused
    from service.tracing import Tracing

# Ours say more (service/telemetry.py): BentoML's metrics and spans are named after whatever path a stranger asks for,
# and its access log fails on a content type that is not UTF-8, in the middle of the answer.
_SEEING = {
    "logging": {"access": {"enabled": False}},
    "metrics": {"enabled": False},
    "tracing": {"excluded_urls": ".*"},
}

_log = logging.getLogger("bentoml.petalpaw")


@bentoml.service(name="petalpaw", workers=1, **_SEEING)
class Petalpaw:
    """Image classification with an outcome for every picture."""

    def __init__(self) -> None:
        try:
            self._start()
        except Exception as error:  # noqa: BLE001 – whatever it is, a supervisor must not try again for ever
            launch.refuse(error)
        launch.started()

    @bentoml.on_deployment  # type: ignore[untyped-decorator]  # its staticmethod form has no complete type
    @staticmethod
    def supervise() -> None:
        """In the supervisor, before it starts the worker."""
        launch.supervise()

    @bentoml.on_shutdown  # type: ignore[untyped-decorator]  # as above
    def close(self) -> None:
        """Let go of the threads, and send the last traces."""
        api.state.catalog.close()
        api.state.streams.close()
        if api.state.tracing:
            api.state.tracing.close()

    def _start(self) -> None:
        start = perf_counter()
        launch.report_kills()
        settings = read_settings()
        logs.configure(settings.log_format)
        for line in misspelt():
            _log.warning("%s", line)
        api.state.gate = Gate.of(settings)
        _log.info("%s", api.state.gate)
        api.state.drain = Drain(settings.drain_notice_s, settings.drain_timeout_s)
        server = running_server()
        api.state.drain.attend(server)
        limit_connections(server, Limits.of(settings), partial(note_refused, api.state))
        stand_before(server, api, classify.router)
        budget = Budget.plan(streams=settings.streams, threads=settings.threads, spare=SPARE_STREAMS)
        _log.info("budget: %s", budget)
        catalog = Catalog.open(settings, budget)
        forget_ended_processes()
        api.state.settings, api.state.catalog = settings, catalog
        api.state.metrics, api.state.tracing = Metrics(), Tracing.from_environment()
        api.state.streams = streams(settings, budget, catalog.device, api.state.metrics)
        catalog.watch(api.state.streams)
        if settings.poll_s is not None:
            catalog.follow(settings.poll_s)
        _log.info("%d model(s) ready after %.2f s", len(catalog.served), perf_counter() - start)


if not launch.supervising():
    # mypy does not see that a class decorator returns something else.
    api.state.service = cast("bentoml.Service[Petalpaw]", Petalpaw)
    # For BentoML's own document and description; requests come by another way (service/overlay.py).
    api.state.service.mount_asgi_app(api)
