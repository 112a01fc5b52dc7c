"""What the readers of all wire formats share: the body cut into events, and what is no answer."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from typing import ClassVar

from rejoin.worker.providers import error_objects
from rejoin.worker.providers.base import Chunk
from rejoin.worker.providers.chunk_json import NoChunk
from rejoin.worker.providers.sse import EventStream, NotAnEventStream


class StreamReader(ABC):
    """One call's answer, from the body's bytes to chunks; see exchange.Reader.

    `no_chunk` and `no_end` are the words for a part that is none and for a body that broke off.
    """

    no_chunk: ClassVar[str]
    no_end: ClassVar[str]

    def __init__(self) -> None:
        self.finished = False
        self.ended = False
        self._events = EventStream()

    def feed(self, received: bytes) -> Iterator[Chunk]:
        """Yield the chunks that these bytes complete; they may be cut anywhere.

        Half a surrogate pair is passed on as it is. Bytes that are no UTF-8 become U+FFFD, as
        they do in every event stream (WHATWG HTML, 9.2.6).

        Raises:
            ProviderError: what an error object says, or `provider_protocol` for what is no part
                of an answer, or for a tool that was not offered.
        """
        try:
            yield from self._read(self._events.feed(received))
        except NotAnEventStream as error:
            raise error_objects.protocol(str(error)) from None
        except NoChunk:
            raise error_objects.protocol(self.no_chunk) from None

    def end(self) -> Iterator[Chunk]:
        """Yield what the body's end completes.

        Raises:
            ProviderError: `provider_protocol` where the answer is not finished.
        """
        try:
            yield from self._read(self._events.end())
        except NoChunk:
            pass  # cut off in mid-event
        except NotAnEventStream as error:
            raise error_objects.protocol(str(error)) from None
        if not self.finished:
            raise error_objects.protocol(self.no_end)

    @abstractmethod
    def _read(self, events: Iterable[bytes]) -> Iterator[Chunk]:
        """Yield the chunks that the data of these events are; none once `ended`."""
