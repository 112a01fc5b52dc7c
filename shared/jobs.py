"""A message's job as arq stores it: JSON, and never pickle."""

import json
from typing import Final

FUNCTION: Final = "run_message"  # one name for ever: an old worker destroys what it cannot name


def encode(job: object) -> bytes:
    """A job as JSON: whoever writes to Redis must not run code in a worker, as pickle lets him.

    arq also encodes results with it, exceptions among them: those as their text.
    """
    return json.dumps(job, default=str).encode()


def decode(job: bytes) -> dict[str, object]:
    """Read what `encode` wrote.

    Raises:
        ValueError: it is not a JSON object.
    """
    fields = json.loads(job)
    if not isinstance(fields, dict):
        raise ValueError("a job is a JSON object")  # noqa: TRY004  arq's own callers catch values
    return fields


def conversation_of(job: bytes, message_id: str) -> str | None:
    """Return the conversation that a stored job names, an empty string where it names none.

    None where the job, as it is stored, is not to run this very message as `enqueue` wrote it.
    """
    try:
        fields = decode(job)
    except (ValueError, RecursionError):  # no JSON, or nested too deeply for Python
        return None
    if (fields.get("f"), fields.get("a"), fields.get("k")) != (FUNCTION, [message_id], {}):
        return None
    return str(fields.get("conversation_id", ""))
