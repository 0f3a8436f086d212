"""RTMP and RTMPS pushed to another server."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Final
from urllib.parse import quote, urlsplit

from mist.core.added_audio import AddedAudio
from mist.core.muxer import Muxer
from mist.core.rtmp_chunks import RtmpPublishMuxer
from mist.errors import AccessDenied, ConfigError, MistError, PeerClosed
from mist.formats.audio_override import MAX_FILE_BYTES, SILENCES, AddedTrack, parse_adts_file, silence, split_selector
from mist.formats.rtmp import messages as m
from mist.formats.rtmp.client import ClientSession
from mist.formats.tracks import AUDIO, TrackInfo
from mist.net.dial import turn
from mist.net.documents import fetch
from mist.net.remote_schemes import without_password
from mist.net.rtmp_client import RtmpAddress, publish
from mist.outputs.base import Capability, choose_tracks, selection
from mist.outputs.base.film_publishing import FilmPublishing, is_film
from mist.outputs.base.publishing import (
    LOST,
    PLAYBACK,
    Destination,
    Publishing,
    let_go,
    push_pace,
    take_left,
    tracks_mask,
    wait_fresh_key,
)
from mist.stream.parameters import PlaybackParameters, parse_parameters
from mist.stream.push import PushPlan, PushStatus, split_target
from mist.stream.services import OutputServices

CATCH_UP_RATE: Final = 1.25
# At least between two requests to connect elsewhere; a server that asks more often has failed.
MOVE_SECONDS: Final = 5.0
_OWN: Final = frozenset({"host", "app", "stream", "graceless", "keepts", "verify", "vidmap", "audmap"})
_CODECS: Final = Capability(
    name="RTMP push",
    friendly="",
    desc="",
    codecs=(
        (("H264",), ("AAC", "MP3"), ("JSON",)),
        (("H264", "HEVC", "AV1", "VP9"), ("AAC", "MP3", "opus", "FLAC", "AC3", "EAC-3"), ("JSON",)),
    ),
)


def parse_target(target: str) -> tuple[RtmpAddress, dict[str, str]]:
    """Return where a target is and the parameters of playing. What is no parameter of ours stays in the name of the stream there.

    Raises ConfigError.
    """
    url, given = split_target(target)
    theirs = [f"{quote(name)}={quote(value)}" for name, value in given.items() if name not in _OWN | PLAYBACK]
    if theirs:
        url += ("&" if urlsplit(url).query else "?") + "&".join(theirs)
    address = RtmpAddress.parse(
        url, app=given.get("app", ""), stream=given.get("stream", ""), verify=given.get("verify", "1") != "0"
    )
    parameters = {name: value for name, value in given.items() if name in PLAYBACK}
    parameters["graceless"] = "1" if "graceless" in given else ""
    parameters["keepts"] = "1" if "keepts" in given else ""
    return address, parameters


class RtmpPush:
    """Pushes to `rtmp://` and `rtmps://` targets."""

    connector = "RTMP"

    def shares(self, target: str) -> bool:
        return True

    async def push(self, services: OutputServices, plan: PushPlan, status: PushStatus) -> None:
        """Publish the stream there until it ends. Raises MistError: refused, unreachable, no track fits, the server went away."""
        address, given = parse_target(plan.target)
        own_audio, other_audio = split_selector(given.get("audio", ""))
        if other_audio:
            given["audio"] = own_audio or "none"
        parameters = parse_parameters(given)
        moved_at = -MOVE_SECONDS
        while True:
            try:
                if not await _go_on(services, status, parameters, given, other_audio):
                    await _publish(services, plan, status, address, parameters, given, other_audio)
            except _Moved as moved:
                if services.loop.time() - moved_at < MOVE_SECONDS:
                    raise
                moved_at, address = services.loop.time(), address.moved_to(moved.tc_url)
                parameters = _from_now_on(parameters, status)
                services.log.info("The server asks to connect again, to %s", address.tc_url)
            else:
                return


async def _publish(
    services: OutputServices,
    plan: PushPlan,
    status: PushStatus,
    address: RtmpAddress,
    parameters: PlaybackParameters,
    given: Mapping[str, str],
    other_audio: Sequence[str],
) -> None:
    """Connect, and publish until the stream ends. other_audio: to be added to a stream that has none. Raises MistError."""
    reader = await services.open_stream(plan.stream)
    record = services.open_record("OUTPUT:RTMP", address.host)
    record.set_stream(reader.name)
    try:
        choice = await choose_tracks(services, reader, parameters, _CODECS, "", tracks_mask(given))
        status.tracks = list(choice.indexes)
        added = None
        if other_audio and not any(reader.track(index).info.type == AUDIO for index in choice.indexes):
            added = await _open_audio(other_audio)
        pace = {}
        if reader.live:
            await wait_fresh_key(services, given, choice)
            pace = await push_pace(services, parameters, given, choice, CATCH_UP_RATE)
        async with turn():
            dialled, session = await publish(address)
        destination, saved = _destination(session, given), {"added": added is not None}
        make_muxer = partial(_make_muxer, session, given, added)
        if reader.live:
            publishing = Publishing(services, destination, status, saved)
            await publishing.run(dialled, choice, f"RTMP push {plan.number}", make_muxer, record, alone=True, **pace)
        else:
            film = FilmPublishing(services, destination, status, parameters, saved)
            await film.run(dialled, choice, make_muxer, record)
    finally:
        record.close()
        services.close_stream(reader)


async def _go_on(
    services: OutputServices,
    status: PushStatus,
    parameters: PlaybackParameters,
    given: Mapping[str, str],
    other_audio: Sequence[str],
) -> bool:
    """Go on with the connection of another process until the stream ends; False when there is none. Raises MistError."""
    found = take_left(services, status, lambda state: ClientSession.restore(state, time.monotonic()))
    if found is None:
        return False
    left, saved, session = found
    try:
        added = await _open_audio(other_audio) if saved.get("added") else None
    except MistError as error:
        services.log.warning(LOST, error)
        let_go(left)
        return False
    except BaseException:
        let_go(left)
        raise
    destination = _destination(session, given)
    if is_film(saved):
        film = FilmPublishing(services, destination, status, parameters, {"added": added is not None})
        return await film.go_on(left, saved, partial(_make_muxer, session, given, added))
    publishing = Publishing(services, destination, status, {})
    return await publishing.go_on(
        left,
        saved,
        lambda _reader, tracks: _make_muxer(session, given, added, tracks),
        lambda reader, states: selection(reader, parameters, _CODECS, "", tracks_mask(given))(states),
    )


def _destination(session: ClientSession, given: Mapping[str, str]) -> Destination:
    return Destination("RTMP", session, _heard, partial(_farewell, session, given))


def _farewell(session: ClientSession, given: Mapping[str, str]) -> bytes:
    if given["graceless"]:
        return b""
    session.close()
    return session.take_output()


def _make_muxer(
    session: ClientSession, given: Mapping[str, str], added: AddedTrack | None, tracks: list[TrackInfo]
) -> Muxer:
    """Return what makes the bytes. added: audio that the stream does not have."""
    all_tracks = tracks if added is None else [*tracks, added.info]
    muxer = RtmpPublishMuxer(all_tracks, message_stream=session.stream_id, keep_times=bool(given["keepts"]))
    return muxer if added is None else AddedAudio(muxer, len(tracks), added.info, added.frames)


async def _open_audio(items: Sequence[str]) -> AddedTrack:
    """Return the first audio of a list that can be had. Raises MistError."""
    trouble: MistError | None = None
    for item in items:
        if item.lower() in SILENCES:
            return silence()
        try:
            document = await asyncio.to_thread(fetch, item, MAX_FILE_BYTES)
            assert document is not None
            return parse_adts_file(document.data)
        except MistError as error:
            trouble = ConfigError(f"the audio {without_password(item)}: {error}", path="target")
    assert trouble is not None
    raise trouble


class _Moved(PeerClosed):
    """The server wants that the push connects again. tc_url: where to, as of `ReconnectRequested`."""

    def __init__(self, tc_url: str) -> None:
        super().__init__("the server asks to connect again")
        self.tc_url = tc_url


def _from_now_on(parameters: PlaybackParameters, status: PushStatus) -> PlaybackParameters:
    """Return the parameters of a push that goes on in another connection: it begins where this one was, if it has no length."""
    if status.last_ms is None or parameters.duration_us is not None:
        return parameters
    return replace(parameters, start_us=status.last_ms * 1000, start_unix_s=None)


def _heard(event: Any) -> None:
    """Raise what a server's event means for a push."""
    if isinstance(event, m.ReconnectRequested):
        raise _Moved(event.tc_url)
    if isinstance(event, m.Refused):
        raise AccessDenied(event.description or event.code)
    if isinstance(event, m.StreamEnded):
        raise PeerClosed("the server ended the stream")


PUSH: Final = RtmpPush()
