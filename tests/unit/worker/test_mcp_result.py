"""What an MCP server's answers become: JSON, with pictures and files described."""

import mcp_types as types
import pytest

from rejoin.shared.errors import ToolError
from rejoin.worker.tools.mcp_result import result_of

TEXT = types.TextContent(type="text", text="wörds")


def test_structured_content_is_the_result() -> None:
    answer = types.CallToolResult(content=[TEXT], structured_content={"at": [1, None]})
    assert result_of(answer) == {"at": [1, None]}


def test_texts_are_joined_and_everything_else_is_described() -> None:
    page = types.TextResourceContents(uri="file:///a.txt", text="a page")
    blob = types.BlobResourceContents(uri="file:///b.bin", blob="AAAA", mime_type="a/b")
    answer = types.CallToolResult(
        content=[
            TEXT,
            types.ImageContent(type="image", data="AAAAAA==", mime_type="image/png"),
            types.AudioContent(type="audio", data="AAAA", mime_type="audio/wav"),
            types.EmbeddedResource(type="resource", resource=page),
            types.EmbeddedResource(type="resource", resource=blob),
            types.ResourceLink(type="resource_link", name="more", uri="https://example.com/more"),
        ]
    )
    assert str(result_of(answer)).split("\n") == [
        "wörds",
        "[image, image/png, 4 bytes]",
        "[audio, audio/wav, 3 bytes]",
        "a page",
        "[resource file:///b.bin, a/b, 3 bytes]",
        "[resource more, https://example.com/more]",
    ]


def test_nothing_is_null() -> None:
    assert result_of(types.CallToolResult(content=[])) is None


@pytest.mark.parametrize(
    ("content", "said"),
    [([TEXT], "^wörds$"), ([], "^the tool failed, and says no more$")],
)
def test_an_error_is_the_tools_error(content: list[types.ContentBlock], said: str) -> None:
    with pytest.raises(ToolError, match=said):
        result_of(types.CallToolResult(content=content, is_error=True))
