"""uvicorn's HTTP protocol, but one that declines an Upgrade by going on as if there was none."""

import re
from typing import Final

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

_UPGRADE: Final = re.compile(rb"\r\n(?i:upgrade):")
_IGNORED: Final = b"\r\nignored:"  # as long: what follows is counted in bytes


class HttpProtocol(HttpToolsProtocol):
    """Hides the header from httptools, which else takes all that follows for another protocol.

    The JDK's HTTP client offers h2c with each of its requests, and the body of a POST was lost
    (Kludex/uvicorn issue 2722). Of what is JSON nothing is changed: it has no line that begins so.
    """

    def data_received(self, data: bytes) -> None:
        """Take what the client sent."""
        super().data_received(_UPGRADE.sub(_IGNORED, data))
