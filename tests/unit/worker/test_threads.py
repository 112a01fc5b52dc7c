"""A tool's threads: blocking functions beside the loop, a bounded number, whatever they do."""

import asyncio
import contextvars
import threading
from collections.abc import Callable, Iterator

import pytest

from rejoin.shared.errors import ToolError
from rejoin.worker.tools.threads import Threads

BOUND_SECONDS = 10


class Held:
    """A blocking function that returns when it is let go."""

    def __init__(self) -> None:
        self.began = threading.Semaphore(0)
        self.go = threading.Event()
        self.running = 0
        self.most = 0
        self._lock = threading.Lock()

    def __call__(self) -> str:
        with self._lock:
            self.running += 1
            self.most = max(self.most, self.running)
        self.began.release()
        assert self.go.wait(BOUND_SECONDS)
        with self._lock:
            self.running -= 1
        return "returned"


@pytest.fixture
def held() -> Iterator[Held]:
    made = Held()
    yield made
    made.go.set()


async def begun(held: Held, count: int) -> None:
    for _ in range(count):
        assert await asyncio.to_thread(held.began.acquire, timeout=BOUND_SECONDS)


async def bounded(threads: Threads, function: Callable[[], object]) -> object:
    async with asyncio.timeout(BOUND_SECONDS):
        return await threads.run(function)


async def test_what_a_function_returns_and_raises_comes_back() -> None:
    threads = Threads(1)

    def fails() -> None:
        raise ValueError("told")

    assert await bounded(threads, lambda: 1) == 1
    with pytest.raises(ValueError, match="told"):
        await bounded(threads, fails)
    with pytest.raises(SystemExit):
        await bounded(threads, lambda: exit(1))
    assert await bounded(threads, lambda: 2) == 2


async def test_the_loop_goes_on_meanwhile_and_context_is_seen() -> None:
    seen = contextvars.ContextVar[str]("seen")
    seen.set("here")
    loop = asyncio.get_running_loop()

    def asks_the_loop() -> object:
        async def answer() -> str:
            return seen.get()

        return asyncio.run_coroutine_threadsafe(answer(), loop).result(BOUND_SECONDS), seen.get()

    assert await bounded(Threads(1), asks_the_loop) == ("here", "here")


async def test_no_more_run_at_once_than_there_are_threads(held: Held) -> None:
    threads = Threads(3)
    running = [asyncio.create_task(bounded(threads, held)) for _ in range(10)]
    await begun(held, 3)
    held.go.set()
    assert await asyncio.gather(*running) == ["returned"] * 10
    assert held.most == 3


async def test_a_cancelled_call_leaves_its_thread_and_drops_what_it_returns(held: Held) -> None:
    threads = Threads(2)
    running = asyncio.create_task(bounded(threads, held))
    await begun(held, 1)
    running.cancel()
    await asyncio.wait([running], timeout=BOUND_SECONDS / 2)
    assert running.cancelled()
    assert await bounded(threads, lambda: "another") == "another"


async def test_hung_calls_use_up_the_threads_of_their_own_tool_alone(held: Held) -> None:
    threads, others = Threads(2), Threads(2)
    hung = [asyncio.create_task(bounded(threads, held)) for _ in range(2)]
    await begun(held, 2)
    for running in hung:
        running.cancel()
    await asyncio.wait(hung)
    with pytest.raises(ToolError, match="2 earlier calls of this tool never returned"):
        await bounded(threads, lambda: "not run")
    assert await bounded(others, lambda: "runs") == "runs"


async def test_threads_that_return_late_are_used_again(held: Held) -> None:
    threads = Threads(1)
    late = asyncio.create_task(bounded(threads, held))
    await begun(held, 1)
    late.cancel()
    await asyncio.wait([late])
    with pytest.raises(ToolError):
        await bounded(threads, lambda: "not run")
    held.go.set()
    async with asyncio.timeout(BOUND_SECONDS):
        while True:
            try:
                assert await bounded(threads, lambda: "runs") == "runs"
            except ToolError:
                await asyncio.sleep(0.01)
            else:
                return


@pytest.mark.parametrize("given", [False, True], ids=["before", "after"])
async def test_who_is_cancelled_as_it_is_given_a_place_takes_none_with_it(given: bool) -> None:
    threads = Threads(1)
    await threads._place()
    waiting = asyncio.create_task(threads._place())
    await asyncio.sleep(0)
    threads._pass_on()
    if given:
        asyncio.get_running_loop().call_soon(waiting.cancel)
    else:
        waiting.cancel()
    await asyncio.wait([waiting], timeout=BOUND_SECONDS)
    assert waiting.cancelled()
    assert await bounded(threads, lambda: "runs") == "runs"


async def test_who_is_cancelled_in_the_queue_is_passed_over(held: Held) -> None:
    threads = Threads(1)
    first = asyncio.create_task(bounded(threads, held))
    await begun(held, 1)
    waiting = [asyncio.create_task(bounded(threads, lambda: "ran")) for _ in range(2)]
    await asyncio.sleep(0)
    waiting[0].cancel()
    held.go.set()
    await asyncio.wait([first, *waiting], timeout=BOUND_SECONDS / 2)
    assert await waiting[1] == "ran"


async def test_a_call_that_returned_late_is_not_counted_as_hung_any_more(held: Held) -> None:
    threads = Threads(1)
    late = asyncio.create_task(bounded(threads, held))
    await begun(held, 1)
    late.cancel()
    await asyncio.wait([late])
    held.go.set()
    async with asyncio.timeout(BOUND_SECONDS):
        while threads._taken:  # noqa: ASYNC110  it is a thread that counts it down
            await asyncio.sleep(0.01)
    again = Held()
    running = asyncio.create_task(bounded(threads, again))
    await begun(again, 1)
    waiting = asyncio.create_task(bounded(threads, lambda: "ran"))
    await asyncio.sleep(0)
    again.go.set()
    await asyncio.wait([running, waiting], timeout=BOUND_SECONDS / 2)
    assert await waiting == "ran"


def test_a_loop_that_was_closed_leaves_the_threads_to_the_next_one(held: Held) -> None:
    threads = Threads(1)

    async def leaves() -> None:
        running = asyncio.create_task(threads.run(held))
        waits = asyncio.create_task(threads.run(lambda: "not run"))
        await begun(held, 1)
        running.cancel()
        waits.cancel()
        await asyncio.wait([running, waits])

    async def comes_later() -> object:
        held.go.set()
        async with asyncio.timeout(BOUND_SECONDS):
            while True:
                try:
                    return await threads.run(lambda: "runs")
                except ToolError:
                    await asyncio.sleep(0.01)

    asyncio.run(leaves())
    assert asyncio.run(comes_later()) == "runs"


async def test_a_thread_does_not_keep_the_process(held: Held) -> None:
    running = asyncio.create_task(bounded(Threads(1), held))
    await begun(held, 1)
    ours = [thread for thread in threading.enumerate() if thread.name == "rejoin tool"]
    assert ours != []
    assert all(thread.daemon for thread in ours)
    held.go.set()
    await running
