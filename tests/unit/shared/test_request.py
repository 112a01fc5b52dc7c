"""An accepted request comes back from Redis as it went in, and rubbish is refused."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rejoin.shared.content import FilePart, ImagePart, TextPart
from rejoin.shared.request import ResponseFormat, StoredRequest, StoredTurn

texts = st.text(st.characters(exclude_categories=["Cs"]))
numbers = st.floats(allow_nan=False, allow_infinity=False)
parts = st.builds(TextPart, texts) | st.builds(ImagePart, texts) | st.builds(FilePart, texts, texts)
contents = texts | st.lists(parts).map(tuple)
schemas = st.dictionaries(texts, texts | st.lists(texts))
requests = st.builds(
    StoredRequest,
    model=texts,
    turns=st.lists(
        st.builds(StoredTurn, st.sampled_from(["system", "user", "assistant"]), contents, texts)
    ),
    system=st.none() | contents,
    temperature=st.none() | numbers,
    top_p=st.none() | numbers,
    max_tokens=st.none() | st.integers(),
    stop=st.lists(texts),
    reasoning_effort=st.none() | texts,
    response_format=st.none() | st.builds(ResponseFormat, texts, schemas),
    metadata=st.dictionaries(texts, texts),
)


@given(requests)
def test_a_request_comes_back_as_it_was_stored(request_: StoredRequest) -> None:
    assert StoredRequest.decode(request_.encode().encode()) == request_


@pytest.mark.parametrize(
    "stored",
    [
        b"",
        b"not json",
        b"null",
        b"[]",
        b"7",
        b"{}",
        b'{"turns":[]}',
        b'{"model":"demo/echo"}',
        b'{"model":"demo/echo","turns":null}',
        b'{"model":"demo/echo","turns":[1]}',
        b'{"model":"demo/echo","turns":[{"role":"user"}]}',
        b'{"model":"demo/echo","turns":[],"of_a_later_version":1}',
        b'{"model":"demo/echo","turns":[{"role":"user","content":"a","parts":[]}]}',
        b"\xff\xfe",
    ],
)
def test_what_another_version_wrote_is_refused_as_documented(stored: bytes) -> None:
    with pytest.raises((ValueError, KeyError, TypeError)):
        StoredRequest.decode(stored)


def test_a_number_that_json_has_not_is_not_stored() -> None:
    with pytest.raises(ValueError, match="JSON"):
        StoredRequest("demo/echo", [], temperature=float("nan")).encode()
