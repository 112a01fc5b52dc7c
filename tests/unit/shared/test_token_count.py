"""Tokens are counted by the model's own encoding where it is on this machine, else by rule."""

import base64
import hashlib
from pathlib import Path

import pytest
from tiktoken_ext import openai_public

from rejoin.shared import token_count
from rejoin.shared.spent import estimated
from rejoin.shared.token_count import ENCODINGS, SAMPLE_CHARS, Data, count, load_for

MINI = "openai/gpt-4o-mini"  # of o200k_base
OLD = "openai/gpt-4"  # of cl100k_base
# Every byte, and one word that is a single token.
RANKS = {bytes([n]): n for n in range(256)} | {b"wo": 256, b"rd": 257, b"word": 258}
LINES = b"".join(base64.b64encode(token) + b" %d\n" % rank for token, rank in RANKS.items())


@pytest.fixture(autouse=True)
def nothing_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(token_count, "_loaded", {})


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """The environment of a machine on which one encoding lies, a small one."""
    small = ENCODINGS["o200k_base"]._replace(digest=hashlib.sha256(LINES).hexdigest())
    monkeypatch.setitem(ENCODINGS, "o200k_base", small)
    file_of(tmp_path, small).write_bytes(LINES)
    return {"TIKTOKEN_CACHE_DIR": str(tmp_path)}


def file_of(folder: Path, data: Data) -> Path:
    return folder / hashlib.sha1(data.url.encode(), usedforsecurity=False).hexdigest()


async def test_a_models_own_encoding_counts_where_its_data_is_here(cache: dict[str, str]) -> None:
    await load_for(["openai/"], cache)
    assert count(MINI, 12, "word" * 3) == 3
    assert count(MINI + "?x=1", 8, "no words") == 5
    assert estimated(4, 8, 4, model=MINI, given="wordwordword").output_tokens == 3


async def test_other_models_and_other_encodings_count_by_rule(cache: dict[str, str]) -> None:
    await load_for(["openai/"], cache)
    for model in (OLD, "openai/own-model", "anthropic/claude-haiku-4-5", "demo/echo"):
        assert count(model, 12, "no words too") == 3, model


async def test_without_a_text_there_is_the_rule(cache: dict[str, str]) -> None:
    await load_for(["openai/"], cache)
    assert [count(MINI, chars) for chars in (0, 1, 4, 5)] == [0, 1, 1, 2]


async def test_the_rest_of_a_long_text_counts_as_its_sample(cache: dict[str, str]) -> None:
    await load_for(["openai/"], cache)
    assert count(MINI, 4 * SAMPLE_CHARS, "word" * SAMPLE_CHARS) == SAMPLE_CHARS
    assert count(MINI, 4000, "word") == 1000


async def test_half_a_character_is_counted_and_breaks_nothing(cache: dict[str, str]) -> None:
    await load_for(["openai/"], cache)
    assert count(MINI, 2, "a\ud83d") == 2


@pytest.mark.parametrize("found", [None, b"", LINES + b"\n", b"not base64"])
async def test_data_that_is_not_the_encodings_own_is_left_alone(
    cache: dict[str, str], tmp_path: Path, found: bytes | None
) -> None:
    file = file_of(tmp_path, ENCODINGS["o200k_base"])
    file.unlink()
    if found is not None:
        file.write_bytes(found)
    await load_for(["openai/"], cache)
    assert count(MINI, 12, "word" * 3) == 3
    assert count(MINI, 8, "no words") == 2
    assert found is None or file.read_bytes() == found


async def test_nothing_is_loaded_for_other_providers(cache: dict[str, str]) -> None:
    await load_for(["anthropic/", "demo/", "ollama/"], cache)
    assert count(MINI, 8, "no words") == 2


async def test_without_the_package_there_is_the_rule(
    cache: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(token_count, "find_spec", lambda _: None)
    await load_for(["openai/"], cache)
    assert count(MINI, 8, "no words") == 2


@pytest.mark.parametrize("name", ENCODINGS)
def test_what_is_known_of_an_encoding_is_what_the_package_says(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = list[tuple[str, str]]()

    def load(url: str, expected_hash: str) -> dict[bytes, int]:
        asked.append((url, expected_hash))
        return {}

    monkeypatch.setattr(openai_public, "load_tiktoken_bpe", load)
    made = getattr(openai_public, name)()
    assert Data(*asked[0], made["pat_str"]) == ENCODINGS[name]
