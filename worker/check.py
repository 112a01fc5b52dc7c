"""Looks whether a worker could run, and whether its providers answer; for `rejoin doctor`."""

import asyncio
import sys
from collections.abc import Iterable
from typing import Final

from rejoin.shared import catalogue, settings_file
from rejoin.shared.connections import open_redis, redis_or_away
from rejoin.shared.db import schema
from rejoin.shared.errors import ProviderError, RejoinError, SettingsError
from rejoin.shared.events import FailureCode, dumps
from rejoin.shared.providers import REGISTRY
from rejoin.shared.redis_check import Finding, Grade
from rejoin.shared.settings import Settings
from rejoin.worker.agents.loading import load_agents
from rejoin.worker.providers.base import ModelRequest, ReasoningChunk, TextChunk, Turn
from rejoin.worker.providers.registry import Providers
from rejoin.worker.tools.loading import load_tools

LIST_SECONDS: Final = 10.0
CALL_SECONDS: Final = 30.0

# OpenAI's words where a model thinks for longer than one token: it was reached, and it ran.
_LIMIT_REACHED: Final = "model output limit was reached"


async def check(settings: Settings, url: str) -> int:
    """Say whether a worker could run with these settings; the exit code."""
    redis = open_redis(url)
    try:
        with redis_or_away("Redis is away: is REJOIN_REDIS_URL right, and the server started?"):
            await redis.ping()
        await schema.check(settings)
        settings_file.filled_in(settings_file.load(settings.settings_file))
        load_tools(settings.tools)
        load_agents(settings.agents)
    except SettingsError as error:
        sys.stderr.write(f"rejoin worker: {error}\n")
        return 2
    except RejoinError as error:
        sys.stderr.write(f"rejoin worker: {error}\n")
        return 1
    finally:
        await redis.aclose()
    sys.stdout.write("rejoin worker: settings, Redis and database are in order\n")
    return 0


async def check_providers(call: str | None) -> int:
    """Say of each configured provider whether it lists its models, a line of JSON each; 0.

    `call`, a model, is asked for one token too. All at once, within 30 s.
    """
    providers = Providers()
    try:
        names = [state.name for state in catalogue.providers() if state.configured]
        async with asyncio.TaskGroup() as group:
            listing = [(name, group.create_task(_listed(providers, name))) for name in names]
            calling = None if call is None else group.create_task(_called(providers, call))
        _write((f"provider {name}", task.result()) for name, task in listing)
        if calling is not None:
            _write([(f"model {call}", calling.result())])
    finally:
        await providers.aclose()
    return 0


def _write(found: Iterable[tuple[str, Finding]]) -> None:
    for area, finding in found:
        line = {"area": area, "grade": finding.grade, "sentence": finding.sentence}
        sys.stdout.write(f"{dumps(line)}\n")


async def _listed(providers: Providers, name: str) -> Finding:
    try:
        async with asyncio.timeout(LIST_SECONDS):
            models = await providers.of(name).models()
    except TimeoutError:
        return Finding(Grade.BROKEN, f"did not answer within {LIST_SECONDS:g} s; {_mend(name)}")
    except ProviderError as error:
        if error.status in (404, 405, 501) and error.code == FailureCode.INVALID_REQUEST:
            sentence = f"answers, but has no list of models ({error.status}); {_ask_one(name)}"
            return Finding(Grade.WARNING, sentence)
        return _refused(error, name)
    if not models:
        if name == "demo":
            return Finding(Grade.OK, "demo/echo is there, and needs no key")
        return Finding(Grade.WARNING, f"answers, but lists no model; {_ask_one(name)}")
    return Finding(Grade.OK, f"answers, and lists {len(models)} models")


async def _called(providers: Providers, model: str) -> Finding:
    name = model.partition("/")[0]
    try:
        catalogue.check_model(model)
        provider, bare = providers.find(model)
        request = ModelRequest(model=bare, turns=[Turn("user", "Hi")], max_tokens=1)
        seen = 0
        async with asyncio.timeout(CALL_SECONDS), provider.stream(request) as chunks:
            async for chunk in chunks:
                seen += isinstance(chunk, TextChunk | ReasoningChunk)
    except TimeoutError:
        return Finding(Grade.BROKEN, f"did not answer within {CALL_SECONDS:g} s; {_mend(name)}")
    except ProviderError as error:
        if _LIMIT_REACHED in str(error):
            return Finding(Grade.OK, "was called, and thinks for longer than one token")
        return _refused(error, name)
    except RejoinError as error:
        return Finding(Grade.BROKEN, str(error))
    said = "answered" if seen else "was called, and ended without text"
    return Finding(Grade.OK, f"{said}, asked for one token")


def _refused(error: ProviderError, name: str) -> Finding:
    said = str(error).rstrip(".")
    status = f" {error.status}" if error.status else ""
    # A limit or an overload passes; what is wrong with the key or the address stays.
    passes = error.code == FailureCode.RATE_LIMITED
    grade = Grade.WARNING if passes else Grade.BROKEN
    mend = "try again later" if passes else _mend(name)
    return Finding(grade, f"{error.code}{status}: {said}; {mend}")


def _mend(name: str) -> str:
    variables = " and ".join(_variables(name)) or "the network"
    return f"look at {variables}"


def _variables(name: str) -> tuple[str, ...]:
    return next((entry.variables for entry in REGISTRY if entry.name == name), ())


def _ask_one(name: str) -> str:
    return f"`rejoin doctor --call {name}/MODEL` asks one"
