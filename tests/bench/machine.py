"""What the figures were measured on, and how much of it a process used."""

import os
import platform
import re
import resource
import shutil
import subprocess
import time
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Final

from tests.support.redis_server import find_binary

_PACKAGES: Final = ("uvicorn", "uvloop", "httptools", "starlette", "redis", "hiredis", "arq")


def cpu_seconds(pid: int) -> float:
    """The CPU time of all threads of a process so far, to the nanosecond.

    /proc/<pid>/stat counts in ticks of 10 ms; the process' own clock (clock_getcpuclockid, which
    Linux spells as here) does not.
    """
    return time.clock_gettime((~pid << 3) | 2)


def rss_bytes(pid: int) -> int:
    """What a process holds of the machine's memory."""
    status = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
    found = re.search(r"^VmRSS:\s+(\d+) kB", status, re.MULTILINE)
    assert found is not None
    return int(found[1]) * 1024


def raise_file_limit() -> int:
    """Let this process and its children open as many sockets as they may; return how many."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


def busy_share(seconds: float = 1.0) -> float:
    """How busy all cores together were in a span of time, from 0 to 1."""
    busy, total = _ticks()
    time.sleep(seconds)
    busy_then, total_then = _ticks()
    return (busy_then - busy) / max(1, total_then - total)


def _ticks() -> tuple[int, int]:
    fields = Path("/proc/stat").read_text(encoding="ascii").split("\n", 1)[0].split()[1:9]
    counts = [int(field) for field in fields]
    return sum(counts) - counts[3] - counts[4], sum(counts)  # all but idle and iowait


def description() -> list[str]:
    """One line each: date, machine, servers, packages."""
    packages = ", ".join(f"{name} {version(name)}" for name in _PACKAGES)
    machine = f"{_processor()}, {os.cpu_count()} cores, {_memory_gb()} GB"
    return [
        f"Measured {datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
        f"Machine: {machine}, {platform.system()} {platform.release()}",
        f"Servers: {_redis()}; {_nginx()}",
        f"Python {platform.python_version()}: {packages}",
    ]


def _processor() -> str:
    found = re.search(
        r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(encoding="utf-8"), re.MULTILINE
    )
    return found[1] if found else platform.machine()


def _memory_gb() -> int:
    return round(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30)


def _redis() -> str:
    said = _said([str(find_binary()), "--version"])
    found = re.search(r"v=(\S+)", said)
    return f"Redis {found[1] if found else 'of unknown version'}"


def _nginx() -> str:
    binary = shutil.which("nginx") or shutil.which("/usr/sbin/nginx")
    if binary is None:
        return "no nginx"
    found = re.search(r"nginx/(\S+)", _said([binary, "-v"]))
    nchan = _said(["dpkg-query", "-W", "-f", "${Version}", "libnginx-mod-nchan"]).strip()
    return f"nginx {found[1] if found else ''}, nchan {nchan or 'of unknown version'}"


def _said(command: list[str]) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    except FileNotFoundError:
        return ""
    return done.stdout + done.stderr
