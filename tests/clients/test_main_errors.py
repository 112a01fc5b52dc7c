"""What `rejoin` says where a command cannot go on."""

import click
from click.testing import CliRunner

from rejoin.client.commands.main import main
from rejoin.shared.errors import NotFound


def test_a_servers_words_do_not_steer_the_terminal() -> None:
    @click.command("refused")
    def refused() -> None:
        raise NotFound("no \x1b]0;title\x07such\x9b2J message\nat all")

    group = type(main)("rejoin", commands={"refused": refused})
    group.get_command = lambda *_: refused  # type: ignore[method-assign]
    result = CliRunner().invoke(group, ["refused"])
    assert result.exit_code == 1
    assert result.stderr == "rejoin: no �]0;title�such�2J message; at all\n"
