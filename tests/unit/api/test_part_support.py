"""Which images and files a request's models are known not to take."""

import pytest

from rejoin.api.part_support import check_parts
from rejoin.shared import catalogue
from rejoin.shared.catalogue import Capabilities, Model
from rejoin.shared.content import FilePart, ImagePart, TextPart
from rejoin.shared.errors import BadRequest
from rejoin.shared.request import StoredRequest, StoredTurn

IMAGE = ImagePart("https://a.example/b.png")
PDF = FilePart("a.pdf", "data:application/pdf;base64,YQ==")
NOTE = FilePart("a.txt", "data:text/plain;base64,YQ==")
SEES, BLIND = "openai/sees", "openai/blind"


@pytest.fixture(autouse=True)
def known(monkeypatch: pytest.MonkeyPatch) -> None:
    def model(name: str, *, vision: bool) -> Model:
        can = Capabilities(vision=vision)
        return Model(name, "openai", name.partition("/")[2], 1, 1, can)

    models = {SEES: model(SEES, vision=True), BLIND: model(BLIND, vision=False)}
    monkeypatch.setattr(catalogue, "known", lambda: models)


def refused(
    model: str, *parts: TextPart | ImagePart | FilePart, single: bool = False, to: str | None = None
) -> BadRequest:
    with pytest.raises(BadRequest) as raised:
        check_parts(request(model, *parts, to=to), single=single)
    return raised.value


def request(
    model: str, *parts: TextPart | ImagePart | FilePart, to: str | None = None
) -> StoredRequest:
    turns = [StoredTurn("user", "a"), StoredTurn("user", (TextPart("b"), *parts))]
    return StoredRequest(model, turns[-1:] if to else turns, fallbacks=[to] if to else [])


@pytest.mark.parametrize("part", [IMAGE, PDF, NOTE])
def test_a_model_that_sees_takes_everything(part: ImagePart | FilePart) -> None:
    check_parts(request(SEES, part), single=False)


@pytest.mark.parametrize("part", [IMAGE, PDF, NOTE])
def test_of_an_unknown_model_the_provider_decides(part: ImagePart | FilePart) -> None:
    check_parts(request("openai/unheard-of", part), single=False)


@pytest.mark.parametrize(("part", "what"), [(IMAGE, "images"), (PDF, "files")])
def test_a_part_that_the_model_cannot_take_is_named_by_its_index(
    part: ImagePart | FilePart, what: str
) -> None:
    error = refused(BLIND, TextPart("c"), part)
    assert error.field == ("messages", 1, "content", 2)
    assert error.status == 422
    assert f"{BLIND} takes no {what}" in error.mend


def test_in_an_input_the_part_is_named_there() -> None:
    assert refused(BLIND, IMAGE, single=True, to=SEES).field == ("input", 1)


def test_a_text_file_is_text_to_a_model_that_does_not_see() -> None:
    check_parts(request(BLIND, NOTE), single=False)


@pytest.mark.parametrize("part", [IMAGE, PDF, NOTE])
def test_echo_takes_text_alone(part: ImagePart | FilePart) -> None:
    assert refused("demo/echo?rate=5", part).field == ("messages", 1, "content", 1)
    check_parts(request("demo/echo", TextPart("c")), single=False)


def test_a_fallback_that_cannot_take_a_part_is_named() -> None:
    error = refused(SEES, IMAGE, single=True, to=BLIND)
    assert error.field == ("fallbacks", 0)
    assert "input.1" in error.mend


@pytest.mark.parametrize(
    ("part", "said"),
    [
        (IMAGE, "ollama/any takes images as data: URLs alone"),
        (PDF, "ollama/any takes no files but text"),
    ],
)
def test_what_ollama_has_no_way_to_take_is_refused(part: ImagePart | FilePart, said: str) -> None:
    error = refused("ollama/any", part)
    assert error.mend.startswith(said)
    assert error.field == ("messages", 1, "content", 1)


def test_what_ollama_may_take_is_its_own_to_decide() -> None:
    picture = ImagePart("data:image/png;base64,YQ==")
    check_parts(request("ollama/any", picture, NOTE), single=False)
