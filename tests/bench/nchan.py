"""nginx with the nchan module and Redis: the peer, where Debian's packages are installed."""

import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final, NamedTuple

from tests.support.redis_server import RedisServer, free_port

_MODULE: Final = Path("/usr/lib/nginx/modules/ngx_nchan_module.so")
_START_SECONDS: Final = 10.0

# One worker, which also takes the posts: nchan is not made to do less than Rejoin's API does.
_CONFIG: Final = """\
load_module {module};
daemon off;
worker_processes 1;
pid {directory}/nginx.pid;
error_log {directory}/error.log warn;
events {{ worker_connections 16000; }}
http {{
  access_log off;
  client_body_temp_path {directory}/body;
  proxy_temp_path {directory}/proxy;
  fastcgi_temp_path {directory}/fastcgi;
  uwsgi_temp_path {directory}/uwsgi;
  scgi_temp_path {directory}/scgi;
  upstream log {{ nchan_redis_server {redis}; }}
  server {{
    listen 127.0.0.1:{port} backlog=4096;
    keepalive_requests 1000000000;
    keepalive_timeout 1h;
    location ~ ^/pub/(\\w+)$ {{
      nchan_publisher http;
      nchan_channel_id $1;
      nchan_redis_pass log;
      nchan_message_timeout 10m;
      nchan_message_buffer_length 10000;
    }}
    location ~ ^/sub/(\\w+)$ {{
      nchan_subscriber eventsource;
      nchan_subscriber_first_message newest;
      nchan_channel_id $1;
      nchan_redis_pass log;
    }}
  }}
}}
"""


class Nchan(NamedTuple):
    """A running nginx: its port, and its one worker's process."""

    port: int
    pid: int


def why_not() -> str | None:
    """Why there is no peer to measure, or None where there is one."""
    if _binary() is None:
        return "nginx not installed"
    return None if _MODULE.exists() else "libnginx-mod-nchan not installed"


@contextmanager
def nchan(redis: RedisServer) -> Iterator[Nchan]:
    """Run it on that Redis, ended with the block."""
    binary = _binary()
    assert binary is not None
    port = free_port()
    with TemporaryDirectory(prefix="rejoin-nginx-", ignore_cleanup_errors=True) as name:
        # As root nginx lets its worker be nobody, who must reach the directory.
        Path(name).chmod(0o755)
        config = Path(name) / "nginx.conf"
        text = _CONFIG.format(module=_MODULE, directory=name, redis=redis.url, port=port)
        config.write_text(text, encoding="utf-8")
        process = subprocess.Popen(
            [binary, "-p", name, "-e", f"{name}/error.log", "-c", str(config)],
            stderr=subprocess.DEVNULL,
        )
        try:
            yield Nchan(port, _worker_of(process, Path(name) / "error.log"))
        finally:
            process.terminate()
            try:
                process.wait(5)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait(5)


def _binary() -> str | None:
    return shutil.which("nginx", path=f"{os.environ.get('PATH', '')}:/usr/sbin")


def _worker_of(process: subprocess.Popen[bytes], error_log: Path) -> int:
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    end = time.monotonic() + _START_SECONDS
    while time.monotonic() < end and process.poll() is None:
        found = children.read_text(encoding="ascii").split()
        if found:
            time.sleep(0.5)  # it connects to Redis
            return int(found[0])
        time.sleep(0.02)
    said = error_log.read_text(encoding="utf-8") if error_log.exists() else ""
    raise RuntimeError(f"nginx did not start: {said[-2000:]}")
