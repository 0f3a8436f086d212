"""The exception tree of mist; imports nothing else of it.

Everything a peer, a file or an operator can cause is a `MistError`. They are caught in three places only: the
connection's run wrapper, the input supervisor and the API command frame. Anything else that arrives there is a defect.
"""

from __future__ import annotations

import errno


class MistError(Exception):
    """Base of every error that mist raises on purpose.

    reason: the short machine word for logs, statistics, triggers and exit reasons.
    """

    reason = "UNKNOWN"

    def __init__(self, message: str = "", *, reason: str | None = None) -> None:
        super().__init__(message)
        if reason is not None:
            self.reason = reason


class RemoteProtocolError(MistError):
    """The peer or file broke its format. The engine that raised this is unusable afterwards.

    offset: byte position in the input where it went wrong, or None.
    spec: the clause that was broken, such as "RTMP 1.0 section 5.3.1.1", or "".
    """

    reason = "FORMAT_SPECIFIC"

    def __init__(
        self, message: str = "", *, offset: int | None = None, spec: str = "", reason: str | None = None
    ) -> None:
        super().__init__(message, reason=reason)
        self.offset = offset
        self.spec = spec


class TruncatedError(RemoteProtocolError):
    """The input ended inside a structure."""


class UnsupportedError(RemoteProtocolError):
    """The input is legal and asks for something that mist does not do."""

    reason = "UNSUPPORTED"


class LimitExceededError(RemoteProtocolError):
    """A length, depth or count from the wire is over its named limit."""


class LocalProtocolError(MistError):
    """An engine was asked for something illegal: our own defect."""

    reason = "INTERNAL_ERROR"


class StreamError(MistError):
    """A stream cannot do what was asked of it."""


class NotFound(StreamError):
    """No stream of this name is configured or running."""

    reason = "UNKNOWN"


class NotReady(StreamError):
    """The stream exists but does not play (yet)."""


class StreamEnded(NotReady):
    """The stream was just ending; it can be asked for again at once."""


class Busy(StreamError):
    """The stream already has a publisher."""


class NoSuitableTrack(StreamError):
    """No track of the stream fits the output or the selectors."""


class SharedMemoryFull(StreamError):
    """Shared memory, or the stream's share of it, is used up."""

    reason = "OUT_OF_MEMORY"


class AccessDenied(MistError):
    """Authentication, a token or a trigger said no."""

    reason = "UNAUTHORISED"


class ConfigError(MistError):
    """The configuration is wrong.

    path: dotted path of the key, such as "config.protocols[0].port"; value: what stands there.
    """

    reason = "READ_START_FAILURE"

    def __init__(self, message: str = "", *, path: str = "", value: object = None) -> None:
        super().__init__(message)
        self.path = path
        self.value = value


class TransportError(MistError, OSError):
    """A transport failed."""

    def __str__(self) -> str:
        return Exception.__str__(self)


class PeerClosed(TransportError):
    """The peer closed the connection."""

    reason = "CLEAN_REMOTE_CLOSE"


class WriteStalled(TransportError):
    """The peer takes no more bytes."""

    reason = "WRITE_FAILURE"


class ConnectTimeout(TransportError, TimeoutError):
    """The peer did not answer in time."""


def is_out_of_memory(error: BaseException | None) -> bool:
    """Tell whether an error says that this process may have no more memory, by a limit of its own or the machine's."""
    return isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno == errno.ENOMEM)
