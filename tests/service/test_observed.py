"""A server watched as in production: JSON logs, traces to a real collector, adaptive batching; and docs/metrics.md."""

import gzip
import io
import json
import logging
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.trace.v1.trace_pb2 import Span
from prometheus_client.parser import text_string_to_metric_families

from inference.errors import ParameterInvalid, RuntimeMissing
from inference.repository import Repository
from service import logs
from service.call import Call
from service.metrics import forget_ended_processes
from service.tracing import Tracing
from tests.conftest import BLUE, RED
from tests.service.conftest import ROOT, Server, start

DOCUMENT = (ROOT / "docs" / "metrics.md").read_text("utf-8")
METRIC = r"\b(?:petalpaw|process|bentoml)_\w+"
TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


class Collector(ThreadingHTTPServer):
    """An OTLP/HTTP collector that keeps what it is sent."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Collecting)
        self.received: list[ExportTraceServiceRequest] = []

    @property
    def spans(self) -> list[Span]:
        return [
            span
            for request in self.received
            for resource in request.resource_spans
            for scope in resource.scope_spans
            for span in scope.spans
        ]

    def trace(self, trace_id: str) -> list[Span]:
        """The spans of a trace, once its server span has come."""
        for _ in range(100):
            spans = [span for span in self.spans if span.trace_id.hex() == trace_id]
            if any(span.kind == Span.SPAN_KIND_SERVER for span in spans):
                return spans
            time.sleep(0.1)
        raise AssertionError([span.name for span in self.spans])


class _Collecting(BaseHTTPRequestHandler):
    server: Collector

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        if self.headers.get("content-encoding") == "gzip":
            body = gzip.decompress(body)
        assert self.path == "/v1/traces"
        self.server.received.append(ExportTraceServiceRequest.FromString(body))
        self.send_response(200)
        self.send_header("content-type", "application/x-protobuf")
        self.end_headers()
        self.wfile.write(ExportTraceServiceResponse().SerializeToString())

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        pass


@pytest.fixture(scope="module")
def collector() -> Iterator[Collector]:
    with Collector() as made:
        thread = threading.Thread(target=made.serve_forever)
        thread.start()
        yield made
        made.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def observed(
    tmp_path_factory: pytest.TempPathFactory,
    repository: Repository,
    collector: Collector,
    picture: Callable[..., bytes],
) -> Iterator[Server]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{collector.server_port}")
        patch.setenv("OTEL_BSP_SCHEDULE_DELAY", "100")
        home = tmp_path_factory.mktemp("observed")
        running = Server(*start(home, models=repository.root, log_format="json", batching="adaptive"))
    running.wait()
    pictures = {"private.jpg": picture(BLUE), "b.jpg": b"text", "c.jpg": picture(RED)}
    files = [("images", one) for one in pictures.items()]
    headers = {"traceparent": f"00-{TRACE}-{PARENT}-01", "X-Request-Id": "watched"}
    running.client.post("/classify?model=colours", files=files, headers=headers)
    yield running
    running.stop()


def rows(title: str) -> list[list[str]]:
    """The rows of the table below this heading, by cell."""
    section = DOCUMENT.partition(f"\n## {title}\n")[2].partition("\n## ")[0]
    found = [line.strip("| ").split(" | ") for line in section.splitlines() if line.startswith("| `")]
    assert found
    return found


def named(cell: str) -> list[str]:
    return re.findall(r"`([^`]+)`", cell)


def test_the_page_lists_every_metric_with_kind_labels_and_meaning(observed: Server) -> None:
    found = {}
    for family in text_string_to_metric_families(observed.client.get("/metrics").text):
        labels = {label for sample in family.samples for label in sample.labels if label != "le"}
        name = f"{family.name}{'_total' * (family.type == 'counter')}"
        found[name] = (family.type, labels, family.documentation)
    written = {
        named(name)[0]: (kind, set(named(labels)), meaning.replace("`", ""))
        for name, kind, labels, meaning in rows("Metrics")
    }
    assert written == {name: told for name, told in found.items() if name.startswith("petalpaw_")}
    assert {name for name in named(DOCUMENT) if name.startswith("process_")} <= found.keys()


def access_line(observed: Server, request_id: str) -> dict[str, Any]:
    for _ in range(50):
        for line in observed.said().splitlines():
            said: dict[str, Any] = json.loads(line)
            if said.get("request_id") == request_id and said["logger"].endswith("access"):
                return said
        time.sleep(0.1)
    raise AssertionError(observed.said())


def test_every_line_is_json_and_the_page_lists_its_fields(observed: Server) -> None:
    said = access_line(observed, "watched")
    expected = {"method": "POST", "route": "/classify", "path": "/classify", "status": 200, "code": "ok"}
    expected |= {"model": "colours/1", "pictures": 3, "outcomes": {"ok": 2, "image_unsupported": 1}, "trace_id": TRACE}
    assert {name: said[name] for name in expected} == expected
    assert said["milliseconds"] > 0
    fields = {field for line in observed.said().splitlines() for field in json.loads(line)}
    assert {named(field)[0] for field, *_ in rows("Logs")} == fields | {"traceback"}
    assert "private" not in observed.said()


def test_a_trace_goes_on_where_the_client_began_it(observed: Server, collector: Collector) -> None:
    spans = collector.trace(TRACE)
    (request,) = (span for span in spans if span.kind == Span.SPAN_KIND_SERVER)
    assert (request.name, request.parent_span_id.hex()) == ("POST /classify", PARENT)
    stages = [span for span in spans if span is not request]
    assert {span.parent_span_id for span in stages} == {request.span_id}
    assert sorted(span.name for span in stages) == sorted(
        ["read", *["decode"] * 3, *["preprocess"] * 2, *["queue"] * 3, *["batch"] * 2, *["inference"] * 2]
    )
    for span in stages:
        assert request.start_time_unix_nano <= span.start_time_unix_nano <= span.end_time_unix_nano
        assert span.end_time_unix_nano <= request.end_time_unix_nano
    assert abs(request.end_time_unix_nano / 1e9 - time.time()) < 300
    assert {name for cell, *_ in rows("Traces") for name in named(cell)} == (
        {span.name for span in spans} | {attribute.key for attribute in request.attributes}
    )
    (resource,) = {request.resource_spans[0].resource.SerializeToString() for request in collector.received}
    assert b"petalpaw" in resource


def test_a_trace_that_the_client_does_not_sample_is_not_sent(observed: Server, collector: Collector) -> None:
    hidden, shown = "1" * 32, "2" * 32
    observed.client.get("/models", headers={"traceparent": f"00-{hidden}-{PARENT}-00", "X-Request-Id": "hidden"})
    observed.client.get("/readyz", headers={"traceparent": f"00-{hidden}-{PARENT}-01"})
    observed.client.get("/models", headers={"traceparent": f"00-{shown}-{PARENT}-01"})
    assert [span.name for span in collector.trace(shown)] == ["GET /models"]
    assert hidden not in {span.trace_id.hex() for span in collector.spans}
    assert "trace_id" not in access_line(observed, "hidden")


def test_the_dashboard_asks_for_metrics_that_exist(observed: Server) -> None:
    text = observed.client.get("/metrics").text
    samples = {sample.name for family in text_string_to_metric_families(text) for sample in family.samples}
    dashboard = json.loads((ROOT / "deploy" / "grafana" / "petalpaw.json").read_text("utf-8"))
    queries = [target["expr"] for panel in dashboard["panels"] for target in panel.get("targets", [])]
    queries += [variable["query"] for variable in dashboard["templating"]["list"] if variable["type"] == "query"]
    asked = {name for query in queries for name in re.findall(METRIC, query)}
    assert len(asked) > 8
    assert asked <= samples
    alerts = (ROOT / "deploy" / "prometheus" / "alerts.yml").read_text("utf-8")
    assert set(re.findall(METRIC, alerts)) <= samples
    # A metric that nobody looks at is one too many.
    assert {named(name)[0] for name, *_ in rows("Metrics")} == {
        re.sub(r"_(bucket|count|sum)$", "", name) for name in asked if name.startswith("petalpaw_")
    }


def test_what_cannot_be_traced_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OTEL_EXPORTER_OTLP_ENDPOINT", raising=False)
    assert Tracing.from_environment() is None
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")
    with pytest.raises(ParameterInvalid, match="OTEL_EXPORTER_OTLP_PROTOCOL is 'grpc'"):
        Tracing.from_environment()
    monkeypatch.delenv("OTEL_EXPORTER_OTLP_PROTOCOL")
    monkeypatch.setitem(sys.modules, "opentelemetry.exporter.otlp.proto.http.trace_exporter", None)
    with pytest.raises(RuntimeMissing, match=r"petalpaw\[tracing\]"):
        Tracing.from_environment()


def test_a_failure_is_one_json_line(monkeypatch: pytest.MonkeyPatch) -> None:
    written = io.StringIO()
    logger = logging.getLogger("bentoml")
    monkeypatch.setattr(logger, "handlers", [logging.StreamHandler(written)])
    monkeypatch.setattr(logger, "propagate", False)
    logs.configure("json")
    Call.begin({"type": "http"}, "failing")
    logger.error("unexpected failure", exc_info=KeyError("lost"))
    said = json.loads(written.getvalue())
    assert "KeyError: 'lost'" in said["traceback"]
    assert (said["level"], said["message"], said["request_id"]) == ("ERROR", "unexpected failure", "failing")


def test_a_process_that_was_killed_leaves_no_gauge(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    for pid in (os.getpid(), ended.pid):
        (tmp_path / f"gauge_livesum_{pid}.db").touch()
        (tmp_path / f"counter_{pid}.db").touch()
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(tmp_path))
    forget_ended_processes()
    left = {file.name for file in tmp_path.iterdir()}
    assert left == {f"gauge_livesum_{os.getpid()}.db", f"counter_{os.getpid()}.db", f"counter_{ended.pid}.db"}
