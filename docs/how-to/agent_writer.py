"""An agent in 20 lines, the model `agent/writer`: `REJOIN_AGENTS=agent_writer.py rejoin dev`."""

from rejoin.worker.agents import Data, Run, Step, agent

MODEL = "demo/echo?rate=0"  # or that of any provider, such as openai/gpt-5-mini
PARTS = ("Outline", "Draft", "Final version")


@agent
async def writer(run: Run):
    """Write a text in parts; a worker that is lost costs no more than the present one."""
    done = run.checkpoint or []
    for part in PARTS[len(done) :]:
        yield Data("progress", {"part": part, "of": len(PARTS)})
        prompt = f"{part} of {run.turns[-1].content}. "
        async with run.model(MODEL, prompt) as answer:
            async for piece in answer:
                yield piece
        done = [*done, answer.text]
        yield Step(checkpoint=done)
