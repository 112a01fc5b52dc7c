"""What Anthropic's Messages API refuses; sources in pairing_rules.py."""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

Body = Mapping[str, Any]

_NAME: Final = re.compile(r"[a-zA-Z0-9_-]{1,64}")
_ID: Final = re.compile(r"[a-zA-Z0-9_-]+")
_THINKING: Final = ("thinking", "redacted_thinking")


def anthropic(body: Body) -> Iterator[str]:
    """Anthropic's messages."""
    messages = _merged(body["messages"])
    if not messages:
        yield "messages: at least one message is required"
    elif messages[0]["role"] != "user":
        yield 'messages: first message must use the "user" role'
    for at, message in enumerate(messages):
        yield from _anthropic_blocks(at, message, last=at == len(messages) - 1)
    yield from _anthropic_pairs(messages)
    yield from _anthropic_tools(body, messages)
    if body.get("thinking", {}).get("type") == "enabled":
        yield from _thought(messages)


def _anthropic_blocks(at: int, message: Body, *, last: bool) -> Iterator[str]:
    blocks, answers = message["content"], message["role"] == "assistant"
    if not blocks:
        yield (
            f"messages.{at}: all messages must have non-empty content except for the optional final"
            " assistant message"
        )
        return
    for number, block in enumerate(blocks):
        place = f"messages.{at}.content.{number}"
        if block["type"] == "tool_use":
            yield from _tool_use(place, block)
        for text in _texts(block):
            if not text:
                yield "messages: text content blocks must be non-empty"
            elif not text.strip():
                yield "messages: text content blocks must contain non-whitespace text"
        if block["type"] in _THINKING and not block.get("signature") and not block.get("data"):
            yield f"{place}.thinking.signature: Field required"
        if (block["type"] in {"tool_use", *_THINKING}) is not answers and block["type"] in {
            "tool_use", "tool_result", "image", "document", *_THINKING,
        }:  # fmt: skip
            yield f"messages.{at}: `{block['type']}` blocks cannot be in {message['role']} messages"
    if answers:
        yield from _anthropic_answer(at, blocks, last=last)


def _anthropic_answer(at: int, blocks: Sequence[Body], *, last: bool) -> Iterator[str]:
    kinds = [block["type"] for block in blocks]
    if kinds[-1] in _THINKING:
        yield f"messages.{at}: The final block in an assistant message cannot be `thinking`."
    if any(kind in _THINKING for kind in kinds) and kinds[0] not in _THINKING:
        yield (
            f"messages.{at}.content.0: If an assistant message contains any thinking blocks, the"
            f" first block must be `thinking` or `redacted_thinking`. Found `{kinds[0]}`."
        )
    text = blocks[-1].get("text", "")
    if last and text != text.rstrip():
        yield "messages: final assistant content cannot end with trailing whitespace"


def _tool_use(place: str, block: Body) -> Iterator[str]:
    if not _ID.fullmatch(block["id"]):
        yield f"{place}.tool_use.id: String should match pattern '^[a-zA-Z0-9_-]+$'"
    if not _NAME.fullmatch(block["name"]):
        yield f"{place}.tool_use.name: String should match pattern '^[a-zA-Z0-9_-]{{1,64}}$'"
    if not isinstance(block["input"], dict):
        yield f"{place}.tool_use.input: Input should be a valid dictionary"


def _anthropic_pairs(messages: Sequence[Body]) -> Iterator[str]:
    uses = [_ids(message, "tool_use", "id") for message in messages]
    everyone = [call_id for ids in uses for call_id in ids]
    if len(set(everyone)) < len(everyone):
        yield "messages: `tool_use` ids must be unique"
    for at, asked in enumerate([[], *uses]):
        message = messages[at] if at < len(messages) else {"content": []}
        answered = _ids(message, "tool_result", "tool_use_id")
        first = [block["type"] for block in message["content"]][: len(answered)]
        for call_id in answered:
            if call_id not in asked:
                yield (
                    f"messages.{at}.content: unexpected `tool_use_id` found in `tool_result`"
                    f" blocks: {call_id}. Each `tool_result` block must have a corresponding"
                    " `tool_use` block in the previous message."
                )
            if answered.count(call_id) > 1:
                yield (
                    f"messages.{at}.content: each tool_use must have a single result. Found"
                    f" multiple `tool_result` blocks with id: {call_id}"
                )
        if not set(asked) <= set(answered) or any(kind != "tool_result" for kind in first):
            yield (
                f"messages.{at}: `tool_use` ids were found without `tool_result` blocks immediately"
                f" after: {', '.join(asked)}. Each `tool_use` block must have a corresponding"
                " `tool_result` block in the next message."
            )


def _anthropic_tools(body: Body, messages: Sequence[Body]) -> Iterator[str]:
    tools = body.get("tools")
    kinds = {block["type"] for message in messages for block in message["content"]}
    if not tools and kinds & {"tool_use", "tool_result"}:
        yield "Requests which include `tool_use` or `tool_result` blocks must define tools"
    if not tools and "tool_choice" in body:
        yield "tool_choice: may only be specified while providing tools."
    names = [tool["name"] for tool in tools or ()]
    if len(set(names)) < len(names):
        yield "tools: Tool names must be unique."
    forced = body.get("tool_choice", {}).get("type") in {"any", "tool"}
    if forced and body.get("thinking", {}).get("type") == "enabled":
        yield "Thinking may not be enabled when tool_choice forces tool use."


def _thought(messages: Sequence[Body]) -> Iterator[str]:
    """With a budget, the steps under way begin with a thought."""
    last = max((at for at, said in enumerate(messages) if said["role"] == "assistant"), default=-1)
    if last < 0 or not _ids(messages[last], "tool_use", "id"):
        return
    at = last
    while at >= 2 and all(block["type"] == "tool_result" for block in messages[at - 1]["content"]):
        at -= 2
    found = messages[last]["content"][0]["type"]
    if found not in _THINKING and messages[at]["content"][0]["type"] not in _THINKING:
        yield (
            f"messages.{last}.content.0.type: Expected `thinking` or `redacted_thinking`, but found"
            f" `{found}`. When `thinking` is enabled, a final `assistant` message must start with a"
            " thinking block (preceeding the lastmost set of `tool_use` and `tool_result` blocks)."
        )


def _merged(messages: Sequence[Body]) -> list[dict[str, Any]]:
    """As the API reads them: messages of one role that follow each other are one."""
    merged: list[dict[str, Any]] = []
    for message in messages:
        content = _parts(message["content"])
        if merged and merged[-1]["role"] == message["role"]:
            merged[-1]["content"] += content
        else:
            merged.append({"role": message["role"], "content": list(content)})
    return merged


def _ids(message: Body, kind: str, member: str) -> list[str]:
    return [block[member] for block in message["content"] if block["type"] == kind]


def _texts(block: Body) -> Iterator[str]:
    if block["type"] == "text":
        yield block["text"]
    elif block["type"] == "tool_result":
        yield from (part["text"] for part in _parts(block.get("content", ())))


def _parts(content: Any) -> Sequence[Body]:
    return [{"type": "text", "text": content}] if isinstance(content, str) else content
