"""AudioSpecificConfig and ADTS."""

from __future__ import annotations

from mist.errors import LocalProtocolError, RemoteProtocolError
from mist.formats import aac
from mist.formats.tracks import AUDIO
from tests.fuzz.codec_harness import ask_everything, attempt


def fuzz(data: bytes) -> None:
    """Parse data as configuration and as ADTS; what can be built again says the same."""
    ask_everything(AUDIO, "AAC", data, (aac.parse_config, aac.parse_adts))
    for part in (data, data[2:]):
        config = attempt(aac.parse_config, part)
        if config is None:
            continue
        try:
            again = aac.parse_config(aac.build_config(config))
        except LocalProtocolError:
            continue
        assert (again.object_type, again.sample_rate_hz, again.channels) == (
            config.object_type,
            config.sample_rate_hz,
            config.channels,
        )
        _check_adts(config)
    header = attempt(aac.parse_adts, data)
    if header is not None:
        attempt(lambda payload: aac.adts_config(header, payload), data[header.header_bytes :])


def _check_adts(config: aac.AudioSpecificConfig) -> None:
    try:
        frame = aac.build_adts_header(config, 100)
    except RemoteProtocolError:
        return
    header = aac.parse_adts(frame)
    assert header.sample_rate_hz == config.core_sample_rate_hz
    assert header.frame_bytes == len(frame) + 100
