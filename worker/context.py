"""What a model is shown: the path to the request's parent, cut to its window, and the request."""

from collections.abc import Sequence
from typing import Final, NamedTuple

from rejoin.shared import catalogue, own_lists
from rejoin.shared.db.rows import StoredMessage
from rejoin.shared.errors import ProviderError
from rejoin.shared.events import dumps
from rejoin.shared.own_lists import ListedModel
from rejoin.shared.part_support import without_lacks
from rejoin.shared.record import Record
from rejoin.shared.request import StoredRequest, StoredTurn
from rejoin.worker.ancestors import ancestors
from rejoin.worker.answered import AnsweredStep, steps_of, turns_of_steps
from rejoin.worker.continuing import Continuation
from rejoin.worker.kit import Kit, insist
from rejoin.worker.pairing import mended
from rejoin.worker.progress import Partial
from rejoin.worker.providers.base import ModelRequest, Tool, Turn

_CHARS_A_TOKEN: Final = 4
_NO_EFFORT: Final = (None, "none")


class Window(NamedTuple):
    """A model's limits, in tokens; None: nobody said."""

    context: int
    most_output: int | None


class Context:
    """What the calls of one message show their models; the path is read once, at the first.

    `tools` are those that all of them offer.
    """

    def __init__(
        self, kit: Kit, found: Record, request: StoredRequest, tools: Sequence[Tool] = ()
    ) -> None:
        self._kit = kit
        self._record = found
        self._request = request
        self._tools = tools
        self._path: list[StoredMessage] | None = None

    async def model_request(
        self,
        model: str,
        steps: Sequence[AnsweredStep] = (),
        shown: Sequence[Turn] = (),
        continuation: Continuation | None = None,
    ) -> ModelRequest:
        """Return the call for `provider/name`, its model's own name still to be filled in.

        `steps` are the message's own so far, and `shown` turns that follow them; `continuation`
        is the text of the present step that the call is to go on with.

        Raises:
            NotFound: a message of the path is nowhere any more.
        """
        reference = self._record.message_id
        provider = model.partition("/")[0]
        if continuation is None:
            shown = [*turns_of_steps(steps, provider), *shown]
        else:
            shown = continuation.turns(steps, provider)
        if self._request.parent_id is None:
            return model_request(self._request, reference, shown=shown, tools=self._tools)
        if self._path is None:
            self._path = await ancestors(self._kit, self._record, self._request)
        listed = await self._listed(model)
        sees = None if listed.capabilities is None else "vision" in listed.capabilities
        path = turns_of(self._path, model, sees=sees)
        window = _window(model, listed)
        return model_request(
            self._request, reference, path=path, shown=shown, tools=self._tools, window=window
        )

    async def continuation(self, model: str, partial: Partial | None) -> Continuation | None:
        """How `provider/name` is shown the text that it is to go on with; None: there is none.

        Asked by a turn is every model that thinks: most take no text to go on with then, and some
        would take their own answer for thoughts.
        """
        if partial is None:
            return None
        thinks = partial.thought or self._request.reasoning_effort not in _NO_EFFORT
        by_prefix = not thinks and await self._continues(model)
        return Continuation(partial.text, by_prefix)

    async def _continues(self, model: str) -> bool:
        try:
            provider, name = self._kit.providers.find(model)
        except ProviderError:  # its call says so
            return False
        return provider.continues(name) or (await self._own_entry(model)).continues

    async def _listed(self, model: str) -> ListedModel:
        """The model as its provider lists it, where our own catalogue does not know it whole."""
        known = catalogue.find(model)
        if known is None or known.context_window is None:
            return await self._own_entry(model)
        return ListedModel(model)

    async def _own_entry(self, model: str) -> ListedModel:
        """The model as its provider lists it; its name alone where it does not."""
        provider, _, name = model.partition("?")[0].partition("/")
        redis = self._kit.redis
        lists = await insist(self._record.message_id, lambda: own_lists.kept(redis, [provider]))
        for listed in lists.get(provider, ()):
            if listed.name == name:
                return listed
        return ListedModel(name)


def model_request(
    request: StoredRequest,
    reference: str,
    *,
    path: Sequence[Turn] = (),
    shown: Sequence[Turn] = (),
    tools: Sequence[Tool] = (),
    window: Window | None = None,
) -> ModelRequest:
    """The model call that an accepted request asks for, its model still to be named.

    `path` are the turns before the request's own, which are cut to the model's `window` (None: it
    is not known), and `shown` those after them.
    """
    system = [] if request.system is None else [StoredTurn("system", request.system)]
    first, own = (
        [Turn(turn.role, turn.content) for turn in some] for some in (system, request.turns)
    )
    if window is not None:
        fixed = sum(turn.chars for turn in (*first, *shown)) + _format_chars(request)
        fixed += sum(len(tool.description) + len(dumps(dict(tool.parameters))) for tool in tools)
        path = cut(path, own, _room(window, request.max_tokens) - fixed)
    made = ModelRequest(
        model="",
        turns=[*first, *path, *own, *shown],
        temperature=request.temperature,
        top_p=request.top_p,
        max_tokens=request.max_tokens,
        stop=tuple(request.stop),
        reasoning_effort=request.reasoning_effort,
        response_format=request.response_format,
        tools=tools,
        reference=reference,
    )
    return mended(made)


def turns_of(path: Sequence[StoredMessage], model: str, *, sees: bool | None = None) -> list[Turn]:
    """The messages as turns for `model`: thinking of its own provider's, parts that it can take.

    `sees` is what its provider's list says of images.
    """
    provider = model.partition("/")[0]
    turns: list[Turn] = []
    for message in path:
        if message.content is not None:  # sent with a request, an assistant's turn too
            taken = without_lacks(message.content, model, sees=sees)
            turns.append(Turn(message.role, taken))
        elif message.role == "assistant":
            turns += turns_of_steps(steps_of(message), provider)
    return turns


def cut(path: Sequence[Turn], own: Sequence[Turn], most_chars: int) -> list[Turn]:
    """Leave out the oldest turns of `path`, so that it and `own` have `most_chars` or fewer.

    What is left begins with a user's turn, so no tool's result comes without its call. System
    turns stay, and so do the newest user's turn and what follows it, however long they are.
    """
    left = most_chars - sum(turn.chars for turn in own)
    left -= sum(turn.chars for turn in path if turn.role == "system")
    others = [0 if turn.role == "system" else turn.chars for turn in path]
    begin = len(path) if _first_role(own) == "user" else None
    for at in reversed(range(len(path))):
        left -= others[at]
        if left < 0 and begin is not None:
            kept = begin
            return [turn for at, turn in enumerate(path) if at >= kept or turn.role == "system"]
        if path[at].role == "user":
            begin = at
    return list(path)


def _window(model: str, listed: ListedModel) -> Window | None:
    """The model's limits by our own catalogue, else by its provider's list."""
    for known in (catalogue.find(model), listed):
        if known is not None and known.context_window is not None:
            return Window(known.context_window, known.max_output_tokens)
    return None


def _first_role(turns: Sequence[Turn]) -> str | None:
    return next((turn.role for turn in turns if turn.role != "system"), None)


def _room(window: Window, max_tokens: int | None) -> int:
    """How many characters the window has beside the answer."""
    # A model whose answer may be as long as its window would have no room for a question.
    most = min(window.most_output or 0, window.context // 2) if max_tokens is None else max_tokens
    return (window.context - most) * _CHARS_A_TOKEN


def _format_chars(request: StoredRequest) -> int:
    wanted = request.response_format
    return 0 if wanted is None else len(dumps(wanted.schema))
