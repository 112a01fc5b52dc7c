"""A stack whose `openai` is a simulator in a process of its own, and messages for its models."""

import uuid
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from typing import Any, Final, NamedTuple

import httpx

from tests.support.caller import Caller, caller
from tests.support.processes import Stack, rejoin_stack
from tests.support.provider_server import provider_process
from tests.support.redis_server import RedisServer

KEY: Final = "sk-test-secret-0123456789abcdefghij"
ASKED: Final = "tell me"
WORDS: Final = 6  # an answer's, unless the options say otherwise


class Simulated(NamedTuple):
    """The processes, and where the simulator is."""

    stack: Stack
    base_url: str


class Provided(NamedTuple):
    """A caller of a stack with a simulated provider; `fields` are in every message."""

    stack: Stack
    api: Caller
    base_url: str
    fields: Mapping[str, Any]

    async def ask(self, *options: str, **fields: Any) -> str:
        """POST a message for the first of the models, the others are its fallbacks; its id."""
        model, *fallbacks = [_model_of(option) for option in options]
        if fallbacks:
            fields["fallbacks"] = fallbacks
        return await self.api.accepted(ASKED, model=model, **{**self.fields, **fields})

    async def requests(self, message_id: str) -> list[dict[str, Any]]:
        """What the provider was asked for a message, in order."""
        address = self.base_url.removesuffix("/v1") + "/requests"
        async with httpx.AsyncClient(trust_env=False, timeout=10) as http:
            told: list[dict[str, Any]] = (await http.get(address)).json()
        return [request for request in told if request["reference"] == message_id]


def _model_of(options: str) -> str:
    """A simulated model that no other test counts with."""
    return f"openai/sim?words={WORDS}&{options}&n={uuid.uuid4().hex[:8]}"


@contextmanager
def simulated(redis: RedisServer, **settings: str) -> Iterator[Simulated]:
    """Run the processes for the block; none of them may log a traceback or the key."""
    with provider_process() as base_url:
        own = {"OPENAI_API_KEY": KEY, "OPENAI_BASE_URL": base_url, "REJOIN_LEASE_SECONDS": "1"}
        with rejoin_stack(redis, settings=own | settings) as stack:
            yield Simulated(stack, base_url)
            stack.assert_no_traceback()
            for process in (*stack.apis, *stack.workers):
                assert KEY not in process.said()


@asynccontextmanager
async def provided_by(made: Simulated, **fields: Any) -> AsyncIterator[Provided]:
    """Call such a stack; `fields` are in every message, unless a test's own replace them."""
    async with caller(made.stack.url) as api:
        yield Provided(made.stack, api, made.base_url, fields)
