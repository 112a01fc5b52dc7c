"""`rejoin chat` keeps a conversation: on the command line, at a prompt, and what it says of it."""

import asyncio
import json
import re
import subprocess
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from rejoin.client.commands import last_conversation
from rejoin.client.commands.last_conversation import Last
from rejoin.client.commands.printing import spent
from tests.clients.commands import Running, run, running
from tests.clients.toy_server import Entry, Reply, Request, Toy, ToyLog, problem, reply, toy_server
from tests.support.processes import Stack
from tests.support.redis_server import free_port

CONVERSATION_ID = "01980000-0000-7000-8000-00000000000c"
MESSAGE_ID = "01980000-0000-7000-8000-000000000001"
LINKS = {"self": "/s", "events": "/e", "cancel": "/c"}
ACCEPTED = {
    "message_id": MESSAGE_ID,
    "conversation_id": CONVERSATION_ID,
    "status": "queued",
    "links": LINKS,
}
USAGE = {"input_tokens": 3, "output_tokens": 2, "cost_usd": "0.00001", "estimated": False}
LOG = [
    Entry("1-0", "start", {}),
    Entry("1-1", "text", {"text": "hi"}),
    Entry("1-2", "usage", USAGE),
    Entry("1-3", "done", {"finish_reason": "stop"}),
]
SLOW = "demo/echo?rate=10"
FAST = "demo/echo?rate=0"
WORDS = " ".join(f"word-{n}" for n in range(400))


def taking(log: ToyLog | None = None, **more: object) -> Callable[[Request], Reply]:
    """A server that takes any message, and has one log for all."""
    accepted, told = reply(202, json.dumps({**ACCEPTED, **more}).encode()), log or ToyLog(LOG)
    return lambda request: accepted if request.method == "POST" else told(request)


def bodies(toy: Toy) -> list[dict[str, object]]:
    return [json.loads(request.body) for request in toy.requests if request.method == "POST"]


async def chat(
    toy: Toy, directory: Path, *arguments: str, stdin: bytes = b"", **settings: str
) -> "subprocess.CompletedProcess[bytes]":
    command = ("chat", *arguments, "--url", toy.url)
    return await asyncio.to_thread(run, directory, *command, stdin=stdin, **settings)


async def at_a_terminal(toy: Toy, directory: Path) -> tuple[str, str]:
    """What `rejoin chat` shows of an answer at a terminal, and what it says beside it."""

    def talk() -> tuple[str, str]:
        with running(directory, "chat", "x", "--url", toy.url, terminal=True) as command:
            assert command.wait() == 0
            return command.shown(), command.said

    return await asyncio.to_thread(talk)


async def test_continue_goes_on_with_the_last_conversation_and_its_model(tmp_path: Path) -> None:
    async with toy_server(taking()) as toy:
        await chat(toy, tmp_path, "one", "--model", "demo/echo?rate=7")
        done = await chat(toy, tmp_path, "two", "--continue")
        await chat(toy, tmp_path, "three", "--continue", "--model", "demo/echo?rate=8")
        await chat(toy, tmp_path, "four", "--continue")
        await chat(toy, tmp_path, "five")
    assert done.returncode == 0
    assert [(b.get("conversation_id"), b["model"]) for b in bodies(toy)] == [
        (None, "demo/echo?rate=7"),
        (CONVERSATION_ID, "demo/echo?rate=7"),
        (CONVERSATION_ID, "demo/echo?rate=8"),
        (CONVERSATION_ID, "demo/echo?rate=8"),
        (None, "demo/echo"),
    ]


async def test_each_server_has_a_last_conversation_of_its_own(tmp_path: Path) -> None:
    async with toy_server(taking()) as toy, toy_server(taking()) as other:
        await chat(toy, tmp_path, "one")
        done = await chat(other, tmp_path, "two", "--continue")
    assert (done.returncode, other.requests) == (1, [])
    said = f"rejoin: there is no conversation with {other.url} to go on with yet\n"
    assert done.stderr.decode() == said


async def test_a_conversation_is_named_and_what_to_do_if_it_is_busy(tmp_path: Path) -> None:
    async with toy_server(taking()) as toy:
        await chat(toy, tmp_path, "x", "--conversation", "c", "--if-busy", "interrupt")
    (body,) = bodies(toy)
    assert (body["conversation_id"], body["if_busy"]) == ("c", "interrupt")


async def test_both_ways_to_name_it_are_too_many(tmp_path: Path) -> None:
    async with toy_server(taking()) as toy:
        done = await chat(toy, tmp_path, "x", "--conversation", "c", "--continue")
    assert (done.returncode, toy.requests) == (2, [])
    assert done.stderr == b"rejoin: say --continue or --conversation, not both\n"


async def test_tokens_and_the_exact_cost_are_said(tmp_path: Path) -> None:
    async with toy_server(taking()) as toy:
        done = await chat(toy, tmp_path, "x")
    assert done.stdout == b"hi"
    assert done.stderr.decode().splitlines()[-1] == "rejoin: 3 input + 2 output tokens, $0.00001"


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"cost_usd": None}, "3 input + 2 output tokens, price unknown"),
        ({"estimated": True}, "3 input + 2 output tokens, $0.00001, estimated"),
        (
            {"cached_tokens": 1, "reasoning_tokens": 2},
            "3 input (1 cached) + 2 output (2 reasoning) tokens, $0.00001",
        ),
    ],
)
def test_what_was_spent_is_said_as_it_is_known(more: Mapping[str, object], said: str) -> None:
    assert spent({**USAGE, **more}) == said


async def test_what_it_waits_for_is_said(tmp_path: Path) -> None:
    waiting = {"message_id": "before", "status": "streaming"}
    async with toy_server(taking(waiting_for=waiting)) as toy:
        done = await chat(toy, tmp_path, "x", "--conversation", "c")
    assert "rejoin: it waits behind before (streaming)" in done.stderr.decode().splitlines()


@pytest.mark.parametrize(
    ("refused", "said"),
    [
        (problem(404, "there is no such conversation"), "there is no such conversation"),
        (
            problem(409, "x", active_message_id="before"),
            (
                "another message of this conversation is running (before):"
                " wait for it, or leave out --if-busy"
            ),
        ),
    ],
)
async def test_a_refusal_is_one_line_and_an_exit_code(
    refused: Reply, said: str, tmp_path: Path
) -> None:
    async with toy_server(lambda _: refused) as toy:
        done = await chat(toy, tmp_path, "x", "--conversation", "c", "--if-busy", "reject")
    assert (done.returncode, done.stdout) == (1, b"")
    assert done.stderr.decode() == f"rejoin: {said}\n"


async def test_a_state_directory_that_cannot_be_written_hinders_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    async with toy_server(taking()) as toy:
        state = str(tmp_path / "file" / "state")
        done = await chat(toy, tmp_path, "x", XDG_STATE_HOME=state)
    assert (done.returncode, done.stdout) == (0, b"hi")
    assert "--continue will not know this conversation" in done.stderr.decode()


def test_what_is_remembered_is_the_users_alone_and_read_back(tmp_path: Path) -> None:
    environ = {"XDG_STATE_HOME": str(tmp_path)}
    last_conversation.keep("http://a", Last("c", "m"), environ)
    assert last_conversation.load("http://a/", environ) == Last("c", "m")
    assert last_conversation.load("http://b", environ) is None
    (file,) = tmp_path.rglob("*.json")
    assert file.stat().st_mode & 0o077 == 0
    file.write_text("[]")
    assert last_conversation.load("http://a", environ) is None


async def test_lines_of_a_pipe_are_one_conversation(tmp_path: Path) -> None:
    async with toy_server(taking()) as toy:
        done = await chat(toy, tmp_path, stdin=b"one\n\n  \ntwo\r\nthree")
    assert (done.returncode, done.stdout) == (0, b"hi\nhi\nhi\n")
    assert [(body["input"], body.get("conversation_id")) for body in bodies(toy)] == [
        ("one", None),
        ("two", CONVERSATION_ID),
        ("three", CONVERSATION_ID),
    ]


async def test_a_pipe_ends_at_the_first_line_that_does_not_end_well(tmp_path: Path) -> None:
    failed = ToyLog([*LOG[:2], Entry("1-2", "failed", {"code": "internal", "message": "no"})])
    async with toy_server(taking(failed)) as toy:
        done = await chat(toy, tmp_path, stdin=b"one\ntwo\n")
    assert (done.returncode, done.stdout, len(bodies(toy))) == (1, b"hi\n", 1)


@contextmanager
def prompt(directory: Path, *arguments: str, **settings: str) -> Iterator[Running]:
    """`rejoin chat` at a terminal, waiting for a line."""
    command = running(directory, "chat", *arguments, terminal=True, keyboard=True, **settings)
    with command as at_prompt:
        yield at_prompt.until(lambda: at_prompt.shown().endswith("> "))


def until_asked(command: Running, before: str) -> None:
    """Wait for the next prompt, later than what has been shown `before`."""
    command.until(lambda: command.shown()[len(before) :].endswith("\n> "))


async def test_at_a_prompt_each_line_goes_on_and_ctrl_d_ends(tmp_path: Path) -> None:
    async with toy_server(taking()) as toy:

        def talk() -> tuple[int, str, str]:
            with prompt(tmp_path, "--url", toy.url) as command:
                for line in ("one\n", "\n", "two\n"):
                    before = command.shown()
                    command.type(line)
                    until_asked(command, before)
                command.type("\x04")
                return command.wait(), command.shown(), command.said

        code, shown, said = await asyncio.to_thread(talk)
    assert code == 0
    assert shown.count("hi\n") == 2
    assert said.count("conversation ") == 1
    assert [body.get("conversation_id") for body in bodies(toy)] == [None, CONVERSATION_ID]


async def test_at_a_prompt_a_refusal_is_said_and_the_next_line_asked_for(tmp_path: Path) -> None:
    async with toy_server(taking(), [problem(422, "too hot")]) as toy:

        def talk() -> tuple[int, str, str]:
            with prompt(tmp_path, "--url", toy.url) as command:
                for line in ("one\n", "two\n"):
                    before = command.shown()
                    command.type(line)
                    until_asked(command, before)
                command.type("\x04")
                return command.wait(), command.shown(), command.said

        code, shown, said = await asyncio.to_thread(talk)
    assert (code, shown.count("hi\n")) == (0, 1)
    assert "rejoin: too hot\n" in said


def test_at_a_prompt_an_interrupt_cancels_the_answer_alone(stack: Stack, tmp_path: Path) -> None:
    port: dict[str, Any] = {"REJOIN_PORT": str(stack.api.port)}
    with prompt(tmp_path, "--model", SLOW, **port) as command:
        command.type("a b c d e f g h i j k l m n o p q r s t u v w x y z\n")
        command.until(lambda: "\na b c " in command.shown())  # not the echo, after the prompt
        before = command.shown()
        command.interrupt()
        until_asked(command, before)
        assert "the answer ended early: cancelled" in command.said
        assert "y z" not in command.shown()[len(before) :]
        before = command.shown()
        command.interrupt()
        command.until(lambda: command.shown()[len(before) :].endswith("> "))
        before = command.shown()
        command.type("again\n")
        until_asked(command, before)
        assert command.shown()[len(before) :].count("again\n") == 2
        command.type("\x04")
        assert command.wait() == 0
        assert "Traceback" not in command.said


async def test_on_a_terminal_thinking_is_dimmed_above_the_answer(tmp_path: Path) -> None:
    log = ToyLog(
        [
            Entry("1-0", "start", {}),
            Entry("1-1", "reasoning", {"text": "hm\x1b"}),
            Entry("1-2", "text", {"text": "so"}),
            Entry("1-3", "done", {"finish_reason": "stop"}),
        ]
    )
    async with toy_server(taking(log)) as toy:
        shown, _ = await at_a_terminal(toy, tmp_path)
        piped = await chat(toy, tmp_path, "x")
    assert shown == "\x1b[2mhm\ufffd\x1b[0m\nso\n"
    assert piped.stdout == b"so"


async def test_thinking_that_is_taken_back_is_said(tmp_path: Path) -> None:
    log = ToyLog(
        [
            Entry("1-0", "start", {}),
            Entry("1-1", "reasoning", {"text": "kept"}),
            Entry("1-2", "reasoning", {"text": " lost"}),
            Entry("2-0", "reset", {"after": "1-1", "reason": "takeover"}),
            Entry("2-1", "text", {"text": "so"}),
            Entry("2-2", "done", {"finish_reason": "stop"}),
        ]
    )
    async with toy_server(taking(log)) as toy:
        shown, said = await at_a_terminal(toy, tmp_path)
    assert "the answer so far is taken back (takeover)" in said
    plain = re.sub(r"\x1b\[\d+m", "", shown)
    assert plain == "kept lost\nkept\nso\n"


@pytest.mark.parametrize(
    ("models", "shown_as", "note"),
    [
        (("demo/echo", "demo/echo"), "one two\n", None),
        (("demo/echo", "a/b"), "one \ntwo\n", "a/b goes on instead of demo/echo (takeover)"),
    ],
)
async def test_text_that_is_gone_on_with_is_shown_once(
    tmp_path: Path, models: tuple[str, str], shown_as: str, note: str | None
) -> None:
    first, then = models
    log = ToyLog(
        [
            Entry("1-0", "start", {"attempt": 1, "model": first}),
            Entry("1-1", "text", {"text": "one "}),
            Entry(
                "2-0",
                "reset",
                {"after": "1-1", "attempt": 2, "model": then, "reason": "takeover"},
            ),
            Entry("2-1", "text", {"text": "two"}),
            Entry("2-2", "done", {"finish_reason": "stop"}),
        ]
    )
    async with toy_server(taking(log)) as toy:
        shown, said = await at_a_terminal(toy, tmp_path)
        piped = await chat(toy, tmp_path, "x")
    assert shown == shown_as
    assert "taken back" not in said
    assert note is None or note in said
    assert piped.stdout == b"one two"


def test_a_real_conversation_is_gone_on_with(stack: Stack, tmp_path: Path) -> None:
    port: dict[str, Any] = {"REJOIN_PORT": str(stack.api.port)}
    first = run(tmp_path, "chat", "one", "--model", FAST, **port)
    found = re.search(r"conversation ([0-9a-f-]{36})", first.stderr.decode())
    assert found is not None
    second = run(tmp_path, "chat", "two", "--continue", **port)
    third = run(tmp_path, "chat", "three", "--conversation", found[1], "--model", FAST, **port)
    assert [done.stdout for done in (first, second, third)] == [b"one", b"two", b"three"]
    assert b"conversation " not in second.stderr + third.stderr


def test_a_conversation_that_is_not_there_is_said(stack: Stack, tmp_path: Path) -> None:
    port: dict[str, Any] = {"REJOIN_PORT": str(stack.api.port)}
    done = run(tmp_path, "chat", "x", "--conversation", CONVERSATION_ID, **port)
    assert (done.returncode, done.stdout) == (1, b"")
    assert re.fullmatch(rb"rejoin: [^\n]*no such conversation[^\n]*\n", done.stderr)


def test_a_busy_conversation_is_waited_for_or_refused(stack: Stack, tmp_path: Path) -> None:
    port: dict[str, Any] = {"REJOIN_PORT": str(stack.api.port)}
    with running(tmp_path, "chat", WORDS, "--model", SLOW, **port) as first:
        conversation_id = first.until_said(r"conversation ([0-9a-f-]{36})")[1]
        message_id = first.until_said(r"message ([0-9a-f-]{36})")[1]
        first.until(lambda: last_of(tmp_path) == conversation_id)
        going_on = ("chat", "x", "--continue", "--model", FAST)
        refused = run(tmp_path, *going_on, "--if-busy", "reject", **port)
        assert refused.returncode == 1
        assert f"is running ({message_id})" in refused.stderr.decode()
        behind = tmp_path / "behind"
        behind.mkdir()
        state: dict[str, Any] = {"XDG_STATE_HOME": str(tmp_path / "state")}
        with running(behind, *going_on, **port, **state) as second:
            second.until_said(f"it waits behind {message_id} \\(streaming\\)")
            first.interrupt()
            assert (first.wait(), second.wait()) == (130, 0)
            assert "\nxrejoin: " in second.said


def last_of(directory: Path) -> str | None:
    """The conversation that is remembered, of whichever server."""
    files = list((directory / "state").rglob("*.json"))
    return str(json.loads(files[0].read_text())["conversation_id"]) if files else None


def test_nobody_answers_a_line_of_a_pipe(tmp_path: Path) -> None:
    done = run(tmp_path, "chat", stdin=b"x\n", REJOIN_PORT=str(free_port()))
    assert done.returncode == 1
    assert b"no Rejoin server answers" in done.stderr


async def test_another_model_that_goes_on_is_named(tmp_path: Path) -> None:
    def reset(attempt: int, reason: str) -> Entry:
        told: dict[str, object] = {
            "after": None,
            "attempt": attempt,
            "model": "two/\x1bb",
            "reason": reason,
        }
        return Entry(f"{attempt}-0", "reset", told)

    log = ToyLog(
        [
            Entry("1-0", "start", {"attempt": 1, "model": "one/a"}),
            Entry("1-1", "text", {"text": "lost"}),
            reset(2, "rate_limited"),
            reset(3, "takeover"),
            Entry("3-1", "text", {"text": "so"}),
            Entry("3-2", "done", {"finish_reason": "stop"}),
        ]
    )
    async with toy_server(taking(log)) as toy:
        _, said = await at_a_terminal(toy, tmp_path)
        piped = await chat(toy, tmp_path, "x")
    line = "two/\N{REPLACEMENT CHARACTER}b goes on instead of one/a (rate_limited)"
    assert said.count(line) == piped.stderr.decode().count(line) == 1
    assert said.count("goes on instead") == 1
    assert piped.stdout == b"so"


async def test_what_an_answer_waits_for_is_said(tmp_path: Path) -> None:
    log = ToyLog(
        [
            Entry("1-0", "start", {"attempt": 1, "model": "one/a"}),
            Entry("1-1", "retry", {"reason": "rate_limited", "in_seconds": 41.03}),
            Entry("2-0", "reset", {"after": "1-1", "attempt": 2, "model": "one/a"}),
            Entry("2-1", "text", {"text": "so"}),
            Entry("2-2", "done", {"finish_reason": "stop"}),
        ]
    )
    async with toy_server(taking(log)) as toy:
        shown, said = await at_a_terminal(toy, tmp_path)
        piped = await chat(toy, tmp_path, "x")
    line = "rejoin: the provider is asked again within 42 s (rate_limited)\n"
    assert said.count(line) == piped.stderr.decode().count(line) == 1
    assert (shown, piped.stdout) == ("so\n", b"so")
