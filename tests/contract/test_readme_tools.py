"""A tool by curl, as the README shows it: written, named for the worker, called by a model."""

import json
import re
from pathlib import Path

from tests.contract.test_readme import README, events, run, text
from tests.support.processes import rejoin_stack
from tests.support.provider_script import Answer, choice, completion_chunk, sse
from tests.support.provider_server import ProviderServer
from tests.support.redis_server import RedisServer

MODEL = "gpt-5-mini"


def answer(reason: str, **delta: object) -> Answer:
    parts = [choice(delta), choice({}, reason)]
    chunks = [sse(completion_chunk(MODEL, choices=each)) for each in parts]
    return Answer([*chunks, sse("[DONE]")])


def calls(name: str, arguments: dict[str, object]) -> Answer:
    function = {"name": name, "arguments": json.dumps(arguments)}
    call = {"index": 0, "id": "call_1", "type": "function", "function": function}
    return answer("tool_calls", tool_calls=[call])


async def test_the_readmes_tool_is_called_and_reports(
    own_redis: RedisServer, tmp_path: Path
) -> None:
    section = README.read_text(encoding="utf-8").split("## Tools")[1].split("\n## ")[0]
    (code,) = re.findall(r"```python\n(.*?)```", section, re.DOTALL)
    (script,) = re.findall(r"```sh\n(.*?)```", section, re.DOTALL)
    tools = tmp_path / "tools.py"
    tools.write_text(code, encoding="utf-8")
    async with ProviderServer(lists_models=True) as openai:
        openai.play(
            calls("plant", {"tree": "oak", "count": 2}),
            answer("stop", content="Both stand."),
        )
        settings = {"OPENAI_BASE_URL": openai.base_url, "REJOIN_TOOLS": str(tools)}
        with rejoin_stack(own_redis, settings=settings) as stack:
            seen = events(await run(script, stack.url, tmp_path))
            stack.assert_no_traceback()
        first, second = (json.loads(it.body) for it in openai.requests if it.method == "POST")
    assert [name for name, _ in seen if name not in {"start", "usage"}] == [
        *("tool_call", "tool_start", "data", "data", "tool_result", "step"),
        *("text", "step", "done"),
    ]
    assert [fields["value"] for name, fields in seen if name == "data"] == [1, 2]
    assert [fields["result"] for name, fields in seen if name == "tool_result"] == [
        "2 x oak, in the last row"
    ]
    assert text(seen) == "Both stand."
    (offered,) = first["tools"]
    assert offered["function"]["description"] == "Plant trees in the garden, one after another."
    assert sorted(offered["function"]["parameters"]["properties"]) == ["count", "tree"]
    assert second["messages"][-1]["role"] == "tool"
    assert "2 x oak" in str(second["messages"][-1]["content"])
