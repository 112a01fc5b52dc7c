"""A message to take in, as a caller sent it, and the answer to that."""

from dataclasses import dataclass
from typing import NamedTuple

from rejoin.shared.record import Status
from rejoin.shared.request import StoredRequest
from rejoin.shared.turns import IfBusy


@dataclass(frozen=True, slots=True)
class Offer:
    """A message to take in, as a caller sent it.

    `key` is its Idempotency-Key, `digest` that of its body, `resumes` whether it came with a
    Last-Event-ID: then it must be known already. `conversation_id` None: a new conversation, or
    that of the message to regenerate. `names_fallbacks`: it says which, be it none.
    """

    owner: str
    request: StoredRequest
    key: str | None
    digest: str
    resumes: bool
    conversation_id: str | None = None
    if_busy: IfBusy = IfBusy.ENQUEUE
    names_fallbacks: bool = True


class WaitingFor(NamedTuple):
    """The message of the same conversation whose turn it is, and how it stands."""

    message_id: str
    status: Status


@dataclass(frozen=True, slots=True)
class Accepted:
    """The message that answers an offer; `again`: an earlier offer with the same key made it.

    `waiting_for` None: it runs as soon as a worker is free.
    """

    message_id: str
    conversation_id: str
    again: bool
    waiting_for: WaitingFor | None = None
