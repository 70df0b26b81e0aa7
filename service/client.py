"""A client in Python, sync and async, with the service's own types (extra `client`).

    with Client("http://localhost:3000", model="flowers") as client:
        for outcome in client.classify(["a.jpg", "b.jpg"]).predictions:
            print(outcome.error.detail if isinstance(outcome, Failed) else outcome.label)

What concerns a request as a whole is raised as the error of `inference.errors` that the service named, such as
ModelUnknown or Overloaded; what concerns one picture stands in its place among the predictions. Classifying changes
nothing, so what was refused for want of room, or lost on the way, is asked again.
"""

import asyncio
import random
import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from itertools import count
from pathlib import Path
from types import TracebackType
from typing import Any, Generic, Self, TypeVar
from urllib.parse import quote

import httpx
from pydantic import BaseModel, ValidationError

from inference.errors import Overloaded, ParameterInvalid, PetalpawError
from service.answer import Answer, Classified, Failed, ModelDetail, ModelList, Problem

__all__ = ["Answer", "AsyncClient", "Classified", "Client", "Failed", "ModelDetail", "ModelList", "Retries"]

Image = str | Path | bytes
"""A picture: a file's path, or the bytes themselves."""

T = TypeVar("T", bound=BaseModel)
Http = TypeVar("Http", httpx.Client, httpx.AsyncClient)

_BUSY = (429, 503)
_ENDLESS_S = 1e9
"""A pause that nobody takes, however many digits ask for it."""

_LOST = (httpx.ConnectError, httpx.ConnectTimeout, httpx.ReadError, httpx.WriteError, httpx.RemoteProtocolError)


@dataclass(frozen=True, slots=True)
class Retries:
    """When to ask again: at most `attempts` times in all, and never after a pause of more than `longest_s` seconds.

    `Retry-After` is honoured; without it pauses grow from `first_s`, by chance up to twice as long each time.
    """

    attempts: int = 4
    first_s: float = 0.25
    longest_s: float = 30.0

    def pause(self, attempt: int, outcome: httpx.Response | httpx.TransportError) -> float | None:
        """Seconds until the next attempt after this one (1, 2, …), or None where the outcome is final."""
        if isinstance(outcome, httpx.Response):
            again, asked = outcome.status_code in _BUSY, retry_after(outcome)
        else:
            again, asked = isinstance(outcome, _LOST), None
        seconds = self.first_s * random.uniform(1, 2) * 2 ** (attempt - 1) if asked is None else asked
        return seconds if again and attempt < self.attempts and seconds <= self.longest_s else None


class _Questions(Generic[Http]):
    """What sync and async have in common: how requests are made and answers read."""

    _kind: type[Http]

    def __init__(
        self,
        url: str = "http://localhost:3000",
        *,
        key: str | None = None,
        model: str | None = None,
        timeout: float = 60.0,
        retries: Retries | None = None,
    ) -> None:
        """A client of the service at `url`; `key` is its API key, `model` the one for calls that name none.

        The service is told `timeout` (seconds per attempt) too, and drops what it could not answer in time.
        """
        self._model = model
        self._retries = retries or Retries()
        headers = {"X-Request-Timeout-Ms": str(max(1, round(timeout * 1000)))}
        if key:
            headers["Authorization"] = f"Bearer {key}"
        self._http: Http = self._kind(base_url=url, headers=headers, timeout=timeout)

    def _parameters(self, model: str | None, version: str | None, top_k: int | None) -> dict[str, Any]:
        given = {"model": model or self._model, "version": version, "top_k": top_k}
        return {name: value for name, value in given.items() if value is not None}


class Client(_Questions[httpx.Client]):
    """The sync client; also a context manager. Safe to use from several threads."""

    _kind = httpx.Client

    def classify(
        self,
        images: Iterable[Image],
        *,
        model: str | None = None,
        version: str | None = None,
        top_k: int | None = None,
    ) -> Answer:
        """Classify pictures in one request: an outcome for each, in order.

        Raises the service's error for the request as a whole, OSError for a file that cannot be read, and
        httpx.TransportError when the service cannot be reached.
        """
        parameters = self._parameters(model, version, top_k)
        return _outcomes(self._ask("POST", "classify", params=parameters, files=_files(images)))

    def models(self) -> ModelList:
        """What is served, and what else there is."""
        return _read(ModelList, self._ask("GET", "models"))

    def model(self, name: str, version: str | None = None) -> ModelDetail:
        """One model: labels, preprocessing, calibration, metrics. Raises ModelUnknown."""
        return _read(ModelDetail, self._ask("GET", _address(name), params=self._parameters(None, version, None)))

    def close(self) -> None:
        """Let go of the connections."""
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def _ask(self, method: str, path: str, **options: Any) -> httpx.Response:
        for attempt in count(1):
            try:
                outcome: httpx.Response | httpx.TransportError = self._http.request(method, path, **options)
            except httpx.TransportError as error:
                outcome = error
            seconds = self._retries.pause(attempt, outcome)
            if seconds is None:
                break
            time.sleep(seconds)
        return _final(outcome)


class AsyncClient(_Questions[httpx.AsyncClient]):
    """The same for asyncio."""

    _kind = httpx.AsyncClient

    async def classify(
        self,
        images: Iterable[Image],
        *,
        model: str | None = None,
        version: str | None = None,
        top_k: int | None = None,
    ) -> Answer:
        """As `Client.classify`; files are read in a thread."""
        parameters = self._parameters(model, version, top_k)
        files = await asyncio.to_thread(_files, images)
        return _outcomes(await self._ask("POST", "classify", params=parameters, files=files))

    async def models(self) -> ModelList:
        """As `Client.models`."""
        return _read(ModelList, await self._ask("GET", "models"))

    async def model(self, name: str, version: str | None = None) -> ModelDetail:
        """As `Client.model`."""
        parameters = self._parameters(None, version, None)
        return _read(ModelDetail, await self._ask("GET", _address(name), params=parameters))

    async def close(self) -> None:
        """Let go of the connections."""
        await self._http.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        await self.close()

    async def _ask(self, method: str, path: str, **options: Any) -> httpx.Response:
        for attempt in count(1):
            try:
                outcome: httpx.Response | httpx.TransportError = await self._http.request(method, path, **options)
            except httpx.TransportError as error:
                outcome = error
            seconds = self._retries.pause(attempt, outcome)
            if seconds is None:
                break
            await asyncio.sleep(seconds)
        return _final(outcome)


def retry_after(response: httpx.Response) -> float | None:
    """The seconds of a Retry-After header, which may also be a date; None without one that can be read."""
    value = response.headers.get("Retry-After", "")
    if value.isascii() and value.isdigit():
        return min(float(value), _ENDLESS_S)
    try:
        return max(0.0, (parsedate_to_datetime(value) - datetime.now(UTC)).total_seconds())
    except (ValueError, TypeError):
        return None


def _address(model: str) -> str:
    return f"models/{quote(model, safe='')}"


def _files(images: Iterable[Image]) -> list[tuple[str, tuple[str, bytes]]]:
    if isinstance(images, str | Path | bytes):
        raise TypeError("images must be a list of pictures, also for a single one")
    named = [(f"{index}", one) if isinstance(one, bytes) else (Path(one).name, one) for index, one in enumerate(images)]
    if not named:
        raise ParameterInvalid("there is no picture among the images; give at least one")
    return [("images", (name, one if isinstance(one, bytes) else Path(one).read_bytes())) for name, one in named]


def _final(outcome: httpx.Response | httpx.TransportError) -> httpx.Response:
    if isinstance(outcome, httpx.TransportError):
        raise outcome
    return outcome


def _outcomes(response: httpx.Response) -> Answer:
    """The predictions, which stand in the problem too when no picture could be classified."""
    if not response.is_success:
        with suppress(ValidationError):
            return Answer.model_validate_json(response.content)
    return _read(Answer, response)


def _read(kind: type[T], response: httpx.Response) -> T:
    if response.is_success:
        return kind.model_validate_json(response.content)
    raise _error(response)


def _error(response: httpx.Response) -> PetalpawError:
    """The error that a problem document names."""
    try:
        problem = Problem.model_validate_json(response.content)
    except ValidationError:
        error = PetalpawError(f"the service, or something before it, answered with status {response.status_code}")
        error.status = response.status_code  # type: ignore[misc]  # fixed for the tree's own members only
        return error
    kind = _KINDS.get(problem.code, PetalpawError)
    if issubclass(kind, Overloaded):
        return kind(problem.detail, round(retry_after(response) or 1))
    return kind(problem.detail)


def _leaves(kind: type[PetalpawError]) -> Iterable[type[PetalpawError]]:
    children = kind.__subclasses__()
    return [leaf for child in children for leaf in _leaves(child)] if children else [kind]


_KINDS = {leaf.code: leaf for leaf in _leaves(PetalpawError)}
