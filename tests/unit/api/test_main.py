"""`python -m rejoin.api`: what it says when it cannot serve."""

import os
import subprocess
import sys
from typing import Final

import pytest

from rejoin.api.sockets import listen

NOWHERE: Final = "redis://127.0.0.1:1/0"


def api(*arguments: str, **settings: str) -> subprocess.CompletedProcess[str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("REJOIN_")}
    return subprocess.run(
        [sys.executable, "-m", "rejoin.api", *arguments],
        env=kept | settings,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({}, "REJOIN_REDIS_URL"),
        ({"REJOIN_REDIS_URL": NOWHERE, "REJOIN_PORT": "x"}, "REJOIN_PORT"),
        ({"REJOIN_REDIS_URL": NOWHERE, "REJOIN_HOST": "0.0.0.0"}, "REJOIN_HOST"),
    ],
)
def test_a_wrong_setting_is_named_in_one_line(settings: dict[str, str], named: str) -> None:
    ended = api(**settings)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert named in ended.stderr
    assert ended.stderr.count("\n") == 1


def test_a_taken_port_is_named() -> None:
    with listen("127.0.0.1", 0) as listener:
        port = listener.getsockname()[1]
        ended = api(REJOIN_REDIS_URL=NOWHERE, REJOIN_PORT=str(port))
    assert ended.returncode == 1
    assert f"REJOIN_PORT={port}" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_an_unknown_argument_is_refused() -> None:
    assert api("--chekc").returncode == 2


def test_check_says_that_redis_is_away_and_what_has_no_effect() -> None:
    ended = api("--check", REJOIN_REDIS_URL=NOWHERE, REJOIN_PROT="1")
    assert ended.returncode == 1
    assert "did you mean REJOIN_PORT" in ended.stdout
    assert "Redis does not answer" in ended.stdout


def test_check_of_what_is_well_says_so(redis_url: str) -> None:
    ended = api("--check", REJOIN_REDIS_URL=redis_url)
    assert (ended.returncode, ended.stderr) == (0, "")
