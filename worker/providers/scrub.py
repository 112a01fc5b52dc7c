"""Makes a provider's own words fit to be shown: no key, one line, bounded."""

import re
from collections.abc import Sequence
from typing import Final

MAX_CHARS: Final = 500
_MAX_READ: Final = 20_000  # of an HTML page that calls itself an error, say

_HIDDEN: Final = "[hidden]"
# Spelt out or masked (`sk-abc***xyz`, as OpenAI repeats a wrong key).
_KEY: Final = re.compile(
    r"\b(?:sk|rk|pk|gsk|hf|xai|nvapi|sess)[-_][\w*.\-]{8,}"
    r"|\b(?:org|proj)[-_](?=[\w\-]*\d)[\w\-]{6,}"
    r"|\beyJ[\w\-]{8,}\.[\w\-]+(?:\.[\w\-]*)?"
    r"|\bAIza[\w\-]{20,}"
)
# What follows such a name is secret, whatever it looks like.
_NAMED: Final = re.compile(
    r"""((?:\bbearer\s|\bbasic\s|\b(?:x-)?(?:api[-_ ]?key|access[-_ ]?token)["']?\s*[:=]\s*["']?"""
    r"""|\bauthorization["']?\s*[:=]\s*["']?(?:bearer\s|basic\s)?))\s*[\w\-.~+/=*]{6,}""",
    re.IGNORECASE,
)
_URL_USER: Final = re.compile(r"(?<=://)[^/\s@]+@")
_URL_QUERY: Final = re.compile(
    r"([?&](?:api[-_]?key|key|token|access_token|sig(?:nature)?)=)[^&\s]+", re.IGNORECASE
)


def scrub(text: str, secrets: Sequence[str] = ()) -> str:
    """Return `text` as one line of at most 500 characters, without keys and credentials.

    `secrets` are the configured keys themselves; anything else that looks like one goes too.
    """
    text = text[:_MAX_READ]
    for secret in secrets:
        text = text.replace(secret, _HIDDEN)
    text = "".join(c if c.isprintable() else " " for c in text)
    text = " ".join(text.split())
    text = _URL_USER.sub("", text)
    text = _URL_QUERY.sub(rf"\1{_HIDDEN}", text)
    text = _NAMED.sub(rf"\1{_HIDDEN}", text)
    text = _KEY.sub(_HIDDEN, text)
    return text if len(text) <= MAX_CHARS else text[: MAX_CHARS - 1] + "…"
