"""A helper process of the benchmark: commands and answers are JSON, a line each."""

import json
import subprocess
import sys
from collections.abc import Callable, Mapping
from select import POLLIN, poll
from types import TracebackType
from typing import Final, Self

_ANSWER_SECONDS: Final = 120.0
_END_SECONDS: Final = 5.0

Answer = dict[str, object]
Handler = Callable[..., Mapping[str, object]]


class Child:
    """`python -m tests.bench.<module>`, ended with the block."""

    def __init__(self, module: str, *arguments: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", f"tests.bench.{module}", *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        self._module = module

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    def ask(self, command: str, **arguments: object) -> Answer:
        """Send a command and wait for its answer.

        Raises:
            RuntimeError: it ended, or did not answer in time.
        """
        self.tell(command, **arguments)
        return self.answer()

    def tell(self, command: str, **arguments: object) -> None:
        """Send a command."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps([command, arguments]).encode() + b"\n")
        self._process.stdin.flush()

    def answer(self) -> Answer:
        """Wait for the answer to the oldest command that has none.

        Raises:
            RuntimeError: it ended, or did not answer in time.
        """
        assert self._process.stdout is not None
        answered = poll()  # select() takes no descriptor beyond 1023
        answered.register(self._process.stdout, POLLIN)
        ready = answered.poll(_ANSWER_SECONDS * 1000)
        line = self._process.stdout.readline() if ready else b""
        if not line:
            raise RuntimeError(f"{self._module} did not answer")
        answer = json.loads(line)
        assert isinstance(answer, dict)
        return answer

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._process.terminate()
        try:
            self._process.wait(_END_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(_END_SECONDS)
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            pipe.close()


def answer_line(handlers: Mapping[str, Handler], line: bytes) -> None:
    """In the child: do what a line commands, and print the answer."""
    command, arguments = json.loads(line)
    reply(handlers[command](**arguments))


def reply(answer: Mapping[str, object]) -> None:
    """In the child: print an answer."""
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()
