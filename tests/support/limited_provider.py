"""A provider that limits its key's rate, as the real ones do, and counts who kept to it.

`LimitedProvider("openai", requests=60, window_seconds=2)` takes so many requests in each window,
a minute scaled down, and answers 429 with Retry-After beyond it. The windows are fixed ones from
the server's start, or sliding. Every answer tells the limits in the headers of its wire format.
`environ(worker)` leads a worker to it, and lets it know which one asks.
"""

import math
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Final, NamedTuple

from tests.support.pairing_rules import CALLS
from tests.support.provider_script import Answer, Part, Pause, Request
from tests.support.provider_server import ProviderServer
from tests.support.wire_answers import environ_of, refusal, whole

ANSWERED: Final = ("So ", "it ", "is.")
_WORKER: Final = "x-worker"  # Anthropic's SDK takes headers from the environment
_ORGANIZATION: Final = "openai-organization"  # and OpenAI's this one
_CHARS_PER_TOKEN: Final = 4


class Met(NamedTuple):
    """A request: whose, when (seconds from the server's start), and whether it was taken.

    `tokens` are those that it counts as, None where it was refused.
    """

    worker: str
    model: str
    message_id: str
    at: float
    tokens: int | None

    @property
    def taken(self) -> bool:
        """Whether it was not refused."""
        return self.tokens is not None


class LimitedProvider(ProviderServer):
    """The server. `met` are the model calls, in order; `most_at_once` ran at the same time.

    `tokens` (input and output) of a window and requests `at_once` are limited where given; too
    many at once are refused without Retry-After. `tells`: answers have the limits' headers.
    `takes_seconds`: how long an answer takes. `by_model`: each model has limits of its own.
    """

    def __init__(
        self,
        wire: str = "openai",
        *,
        requests: int = 60,
        window_seconds: float = 2.0,
        sliding: bool = False,
        tokens: int | None = None,
        at_once: int | None = None,
        tells: bool = True,
        by_model: bool = False,
        takes_seconds: float = 0.0,
        output_tokens: int = len(ANSWERED),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__(lists_models=True, answers=self._answer_to)
        self.wire = wire
        self.window_seconds = window_seconds
        self.met: list[Met] = []
        self.most_at_once = 0
        self._limit, self._tokens, self._at_once = requests, tokens, at_once
        self._sliding = sliding
        self._tells = tells
        self._by_model = by_model
        self.takes_seconds = takes_seconds
        self._output_tokens = output_tokens
        self._under_way: list[Request] = []
        self._clock, self._began = clock, clock()

    def environ(self, worker: str, key: str = "sk-limited-0123456789") -> dict[str, str]:
        """The settings of a worker that asks it; the SDKs read them when they are opened."""
        marks = {"OPENAI_ORG_ID": worker, "ANTHROPIC_CUSTOM_HEADERS": f"{_WORKER}: {worker}"}
        return environ_of(self.wire, self.base_url) | {f"{self.wire.upper()}_API_KEY": key} | marks

    @property
    def taken(self) -> list[Met]:
        """The requests that it answered."""
        return [one for one in self.met if one.taken]

    @property
    def refused(self) -> list[Met]:
        """The requests that it refused."""
        return [one for one in self.met if not one.taken]

    def most_refusals_in_a_window(self) -> dict[str, int]:
        """By worker, the most 429s that it met in any one window; those that met none are not in.

        A sliding window may begin at any moment, a fixed one only where the server's does.
        """
        most: Counter[str] = Counter()
        for worker in {one.worker for one in self.refused}:
            most[worker] = self._most([one.at for one in self.refused if one.worker == worker])
        return dict(most)

    def most_taken_in_a_window(self) -> int:
        """The most requests that it took in any one of its windows."""
        return self._most([one.at for one in self.taken])

    def _most(self, times: list[float]) -> int:
        if not self._sliding:
            return max(Counter(map(self._window_of, times)).values(), default=0)
        return max((len(_since(times, at, self.window_seconds)) for at in times), default=0)

    def _window_of(self, at: float) -> int:
        return int(at / self.window_seconds)

    def _answer_to(self, request: Request) -> Answer:
        if not request.path.partition("?")[0].endswith(CALLS):  # Ollama's own list
            return Answer([b'{"models":[]}'], content_type="application/json")
        now = self._clock() - self._began
        worker = request.headers.get(_WORKER) or request.headers.get(_ORGANIZATION, "")
        message_id = request.headers.get("x-client-request-id", "")
        tokens = len(request.body) // _CHARS_PER_TOKEN + self._output_tokens
        self._under_way = [one for one in self._under_way if _runs(one)]
        crowded = self._at_once is not None and len(self._under_way) >= self._at_once
        model = str(request.json["model"])
        waits = None if crowded else self._waits(now, tokens, model)
        if crowded or waits is not None:
            self.met.append(Met(worker, model, message_id, now, None))
            return self._refuse(now, waits, model)
        self.met.append(Met(worker, model, message_id, now, tokens))
        self._under_way.append(request)
        self.most_at_once = max(self.most_at_once, len(self._under_way))
        used = (tokens - self._output_tokens, self._output_tokens)
        said = whole(self.wire, model, *ANSWERED, used=used)
        parts: list[Part] = [*said[:-1], Pause(self.takes_seconds), said[-1]]
        return Answer(parts, headers=self._headers(now, model))

    def _counting(self, now: float, model: str) -> list[Met]:
        """The requests that count against what may come now, the oldest first."""
        taken = [one for one in self.taken if one.model == model or not self._by_model]
        if self._sliding:
            return [one for one in taken if one.at > now - self.window_seconds]
        window = self._window_of(now)
        return [one for one in taken if self._window_of(one.at) == window]

    def _waits(self, now: float, tokens: int, model: str) -> float | None:
        """Seconds until there is room for such a request; None: there is."""
        counting = self._counting(now, model)
        requests, spent = len(counting), _spent(counting)
        for leaving in [None, *counting]:
            if leaving is not None:
                requests, spent = requests - 1, spent - (leaving.tokens or 0)
            fits = self._tokens is None or spent + tokens <= self._tokens or not requests
            if requests < self._limit and fits:
                return None if leaving is None else self._gone_in(leaving, now)
        raise AssertionError("a limit of 0 takes nothing ever")

    def _gone_in(self, one: Met, now: float) -> float:
        """Seconds until a request does not count any more."""
        if self._sliding:
            return one.at + self.window_seconds - now
        return (self._window_of(now) + 1) * self.window_seconds - now

    def _refuse(self, now: float, waits: float | None, model: str) -> Answer:
        headers = dict(self._headers(now, model))
        if waits is not None:
            headers["Retry-After"] = _seconds(waits)  # a scaled minute has scaled seconds
        said = "Rate limit reached for requests." if waits else "Too many concurrent requests."
        return refusal(self.wire, 429, said, code="rate_limit_exceeded", headers=headers)

    def _headers(self, now: float, model: str) -> Mapping[str, str]:
        if not self._tells:
            return {}
        counting = self._counting(now, model)
        reset = self._gone_in(counting[-1], now) if counting else 0.0
        told = {"requests": (self._limit, max(0, self._limit - len(counting)))}
        if self._tokens is not None:
            told["tokens"] = (self._tokens, max(0, self._tokens - _spent(counting)))
        return {
            name: value
            for what, (most, left) in told.items()
            for name, value in _told(self.wire, what, most, left, reset)
        }


def _told(wire: str, what: str, most: int, left: int, reset: float) -> Iterator[tuple[str, str]]:
    """One limit's headers."""
    match wire:
        case "anthropic":
            at = (datetime.now(UTC) + timedelta(seconds=reset)).isoformat(timespec="milliseconds")
            shown = {"limit": most, "remaining": left, "reset": at.replace("+00:00", "Z")}
            for name, value in shown.items():
                yield f"anthropic-ratelimit-{what}-{name}", str(value)
        case "openrouter":
            if what == "requests":  # it tells of no tokens
                yield "X-RateLimit-Limit", str(most)
                yield "X-RateLimit-Remaining", str(left)
                yield "X-RateLimit-Reset", str(math.ceil((time.time() + reset) * 1000))
        case "openai":
            shown = {"limit": most, "remaining": left, "reset": _duration(reset)}
            for name, value in shown.items():
                yield f"x-ratelimit-{name}-{what}", str(value)


def _duration(seconds: float) -> str:
    """As OpenAI writes it: "6m0s", "1.5s", "20ms"."""
    if seconds < 1:
        return f"{math.ceil(seconds * 1000)}ms"
    minutes, rest = divmod(seconds, 60)
    return f"{int(minutes)}m{rest:.3g}s" if minutes else f"{seconds:.4g}s"


def _seconds(seconds: float) -> str:
    return f"{math.ceil(seconds * 1000) / 1000:g}"


def _spent(met: list[Met]) -> int:
    return sum(one.tokens or 0 for one in met)


def _since(times: list[float], until: float, seconds: float) -> list[float]:
    return [at for at in times if until - seconds < at <= until]


def _runs(request: Request) -> bool:
    return not (request.answered.is_set() or request.disconnected.is_set())
