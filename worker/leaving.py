"""Ends a worker's process, also where a task of the operator's own does not heed its end.

A tool or an agent may swallow every cancellation. asyncio would wait for it for ever as its loop
closes, and an operator for the worker.
"""

import asyncio
import logging
import os
import sys
from typing import Final

GRACE_SECONDS: Final = 1.0

_log = logging.getLogger(__name__)


async def leave() -> None:
    """Cancel all other tasks; where one has not ended within a second, end the process with 0.

    The last thing that a worker does: whatever has to be closed is.
    """
    left = asyncio.all_tasks() - {asyncio.current_task()}
    for task in left:
        task.cancel()
    if left:
        _, left = await asyncio.wait(left, timeout=GRACE_SECONDS)
    if left:
        _log.warning("%d tasks do not heed their end; the process ends without them", len(left))
        logging.shutdown()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(0)
