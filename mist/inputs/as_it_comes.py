"""Live sources in the format of a file: named pipes, and what http servers send without end."""

from __future__ import annotations

from typing import Final

from mist.formats.containers import CONTAINERS, by_name
from mist.inputs.base.as_it_comes import play_pipe, play_url
from mist.stream.capability import Capability
from mist.stream.services import InputServices

PIPE_PREFIX: Final = "stream://"
FORMATS: Final = ("ts", "mkv", "flv", "ogg", "aac", "mp3")  # that are sent without end
READABLE: Final = tuple(container for container in CONTAINERS if container.make_demuxer is not None)


class PipeInput:
    """The input for named pipes by the prefix that says so. One whose path has the suffix of a file needs none."""

    capability = Capability(
        name="Pipe",
        friendly="Named pipe",
        desc="Plays what programs write into a named pipe, one after another, as a live stream",
        source_match=(f"{PIPE_PREFIX}*",),
        always_match=(f"{PIPE_PREFIX}*",),
        codecs=((("+*",),),),
    )

    async def run(self, services: InputServices) -> None:
        """Play the pipe. Raises MistError."""
        await play_pipe(services, services.source[len(PIPE_PREFIX) :], READABLE)


class EndlessInput:
    """The input for addresses that are live whatever the server says of their length."""

    capability = Capability(
        name="HTTPLive",
        friendly="Live stream over http",
        desc=f"Plays what a server sends as a live stream: http-FORMAT:// and https-FORMAT://, with {', '.join(FORMATS)}",
        source_match=tuple(f"{scheme}-{name}://*" for scheme in ("http", "https") for name in FORMATS),
        always_match=tuple(f"{scheme}-{name}://*" for scheme in ("http", "https") for name in FORMATS),
        priority=10,
        codecs=((("+*",),),),
    )

    async def run(self, services: InputServices) -> None:
        """Play the address. Raises MistError."""
        scheme, _, rest = services.source.partition("://")
        plain, _, name = scheme.partition("-")
        container = by_name(name)
        assert container is not None
        await play_url(services, f"{plain}://{rest}", (container,))


INPUT: Final = (PipeInput(), EndlessInput())
