"""SIGTERM to an API with a client that has stopped reading: it is cut off, in one line of log."""

import array
import asyncio
import fcntl
import socket
import termios

from tests.support.caller import caller, until
from tests.support.processes import Stack

TEXT = "more than the kernel keeps for a client that does not read " * 1500


def unread_bytes(sock: socket.socket) -> int:
    count = array.array("i", [0])
    fcntl.ioctl(sock.fileno(), termios.FIONREAD, count)
    return count[0]


async def test_a_client_that_does_not_read_is_cut_off_without_a_traceback(stack: Stack) -> None:
    looks = [-1, -2, -3]

    async def nothing_more_comes() -> bool:
        looks[:] = [*looks[1:], unread_bytes(stuck)]
        return looks[-1] > 0 and len(set(looks)) == 1

    async with caller(stack.url) as api:
        message_id = await api.accepted(TEXT)
        await api.log(message_id)
    with socket.socket() as stuck:
        stuck.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        stuck.connect(("127.0.0.1", stack.api.port))
        head = f"GET /api/messages/{message_id}/events HTTP/1.1\r\nHost: rejoin\r\n\r\n"
        stuck.sendall(head.encode())
        await until(nothing_more_comes, every=0.3)
        stack.api.signal_stop()
        assert await asyncio.to_thread(stack.api.wait, 6) == 0
    stack.api.assert_no_traceback()
    assert "was cut off" in stack.api.said()
