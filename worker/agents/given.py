"""What an agent is given: the conversation, its checkpoint, ways to call models and tools."""

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Protocol

from rejoin.shared.errors import ToolError
from rejoin.shared.events import Usage, dumps
from rejoin.shared.request import ResponseFormat
from rejoin.shared.spent import decimal_string
from rejoin.worker.agents.model_answer import ModelAnswer
from rejoin.worker.providers.base import ModelRequest, Tool, Turn


class Models(Protocol):
    """Calls providers' models for an agent, and adds what they used to the message's bill."""

    def call(
        self, model: str, request: ModelRequest, tools: Sequence[str | Tool]
    ) -> AbstractAsyncContextManager[ModelAnswer]:
        """Call `provider/name`; see `Run.model`."""

    def used(self, usage: Usage) -> None:
        """Add what the agent used without us."""


class Tools(Protocol):
    """Runs tools for an agent, and tells clients of it."""

    async def call(self, name: str, arguments: object, broken: str | None = None) -> object:
        """Run one call; see `Run.tool`."""


@dataclass(frozen=True, slots=True)
class Run:
    """One run of an agent at a message.

    `turns` is the conversation up to the user's turn that is to be answered. `request` has the
    caller's settings: temperature, max_tokens, response_format and so on; None where the caller
    left them out. `checkpoint` is the value of the agent's last `Step`, None at first, and `step`
    the number of the step that begins, from 1. `attempt` tells runs of one message apart.
    """

    message_id: str
    conversation_id: str
    request: ModelRequest
    metadata: Mapping[str, str]
    checkpoint: object
    step: int
    attempt: int
    _models: Models = field(repr=False)
    _tools: Tools = field(repr=False)

    @property
    def turns(self) -> Sequence[Turn]:
        """The conversation, oldest first, the request's `system` before it."""
        return self.request.turns

    def model(
        self,
        model: str,
        turns: str | Sequence[Turn] | None = None,
        *,
        tools: Sequence[str | Tool] = (),
        temperature: float | None = None,
        top_p: float | None = None,
        max_tokens: int | None = None,
        stop: Sequence[str] = (),
        reasoning_effort: str | None = None,
        response_format: ResponseFormat | None = None,
    ) -> AbstractAsyncContextManager[ModelAnswer]:
        """Call a provider's model; its answer is read within an `async with`, piece by piece.

        `turns` are the conversation unless others are given; a text is one turn of the user's.
        `tools` are names of registered ones, or definitions. What the call uses is in the message's
        bill; the worker's deadlines for a first token and for silence hold, and a provider that
        fails before it gave anything is asked again as often as the worker's settings say.

        Raises:
            ProviderError: (where it is read) the provider could not, or would not.
            ToolError: there is no tool of such a name.
        """
        shown = self.turns if turns is None else turns
        request = ModelRequest(
            model="",
            turns=[Turn("user", shown)] if isinstance(shown, str) else list(shown),
            temperature=temperature,
            top_p=top_p,
            max_tokens=max_tokens,
            stop=tuple(stop),
            reasoning_effort=reasoning_effort,
            response_format=response_format,
            reference=self.message_id,
        )
        return self._models.call(model, request, tools)

    async def tool(self, name: str, arguments: Mapping[str, object] | None = None) -> object:
        """Run a registered tool, or one that came with the request, and return its result.

        Clients are told. A call whose result an earlier run of this step had is not run again: it
        has the same name and arguments, and is as many calls of that kind into the step. One that
        was started by a run that was lost follows its tool's `on_unknown_outcome`. Where a person
        has to consent, or the client runs the tool, the message waits without a worker: the agent
        is stopped here, and called again with its last checkpoint once there is an answer.

        Raises:
            ToolError: it failed, was refused, or there is no such tool; clients were told.
        """
        return await self._tools.call(name, {} if arguments is None else arguments)

    async def answers(self, answer: ModelAnswer) -> list[Turn]:
        """Run what a model asked for, side by side: the model's turn, and a turn for each result.

        To be added to the turns of the next model call. A tool that fails is told to the model.
        """
        results = await asyncio.gather(
            *(self._answer(answer, at) for at in range(len(answer.calls)))
        )
        return [answer.turn, *results]

    def used(
        self, *, input_tokens: int = 0, output_tokens: int = 0, cost_usd: Decimal | None = None
    ) -> None:
        """Add to the message's bill what the agent used by itself; no cost: it is not known."""
        cost = None if cost_usd is None else decimal_string(cost_usd)
        self._models.used(
            Usage(input_tokens=input_tokens, output_tokens=output_tokens, cost_usd=cost)
        )

    async def _answer(self, answer: ModelAnswer, at: int) -> Turn:
        asked = answer.calls[at]
        call_id = asked.call.tool_call_id
        try:
            result = await self._tools.call(asked.call.name, asked.call.arguments, asked.broken)
        except ToolError as error:
            return Turn("tool", str(error), tool_call_id=call_id, is_error=True)
        text = result if isinstance(result, str) else dumps(result)
        return Turn("tool", text, tool_call_id=call_id)
