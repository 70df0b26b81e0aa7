"""A contender's processes: what they use, and how they end."""

import signal
import subprocess

import psutil


def tree(server: subprocess.Popen[bytes]) -> list[psutil.Process]:
    try:
        parent = psutil.Process(server.pid)
        return [parent, *parent.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def cpu_seconds(server: subprocess.Popen[bytes]) -> float:
    total = 0.0
    for process in tree(server):
        times = process.cpu_times()
        total += times.user + times.system
    return total


def memory_mb(server: subprocess.Popen[bytes]) -> float:
    """The proportional set size of all its processes."""
    return sum(process.memory_full_info().pss for process in tree(server)) / 1e6


def stop(server: subprocess.Popen[bytes]) -> None:
    """End it and all that it started."""
    family = tree(server)
    server.send_signal(signal.SIGTERM)
    _, alive = psutil.wait_procs(family, timeout=15)
    for process in alive:
        process.kill()
    server.wait()
