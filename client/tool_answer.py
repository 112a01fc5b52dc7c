"""The answer to a tool's call that waits, as the server takes it."""

from typing import Final

from rejoin.shared.errors import BadRequest

NO_RESULT: Final = object()  # None is a result


def body_of(*, approve: bool | None, result: object, error: str | None) -> dict[str, object]:
    """Return the body of an answer: of the three, the one that was given.

    Raises:
        BadRequest: it is not one of them.
    """
    given: dict[str, object] = {}
    if approve is not None:
        given["approve"] = approve
    if result is not NO_RESULT:
        given["result"] = result
    if error is not None:
        given["error"] = error
    if len(given) != 1:
        raise BadRequest("answer with one of approve, result and error")
    return given
