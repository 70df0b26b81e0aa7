"""Petalpaw with a worker process per core, each with one stream."""

import os

from service.app import Petalpaw

Petalpaw.config["workers"] = len(os.sched_getaffinity(0))  # type: ignore[attr-defined]  # the decorator made a service
