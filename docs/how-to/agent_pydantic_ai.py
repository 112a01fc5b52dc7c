"""A pydantic-ai agent behind Rejoin's stream, as the model `agent/assistant`.

Each step of its own is one of Rejoin's: a worker that is lost costs no more than the present one.
"""

from pydantic_ai import Agent, messages
from pydantic_ai.messages import ModelMessagesTypeAdapter
from pydantic_ai.models.test import TestModel

from rejoin.worker.agents import (
    Reasoning,
    Run,
    Step,
    ToolCall,
    ToolError,
    ToolResult,
    ToolStart,
    agent,
)

Agent.instrument_all(False)  # it reports to no telemetry
geographer = Agent(TestModel())  # asks for each tool once, and says what they returned


@geographer.tool_plain
def population(city: str) -> int:
    """How many people live there."""
    return 4_253_000


@agent
async def assistant(run: Run):
    """Pass on what the library's stream says; its messages so far are the checkpoint."""
    history = ModelMessagesTypeAdapter.validate_python(run.checkpoint or [])
    prompt = None if history else run.turns[-1].content
    async with geographer.iter(prompt, message_history=history) as work:
        begun = False
        async for node in work:
            if Agent.is_model_request_node(node) and begun:
                so_far = [*work.all_messages(), node.request]
                yield Step(ModelMessagesTypeAdapter.dump_python(so_far, mode="json"))
            if Agent.is_model_request_node(node) or Agent.is_call_tools_node(node):
                begun = True
                async with node.stream(work.ctx) as events:
                    async for event in events:
                        for said in words_of(event):
                            yield said
        run.used(
            input_tokens=work.result.usage.input_tokens,
            output_tokens=work.result.usage.output_tokens,
        )


def words_of(event):
    """What an event of pydantic-ai's stream is in Rejoin's words."""
    match event:
        case messages.PartStartEvent(part=messages.TextPart(content=text)):
            yield text
        case messages.PartDeltaEvent(delta=messages.TextPartDelta(content_delta=text)):
            yield text
        case messages.PartDeltaEvent(delta=messages.ThinkingPartDelta(content_delta=text)) if text:
            yield Reasoning(text)
        case messages.FunctionToolCallEvent(part=call):
            yield ToolCall(call.tool_call_id, call.tool_name, call.args_as_dict())
            yield ToolStart(call.tool_call_id, call.tool_name)
        case messages.FunctionToolResultEvent(part=messages.ToolReturnPart() as part):
            yield ToolResult(part.tool_call_id, part.tool_name, part.content)
        case messages.FunctionToolResultEvent(part=messages.RetryPromptPart() as part):
            yield ToolError(part.tool_call_id, part.tool_name, part.model_response())
