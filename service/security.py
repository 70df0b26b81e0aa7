"""Who may do what: optional keys with scopes, and which addresses need which.

    open      health, the page and its files, the OpenAPI document, and metrics unless the settings say otherwise
    predict   everything else, once there is a key for it
    admin     loading and unloading models, which nobody may do where there is no admin key; includes predict

Keys are kept and compared as digests, all of them every time, so that neither memory nor time gives one away. TLS is
the proxy's.
"""

import hashlib
import hmac
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, cast

from starlette.datastructures import Headers, MutableHeaders

from inference.errors import Forbidden, ParameterInvalid, Unauthorized
from service.settings import PREFIX, Settings

Scope = Literal["open", "predict", "admin"]

API_KEY = "X-API-Key"
SECURITY_SCHEMES = {
    "bearer": {"type": "http", "scheme": "bearer"},
    "key": {"type": "apiKey", "in": "header", "name": API_KEY},
}
SECURITY: dict[str, list[dict[str, list[str]]]] = {"security": [{}, {"bearer": []}, {"key": []}]}
"""For the OpenAPI document: no key, where none is set, or one in either form."""

_HEALTH = frozenset(("/livez", "/readyz", "/healthz", "/v2/health/live", "/v2/health/ready"))
_PAGES = frozenset(("/", "/docs.json", "/schema.json", "/ui"))
_BELOW_PAGES = ("/ui/",)
_CONTROL = re.compile(r"/v2/repository/models(/|$)")
_COMMENT = re.compile(r"(^|\s)#.*")
_ENTRY = re.compile(r"(predict|admin):(?:sha256:([0-9a-f]{64})|([!\x22$-~]+))")
_MIN_LENGTH = 16


@dataclass(frozen=True, slots=True)
class Key:
    """A key's digest and what it is for."""

    scope: Scope
    digest: bytes


class Gate:
    """Lets a request through, or raises Unauthorized or Forbidden."""

    def __init__(self, keys: Iterable[Key] = (), *, open_metrics: bool = True) -> None:
        self._keys = tuple(keys)
        self._scopes = frozenset(key.scope for key in self._keys)
        self._open_metrics = open_metrics

    @classmethod
    def of(cls, settings: Settings) -> "Gate":
        """With the keys of the settings. Raises ParameterInvalid, without showing a key."""
        keys: list[Key] = []
        if settings.api_keys:
            keys += read_keys(settings.api_keys.get_secret_value(), f"{PREFIX}API_KEYS")
        if settings.api_keys_file:
            keys += read_keys(_content(settings.api_keys_file), str(settings.api_keys_file))
        return cls(keys, open_metrics=settings.open_metrics)

    def __str__(self) -> str:
        predict = "needs a key" if "predict" in self._scopes else "is open to everybody"
        control = "needs an admin key" if "admin" in self._scopes else "is off"
        return f"prediction {predict}, loading and unloading {control}"

    def admit(self, path: str, headers: Headers) -> None:
        """Raises Unauthorized without a right key where one is needed, Forbidden when its scope is another."""
        needed = self._needed(path)
        if needed == "admin" and "admin" not in self._scopes:
            raise Forbidden(f"loading and unloading are off; the operator can set an admin key in {PREFIX}API_KEYS")
        if needed == "open" or (needed == "predict" and "predict" not in self._scopes):
            return
        held = self._scope_of(_presented(headers))
        if needed == "admin" and held != "admin":
            raise Forbidden("this key is for predictions; loading and unloading need one of scope admin")

    def _needed(self, path: str) -> Scope:
        if _CONTROL.match(path):
            return "admin"
        page = path in _PAGES or path.startswith(_BELOW_PAGES)
        if page or path in _HEALTH or (path == "/metrics" and self._open_metrics):
            return "open"
        return "predict"

    def _scope_of(self, presented: str) -> Scope:
        digest = hashlib.sha256(presented.encode()).digest()
        scopes = {key.scope for key in self._keys if hmac.compare_digest(key.digest, digest)}
        if not scopes:
            raise Unauthorized("the key is not one of this service's; ask its operator for one")
        return "admin" if "admin" in scopes else "predict"


def read_keys(text: str, where: str) -> Iterable[Key]:
    """The keys of a list `SCOPE:KEY`, separated by commas or lines; `#` behind a blank or first begins a comment.

    Raises ParameterInvalid that says which entry is wrong, without showing it, and where there is none: who names a
    place for keys does not want a service that is open to everybody.
    """
    entries = [entry for line in text.splitlines() for entry in _COMMENT.sub("", line).split(",") if entry.strip()]
    if not entries:
        raise ParameterInvalid(f"{where} holds no key; write one there, or unset it to serve everybody")
    for number, entry in enumerate(entries, 1):
        found = _ENTRY.fullmatch(entry.strip())
        if not found or (found[3] and len(found[3]) < _MIN_LENGTH):
            raise ParameterInvalid(
                f"entry {number} of {where} is no key; it must be predict: or admin:, then {_MIN_LENGTH} characters or "
                "more of ASCII without blanks, commas and #, or sha256: and the digest of the key in hexadecimal"
            )
        digest = bytes.fromhex(found[2]) if found[2] else hashlib.sha256(found[3].encode()).digest()
        yield Key(cast("Scope", found[1]), digest)


def _presented(headers: Headers) -> str:
    kind, _, token = headers.get("Authorization", "").partition(" ")
    if kind.lower() == "bearer" and token.strip():
        return token.strip()
    if key := headers.get(API_KEY):
        return key
    raise Unauthorized(f"this needs a key; send it as 'Authorization: Bearer' or {API_KEY}")


def _content(file: Path) -> str:
    try:
        return file.read_text("utf-8")
    except (OSError, UnicodeError) as error:
        raise ParameterInvalid(f"{PREFIX}API_KEYS_FILE: {file} cannot be read ({error}); check it") from None


_PAGE_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""What a page may load: files of this service, its answers, and photos that stay in the browser."""


def harden(headers: MutableHeaders) -> None:
    """Add what every answer tells a browser, and for a page a policy, unless it brought its own."""
    headers["X-Content-Type-Options"] = "nosniff"
    if headers.get("content-type", "").startswith("text/html"):
        headers.setdefault("Content-Security-Policy", _PAGE_POLICY)
        headers["Referrer-Policy"] = "no-referrer"
