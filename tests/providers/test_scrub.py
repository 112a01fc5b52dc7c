"""A provider's words before they are shown."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rejoin.worker.providers.scrub import MAX_CHARS, scrub


@pytest.mark.parametrize(
    "secret",
    [
        "sk-proj-abcDEF0123456789_-xyz",
        "sk-abcd****************wxyz",
        "sk-or-v1-0123456789abcdef",
        "sk-ant-api03-abcdef",
        "gsk_abcdef0123456789",
        "hf_abcdefghijkl",
        "xai-abcdef0123",
        "org-Ab12Cd34Ef56",
        "AIzaSyA0123456789abcdefghijklmnop",
        "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2ln",
    ],
)
def test_what_looks_like_a_key_is_hidden(secret: str) -> None:
    assert scrub(f"Wrong key {secret}, sorry") == "Wrong key [hidden], sorry"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("Authorization: Bearer abcdef123456", "Authorization: Bearer [hidden]"),
        ("'authorization': 'Basic dXNlcjpwYXNz'", "'authorization': 'Basic [hidden]'"),
        ("bearer abcdef123456 is wrong", "bearer [hidden] is wrong"),
        ("api_key=abcdef123456&x", "api_key=[hidden]&x"),
        ('{"api-key": "abcdef123456"}', '{"api-key": "[hidden]"}'),
        ("at http://user:pass@host/v1", "at http://host/v1"),
        ("GET https://host/v1?key=abc&x=1", "GET https://host/v1?key=[hidden]&x=1"),
    ],
)
def test_credentials_are_hidden_by_their_place(text: str, shown: str) -> None:
    assert scrub(text) == shown


def test_the_configured_key_is_hidden_whatever_it_looks_like() -> None:
    assert scrub("the key hunter2 is wrong", ["hunter2"]) == "the key [hidden] is wrong"


@pytest.mark.parametrize(
    "text",
    [
        "The model `gpt-5-mini` does not exist",
        "Rate limit reached on tokens per min (TPM): Limit 30000, Used 29000",
        "ask-me anything, an org-wide risk-free task, scikit sk-learn",
        "request req_0123456789abcdef0123456789abcdef failed",
    ],
)
def test_ordinary_words_stay(text: str) -> None:
    assert scrub(text) == text


def test_the_text_is_one_line() -> None:
    assert scrub("a\r\n\tb\x00\x1b[31m c\u2028d \ud83d!") == "a b [31m c d !"


@given(st.text(max_size=3000))
def test_any_text_becomes_one_short_line(text: str) -> None:
    shown = scrub(text * 3)
    assert len(shown) <= MAX_CHARS
    assert shown.isprintable()
    assert shown == shown.strip()
