"""The continuing provider itself: what it says after a part of its answer, and of no part."""

import json
from collections.abc import Sequence

import httpx
import pytest

from tests.support.continuing_provider import ALL, NO_PREFILL, STRAY, TOLD, ContinuingProvider
from tests.support.wire_answers import WIRES

TEXT = "Grüße an alle 🙂 und\n\nnoch viele mehr"


async def said(server: ContinuingProvider, *turns: tuple[str, str]) -> str:
    """The text that it answers these turns with."""
    messages = [{"role": role, "content": content} for role, content in turns]
    path = "/messages" if server.wire == "anthropic" else "/chat/completions"
    async with httpx.AsyncClient(trust_env=False, timeout=5) as http:
        body = {
            "model": "some",
            "messages": messages,
            "continue_final_message": True,
            "add_generation_prompt": False,
        }
        answer = await http.post(server.base_url + path, json=body)
    if answer.status_code != 200:
        return str(answer.json()["error"]["message"])
    lines = [line[6:] for line in answer.text.split("\n") if line.startswith("data: {")]
    return "".join(_texts([json.loads(line) for line in lines]))


def _texts(frames: Sequence[dict[str, object]]) -> list[str]:
    found = []
    for frame in frames:
        match frame:
            case {"delta": {"text": str(text)}} | {"choices": [{"delta": {"content": str(text)}}]}:
                found.append(text)
    return found


@pytest.mark.parametrize("wire", WIRES)
@pytest.mark.parametrize("cut", [1, 4, 5, 15, len(TEXT) - 1])
async def test_it_goes_on_behind_the_last_character_of_a_prefix(wire: str, cut: int) -> None:
    part = TEXT[:cut].rstrip()
    async with ContinuingProvider(wire, TEXT) as server:
        assert part + await said(server, ("user", "Hi"), ("assistant", part)) == TEXT
    assert server.prefixes == [part]


@pytest.mark.parametrize("wire", WIRES)
async def test_asked_by_a_turn_it_may_repeat_some_words(wire: str) -> None:
    part = "Grüße an alle 🙂 "
    turns = (("user", "Hi"), ("assistant", part), ("user", "Go on behind:\n\nan alle 🙂"))
    ways: list[tuple[int | str, str]] = [
        (0, ""),
        (1, "🙂 "),
        (2, "alle 🙂 "),
        (TOLD, "an alle 🙂 "),
        (ALL, part),
    ]
    for repeats, again in ways:
        async with ContinuingProvider(wire, TEXT, repeats=repeats) as server:
            assert await said(server, *turns) == again + TEXT[len(part) :]
            assert server.asked == [part]


async def test_without_a_part_it_gives_its_answer_and_of_a_strange_one_another() -> None:
    async with ContinuingProvider("openai", TEXT, piece_chars=2) as server:
        assert await said(server, ("user", "Hi")) == TEXT
        assert await said(server, ("user", "Hi"), ("assistant", "Grüße a n")) == "".join(STRAY)
        assert server.strays == ["Grüße a n"]


@pytest.mark.parametrize(("prefix", "answer"), [("refuse", NO_PREFILL), ("anew", TEXT)])
async def test_a_server_without_prefixes_refuses_or_begins_anew(prefix: str, answer: str) -> None:
    async with ContinuingProvider("openai", TEXT, prefix=prefix) as server:
        assert await said(server, ("user", "Hi"), ("assistant", "Grüße")) == answer
