"""What an MCP server's answer to a call is as a tool's result: JSON, without images or files."""

import mcp_types as types

from rejoin.shared.errors import ToolError


def result_of(answer: types.CallToolResult) -> object:
    """Return the structured content where there is some, else the text; null where there is none.

    Raises:
        ToolError: the server says that the tool failed.
    """
    if answer.is_error:
        raise ToolError(_text(answer) or "the tool failed, and says no more")
    if answer.structured_content is not None:
        return answer.structured_content
    return _text(answer) if answer.content else None


def _text(answer: types.CallToolResult) -> str:
    return "\n".join(_told(block) for block in answer.content)


def _told(block: types.ContentBlock) -> str:
    match block:
        case types.TextContent():
            return block.text
        case types.ImageContent() | types.AudioContent():
            return f"[{block.type}, {block.mime_type}, {_bytes(block.data)}]"
        case types.ResourceLink():
            return f"[resource {block.name}, {block.uri}]"
    resource = block.resource
    if isinstance(resource, types.TextResourceContents):
        return resource.text
    kind = resource.mime_type or "of an unknown type"
    return f"[resource {resource.uri}, {kind}, {_bytes(resource.blob)}]"


def _bytes(base64: str) -> str:
    return f"{len(base64) * 3 // 4 - base64[-2:].count('=')} bytes"
