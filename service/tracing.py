"""OpenTelemetry traces: a span for every request and one for each stage of its pictures.

On when OpenTelemetry's own variables name a collector, OTEL_EXPORTER_OTLP_ENDPOINT or …_TRACES_ENDPOINT; all the other
OTEL_ variables hold as well (headers, sampler, resource, propagators). A request's `traceparent` is continued.
"""

import os
from collections.abc import Mapping
from time import perf_counter, time_ns
from typing import TYPE_CHECKING

from inference.errors import ParameterInvalid, RuntimeMissing
from service.call import Ended

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider

_ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
_PROTOCOLS = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
_PROTOCOL = "http/protobuf"
_NANOSECONDS = 1_000_000_000


class Tracing:
    """Sends the spans of finished requests, in the background and in batches."""

    def __init__(self, provider: "TracerProvider") -> None:
        self._provider = provider
        self._tracer = provider.get_tracer("petalpaw")

    @classmethod
    def from_environment(cls) -> "Tracing | None":
        """Tracing as the environment asks for it, or None.

        Raises RuntimeMissing without the extra `tracing`, ParameterInvalid for a protocol other than http/protobuf.
        """
        endpoint = next((name for name in _ENDPOINTS if os.environ.get(name)), None)
        if endpoint is None:
            return None
        for name in _PROTOCOLS:
            if os.environ.get(name, _PROTOCOL) != _PROTOCOL:
                raise ParameterInvalid(
                    f"{name} is {os.environ[name]!r}, but traces are sent as {_PROTOCOL}; leave it out"
                )
        try:
            from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        except ImportError:
            raise RuntimeMissing(
                f"{endpoint} asks for traces, but their exporter is not installed; install the extra petalpaw[tracing] "
                "or leave the variable out"
            ) from None
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor

        named = "OTEL_SERVICE_NAME" in os.environ or "service.name=" in os.environ.get("OTEL_RESOURCE_ATTRIBUTES", "")
        provider = TracerProvider(resource=Resource.create({} if named else {"service.name": "petalpaw"}))
        provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
        return cls(provider)

    def record(self, ended: Ended, headers: Mapping[str, str]) -> str | None:
        """Make the spans of a request that has just ended, below the span that its headers name.

        Returns the trace's id in hexadecimal, or None where the sampler left it out.
        """
        from opentelemetry import propagate
        from opentelemetry.trace import SpanKind, StatusCode, set_span_in_context

        epoch = time_ns() - round(perf_counter() * _NANOSECONDS)

        def moment(reading: float) -> int:
            return epoch + round(reading * _NANOSECONDS)

        span = self._tracer.start_span(
            f"{ended.method} {ended.route}",
            propagate.extract(headers),
            kind=SpanKind.SERVER,
            attributes=_attributes(ended),
            start_time=moment(ended.start),
        )
        if not span.is_recording():
            return None
        if ended.status >= 500:
            span.set_status(StatusCode.ERROR)
        inside = set_span_in_context(span)
        for spent in list(ended.call.spent):
            stage = self._tracer.start_span(spent.stage, inside, start_time=moment(spent.start))
            stage.end(moment(spent.start + spent.seconds))
        span.end(moment(ended.start + ended.seconds))
        return format(span.get_span_context().trace_id, "032x")

    def close(self) -> None:
        """Send what is left, for as long as the exporter's own time limit."""
        self._provider.shutdown()


def _attributes(ended: Ended) -> dict[str, str | int]:
    """OpenTelemetry's names where it has some."""
    return {
        "http.request.method": ended.method,
        "http.route": ended.route,
        "http.response.status_code": ended.status,
        "url.path": ended.path,
        "petalpaw.request_id": ended.call.id,
        "petalpaw.code": ended.code,
        "petalpaw.model": ended.call.model or "",
        "petalpaw.pictures": ended.call.outcomes.total(),
    }
