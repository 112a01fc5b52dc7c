"""Shows a model the text that an attempt before gave, so that it goes on from there.

By the provider's own means, a last turn that is the assistant's, where its model has them and was
not thinking; else by a turn that asks for it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from rejoin.shared.catalogue import is_agent
from rejoin.shared.errors import ProviderError
from rejoin.shared.events import FailureCode
from rejoin.shared.fold import Message
from rejoin.shared.request import StoredRequest
from rejoin.worker.answered import AnsweredStep, turns_of_steps
from rejoin.worker.overlap import Seam, last_words
from rejoin.worker.providers.base import Turn

CONTINUE: Final = "continue"
# Told to repeat them, a model shows by these words where its own go on: within a word, or not.
GO_ON: Final = (
    "[Your answer was cut off. Go on with it: write its last words, which stand below, once more"
    " exactly as they are, and then what comes after them. Write nothing before them, do not begin"
    " anew, and say nothing of the break.]\n\n"
)

_REFUSALS: Final = frozenset(
    {
        FailureCode.INVALID_REQUEST,
        FailureCode.CONTEXT_LENGTH_EXCEEDED,
        FailureCode.CONTENT_FILTER,
    }
)
_NO_SUCH_MODEL: Final = 404


@dataclass(frozen=True, slots=True)
class Continuation:
    """The text that a step's earlier calls gave, as its next one is to go on with it.

    `by_prefix`: the model goes on with a last turn that is the assistant's.
    """

    text: str
    by_prefix: bool

    def turns(self, steps: Sequence[AnsweredStep], provider: str) -> list[Turn]:
        """The steps and the text as turns for a model of `provider`'s."""
        # Without the white space at its end, which the templates of some models cut off anyway,
        # and which Anthropic refuses; the model then writes it again.
        shown = self.text.rstrip() if self.by_prefix else self.text
        turns = list(turns_of_steps([*steps, AnsweredStep(shown)], provider))
        if not self.by_prefix:
            turns.append(Turn("user", GO_ON + last_words(self.text)))
        return turns

    def seam(self) -> Seam:
        """What joins the model's answer to the text."""
        return Seam(self.text, repeats=not self.by_prefix)


def stays(request: StoredRequest, message: Message, model: str | None) -> bool:
    """Whether the text of a call that broke off stays for `model` to go on with.

    None: for the one that gave it. An agent has its own code, and text that is to fit a JSON
    schema is judged as a whole.
    """
    if request.recover != CONTINUE or request.response_format is not None:
        return False
    latest = message.attempts[-1]["model"] if message.attempts else request.model
    return not (is_agent(model or "") or is_agent(str(latest)))


def refuses(error: ProviderError) -> bool:
    """Whether a model that was shown a partial text may have refused the call for that."""
    return not error.retryable and error.code in _REFUSALS and error.status != _NO_SUCH_MODEL
