"""How many tokens a text is, where a provider did not say: by its model's own encoding, or by rule.

OpenAI's encodings are used where the extra `tiktoken` is installed and their data lies in its
cache already; nothing is ever downloaded, so tiktoken's own loading is not called. For all other
models there are four characters a token.
"""

import asyncio
import base64
import hashlib
import os
import tempfile
from collections.abc import Iterable, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from tiktoken import Encoding

CHARACTERS_A_TOKEN: Final = 4  # the usual rule of thumb for English text
SAMPLE_CHARS: Final = 8192  # of a longer text; to encode them takes about a millisecond
_SELLER: Final = "openai"


class Data(NamedTuple):
    """An encoding's data: where tiktoken has it from, its SHA-256, and how it cuts text first."""

    url: str
    digest: str
    pattern: str


_AT: Final = "https://openaipublic.blob.core.windows.net/encodings"
ENCODINGS: Final = {
    "cl100k_base": Data(
        f"{_AT}/cl100k_base.tiktoken",
        "223921b76ee99bde995b7ff738513eef100fb51d18c93597a113bcffe865b2a7",
        r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}++|\p{N}{1,3}+| ?[^\s\p{L}\p{N}]++[\r\n]*+"
        r"|\s++$|\s*[\r\n]|\s+(?!\S)|\s",
    ),
    "o200k_base": Data(
        f"{_AT}/o200k_base.tiktoken",
        "446a9538cb6c348e3516120d7c08b09f57c36495e2acfffe59a5bf8b0cfb1a2d",
        r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+"
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
        r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*"
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
        r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+",
    ),
}
_loaded: dict[str, "Encoding"] = {}


def count(model: str, chars: int, sample: str = "") -> int:
    """Return how many tokens of `provider/name` a text of so many characters is.

    `sample` is the text, or as much of it as is known: where the model's encoding is loaded, the
    rest counts as it does.
    """
    encoding = _loaded.get(encoding_name(model) or "") if sample else None
    if encoding is None:
        return -(-chars // CHARACTERS_A_TOKEN)
    sample = sample[:SAMPLE_CHARS]
    # Half a surrogate pair has no bytes.
    known = len(encoding.encode_ordinary(sample.encode("utf-8", "replace").decode()))
    return -(-known * chars // len(sample))


async def load_for(models: Iterable[str], environ: Mapping[str, str] = os.environ) -> None:
    """Load, in a thread, the encodings that models of these providers need and that are here.

    Each takes some tenths of a second and about 60 MB.
    """
    if any(model.partition("/")[0] == _SELLER for model in models):
        await asyncio.to_thread(_load_all, environ)


def encoding_name(model: str) -> str | None:
    """The encoding of `provider/name`; None where it is not known, or tiktoken is not installed."""
    seller, _, name = model.partition("/")
    if seller != _SELLER or not _loaded:
        return None
    from tiktoken.model import encoding_name_for_model

    try:
        return encoding_name_for_model(name.partition("?")[0])
    except KeyError:
        return None


def _load_all(environ: Mapping[str, str]) -> None:
    if find_spec("tiktoken") is None:
        return
    from tiktoken import Encoding

    for name, data in ENCODINGS.items():
        ranks = None if name in _loaded else _ranks(data, environ)
        if ranks is not None:
            _loaded[name] = Encoding(
                name, pat_str=data.pattern, mergeable_ranks=ranks, special_tokens={}
            )


def _ranks(data: Data, environ: Mapping[str, str]) -> dict[bytes, int] | None:
    """Read them from tiktoken's cache; None where they are not there, or are others."""
    name = hashlib.sha1(data.url.encode(), usedforsecurity=False).hexdigest()
    try:
        found = (_cache(environ) / name).read_bytes()
    except OSError:
        return None
    if hashlib.sha256(found).hexdigest() != data.digest:
        return None
    lines = (line.split() for line in found.splitlines() if line)
    return {base64.b64decode(token): int(rank) for token, rank in lines}


def _cache(environ: Mapping[str, str]) -> Path:
    for name in ("TIKTOKEN_CACHE_DIR", "DATA_GYM_CACHE_DIR"):
        if name in environ:
            return Path(environ[name])
    return Path(tempfile.gettempdir()) / "data-gym-cache"
