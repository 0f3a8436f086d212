"""The RTMP handshake, both sides."""

from __future__ import annotations

import random

import pytest

from mist.errors import RemoteProtocolError, UnsupportedError
from mist.formats.rtmp.handshake import (
    BLOCK_BYTES,
    PLAYER_KEY,
    SERVER_KEY,
    ClientHandshake,
    ServerHandshake,
    answer_block,
    block_digest,
    digest_place,
    find_scheme,
    signed_block,
)


def entropy(seed: int = 1) -> random.Random:
    return random.Random(seed)


def test_places_of_the_digests() -> None:
    block = bytes(8) + b"\xff\xff\xff\xff" + bytes(760) + b"\x01\x02\x03\x04" + bytes(BLOCK_BYTES - 776)
    assert (digest_place(block, 0), digest_place(block, 1)) == (12 + 1020 % 728, 776 + 10)


def test_golden_digest() -> None:
    block = bytes(BLOCK_BYTES)
    assert block_digest(block, 0, PLAYER_KEY).hex().startswith("48568ca3")


@pytest.mark.parametrize("scheme", [None, 0, 1])
def test_both_sides(scheme: int | None) -> None:
    server = ServerHandshake(entropy(1).randbytes)
    client = ClientHandshake(entropy(2).randbytes, scheme)
    c0c1 = client.take_output()
    assert len(c0c1) == 1 + BLOCK_BYTES and find_scheme(c0c1[1:], PLAYER_KEY) == scheme
    assert server.feed(c0c1) == b""
    answer = server.take_output()
    assert len(answer) == 1 + 2 * BLOCK_BYTES and answer[0] == 3
    s1, s2 = answer[1 : 1 + BLOCK_BYTES], answer[1 + BLOCK_BYTES :]
    assert s1[:4] == bytes(4) and find_scheme(s1, SERVER_KEY) == scheme
    if scheme is None:
        assert s2 == c0c1[1:]
    else:
        place = digest_place(c0c1[1:], scheme)
        assert s2 == answer_block(s2, c0c1[1:][place : place + 32], SERVER_KEY)
    assert client.feed(answer + b"more") == b"more" and client.done
    c2 = client.take_output()
    assert len(c2) == BLOCK_BYTES and (scheme is not None or c2 == s1)
    assert server.feed(c2 + b"rest") == b"rest" and server.done


def test_every_split() -> None:
    client = ClientHandshake(entropy(2).randbytes, 1)
    c0c1 = client.take_output()
    for cut in range(0, len(c0c1) + 1, 61):
        server = ServerHandshake(entropy(1).randbytes)
        server.feed(c0c1[:cut])
        server.feed(c0c1[cut:])
        assert len(server.take_output()) == 1 + 2 * BLOCK_BYTES
        for at in range(BLOCK_BYTES):
            assert server.feed(b"x") == b"" and server.done == (at == BLOCK_BYTES - 1)


def test_a_version_without_a_digest_gets_an_echo() -> None:
    """Encoders made from old librtmp send a version number and random bytes."""
    c1 = bytes(4) + b"\x80\x00\x07\x02" + entropy(5).randbytes(BLOCK_BYTES - 8)
    server = ServerHandshake(entropy().randbytes)
    server.feed(b"\x03" + c1)
    assert server.take_output()[1 + BLOCK_BYTES :] == c1


@pytest.mark.parametrize(
    ("version", "error"), [(6, UnsupportedError), (0x47, RemoteProtocolError), (0, RemoteProtocolError), (0x16, None)]
)
def test_versions(version: int, error: type[Exception] | None) -> None:
    server = ServerHandshake(entropy().randbytes)
    if error is None:
        assert server.feed(bytes([version])) == b""
    else:
        with pytest.raises(error):
            server.feed(bytes([version]))


def test_a_server_of_another_version() -> None:
    with pytest.raises(RemoteProtocolError):
        ClientHandshake(entropy().randbytes).feed(b"\x06")


def test_a_signed_block_holds_its_digest() -> None:
    for seed in range(20):
        block = signed_block(entropy(seed).randbytes(BLOCK_BYTES), seed % 2, PLAYER_KEY)
        assert find_scheme(block, PLAYER_KEY) == seed % 2 and find_scheme(block, SERVER_KEY) is None
