"""`rejoin chat` and `rejoin tail`: what stands on stdout, what on stderr, and the exit code."""

import asyncio
import json
import re
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.clients.commands import REJOIN, Running, environment, run, running
from tests.clients.toy_server import Entry, Reply, Request, ToyLog, reply, toy_server
from tests.support.processes import Stack
from tests.support.redis_server import RedisServer, free_port

ACCEPTED = {"conversation_id": "c", "status": "queued"}
LINKS = {"self": "/s", "events": "/e", "cancel": "/c"}
MESSAGE_ID = "01980000-0000-7000-8000-000000000001"
SLOW = "demo/echo?rate=10"
FAST = "demo/echo?rate=0"
WORDS = " ".join(f"word-{n}" for n in range(40))


@pytest.fixture
def port(stack: Stack) -> dict[str, Any]:
    """The settings that lead to the shared API."""
    return {"REJOIN_PORT": str(stack.api.port)}


def message_of(command: Running) -> str:
    return command.until_said(r"message ([0-9a-f-]{36});")[1]


def test_into_a_pipe_goes_the_text_exactly_and_nothing_else(
    port: dict[str, Any], tmp_path: Path
) -> None:
    text = "  é 😀\u2028\x1b[31m\ttwo\n\nlines  "
    done = run(tmp_path, "chat", text, "--model", FAST, **port)
    assert (done.returncode, done.stdout) == (0, text.encode())
    assert re.fullmatch(
        r"rejoin: message ([0-9a-f-]{36}); to read it again: rejoin tail \1\n"
        r"rejoin: conversation [0-9a-f-]{36}; to go on with it: --continue\n"
        r"rejoin: \d+ input \+ \d+ output tokens, \$0\n",
        done.stderr.decode(),
    )


def test_a_dash_reads_stdin(port: dict[str, Any], tmp_path: Path) -> None:
    done = run(tmp_path, "chat", "-", "--model", FAST, stdin="é\n".encode(), **port)
    assert (done.returncode, done.stdout) == (0, "é\n".encode())


def test_the_model_is_the_settings_or_the_echo(port: dict[str, Any], tmp_path: Path) -> None:
    done = run(tmp_path, "chat", "x", REJOIN_DEFAULT_MODEL="nobody/x", **port)
    assert (done.returncode, done.stderr) == (1, b"rejoin: there is no model nobody/x\n")
    assert run(tmp_path, "chat", "x", **port).stdout == b"x"


def test_on_a_terminal_the_answer_is_shown_as_it_comes(
    port: dict[str, Any], tmp_path: Path
) -> None:
    with running(tmp_path, "chat", WORDS, "--model", SLOW, terminal=True, **port) as command:
        command.until(lambda: "word-1 " in command.shown())
        assert "word-39" not in command.shown()
        assert command.process.poll() is None
        command.until(lambda: "word-39\n" in command.shown())
        assert command.wait() == 0
        assert command.shown() == f"{WORDS}\n"


def test_what_would_steer_a_terminal_is_not_passed_on(port: dict[str, Any], tmp_path: Path) -> None:
    text = "a\x1b]52;c;eA==\x07b\x9bc"
    with running(tmp_path, "chat", text, "--model", FAST, terminal=True, **port) as command:
        assert command.wait() == 0
        assert command.shown() == "a\ufffd]52;c;eA==\ufffdb\ufffdc\n"


def test_an_interrupt_cancels_the_message(port: dict[str, Any], tmp_path: Path) -> None:
    with running(tmp_path, "chat", WORDS, "--model", SLOW, terminal=True, **port) as command:
        command.until(lambda: "word-1 " in command.shown())
        message_id = message_of(command)
        command.interrupt()
        assert command.wait() == 130
        assert "Traceback" not in command.said
        said = run(tmp_path, "tail", message_id, **port)
        assert said.returncode == 130
        assert said.stdout.startswith(b"word-0 word-1 ")
        assert said.stdout.decode() == command.shown().removesuffix("\n")
        assert said.stderr == b"rejoin: the answer ended early: cancelled\n"


def test_a_second_interrupt_leaves_at_once(own_stack: Stack, tmp_path: Path) -> None:
    port: dict[str, Any] = {"REJOIN_PORT": str(own_stack.api.port)}
    with running(tmp_path, "chat", WORDS, "--model", SLOW, terminal=True, **port) as command:
        command.until(lambda: "word-1 " in command.shown())
        own_stack.api.pause()
        command.interrupt()
        command.until_said("cancelling")
        command.interrupt()
        assert command.wait(5) == 130
        assert "Traceback" not in command.said
        own_stack.api.resume()


def test_a_restarted_api_is_come_back_to(own_stack: Stack, tmp_path: Path) -> None:
    port: dict[str, Any] = {"REJOIN_PORT": str(own_stack.api.port)}
    with running(tmp_path, "chat", WORDS, "--model", SLOW, terminal=True, **port) as command:
        command.until(lambda: "word-1 " in command.shown())
        own_stack.api.kill()
        command.until_said("the connection dropped .* back in")
        own_stack.api.launch()
        assert command.wait() == 0
        assert command.shown() == f"{WORDS}\n"


def test_text_that_is_taken_back_is_said_on_a_terminal(own_stack: Stack, tmp_path: Path) -> None:
    port: dict[str, Any] = {"REJOIN_PORT": str(own_stack.api.port)}
    with running(tmp_path, "chat", WORDS, "--model", SLOW, terminal=True, **port) as command:
        command.until(lambda: "word-2 " in command.shown())
        own_stack.worker.kill()
        own_stack.worker.launch()
        assert command.wait() == 0
        assert re.search(r"the answer so far is taken back \(\w+\); it goes on:", command.said)
        lost, whole = command.shown().splitlines()
        assert whole == WORDS
        assert WORDS.startswith(lost)


def test_text_that_is_taken_back_never_reaches_a_pipe(own_stack: Stack, tmp_path: Path) -> None:
    port: dict[str, Any] = {"REJOIN_PORT": str(own_stack.api.port)}
    with running(tmp_path, "chat", WORDS, "--model", SLOW, **port) as command:
        message_id = message_of(command)
        tail = Running(tmp_path, "tail", message_id, "--json", **port)
        try:
            tail.until_said("word-2")
            own_stack.worker.kill()
            own_stack.worker.launch()
            assert command.wait() == 0
            assert f"\n{WORDS}rejoin: " in command.said
            assert command.said.count("word-0") == 1
            assert tail.wait() == 0
            assert '"event":"reset"' in tail.said
        finally:
            tail.end()


async def test_a_failed_message_is_exit_code_1(tmp_path: Path) -> None:
    failed = {"code": "provider_unavailable", "message": "no\x1b", "retryable": True}
    entries = [
        Entry("1-0", "start", {}),
        Entry("1-1", "text", {"text": "half"}),
        Entry("1-2", "failed", failed),
    ]
    done = await chat_with_toy(ToyLog(entries), tmp_path)
    assert (done[0], done[1]) == (1, b"half")
    said = "rejoin: the message failed: provider_unavailable: no\ufffd; it may work when sent again"
    assert done[2].decode().splitlines()[-1] == said


async def test_an_answer_that_was_cut_short_says_so(tmp_path: Path) -> None:
    entries = [Entry("1-0", "start", {}), Entry("1-1", "done", {"finish_reason": "length"})]
    done = await chat_with_toy(ToyLog(entries), tmp_path)
    assert done[0] == 0
    assert b"the answer ended early: length" in done[2]


async def chat_with_toy(log: ToyLog, directory: Path) -> tuple[int, bytes, bytes]:
    body = {"message_id": MESSAGE_ID, "links": LINKS, **ACCEPTED}
    accepted = reply(202, json.dumps(body).encode())
    async with toy_server(
        lambda request: accepted if request.method == "POST" else log(request)
    ) as toy:
        done = await asyncio.to_thread(run, directory, "chat", "hi", "--url", toy.url)
    assert f"rejoin tail {MESSAGE_ID} --url {toy.url}" in done.stderr.decode()
    return done.returncode, done.stdout, done.stderr


def test_tail_gives_a_message_that_was_sent_before(port: dict[str, Any], tmp_path: Path) -> None:
    with running(tmp_path, "chat", "one two three", "--model", FAST, **port) as command:
        message_id = message_of(command)
    assert run(tmp_path, "tail", message_id, **port).stdout == b"one two three"
    assert run(tmp_path, "tail", message_id, "--after", "1-1", **port).stdout == b"two three"


def test_tail_gives_raw_events_one_a_line(port: dict[str, Any], tmp_path: Path) -> None:
    with running(tmp_path, "chat", "one é", "--model", FAST, **port) as command:
        message_id = message_of(command)
    done = run(tmp_path, "tail", message_id, "--json", **port)
    events = [json.loads(line) for line in done.stdout.splitlines()]
    names = [event["event"] for event in events]
    assert names == ["start", "text", "text", "step", "usage", "done"]
    assert [event["id"] for event in events] == [f"1-{n}" for n in range(6)]
    assert events[2]["data"] == {"text": "é"}
    assert "é" in done.stdout.decode()


def test_an_interrupt_of_tail_leaves_the_message_alone(
    port: dict[str, Any], tmp_path: Path
) -> None:
    with running(tmp_path, "chat", WORDS, "--model", SLOW, **port) as chat:
        with running(tmp_path, "tail", message_of(chat), terminal=True, **port) as tail:
            tail.until(lambda: "word-1 " in tail.shown())
            tail.interrupt()
            assert tail.wait() == 130
            assert tail.said == ""
        assert chat.wait() == 0
        assert f"\n{WORDS}rejoin: " in chat.said


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["chat", b"\xff"], 2, "TEXT is not UTF-8"),
        (["chat", "-"], 2, "stdin is not UTF-8"),
        (["chat", "x", "--url", "nonsense"], 2, "http://HOST:PORT"),
        (["chat", "x", "--url", "http://localhost:99999"], 2, "a port is 1 to 65535"),
        (["chat", "x", "--url", "http://localhost/?a=b"], 2, "has more than an address"),
        (["tail", "nonsense"], 2, "is no message id"),
        (["tail", MESSAGE_ID, "--after", "x"], 2, "--after: an event id has the form"),
        (["nonsense"], 2, "No such command"),
        (["chat", "x"], 1, "no Rejoin server answers at http://127.0.0.1:"),
    ],
)
def test_what_is_wrong_is_said_without_a_traceback(
    arguments: list[str], code: int, said: str, tmp_path: Path
) -> None:
    done = run(tmp_path, *arguments, stdin=b"\xff", REJOIN_PORT=str(free_port()))
    assert done.returncode == code, done.stderr
    assert said in done.stderr.decode()
    assert b"Traceback" not in done.stderr
    assert done.stdout == b""


@pytest.mark.parametrize(
    ("closed", "given"), [("<&-", "x"), (">&-", "x"), ("2>&-", "x"), ("<&-", "")]
)
def test_a_closed_stream_leads_nowhere(
    closed: str, given: str, port: dict[str, Any], tmp_path: Path
) -> None:
    done = subprocess.run(
        ["sh", "-c", f'exec "$0" chat {given} {closed}', REJOIN],
        capture_output=True,
        timeout=60,
        env=environment(tmp_path, port),
        check=False,
    )
    shown = b"" if closed == ">&-" else given.encode()
    assert (done.returncode, done.stdout) == (0, shown), done.stderr
    assert b"Traceback" not in done.stderr


def test_a_full_disk_is_said(port: dict[str, Any], tmp_path: Path) -> None:
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            [REJOIN, "chat", "x"],
            stdin=subprocess.DEVNULL,
            stdout=full,
            stderr=subprocess.PIPE,
            timeout=60,
            env=environment(tmp_path, port),
            check=False,
        )
    assert done.returncode != 0
    assert b"rejoin: the output cannot be written" in done.stderr
    assert b"Traceback" not in done.stderr


def test_an_interrupt_between_messages_is_130(port: dict[str, Any], tmp_path: Path) -> None:
    with subprocess.Popen(
        [REJOIN, "chat"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment(tmp_path, port),
    ) as chat:
        assert chat.stdin is not None
        assert chat.stdout is not None
        chat.stdin.write(b"x\n")
        chat.stdin.flush()
        assert chat.stdout.readline() == b"x\n"
        chat.send_signal(signal.SIGINT)
        _, said = chat.communicate(timeout=60)
    assert chat.returncode == 130
    assert b"Aborted" not in said


async def test_an_interrupt_while_sending_says_what_may_be(tmp_path: Path) -> None:
    asked = asyncio.Event()

    def silent(_: Request) -> Reply:
        asked.set()
        return Reply(b"", hold=True)

    async with toy_server(silent) as toy:
        with running(tmp_path, "chat", "x", "--url", toy.url) as chat:
            await asyncio.wait_for(asked.wait(), 60)
            chat.interrupt()
            assert await asyncio.to_thread(chat.wait) == 130
            assert "may have taken it in" in chat.said


def test_an_unknown_message_is_said(port: dict[str, Any], tmp_path: Path) -> None:
    done = run(tmp_path, "tail", MESSAGE_ID, **port)
    assert (done.returncode, done.stderr) == (1, b"rejoin: no such message\n")


def test_api_and_worker_take_this_processs_place(own_redis: RedisServer, tmp_path: Path) -> None:
    settings: dict[str, Any] = {"REJOIN_REDIS_URL": own_redis.url, "REJOIN_PORT": str(free_port())}
    with (
        running(tmp_path, "api", **settings) as api,
        running(tmp_path, "worker", **settings) as worker,
    ):
        api.until_said("listening on")
        done = run(tmp_path, "chat", "hello", **settings)
        assert (done.returncode, done.stdout) == (0, b"hello")
        assert [command.family() for command in (api, worker)] == [[], []]
        for command in (api, worker):
            command.process.terminate()
            assert command.wait() == 0


@pytest.mark.parametrize("name", ["api", "worker"])
def test_check_is_passed_on(name: str, own_redis: RedisServer, tmp_path: Path) -> None:
    assert run(tmp_path, name, "--check", REJOIN_REDIS_URL=own_redis.url).returncode == 0
    away = f"redis://127.0.0.1:{free_port()}/0"
    assert run(tmp_path, name, "--check", REJOIN_REDIS_URL=away).returncode == 1
    assert run(tmp_path, name, "--check").returncode == 2
