"""The name of every Redis key and channel."""

from typing import Final

# The queue's side: one server, whatever happens to the logs.
QUEUE: Final = "rejoin:queue"  # zset: message id, the time in ms from which it may be claimed
# hash: message id, the token of the lease that runs it; "woken ID": to be due when given back
OWNERS: Final = "rejoin:owners"
WAKE: Final = "rejoin:wake"  # list: a token for each job that became due
# zset: a message that waits, when somebody set out to answer or cancel it, and then to wake it
WAKING: Final = "rejoin:waking"
OPEN: Final = "rejoin:open"  # zset: message id, when it was indexed; every message not ended
UNSAVED: Final = "rejoin:unsaved"  # zset: message id, when its saving is due (or leased until)
RETENTION: Final = "rejoin:retention"  # string: the worker whose turn it is to delete old history
REAPER: Final = "rejoin:reaper"  # string: the worker whose turn it is to look for lost messages
LISTS: Final = "rejoin:lists"  # string: the worker whose turn it is to ask for models
REGISTERED: Final = "rejoin:registered"  # zset: a tool or an agent, when a worker last had it
# hash: a model that failed, until when it is left alone and why (shared/cooling.py)
COOLING: Final = "rejoin:cooling"
CANCELS: Final = "rejoin:cancels"  # channel: ids of messages that someone cancels


def log(message_id: str) -> str:
    """The message's log: a stream, `f` the client's frame, `p` JSON for workers alone."""
    return f"rejoin:{{{message_id}}}:log"


def record(message_id: str) -> str:
    """The message's record: a hash (shared/record.py names its fields)."""
    return f"rejoin:{{{message_id}}}:record"


def request(message_id: str) -> str:
    """The accepted request, as JSON."""
    return f"rejoin:{{{message_id}}}:request"


def answers(message_id: str) -> str:
    """What the message's tool calls wait for, and how they were answered: a hash (waiting.py)."""
    return f"rejoin:{{{message_id}}}:answers"


def live(message_id: str) -> str:
    """The channel on which the message's frames are published."""
    return f"rejoin:{{{message_id}}}:live"


def of_message(message_id: str) -> tuple[str, str, str, str]:
    """All keys that hold a message: its log, its record, its request, its answers."""
    return log(message_id), record(message_id), request(message_id), answers(message_id)


def turns(conversation_id: str) -> str:
    """Whose turn it is in a conversation: a zset, message id and place."""
    return f"rejoin:{{{conversation_id}}}:turns"


def conversation(conversation_id: str) -> str:
    """The conversation: a hash, its owner, its newest message, what the placed ones were told."""
    return f"rejoin:{{{conversation_id}}}:conversation"


def worker(worker_id: str) -> str:
    """A worker's sign of life: JSON, gone some leases after its last beat."""
    return f"rejoin:worker:{worker_id}"


def own_list(provider: str) -> str:
    """The models that a provider lists itself, as JSON."""
    return f"rejoin:models:{provider}"


def idempotency(owner: str, digest: str) -> str:
    """What an Idempotency-Key of this owner was used for."""
    return f"rejoin:{{{owner}}}:idem:{digest}"


def job(message_id: str) -> str:
    """The arq job (arq's own name for it: arq.constants.job_key_prefix)."""
    return f"arq:job:{message_id}"


def job_tries(message_id: str) -> str:
    """Arq's count of a job's starts (arq.constants.retry_key_prefix)."""
    return f"arq:retry:{message_id}"


def quota(key: str, scope: str) -> tuple[str, ...]:
    """The keys of what one provider key may be asked, one hash tag for all (shared/quota.py).

    The provider key's own: until when it is parked, and its scopes. Then a scope's: its state, its
    calls in the window, their tokens, those under way, those unheard, its line, the places in it,
    whose turn it is.
    """
    own = f"rejoin:{{quota:{key}}}"
    parts = ("state", "window", "tokens", "running", "unheard", "line", "places", "turns")
    return own, *(f"{own}:{part}:{scope}" for part in parts)
