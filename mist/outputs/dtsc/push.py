"""DTSC pushed to another server, plain or over TLS, and recorded into files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Final
from urllib.parse import unquote, urlsplit

from mist import __version__
from mist.core.dtsc import DtscMuxer
from mist.errors import AccessDenied, ConfigError, PeerClosed
from mist.formats import dtsc_session as d
from mist.net.dial import client_context, dial, talk, turn
from mist.net.remote_schemes import scheme_of
from mist.outputs.base import Choice, choose_tracks, selection
from mist.outputs.base.film_publishing import FilmPublishing, is_film
from mist.outputs.base.publishing import (
    PLAYBACK,
    Destination,
    Publishing,
    push_pace,
    take_left,
    tracks_mask,
    wait_fresh_key,
)
from mist.outputs.base.recording_push import RecordingPush
from mist.outputs.dtsc.connection import CAPABILITY, DEFAULT_PORT, player_pace
from mist.outputs.dtsc.players import player_muxer
from mist.stream.names import sanitise
from mist.stream.parameters import PlaybackParameters, parse_parameters
from mist.stream.push import PushPlan, PushStatus, split_target
from mist.stream.services import OutputServices

SCHEMES: Final = ("dtsc", "dtscs")
PASSWORDS: Final = ("pass", "pw", "password")  # the first that is there counts


@dataclass(frozen=True, slots=True)
class DtscAddress:
    """Where a stream is published: `dtsc://[[user:]password@]host[:port][/stream]`. given: the parameters."""

    host: str
    port: int
    stream: str
    password: str
    secure: bool
    given: Mapping[str, str]

    def __repr__(self) -> str:
        return f"DtscAddress({self.host}:{self.port}/{self.stream})"

    @classmethod
    def parse(cls, target: str, own_name: str) -> DtscAddress:
        """Read a target. own_name: of the stream, which it has there if the target names none. Raises ConfigError."""
        url, given = split_target(target)
        try:
            parts = urlsplit(url)
            host, port = parts.hostname or "", parts.port or DEFAULT_PORT
        except ValueError as error:
            raise ConfigError(f"{target} is no address: {error}", path="target", value=target) from None
        if not host or parts.scheme not in SCHEMES:
            raise ConfigError(f"{target} is no DTSC address: dtsc://HOST/STREAM", path="target", value=target)
        password = next((given[name] for name in PASSWORDS if given.get(name)), "")
        in_url = unquote(parts.username or "") if parts.password is None else unquote(parts.password)
        path = unquote(parts.path).strip("/")
        return cls(host, port, sanitise(path) if path else own_name, password or in_url, parts.scheme == "dtscs", given)


class _Talk:
    """What the server says: before the media, and while they are sent."""

    def __init__(self) -> None:
        self.knows_exact_times = False

    def is_started(self, event: d.Event) -> bool:
        """Tell whether the server takes the stream. Raises AccessDenied if not."""
        if isinstance(event, d.Greeted):
            self.knows_exact_times = event.version.startswith("mist/")
        elif isinstance(event, d.PeerFailed):
            raise AccessDenied(event.text or "the server refused")
        return isinstance(event, d.Acknowledged)

    def heard(self, event: d.Event) -> None:
        """Raise PeerClosed when the server does not want more."""
        if isinstance(event, d.PeerFailed):
            raise PeerClosed(f"the server says: {event.text}")


class DtscPush:
    """Pushes to `dtsc://` and `dtscs://` targets, and records into `.dtsc` files."""

    connector = "DTSC"

    def __init__(self) -> None:
        self._recording = RecordingPush(self.connector)

    def shares(self, target: str) -> bool:
        return scheme_of(target) in SCHEMES

    async def push(self, services: OutputServices, plan: PushPlan, status: PushStatus) -> None:
        """Send the stream there until it ends. Raises MistError."""
        push = self._publish if self.shares(plan.target) else self._recording.push
        await push(services, plan, status)

    async def _publish(self, services: OutputServices, plan: PushPlan, status: PushStatus) -> None:
        """Publish the stream there until it ends. Raises MistError: refused, unreachable, no track fits, the server went away."""
        address = DtscAddress.parse(plan.target, plan.stream)
        parameters = parse_parameters({name: value for name, value in address.given.items() if name in PLAYBACK})
        if not await _go_on(services, status, parameters, tracks_mask(address.given)):
            await _begin(services, plan, status, address, parameters)


async def _begin(
    services: OutputServices,
    plan: PushPlan,
    status: PushStatus,
    address: DtscAddress,
    parameters: PlaybackParameters,
) -> None:
    """Connect, and publish until the stream ends. Raises MistError."""
    given = address.given
    tls = client_context(given.get("verify", "1") != "0") if address.secure else None
    sync = given.get("sync", "0") not in ("0", "false")
    reader = await services.open_stream(plan.stream)
    record = services.open_record("OUTPUT:DTSC", address.host)
    record.set_stream(reader.name)
    try:
        choice = await choose_tracks(services, reader, parameters, CAPABILITY, "", tracks_mask(given))
        status.tracks = list(choice.indexes)
        pace = await _pace(services, parameters, given, choice) if reader.live else {}
        session = d.PushingSession(address.stream, f"mist/{__version__}", address.password, sync)
        async with turn():
            dialled, said = await dial(address.host, address.port, tls), _Talk()
            await talk(dialled, session, said.is_started)
        destination, saved = _destination(session, said), {"exact": said.knows_exact_times}
        if not reader.live:
            film = FilmPublishing(services, destination, status, parameters, saved)
            await film.run(dialled, choice, partial(DtscMuxer, exact=said.knows_exact_times), record)
            return
        publishing = Publishing(services, destination, status, saved)
        options: dict[str, Any] = {"by_time": sync, **pace}
        make_muxer = partial(player_muxer, reader, exact=said.knows_exact_times)
        await publishing.run(dialled, choice, f"DTSC push {plan.number}", make_muxer, record, **options)
    finally:
        record.close()
        services.close_stream(reader)


async def _pace(
    services: OutputServices, parameters: PlaybackParameters, given: Mapping[str, str], choice: Choice
) -> dict[str, Any]:
    """Return what `Fanout.join` needs for a live stream, once the push may begin. Raises NoSuitableTrack."""
    await wait_fresh_key(services, given, choice)
    if given.get("pushdelay") or "realtime" in given:
        return await push_pace(services, parameters, given, choice)
    return player_pace(parameters, choice)


def _destination(session: d.PushingSession, said: _Talk) -> Destination:
    return Destination("DTSC", session, said.heard, lambda: b"")


async def _go_on(services: OutputServices, status: PushStatus, parameters: PlaybackParameters, mask: int) -> bool:
    """Go on with the connection of another process until the stream ends; False when there is none. Raises MistError."""
    found = take_left(services, status, d.PushingSession.restore)
    if found is None:
        return False
    left, saved, session = found
    destination = _destination(session, _Talk())
    if is_film(saved):
        exact = bool(saved["exact"])
        film = FilmPublishing(services, destination, status, parameters, {"exact": exact})
        return await film.go_on(left, saved, partial(DtscMuxer, exact=exact))
    publishing = Publishing(services, destination, status, {})
    return await publishing.go_on(
        left,
        saved,
        partial(player_muxer, exact=bool(saved.get("exact"))),
        lambda reader, states: selection(reader, parameters, CAPABILITY, "", mask)(states),
    )


PUSH: Final = DtscPush()
