"""Errors as application/problem+json (RFC 9457) with a stable `code`; under /v2 in the form of that protocol."""

from typing import Any

from pydantic_core import to_json
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from inference.errors import MethodUnsupported, Overloaded, PathUnknown, PetalpawError, Unauthorized
from service.call import Call

MEDIA_TYPE = "application/problem+json"
_OPEN_INFERENCE = "/v2"

CLIENT_LEFT = 499
"""Nobody reads this; it is what stands in the log for a request whose client left before its end."""

INTERNAL_DETAIL = "the service failed on this request; it is not the request's fault, and the log says more"


class _Refusal(Response):
    """The body of an error, which leaves its code with the call that it answers."""

    def __init__(self, error: PetalpawError, body: Any, media_type: str) -> None:
        super().__init__(to_json(body), error.status, _headers(error), media_type)
        self._code = error.code
        # An answer from now on: what it was raised through would keep it, and the request's body, in a cycle.
        error.with_traceback(None)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if call := Call.within(scope):
            call.problem = self._code
        await super().__call__(scope, receive, send)


def refusal(path: str, error: PetalpawError) -> Response:
    """The answer for an error at this address: a problem, or under /v2 what the Open Inference Protocol prescribes."""
    if path != _OPEN_INFERENCE and not path.startswith(_OPEN_INFERENCE + "/"):
        return problem(error)
    return _Refusal(error, {"error": f"{error.code}: {error.detail}"}, "application/json")


def problem(error: PetalpawError, **members: Any) -> Response:
    """The answer for an error that concerns a request as a whole; `members` are added to the body."""
    body = {
        "type": f"urn:petalpaw:problem:{error.code}",
        "title": title(error.code),
        "status": error.status,
        "code": error.code,
        "detail": error.detail,
        **members,
    }
    return _Refusal(error, body, MEDIA_TYPE)


def _headers(error: PetalpawError) -> dict[str, str]:
    if isinstance(error, Overloaded):
        return {"Retry-After": str(error.retry_after)}
    return {"WWW-Authenticate": "Bearer"} if isinstance(error, Unauthorized) else {}


def title(code: str) -> str:
    """The same short summary for every problem of one code."""
    return code.replace("_", " ").capitalize()


def of_status(status: int, path: str, method: str) -> PetalpawError:
    """The error behind an answer of the framework that has a status and nothing else."""
    if status == PathUnknown.status:
        return PathUnknown(f"there is nothing at {path}; /docs.json lists what there is")
    if status == MethodUnsupported.status:
        return MethodUnsupported(f"{path} does not take {method}; /docs.json lists what it takes")
    error = PetalpawError(INTERNAL_DETAIL)
    # ClassVar for the tree's own members; here the framework's status is kept.
    error.status = status  # type: ignore[misc]
    return error


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The problems that an address answers with, for the OpenAPI document."""
    content = {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}
    return {status: {"description": "a problem; `code` says which", "content": content} for status in statuses}
