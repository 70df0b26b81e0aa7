"""What fsspec speaks to: the file system of an address, and how much patience it is given.

Credentials, endpoints and proxies come from the environment, as each of fsspec's packages reads them.
"""

import logging
import os
import re
from http import HTTPStatus
from typing import Any

from inference.errors import DataInvalid, PackageMissing
from scoring.rows import printable

ATTEMPTS = 3
"""A server may stumble. Google's client asks six times by itself, with half a minute between them in all."""

SECONDS = 300
"""How long one picture may take."""

_CONNECT_SECONDS, _SILENT_SECONDS = 5, 15
"""How long a bucket's service may say nothing before it is asked again: as s3fs has it, for Google's client too."""

KNOCK_SECONDS = 45
"""What a service that is there needs at most to say anything at all, Google's six attempts included."""

_BUCKETS = ("s3", "s3a", "gs", "gcs")

_NOT_NOW = (HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_EARLY, HTTPStatus.TOO_MANY_REQUESTS)

_CHAINED = re.compile(r"::(?=[\w+.-]+://)")
"""Between the links of a chain, `zip://a.jpg::s3://bucket/b.zip`; any other `::` is part of a name or a host."""


def is_address(path: str) -> bool:
    """Whether a path is a remote one, `protocol://…`."""
    return "://" in path


def last_link(address: str) -> str:
    """Of a chain of addresses the last, which says who answers."""
    return _CHAINED.split(address)[-1]


def file_system(address: str) -> tuple[Any, str]:
    """The file system of an address, and the address in its words. Raises PackageMissing or DataInvalid."""
    try:
        import fsspec.core

        _set_patience(last_link(address).partition("://")[0])
        # Listings are not kept: they would fill memory, and would hide that a source went away.
        if "::" in address and not _CHAINED.search(address):  # which fsspec takes for a chain
            system = fsspec.filesystem(address.partition("://")[0], use_listings_cache=False)
            return system, system._strip_protocol(address)
        found: tuple[Any, str] = fsspec.core.url_to_fs(address, use_listings_cache=False)
    except ImportError as error:
        raise PackageMissing(f"{printable(address)} needs a package ({error}); install petalpaw[remote]") from error
    except ValueError as error:
        raise DataInvalid(f"{printable(address)} is no address that can be read ({error})") from error
    except OSError as error:  # the archive of a chain
        raise DataInvalid(f"{printable(address)} cannot be read ({reason_of(error)}); check the address") from error
    if speaks(found[0], "s3"):
        # botocore asks again, and s3fs asks botocore again: five times five times 15 seconds were too much.
        found[0].retries = 2
    return found


def _set_patience(protocol: str) -> None:
    """Bound what a bucket's client waits for, where neither the environment nor fsspec's configuration says."""
    from fsspec.config import conf

    for name in ("fsspec", "gcsfs"):  # what they log besides raising is said in our words
        logging.getLogger(name).setLevel(logging.CRITICAL)
    if protocol in ("s3", "s3a"):
        conf.setdefault(protocol, {}).setdefault("config_kwargs", {"retries": {"mode": "standard"}})
    elif protocol in ("gs", "gcs"):
        import aiohttp

        # Otherwise it asks another of Google's interfaces before every request, until that answers.
        os.environ.setdefault("GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT", "false")
        patience = aiohttp.ClientTimeout(total=SECONDS, sock_connect=_CONNECT_SECONDS, sock_read=_SILENT_SECONDS)
        conf.setdefault(protocol, {}).setdefault("requests_timeout", patience)


def speaks(system: Any, *protocols: str) -> bool:
    """Whether a file system is that of one of these protocols."""
    spoken = system.protocol
    return not set(protocols).isdisjoint((spoken,) if isinstance(spoken, str) else spoken)


def attempts(system: Any) -> int:
    """How often something is asked for: buckets' clients ask again by themselves."""
    return 1 if speaks(system, *_BUCKETS) else ATTEMPTS


def asked(system: Any, question: str, path: str) -> Any:
    """What a service says to `info`, `exists` or `isdir`. Raises what it does; TimeoutError where it says nothing."""
    if not getattr(system, "async_impl", False):
        return getattr(system, question)(path)
    import fsspec.asyn

    return fsspec.asyn.sync(system.loop, getattr(system, f"_{question}"), path, timeout=KNOCK_SECONDS)


def knock(system: Any, path: str) -> None:
    """Raises what a bucket's service does when it does not answer, before more is asked of it. No is an answer."""
    if speaks(system, *_BUCKETS):
        try:
            asked(system, "info", path)
        except Exception as error:
            if not is_answer(error):
                raise


def is_answer(error: Exception) -> bool:
    """Whether a server said this, and not that it cannot just now."""
    said_no = isinstance(error, FileNotFoundError | PermissionError | IsADirectoryError)
    if said_no or str(error).startswith("Forbidden"):  # Google's client has no PermissionError
        return True
    # The address makes no sense to the client; what AWS_ENDPOINT_URL says is not the address's fault.
    if type(error).__name__ == "InvalidURL" or (type(error) is ValueError and "endpoint" not in str(error)):
        return True
    status = _status(error)
    return status is not None and status < HTTPStatus.INTERNAL_SERVER_ERROR and status not in _NOT_NOW


def is_busy(error: Exception) -> bool:
    """Whether a server said that it is asked too often."""
    return _status(error) in (HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE)


def _status(error: Exception) -> int | None:
    status = error.status if hasattr(error, "status") else getattr(error, "code", None)  # aiohttp's, gcsfs's
    response = getattr(error.__cause__, "response", None)  # botocore's
    if isinstance(response, dict):
        status = response.get("ResponseMetadata", {}).get("HTTPStatusCode")
    return status if isinstance(status, int) else None


def reason_of(error: Exception) -> str:
    """An error in the system's own words, else in its author's."""
    if isinstance(error, FileNotFoundError):
        return "no such file"
    if isinstance(error, TimeoutError) and not str(error):
        return "no answer in time"
    if type(error).__name__ == "TooManyRedirects":  # aiohttp's, whose words are an empty message
        return "too many redirects"
    words = (isinstance(error, OSError) and error.strerror) or str(error) or type(error).__name__
    return " ".join(words.split())
