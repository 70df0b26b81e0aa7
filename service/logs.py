"""Log lines as text or JSON, with the request's id, and one line for every request. docs/metrics.md lists the fields.

No line holds bytes of a picture, a file's name, a query or a key.
"""

import logging
from typing import Literal

from service.call import Ended, current

LogFormat = Literal["text", "json"]

_TEXT = "%(asctime)s [%(levelname)s] %(message)s%(suffix)s"
_DATE = "%Y-%m-%dT%H:%M:%S%z"
_LOGGERS = ("", "bentoml", "uvicorn.error", "circus")
_LONGEST_PATH = 256

_log = logging.getLogger("bentoml.petalpaw.access")


def configure(log_format: LogFormat) -> None:
    """Give every line of this process this format. BentoML has set its handlers up before."""
    # No format names the thread or the process, and finding them out would be part of every line.
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    formatter = _json() if log_format == "json" else logging.Formatter(_TEXT, _DATE)
    mark = _mark_json if log_format == "json" else _mark_text
    for handler in {handler for name in _LOGGERS for handler in logging.getLogger(name).handlers}:
        handler.setFormatter(formatter)
        # BentoML's filter names a trace that does not exist here.
        handler.filters[:] = [mark]


def access(ended: Ended, trace_id: str | None) -> None:
    """The line of a request that is over."""
    call, path = ended.call, ended.path[:_LONGEST_PATH]
    milliseconds = round(ended.seconds * 1000, 2)
    fields = {
        "method": ended.method,
        "route": ended.route,
        "path": path,
        "status": ended.status,
        "code": ended.code,
        "milliseconds": milliseconds,
        "model": call.model,
        "pictures": call.outcomes.total(),
        "outcomes": dict(call.outcomes),
        "trace_id": trace_id,
    }
    outcomes = ", ".join(f"{code} {count}" for code, count in sorted(call.outcomes.items()))
    work = f": {outcomes} by {call.model}" if outcomes else "" if ended.code == "ok" else f": {ended.code}"
    _log.log(
        logging.ERROR if ended.status >= 500 else logging.INFO,
        *("%s %s %d in %.1f ms%s", ended.method, path, ended.status, milliseconds, work),
        extra={name: value for name, value in fields.items() if value is not None},
    )


def _mark_text(record: logging.LogRecord) -> bool:
    call = current.get()
    record.suffix = f" (request {call.id})" if call else ""
    return True


def _mark_json(record: logging.LogRecord) -> bool:
    if call := current.get():
        record.request_id = call.id
    return True


def _json() -> logging.Formatter:
    from pythonjsonlogger.json import JsonFormatter

    return JsonFormatter(
        ["levelname", "name", "message"],
        rename_fields={"levelname": "level", "name": "logger", "exc_info": "traceback"},
        timestamp="timestamp",
        json_ensure_ascii=False,
    )
