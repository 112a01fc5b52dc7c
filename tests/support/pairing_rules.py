"""What servers refuse in a history of tools, as they really do: their rules and their words.

A rule set takes a request's body and gives the refusal, None where the server would answer.
`rules_for(wire)` gives what ProviderServer(pairing=...) takes. Sources, read in November 2026:
- OpenAI: its error texts in openai/openai-go#43, camel-ai/camel#3339, microsoft/autogen#6377 (ids
  of 40), run-llama/llama_index#17555 (null content), microsoft/promptflow#3130.
- Anthropic: platform.claude.com, "Handle tool calls", "Thinking in tool and multi-turn workflows";
  OpenHands/OpenHands#7512 and tghamm/Anthropic.SDK#184 (pairs); HKUDS/nanobot#4356 (letters of
  ids); vectorize-io/hindsight#4250 (one result); apify/tester-mcp-client#12 (results first);
  n8n-io/n8n#22550 (steps begin with a thought);
  portkey.ai's error library 10488 (`tools`), 10487 (empty texts); tailcallhq/forgecode#1872, #2107;
  aaif-goose/goose#7343 (white space).
- Ollama: its openai/openai.go, FromChatRequest.
- Strict templates and Mistral: ggml-org/llama.cpp#19851, vllm-project/vllm#6862,
  NousResearch/hermes-agent#20154, charmbracelet/crush#279 (by OpenRouter).
Where a server's own words were not to be found, the rule is here all the same, marked "ours".
"""

import json
from collections.abc import Callable, Mapping
from typing import Any, Final

from tests.support import pairing_anthropic, pairing_openai
from tests.support.provider_script import Answer, Request

Body = Mapping[str, Any]
Refusal = str | None  # in the server's words

CALLS: Final = ("/chat/completions", "/messages")


def openai(body: Body, *, id_chars: int = 40) -> Refusal:
    """OpenAI's chat completions."""
    return next(pairing_openai.openai(body, id_chars), None)


def openrouter(body: Body) -> Refusal:
    """OpenRouter: OpenAI's form; behind it may be any server, a strict one too."""
    return openai(body, id_chars=64)


def ollama(body: Body) -> Refusal:
    """Ollama's /v1; it takes calls without results, but OpenAI's rules are asked of it too."""
    return next(pairing_openai.ollama(body["messages"]), None) or openai(body, id_chars=64)


def strict(body: Body) -> Refusal:
    """A chat template that insists on its order, and Mistral's own rules."""
    return next(pairing_openai.strict(body["messages"]), None)


def compatible(body: Body) -> Refusal:
    """A server such as vLLM: OpenAI's form, and a strict chat template."""
    return openai(body, id_chars=64) or strict(body)


def anthropic(body: Body) -> Refusal:
    """Anthropic's messages."""
    return next(pairing_anthropic.anthropic(body), None)


RULES: Final[Mapping[str, Callable[[Body], Refusal]]] = {
    "openai": openai,
    "compatible": compatible,
    "openrouter": openrouter,
    "ollama": ollama,
    "anthropic": anthropic,
}


def rules_for(wire: str) -> Callable[[Request], Answer | None]:
    """What refuses the model calls of a wire format with a 400, in the form of that server."""

    def refuse(request: Request) -> Answer | None:
        if not request.path.partition("?")[0].endswith(CALLS):
            return None
        said = RULES[wire](request.json)
        if said is None:
            return None
        body = json.dumps(_error(wire, said)).encode()
        return Answer([body], 400, content_type="application/json")

    return refuse


def _error(wire: str, said: str) -> dict[str, object]:
    plain: dict[str, object] = {"message": said, "type": "invalid_request_error"}
    match wire:
        case "anthropic":
            plain = {"type": "invalid_request_error", "message": said}
            return {"type": "error", "error": plain, "request_id": "req_011CV"}
        case "openrouter":
            raw = json.dumps({"object": "error", **plain, "param": None, "code": "3230"})
            metadata = {"raw": raw, "provider_name": "Mistral"}
            return {
                "error": {"message": "Provider returned error", "code": 400, "metadata": metadata}
            }
        case "compatible":
            return {"object": "error", "message": said, "type": "BadRequestError", "code": 400}
    return {"error": {**plain, "param": "messages", "code": None}}
