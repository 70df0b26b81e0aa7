"""The service in this very process, for tests that look at what the process does."""

import sys
import threading
import time
from collections.abc import Callable

import httpx
import uvicorn


def serve(work: Callable[[httpx.Client], None]) -> None:
    """Serve on a free port of loopback, in the main thread as always, until `work` has asked what it wants to know."""
    from service.app import Petalpaw

    server = uvicorn.Server(uvicorn.Config(Petalpaw.to_asgi(), host="127.0.0.1", port=0, log_level="warning"))
    failed: list[BaseException] = []

    def ask() -> None:
        while not server.started:
            time.sleep(0.02)
        host, port = server.servers[0].sockets[0].getsockname()
        try:
            with httpx.Client(base_url=f"http://{host}:{port}", trust_env=False, timeout=60) as client:
                work(client)
        except BaseException as error:  # noqa: BLE001 – it is raised below
            failed.append(error)
        server.should_exit = True

    threading.Thread(target=ask, daemon=True).start()
    server.run()
    if failed:
        sys.exit(f"{failed[0]!r}")
