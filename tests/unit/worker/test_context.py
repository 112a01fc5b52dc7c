"""What an accepted request becomes for a provider."""

from rejoin.shared.request import StoredRequest, StoredTurn
from rejoin.worker.answer import model_request


def test_system_comes_before_every_other_turn() -> None:
    request = StoredRequest(
        "demo/echo", [StoredTurn("system", "a"), StoredTurn("user", "b")], system="first"
    )
    made = model_request(request, "m1")
    assert [(turn.role, turn.content) for turn in made.turns] == [
        ("system", "first"), ("system", "a"), ("user", "b"),
    ]  # fmt: skip
