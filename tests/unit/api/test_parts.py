"""Content parts of a body: what is taken, and what each wrong one is told."""

import base64
from typing import Any

import pytest
from pydantic import ValidationError

from rejoin.api.schemas import to_request
from rejoin.shared.content import Content, FilePart, ImagePart, TextPart
from rejoin.shared.request import StoredRequest

PIXEL = base64.b64encode(b"\x89PNG some bytes").decode()
TEXT = {"type": "text", "text": "a"}


def image(url: Any, **more: Any) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": url, **more}}


def file(data: Any, name: Any = "a.pdf") -> dict[str, Any]:
    return {"type": "file", "file": {"filename": name, "file_data": data}}


def request(**fields: Any) -> StoredRequest:
    return to_request({"model": "openai/x"} | fields, default_model=None)


def taken(*parts: Any) -> Content:
    return request(input=list(parts)).turns[0].content


def refused(**fields: Any) -> list[tuple[list[str | int], str]]:
    with pytest.raises(ValidationError) as raised:
        request(**fields)
    return [([*item["loc"]], item["msg"]) for item in raised.value.errors()]


def test_text_images_and_files_reach_the_worker_in_their_order() -> None:
    data = f"data:image/png;base64,{PIXEL}"
    pdf = f"data:application/pdf;base64,{PIXEL}"
    assert taken(TEXT, image("https://a.example/b.png?c=d#e"), file(pdf), image(data)) == (
        TextPart("a"),
        ImagePart("https://a.example/b.png?c=d#e"),
        FilePart("a.pdf", pdf),
        ImagePart(data),
    )


def test_parts_survive_the_store() -> None:
    made = request(input=[TEXT, image("https://a.example/")], system=[TEXT])
    assert StoredRequest.decode(made.encode().encode()) == made
    assert made.system == (TextPart("a"),)


def test_every_turn_takes_a_list_of_text() -> None:
    turns = [{"role": role, "content": [TEXT, TEXT]} for role in ("system", "assistant", "user")]
    for turn in request(messages=turns).turns:
        assert turn.content == (TextPart("a"), TextPart("a"))


@pytest.mark.parametrize("kind", ["png", "jpeg", "gif", "webp"])
def test_images_of_every_kind_that_providers_take(kind: str) -> None:
    url = f"data:image/{kind};base64,{PIXEL}"
    assert taken(image(url)) == (ImagePart(url),)


@pytest.mark.parametrize(
    "kind", ["application/pdf", "text/plain", "text/markdown", "text/csv", "text/html"]
)
def test_files_of_every_kind_that_providers_take(kind: str) -> None:
    url = f"data:{kind};base64,{base64.b64encode(b'%PDF').decode()}"
    assert taken(file(url)) == (FilePart("a.pdf", url),)


def test_a_data_url_is_stored_in_the_one_way_that_providers_read() -> None:
    assert taken(image(f"DATA:image/PNG;base64,{PIXEL}")) == (
        ImagePart(f"data:image/png;base64,{PIXEL}"),
    )
    assert taken(file("data:text/plain; charset=UTF-8;base64,YQ==")) == (
        FilePart("a.pdf", "data:text/plain;base64,YQ=="),
    )


URL, DATA = ["image_url", "url"], ["file", "file_data"]


@pytest.mark.parametrize(
    ("part", "below", "told"),
    [
        ("a", [], "a part is an object"),
        ({}, ["type"], "text, image_url or file"),
        ({"type": "audio"}, ["type"], "text, image_url or file"),
        ({"type": ["text"]}, ["type"], "text, image_url or file"),
        ({"type": "text"}, ["text"], "required"),
        ({"type": "text", "text": 5}, ["text"], "string"),
        ({**TEXT, "cache_control": {}}, ["cache_control"], "not permitted"),
        ({"type": "image_url", "image_url": "https://a.example/"}, ["image_url"], "ImageUrl"),
        (image("https://a.example/", detail="low"), ["image_url", "detail"], "not permitted"),
        (image(""), URL, "https://"),
        (image("http://a.example/b.png"), URL, "https://"),
        (image("ftp://a.example/b.png"), URL, "https://"),
        (image("file:///etc/passwd"), URL, "https://"),
        (image("https://"), URL, "a host"),
        (image("https://[::1"), URL, "a host"),
        (image("https://a.example/b c"), URL, "white space"),
        (image("https://a.example/\n"), URL, "white space"),
        (image("https://a.example/" + "a" * 8192), URL, "characters"),
        (image("data:image/png;base64,"), URL, "0 bytes"),
        (image("data:image/png;base64"), URL, "data:image/png;base64,…"),
        (image(f"data:image/png,{PIXEL}"), URL, "data:image/png;base64,…"),
        (image(f"data:;base64,{PIXEL}"), URL, "image/png, image/jpeg"),
        (image(f"data:image/svg+xml;base64,{PIXEL}"), URL, "image/png, image/jpeg"),
        (image(f"data:application/pdf;base64,{PIXEL}"), URL, "image/png, image/jpeg"),
        (image("data:image/png;base64,a"), URL, "base64"),
        (image("data:image/png;base64,YQ"), URL, "padding"),
        (image("data:image/png;base64,YQ==YQ=="), URL, "base64"),
        (image("data:image/png;base64,YW\nFh"), URL, "base64"),
        (image("data:image/png;base64,é"), URL, "base64"),
        (image("data:image/png;base64,_-_-"), URL, "base64"),
        (file(f"data:application/zip;base64,{PIXEL}"), DATA, "application/pdf, text/plain"),
        (file("https://a.example/b.pdf"), DATA, "data:application/pdf;base64,…"),
        (file("data:application/pdf;base64,"), DATA, "0 bytes"),
        (file("data:text/plain;base64,/w=="), DATA, "UTF-8"),
        (file("data:text/plain;charset=utf-16;base64,YQ=="), DATA, "UTF-8"),
        (file("data:text/plain;base64,YQ==", ""), ["file", "filename"], "at least 1"),
        (file("data:text/plain;base64,YQ==", "a\0"), ["file", "filename"], "control"),
        (file("data:text/plain;base64,YQ==", "a" * 256), ["file", "filename"], "at most 255"),
        ({"type": "file", "file": {"file_id": "f"}}, ["file", "filename"], "required"),
    ],
)
def test_a_wrong_part_is_named_by_its_place(part: Any, below: list[str], told: str) -> None:
    loc, msg = refused(messages=[{"role": "user", "content": [TEXT, part]}])[0]
    assert loc == ["messages", 0, "content", 1, *below]
    assert told in msg
    assert refused(input=[part])[0][0] == ["input", 0, *below]


@pytest.mark.parametrize("content", [None, 5, True, {"type": "text", "text": "a"}, []])
def test_content_is_a_string_or_parts(content: Any) -> None:
    ((loc, _),) = refused(messages=[{"role": "user", "content": content}])
    assert loc == ["messages", 0, "content"]


@pytest.mark.parametrize("part", [image("https://a.example/"), file("data:text/plain;base64,YQ==")])
def test_only_the_users_turns_take_images_and_files(part: Any) -> None:
    for role in ("system", "assistant"):
        turns = [{"role": role, "content": [TEXT, part]}, {"role": "user", "content": "a"}]
        ((loc, msg),) = refused(messages=turns)
        assert loc == ["messages", 0, "content", 1]
        assert "only a user's turn" in msg
    assert [loc for loc, _ in refused(input="a", system=[TEXT, TEXT, part])] == [["system", 2]]


def test_every_wrong_part_is_told_at_once() -> None:
    found = refused(input=[image("http://a"), TEXT, {"type": "x"}], temperature="hot")
    assert [loc for loc, _ in found] == [
        ["input", 0, *URL], ["input", 2, "type"], ["temperature"],
    ]  # fmt: skip
