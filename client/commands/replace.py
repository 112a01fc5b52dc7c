"""Replaces this process by a module of ours: its signals and process id are then right."""

import os
import sys
from collections.abc import Sequence
from typing import NoReturn

from rejoin.client.commands.children import module


def replace_by(name: str, arguments: Sequence[str]) -> NoReturn:
    """Run `python -m name` in this process's place."""
    sys.stdout.flush()
    sys.stderr.flush()
    command = [*module(name), *arguments]
    os.execv(command[0], command)  # noqa: S606  the command is our own, and no shell's
