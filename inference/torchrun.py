"""What torchrun tells the processes that it starts; a process started otherwise is alone."""

import os


def rank() -> int:
    """This process's number; 0 is the first, which speaks and writes for all."""
    return _told("RANK", 0)


def processes() -> int:
    """How many processes share the work."""
    return _told("WORLD_SIZE", 1)


def local_processes() -> int:
    """How many of them share this machine."""
    return _told("LOCAL_WORLD_SIZE", 1)


def _told(name: str, alone: int) -> int:
    # Cluster software sets the other names too, for jobs of its own.
    return int(os.environ[name]) if "TORCHELASTIC_RUN_ID" in os.environ else alone
