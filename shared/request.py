"""An accepted request, as it is stored for the worker."""

import json
from dataclasses import asdict, dataclass, field

from rejoin.shared.events import dumps


@dataclass(frozen=True, slots=True)
class StoredTurn:
    """One message of the history the caller sent; `role`: system, user or assistant."""

    role: str
    content: str


@dataclass(frozen=True, slots=True)
class StoredRequest:
    """What a worker needs to answer a message. None: the provider's own default."""

    model: str
    turns: list[StoredTurn]
    temperature: float | None = None
    top_p: float | None = None
    max_tokens: int | None = None
    stop: list[str] = field(default_factory=list)
    reasoning_effort: str | None = None
    fallbacks: list[str] = field(default_factory=list)
    metadata: dict[str, str] = field(default_factory=dict)

    def encode(self) -> str:
        """Return it as JSON."""
        return dumps(asdict(self))

    @classmethod
    def decode(cls, text: bytes) -> "StoredRequest":
        """Read what `encode` wrote.

        Raises:
            ValueError, KeyError, TypeError: it is not what `encode` writes.
        """
        fields = json.loads(text)
        fields["turns"] = [StoredTurn(**turn) for turn in fields["turns"]]
        return cls(**fields)
