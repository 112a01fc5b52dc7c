"""`rejoin chat`, `tail` and `answer` with tools: what is shown, what is asked, what is sent."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from rejoin.client.commands.tool_lines import shown
from tests.clients.commands import Running, run, running
from tests.clients.test_chat_conversation import ACCEPTED, MESSAGE_ID
from tests.clients.tool_log import ADD, MULTIPLY, START, data, done, text, tool
from tests.clients.toy_server import Entry, Reply, Request, Toy, problem, reply, stream, toy_server

ANSWERS = f"/api/messages/{MESSAGE_ID}/tools/"
ARGUMENTS = {"a": 1, "b": "é\u202e"}
CALLED = [START, tool("1-1", "call", ADD, arguments=ARGUMENTS)]
WAITING = [*CALLED, tool("1-2", "waiting", ADD, needs="approval")]
APPROVED = [
    Entry("2-0", "reset", {"after": "1-2", "reason": "answered"}),
    tool("2-1", "start", ADD),
    data("2-2", "progress", 0.5, ADD),
    tool("2-3", "result", ADD, result=[3]),
    text("2-4", "It is 3."),
    done("2-5"),
]
REFUSED = [
    Entry("2-0", "reset", {"after": "1-2", "reason": "answered"}),
    tool("2-1", "error", ADD, error="refused"),
    text("2-2", "Then not."),
    done("2-3"),
]
CANCELLED = [tool("1-3", "error", ADD, error="cancelled"), done("1-4", "cancelled")]


@dataclass
class Server:
    """A server with one message, whose log goes on by what it is answered."""

    log: list[Entry]
    after: dict[str, list[Entry]] = field(default_factory=dict)
    refused: Reply | None = None
    toy: Toy | None = None

    @property
    def asked(self) -> Sequence[Request]:
        assert self.toy is not None
        return self.toy.requests

    @property
    def url(self) -> str:
        assert self.toy is not None
        return self.toy.url

    def answered(self) -> list[tuple[str, object]]:
        """The answers that came, by the call's id."""
        return [
            (request.path.removeprefix(ANSWERS), json.loads(request.body))
            for request in self.asked
            if request.path.startswith(ANSWERS)
        ]

    def __call__(self, request: Request) -> Reply:
        if request.path == "/api/messages":
            return reply(202, json.dumps(ACCEPTED).encode())
        if request.method == "POST":
            what = request.body.decode() if "/tools/" in request.path else "cancel"
            self.log = [*self.log, *self.after.pop(what, [])]
            return self.refused or reply(202, b"{}")
        ids = [entry.id for entry in self.log]
        last = request.last_event_id
        rest = self.log[0 if last is None else ids.index(last) + 1 :]
        # Ends at once and is come back to: what a server may do at any time.
        return stream(b"retry: 20\n\n" + b"".join(entry.frame for entry in rest))


@asynccontextmanager
async def serving(server: Server) -> AsyncIterator[Server]:
    async with toy_server(server) as server.toy:
        yield server


async def chatting(
    server: Server, directory: Path, *steps: Callable[[Running], object]
) -> tuple[int, str, str]:
    """`rejoin chat` at a terminal: exit code, what stands there, and what is on stderr."""

    def talk() -> tuple[int, str, str]:
        command = running(directory, "chat", "x", "--url", server.url, terminal=True, keyboard=True)
        with command as at_terminal:
            for step in steps:
                step(at_terminal)
            return at_terminal.wait(), at_terminal.shown(), at_terminal.said

    return await asyncio.to_thread(talk)


def asked(count: int = 1) -> Callable[[Running], object]:
    """Wait until it was asked so often."""
    return lambda command: command.until(lambda: command.shown().count("[y/N] ") >= count)


def typed(line: str) -> Callable[[Running], object]:
    return lambda command: command.type(line)


YES = json.dumps({"approve": True}, separators=(",", ":"))
NO = json.dumps({"approve": False}, separators=(",", ":"))


async def test_tools_are_named(tmp_path: Path) -> None:
    async with serving(Server([START, done("1-1")])) as server:
        command = ("chat", "x", "--tool", "add", "--tool", "multiply", "--url", server.url)
        await asyncio.to_thread(run, tmp_path, *command)
        await asyncio.to_thread(run, tmp_path, "chat", "x", "--url", server.url)
    bodies = [json.loads(request.body) for request in server.asked if request.method == "POST"]
    assert [body.get("tools") for body in bodies] == [["add", "multiply"], None]


async def test_a_tool_is_approved_at_the_terminal_and_its_message_goes_on(tmp_path: Path) -> None:
    async with serving(Server(WAITING, {YES: APPROVED})) as server:
        code, stands, said = await chatting(server, tmp_path, asked(), typed("y\n"))
    assert code == 0
    assert server.answered() == [(ADD, {"approve": True})]
    lines = [line.replace("\x1b[2m", "").replace("\x1b[0m", "") for line in stands.splitlines()]
    arguments = '{"a":1,"b":"é\\u202e"}'
    assert lines == [
        f"add {arguments}",
        f"add waits for approval ({ADD})",
        f"approve add {arguments}? [y/N] y",
        "add: progress: 0.5",
        "add = [3]",
        "It is 3.",
    ]
    assert "taken back" not in said


async def test_who_is_asked_for_a_second_run_is_told_so(tmp_path: Path) -> None:
    again = [
        *CALLED,
        tool("1-2", "start", ADD),
        Entry("2-0", "reset", {"after": "1-2", "reason": "lost"}),
        tool("2-1", "waiting", ADD, needs="approval"),
    ]
    end = [tool("2-2", "error", ADD, error="refused"), done("2-3")]
    async with serving(Server(again, {NO: end})) as server:
        code, stands, _ = await chatting(server, tmp_path, asked(), typed("n\n"))
    assert code == 0
    assert "add waits for approval to run again: what it did is unknown" in stands
    assert "approve another run of add {" in stands
    assert "(what the one before did is unknown)? [y/N] n" in stands


@pytest.mark.parametrize("line", ["n\n", "\n", "No\n", "what?\nn\n"])
async def test_all_but_a_yes_is_no_consent(line: str, tmp_path: Path) -> None:
    async with serving(Server(WAITING, {NO: REFUSED})) as server:
        code, stands, _ = await chatting(server, tmp_path, asked(), typed(line))
    assert code == 0
    assert server.answered() == [(ADD, {"approve": False})]
    assert "add failed: refused" in stands
    assert stands.count("[y/N] ") == (2 if "what" in line else 1)


async def test_what_was_typed_before_the_question_is_no_answer(tmp_path: Path) -> None:
    early = [START, text("1-1", "wait")]
    server = Server(early, {NO: REFUSED})

    def type_early(command: Running) -> None:
        command.until(lambda: "wait" in command.shown())
        command.type("y\n")
        server.log = [*early, *moved(WAITING[1:])]

    async with serving(server):
        server.after = {NO: moved(REFUSED)}
        code, _, _ = await chatting(server, tmp_path, type_early, asked(), typed("n\n"))
    assert (code, server.answered()) == (0, [(ADD, {"approve": False})])


def moved(entries: Sequence[Entry]) -> list[Entry]:
    """The same events one place later in the first attempt."""
    found = []
    for entry in entries:
        attempt, _, place = (entry.id or "").partition("-")
        fields = entry.data | ({"after": "1-3"} if entry.name == "reset" else {})
        at = int(place) + (attempt == "1")
        found.append(Entry(f"{attempt}-{at}", entry.name, fields))
    return found


async def test_each_call_that_waits_is_asked_about(tmp_path: Path) -> None:
    log = [
        *CALLED,
        tool("1-2", "call", MULTIPLY, arguments={}),
        tool("1-3", "waiting", ADD, needs="approval"),
        tool("1-4", "waiting", MULTIPLY, needs="approval"),
    ]
    end = [
        Entry("2-0", "reset", {"after": "1-4", "reason": "answered"}),
        tool("2-1", "start", ADD),
        tool("2-2", "error", MULTIPLY, error="refused"),
        tool("2-3", "result", ADD, result=3),
        done("2-4"),
    ]
    async with serving(Server(log, {NO: end})) as server:
        steps = (asked(), typed("y\n"), asked(2), typed("n\n"))
        code, stands, _ = await chatting(server, tmp_path, *steps)
    assert code == 0
    assert server.answered() == [(ADD, {"approve": True}), (MULTIPLY, {"approve": False})]
    assert "approve multiply {}? [y/N] n" in stands


async def test_what_was_answered_is_not_asked_again_as_the_message_goes_on(tmp_path: Path) -> None:
    server = Server(WAITING, {YES: APPROVED[:1]})

    def go_on(command: Running) -> None:
        command.until(lambda: len(server.answered()) == 1)
        before = len(server.asked)
        command.until(lambda: len(server.asked) > before + 2)  # it has read the `reset`
        assert command.shown().count("[y/N]") == 1
        server.log = [*WAITING, *APPROVED]

    async with serving(server):
        code, _, _ = await chatting(server, tmp_path, asked(), typed("y\n"), go_on)
    assert (code, len(server.answered())) == (0, 1)


async def test_nothing_is_asked_while_another_tool_runs(tmp_path: Path) -> None:
    log = [
        *CALLED,
        tool("1-2", "call", MULTIPLY, arguments={}),
        tool("1-3", "waiting", ADD, needs="approval"),
        tool("1-4", "start", MULTIPLY),
    ]
    server = Server(log)

    def look(command: Running) -> None:
        command.until(lambda: len(server.asked) > 4)  # it has come back for more events
        assert "[y/N]" not in command.shown()
        server.log = [*log, tool("1-5", "result", MULTIPLY, result=6)]

    async with serving(server):
        server.after = {
            NO: [
                Entry("2-0", "reset", {"after": "1-5", "reason": "answered"}),
                tool("2-1", "error", ADD, error="refused"),
                done("2-2"),
            ]
        }
        code, _, _ = await chatting(server, tmp_path, look, asked(), typed("n\n"))
    assert code == 0


async def test_a_question_stands_while_something_else_is_reported(tmp_path: Path) -> None:
    said = [data("1-3", "note", "still here"), text("1-4", "hm")]
    refused = [Entry("2-0", "reset", {"after": "1-4", "reason": "answered"}), *REFUSED[1:]]
    server = Server(WAITING, {NO: refused})

    def report(command: Running) -> None:
        server.log = [*WAITING, *said]

    async with serving(server):
        code, stands, _ = await chatting(server, tmp_path, asked(), report, asked(2), typed("n\n"))
    assert (code, server.answered()) == (0, [(ADD, {"approve": False})])
    assert "still here" in stands


async def test_a_question_that_another_client_answers_is_withdrawn(tmp_path: Path) -> None:
    server = Server(WAITING)

    def elsewhere(command: Running) -> None:
        server.log = [*WAITING, *APPROVED]

    async with serving(server):
        code, stands, _ = await chatting(server, tmp_path, asked(), elsewhere)
    assert (code, server.answered()) == (0, [])
    assert stands.endswith("It is 3.\n")


async def test_an_answer_that_comes_too_late_is_said(tmp_path: Path) -> None:
    server = Server(WAITING, {YES: REFUSED}, refused=problem(409, "another answer stands"))
    async with serving(server):
        code, _, said = await chatting(server, tmp_path, asked(), typed("y\n"))
    assert code == 0
    assert "rejoin: too late: another answer stands" in said


async def test_an_answer_that_does_not_arrive_can_be_given_again(tmp_path: Path) -> None:
    server = Server(WAITING, refused=problem(404, "no such call"))

    def elsewhere(command: Running) -> None:
        command.until_said("not answered: no such call")
        command.until_said(f"rejoin answer {MESSAGE_ID} {ADD} --url {server.url} --approve")
        server.log = [*WAITING, *APPROVED]

    async with serving(server):
        code, _, _ = await chatting(server, tmp_path, asked(), typed("y\n"), elsewhere)
    assert code == 0


async def test_ctrl_d_at_the_question_leaves_the_message_waiting(tmp_path: Path) -> None:
    async with serving(Server(WAITING)) as server:
        code, _, said = await chatting(server, tmp_path, asked(), typed("\x04"))
    assert (code, server.answered()) == (3, [])
    assert f"add waits; to answer: rejoin answer {MESSAGE_ID} {ADD} --url {server.url}" in said
    assert "Traceback" not in said
    assert not any(request.path.endswith("/cancel") for request in server.asked)


async def test_an_interrupt_at_the_question_cancels_the_message(tmp_path: Path) -> None:
    async with serving(Server(WAITING, {"cancel": CANCELLED})) as server:
        code, stands, said = await chatting(server, tmp_path, asked(), Running.interrupt)
    assert (code, server.answered()) == (130, [])
    assert stands.endswith("[y/N] \n\x1b[2madd failed: cancelled\x1b[0m\n")
    assert "the answer ended early: cancelled" in said
    assert "Traceback" not in said


async def test_away_from_a_terminal_a_waiting_message_is_left_and_said(tmp_path: Path) -> None:
    log = [*WAITING[:2], text("1-2", "Let me see."), tool("1-3", "waiting", ADD, needs="approval")]
    async with serving(Server(log)) as server:
        done_ = await asyncio.to_thread(run, tmp_path, "chat", "x", "--url", server.url)
    assert (done_.returncode, done_.stdout) == (3, b"Let me see.")
    said = done_.stderr.decode().splitlines()
    assert said[2:] == [
        'rejoin: add {"a":1,"b":"é\\u202e"}',
        f"rejoin: add waits for approval ({ADD})",
        (
            f"rejoin: add waits; to answer: rejoin answer {MESSAGE_ID} {ADD} --url {server.url}"
            " --approve (or --refuse)"
        ),
    ]
    assert not any(request.path.endswith("/cancel") for request in server.asked)


async def test_a_clients_own_tool_is_not_asked_about(tmp_path: Path) -> None:
    log = [*CALLED, tool("1-2", "waiting", ADD, needs="result")]
    server = Server(log)

    def elsewhere(command: Running) -> None:
        command.until_said(f"{ADD} --url {server.url} --result JSON \\(or --error TEXT\\)")
        server.log = [*log, *APPROVED]

    async with serving(server):
        code, stands, _ = await chatting(server, tmp_path, elsewhere)
    assert code == 0
    assert "[y/N]" not in stands


async def test_tail_shows_what_tools_did_and_asks_nothing(tmp_path: Path) -> None:
    log = [*WAITING, data("1-3", "note", "an\nagent's"), *moved(APPROVED)]
    async with serving(Server(log)) as server:
        command = ("tail", MESSAGE_ID, "--url", server.url)
        told = await asyncio.to_thread(run, tmp_path, *command)
    assert (told.returncode, told.stdout) == (0, b"It is 3.")
    assert told.stderr.decode().splitlines() == [
        'rejoin: add {"a":1,"b":"é\\u202e"}',
        f"rejoin: add waits for approval ({ADD})",
        "rejoin: note: an\\nagent's",
        "rejoin: add: progress: 0.5",
        "rejoin: add = [3]",
    ]


@pytest.mark.parametrize("after", ["1-0", "1-2"])
async def test_tools_that_are_taken_back_are_said(after: str, tmp_path: Path) -> None:
    log = [
        *CALLED,
        tool("1-2", "call", MULTIPLY, arguments={}),
        tool("1-3", "start", ADD),
        Entry("2-0", "reset", {"after": after, "reason": "takeover"}),
        tool("2-1", "call", ADD, arguments={}),
        tool("2-2", "error", ADD, error={"code": 1}),
        done("2-3"),
    ]
    async with serving(Server(log)) as server:
        command = ("tail", MESSAGE_ID, "--url", server.url)
        told = await asyncio.to_thread(run, tmp_path, *command)
    said = told.stderr.decode()
    assert ("what tools did is taken back, to the first 0 (takeover)" in said) == (after == "1-0")
    assert said.endswith('add failed: {"code":1}\n')


async def test_on_a_terminal_what_stands_of_the_tools_is_written_again(tmp_path: Path) -> None:
    log = [
        *CALLED,
        tool("1-2", "call", MULTIPLY, arguments={}),
        Entry("2-0", "reset", {"after": "1-1", "reason": "takeover"}),
        tool("2-1", "error", ADD, error="no"),
        done("2-2"),
    ]
    async with serving(Server(log)) as server:
        code, stands, said = await chatting(server, tmp_path)
    assert code == 0
    assert [line.split()[0].removeprefix("\x1b[2m") for line in stands.splitlines()] == [
        "add",
        "multiply",
        "add",
        "add",
    ]
    assert "taken back (takeover)" in said


async def test_two_calls_of_one_tool_are_told_apart_and_long_values_cut(tmp_path: Path) -> None:
    second = Entry("1-2", "tool_call", {"tool_call_id": "c2", "name": "add", "arguments": {}})
    result = Entry("1-3", "tool_result", {"tool_call_id": "c2", "name": "add", "result": "x" * 999})
    log = [*CALLED, second, result, tool("1-4", "error", ADD, error="no"), done("1-5")]
    async with serving(Server(log)) as server:
        command = ("tail", MESSAGE_ID, "--url", server.url)
        told = await asyncio.to_thread(run, tmp_path, *command)
    _, twin, gave, failed = told.stderr.decode().splitlines()
    assert (twin, failed) == ("rejoin: add#2 {}", "rejoin: add failed: no")
    assert gave.startswith("rejoin: add#2 = xxx")
    assert len(gave) < 200


@pytest.mark.parametrize(
    ("value", "line"),
    [
        ("a b", "a b"),
        ("a\n\tb\x1b[1m", "a\\n\\tb\\u001b[1m"),
        ({"é": "\u202e\u2028\U000e0041"}, '{"é":"\\u202e\\u2028\\udb40\\udc41"}'),
        ("👩\u200d🔧", "👩\u200d🔧"),
        (None, "null"),
        ("\ud800", "\\ud800"),
    ],
)
def test_what_is_invisible_is_shown_escaped(value: object, line: str) -> None:
    assert shown(value) == line


ANSWER = ("answer", MESSAGE_ID, ADD)


@pytest.mark.parametrize(
    ("options", "body"),
    [
        (["--approve"], {"approve": True}),
        (["--refuse"], {"approve": False}),
        (["--result", "null"], {"result": None}),
        (["--result", '{"a": [1, "é"]}'], {"result": {"a": [1, "é"]}}),
        (["--error", "away"], {"error": "away"}),
    ],
)
async def test_answer_answers(options: list[str], body: object, tmp_path: Path) -> None:
    async with serving(Server(WAITING)) as server:
        told = await asyncio.to_thread(run, tmp_path, *ANSWER, *options, "--url", server.url)
    assert (told.returncode, server.answered()) == (0, [(ADD, body)])
    said = f"rejoin: answered; to read on: rejoin tail {MESSAGE_ID} --url {server.url}\n"
    assert told.stderr.decode() == said


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ([], "say one of --approve, --refuse, --result and --error"),
        (["--approve", "--error", "x"], "say one of --approve"),
        (["--refuse", "--approve"], "say one of --approve"),
        (["--result", "{"], "--result is no JSON"),
        (["--result", "plain"], "a text wants quotes of its own"),
    ],
)
async def test_an_answer_that_is_none_is_not_sent(
    options: list[str], said: str, tmp_path: Path
) -> None:
    async with serving(Server(WAITING)) as server:
        told = await asyncio.to_thread(run, tmp_path, *ANSWER, *options, "--url", server.url)
    assert (told.returncode, server.asked) == (2, [])
    assert said in told.stderr.decode()


async def test_an_answer_that_is_refused_is_one_line(tmp_path: Path) -> None:
    server = Server(WAITING, refused=problem(409, "another answer stands"))
    async with serving(server):
        told = await asyncio.to_thread(run, tmp_path, *ANSWER, "--refuse", "--url", server.url)
    assert (told.returncode, told.stderr) == (1, b"rejoin: another answer stands\n")
