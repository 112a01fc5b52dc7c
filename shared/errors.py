"""Every exception Rejoin raises on purpose.

RejoinError
├── BadRequest              the caller's request is wrong: which field, how to mend it
├── NotFound                no such message or model, or it is another owner's
├── Conflict                it contradicts what is already so (an ended message, a used key)
│   └── Busy                another message of its conversation is running
├── OverLimit               too many waiting: try again later
├── Unavailable             a part Rejoin needs is away: try again later
│   ├── LogUnavailable      Redis is away, read-only or full
│   └── DatabaseUnavailable the database is away, or not migrated
├── DatabaseRefused         the database cannot hold a row: asking again does not help
├── LogRefused              the log took nothing of a batch: stop writing
│   ├── MessageMissing      the record is gone, and that is final
│   ├── Fenced              a later attempt owns the message
│   ├── LogEnded            it has its done or failed
│   ├── LogWentBack         Redis lost events of this attempt, as a failover may
│   └── CancelAsked         an end other than a cancelled one, while a cancel is set
├── NotItsTurn              another message of its conversation is before it
├── RequestUnreadable       an accepted request is gone, or of another version
├── ToolError               a tool failed or was refused: the model is told
├── ProviderError           the provider could not, or would not: a `failed` code
└── SettingsError           a setting is wrong: its name, how to mend it
"""

from rejoin.shared.rate_limits import RateLimits


class RejoinError(Exception):
    """The root: whatever Rejoin raises on purpose."""


class BadRequest(RejoinError):
    """A request that cannot be taken as it is.

    `field` is the path of the wrong field (empty: the whole), `mend` says what is wrong and
    what would be right, `status` is the HTTP status: 400 malformed, 408, 413, 415 or 422.
    """

    def __init__(self, mend: str, *, field: tuple[str | int, ...] = (), status: int = 422) -> None:
        super().__init__(mend)
        self.mend = mend
        self.field = field
        self.status = status


class NotFound(RejoinError):
    """No such message or model, or one of another owner: both answer alike."""


class Conflict(RejoinError):
    """The request contradicts what is already so."""


class Busy(Conflict):
    """The conversation has an open message, `active_message_id`, and the caller will not wait."""

    def __init__(self, active_message_id: str) -> None:
        super().__init__("another message of this conversation is running")
        self.active_message_id = active_message_id


class _TryLater(RejoinError):
    """The same request may succeed after `retry_after_seconds`."""

    def __init__(self, detail: str, *, retry_after_seconds: int = 1) -> None:
        super().__init__(detail)
        self.retry_after_seconds = retry_after_seconds


class OverLimit(_TryLater):
    """The queue is full."""


class Unavailable(_TryLater):
    """A part that Rejoin needs is away."""


class LogUnavailable(Unavailable):
    """Redis is away, read-only or full. What was sent may or may not have been stored."""


class DatabaseUnavailable(Unavailable):
    """The database is away, too slow, or lacks tables. A transaction may or may not be done."""


class DatabaseRefused(RejoinError):
    """The database cannot hold what it was given; the same again would be refused again."""


class LogRefused(RejoinError):
    """The log took nothing of a batch; its writer stops."""


class MessageMissing(LogRefused):
    """The message's record is gone, and that is final."""


class Fenced(LogRefused):
    """A later attempt, or another claim of this one, owns the message."""


class LogEnded(LogRefused):
    """The log has its `done` or `failed`; nothing follows it."""


class LogWentBack(LogRefused):
    """Redis lost events of this attempt, or the claim itself."""


class CancelAsked(LogRefused):
    """An end other than `done` with `cancelled` was refused, for a cancel is set."""


class NotItsTurn(RejoinError):
    """A message was to run before its turn in its conversation."""


class RequestUnreadable(RejoinError):
    """An accepted request is gone, or was written by another version: nobody can answer it."""


class ToolError(RejoinError):
    """A tool failed, or refused; its text is shown to the model and to clients."""


class ProviderError(RejoinError):
    """A provider could not, or would not, answer.

    `code` is one of the `failed` codes, `retryable` whether the same call may succeed
    later, `status` the provider's HTTP status or None. The text is shown to clients: it never
    holds a key or a header. `limits` is what its headers said of the key's limits, if anything.
    """

    def __init__(
        self,
        detail: str,
        *,
        code: str,
        retryable: bool,
        status: int | None = None,
        retry_after_seconds: float | None = None,
        limits: RateLimits | None = None,
    ) -> None:
        super().__init__(detail)
        self.limits = limits
        self.code = code
        self.retryable = retryable
        self.status = status
        self.retry_after_seconds = retry_after_seconds


class SettingsError(RejoinError):
    """A setting is wrong; the text names it and says how to mend it."""
