"""What the fuzz targets of the codecs share: ask everything of one track, with hostile init data and payload."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

from mist.errors import RemoteProtocolError
from mist.formats import codecs
from mist.formats.tracks import TrackInfo
from tests.support.codec_samples import split_seed

# A completed track is a few words and its init data; what the parsers list is bounded by their input.
MAX_GROWTH = 64


def attempt(parse: Callable[[bytes], Any], data: bytes) -> Any:
    """Return what parse makes of data, or None where it refuses it."""
    try:
        result = parse(data)
        return list(result) if hasattr(result, "__next__") else result
    except RemoteProtocolError:
        return None


def _ignore(ask: Callable[[], Any], _data: bytes) -> Any:
    return ask()


def ask_everything(kind: str, codec: str, data: bytes, parsers: Iterable[Callable[[bytes], Any]]) -> None:
    """Run each parser over data and its two halves, and every question about a track of this codec."""
    init_data, payload = split_seed(data)
    for part in (data, init_data, payload):
        for parse in parsers:
            attempt(parse, part)
    track = TrackInfo(kind, codec, init_data=init_data)
    for ask in (codecs.codec_string, codecs.has_bframes, codecs.profile_level):
        attempt(partial(_ignore, partial(ask, track)), b"")
    for known in (track, track.changed(init_data=b"")):
        codecs.is_keyframe(known, payload)
        codecs.refreshed(known, payload)
        changed = codecs.parameter_sets(known, payload)
        if changed is not None:
            assert len(changed) <= len(init_data) + len(payload) + MAX_GROWTH
            again = known.changed(init_data=changed)
            assert codecs.parameter_sets(again, payload) is None, "the same packet changes the track twice"
            assert codecs.codec_string(codecs.complete(again))
        complete = attempt(partial(codecs.complete, known), payload)
        if complete is not None:
            assert codecs.complete(complete, payload) == complete
