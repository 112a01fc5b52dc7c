"""The provider that the README shows how to write."""

import asyncio
import importlib.util
import json
import re
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import cast

import pytest

from rejoin.shared.events import FailureCode, FinishReason
from rejoin.shared.providers import Entry
from rejoin.worker.providers import registry
from rejoin.worker.providers.base import Chunk, FinishChunk, ModelRequest, Provider, TextChunk, Turn
from rejoin.worker.providers.registry import Providers
from tests.providers.answers import answer, failure
from tests.support.provider_script import Answer, Drop, Hold, Part, error_answer
from tests.support.provider_server import ProviderServer

README = Path(__file__).parents[2] / "README.md"
MODULE = "rejoin.worker.providers.lines"


def blocks() -> list[str]:
    """The Python blocks of the section on providers: the adapter, and its line."""
    section = README.read_text(encoding="utf-8").split("## Providers")[1].split("\n## ")[0]
    return re.findall(r"```python\n(.*?)```", section, re.DOTALL)


@pytest.fixture
async def lines(
    server: ProviderServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Provider]:
    """The README's adapter, found by the README's line, as a worker finds it."""
    adapter, line = blocks()
    (file := tmp_path / "lines.py").write_text(adapter, encoding="utf-8")
    spec = importlib.util.spec_from_file_location(MODULE, file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setitem(sys.modules, MODULE, module)
    monkeypatch.setenv("LINES_URL", f"http://127.0.0.1:{server.port}")
    entry = cast(Entry, eval(line.strip(), {"Entry": Entry}))
    assert entry.variables == ("LINES_URL",)
    factory: Callable[[], Provider] = registry.factory(entry.adapter)
    providers = Providers({entry.name: factory})
    found, name = providers.find("lines/small")
    assert name == "small"
    yield found
    await providers.aclose()


def line(text: str, *, done: bool = False) -> bytes:
    return json.dumps({"text": text, "done": done}, ensure_ascii=False).encode() + b"\n"


def scripted(*parts: Part, split: int = 0) -> Answer:
    return Answer(parts, content_type="application/x-ndjson", split=split)


ASKED = ModelRequest("small", [Turn("user", "Hi")])
SAID: list[Chunk] = [TextChunk("Grüße"), TextChunk(" 👋"), FinishChunk(FinishReason.STOP)]


def test_it_is_about_thirty_lines() -> None:
    code = [text for text in blocks()[0].splitlines() if text and "import" not in text]
    assert len(code) <= 30


@pytest.mark.parametrize("split", [0, 1, 3])
async def test_it_reads_an_answer(server: ProviderServer, lines: Provider, split: int) -> None:
    server.play(scripted(line("Grüße"), line(" 👋"), line("", done=True), split=split))
    assert await answer(lines, ASKED) == SAID
    request = await server.request()
    assert (request.path, request.json) == ("/generate", {"model": "small", "prompt": "Hi"})


@pytest.mark.parametrize(
    ("played", "code"),
    [
        (scripted(line("Gr")), FailureCode.PROVIDER_PROTOCOL),
        (scripted(line("Gr"), Drop()), FailureCode.PROVIDER_UNAVAILABLE),
        (error_answer(429, "slow down"), FailureCode.RATE_LIMITED),
    ],
    ids=["an answer that only stops", "one that breaks off", "a refusal"],
)
async def test_its_failures_have_codes(
    server: ProviderServer, lines: Provider, played: Answer, code: FailureCode
) -> None:
    server.play(played)
    assert (await failure(lines, ASKED)).code == code


async def test_leaving_it_closes_the_connection(server: ProviderServer, lines: Provider) -> None:
    server.play(scripted(line("a"), Hold()))
    async with lines.stream(ASKED) as chunks:
        assert await anext(chunks) == TextChunk("a")
    await asyncio.wait_for((await server.request()).disconnected.wait(), 5)
