"""Each provider by curl, as the README shows it, against local servers with their wire formats."""

import re
from pathlib import Path

from tests.contract.test_readme import README, events, run
from tests.providers.answers import WIRE
from tests.providers.anthropic_wire import BODIES
from tests.support.processes import rejoin_stack
from tests.support.provider_script import Answer
from tests.support.provider_server import ProviderServer
from tests.support.redis_server import RedisServer


def wire(name: str) -> Answer:
    return Answer([(WIRE / f"{name}.txt").read_bytes()])


async def test_the_readme_asks_each_provider(own_redis: RedisServer, tmp_path: Path) -> None:
    section = README.read_text(encoding="utf-8").split("## Providers")[1].split("\n## ")[0]
    (script,) = re.findall(r"```sh\n(.*?)```", section, re.DOTALL)
    async with (
        ProviderServer(lists_models=True) as openai,
        ProviderServer(lists_models=True) as anthropic,
        ProviderServer(lists_models=True) as openrouter,
        ProviderServer() as ollama,
    ):
        openai.play(wire("openai"))
        anthropic.play(Answer([BODIES["anthropic"]]))
        openrouter.play(wire("openrouter"))
        ollama.play(Answer([b"{}"], 404, content_type="application/json"), wire("ollama"))
        settings = {
            "OPENAI_BASE_URL": openai.base_url,
            "ANTHROPIC_BASE_URL": anthropic.base_url.removesuffix("/v1"),
            "OPENROUTER_BASE_URL": openrouter.base_url,
            "OLLAMA_HOST": f"127.0.0.1:{ollama.port}",
        }
        with rejoin_stack(own_redis, settings=settings) as stack:
            await ollama.request(within_seconds=10)  # for its models, by the worker
            seen = events(await run(script, stack.url, tmp_path))
    began = [str(fields["model"]).partition("/")[0] for name, fields in seen if name == "start"]
    assert began == ["openai", "anthropic", "openrouter", "ollama"]
    assert [fields["finish_reason"] for name, fields in seen if name == "done"] == ["stop"] * 4
