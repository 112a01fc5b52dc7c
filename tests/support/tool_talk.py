"""A model that calls two tools and then answers, in each provider's wire format."""

import json
from collections.abc import Mapping, Sequence
from typing import Any, Final

from tests.support.pairing_rules import rules_for
from tests.support.provider_script import (
    Answer,
    Request,
    choice,
    completion_chunk,
    error_answer,
    sse,
)
from tests.support.provider_server import ProviderServer

# By their providers, a model each; Claude's is one that thinks by a budget, the strictest of all.
MODELS: Final = {
    "openai": "openai/some-model",
    "anthropic": "anthropic/claude-haiku-4-5",
    "openrouter": "openrouter/some/model",
    "ollama": "ollama/some-model",
}

CALLS: Final[tuple[tuple[str, str, dict[str, str]], ...]] = (
    ("call_a", "look", {"at": "wörld"}),
    ("call_b", "listen", {}),
)
ANSWERED: Final = "So it is."
_WORDS: Final = ("Let me ", "look. ")

Body = Mapping[str, Any]


class ToolTalk(ProviderServer):
    """A server that refuses as its provider does, and answers any history that it takes.

    To a user who says "tools" its model calls both, with the same ids each time, as some servers
    do; to their results, and to anything else, it answers. `down`: it fails with a 500.
    """

    def __init__(self, name: str) -> None:
        super().__init__(lists_models=True, pairing=rules_for(name), answers=self._answer_to)
        self.name = name
        self.down = False

    def insist(self) -> None:
        """Be a server like OpenAI's, with a strict chat template."""
        self._pairing = rules_for("compatible")

    def environ(self) -> tuple[str, str]:
        """The setting that leads to it."""
        origin = self.base_url.removesuffix("/v1")
        match self.name:
            case "ollama":
                return "OLLAMA_HOST", origin
            case "anthropic":
                return "ANTHROPIC_BASE_URL", origin
        return f"{self.name.upper()}_BASE_URL", self.base_url

    def asked(self, message_id: str) -> list[Body]:
        """What it was asked for a message, in order."""
        return [
            request.json
            for request in self.requests
            if request.headers.get("x-client-request-id") == message_id
        ]

    def _answer_to(self, request: Request) -> Answer:
        if request.method == "GET":
            return Answer([b'{"models":[]}'], content_type="application/json")
        if self.down:
            return error_answer(500, "Down.")
        body: Body = request.json
        said = _anthropic if self.is_anthropic else _openai
        calls = last_said(body["messages"][-1]) == "tools" and bool(body.get("tools"))
        return Answer(said(str(body["model"]), calls=calls))

    @property
    def is_anthropic(self) -> bool:
        """Whether it speaks Anthropic's format."""
        return self.name == "anthropic"


def last_said(message: Body) -> str | None:
    """The user's last words in a message; None: it is not the user's, or ends in a result."""
    content = message["content"]
    if message["role"] != "user":
        return None
    if not isinstance(content, str):
        content = content[-1].get("text", "\n")
    return str(content).splitlines()[-1]


def results_in(body: Body) -> list[str]:
    """What the tools returned, as a request's history has it, in order."""
    found = []
    for message in body["messages"]:
        content = message["content"]
        if message["role"] == "tool":
            found.append(content)
        elif not isinstance(content, str):
            found += [
                block["content"][0]["text"] for block in content or () if "tool_use_id" in block
            ]
    return found


def _openai(model: str, *, calls: bool) -> list[bytes]:
    def chunk(delta: Body, finish: str | None = None) -> bytes:
        return sse(completion_chunk(model, choices=choice(delta, finish)))

    if not calls:
        return [chunk({"content": ANSWERED}), chunk({}, "stop"), sse("[DONE]")]
    parts = [chunk({"content": word}) for word in _WORDS]
    for index, (call_id, name, arguments) in enumerate(CALLS):
        function = {"name": name, "arguments": json.dumps(arguments)}
        parts.append(chunk({"tool_calls": [{"index": index, "id": call_id, "function": function}]}))
    return [*parts, chunk({}, "tool_calls"), sse("[DONE]")]


def _anthropic(_model: str, *, calls: bool) -> list[bytes]:
    blocks: list[tuple[Body, Sequence[Body]]] = []
    if calls:
        signed = {"type": "signature_delta", "signature": "c2lnbmVk"}
        thought = {"type": "thinking_delta", "thinking": "So."}
        blocks.append(({"type": "thinking", "thinking": "", "signature": ""}, [thought, signed]))
    empty = {"type": "text", "text": ""}
    texts = _WORDS if calls else (ANSWERED,)
    blocks += [(empty, [{"type": "text_delta", "text": text}]) for text in texts]
    for call_id, name, arguments in CALLS if calls else ():
        block = {"type": "tool_use", "id": call_id, "name": name, "input": {}}
        said = {"type": "input_json_delta", "partial_json": json.dumps(arguments)}
        blocks.append((block, [said]))
    parts = [_event("message_start", message={"usage": {"input_tokens": 9}})]
    for index, (start, deltas) in enumerate(blocks):
        parts.append(_event("content_block_start", index=index, content_block=start))
        parts += [_event("content_block_delta", index=index, delta=delta) for delta in deltas]
        parts.append(_event("content_block_stop", index=index))
    reason = {"stop_reason": "tool_use" if calls else "end_turn"}
    ended = _event("message_delta", delta=reason, usage={"output_tokens": 5})
    return [*parts, ended, _event("message_stop")]


def _event(kind: str, **members: object) -> bytes:
    return f"event: {kind}\ndata: {json.dumps({'type': kind, **members})}\n\n".encode()
