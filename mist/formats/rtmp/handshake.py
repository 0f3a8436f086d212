"""The RTMP handshake in both roles, plain and with digests.

Spec: Adobe RTMP 1.0 section 5.2. The digest form is not in it; it is what Flash players since version 9 and the encoders
made after them send, and what some of them insist on when they ask for H.264.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable
from typing import Final

from mist.errors import RemoteProtocolError, UnsupportedError

VERSION: Final = 3
BLOCK_BYTES: Final = 1536
DIGEST_BYTES: Final = 32

_SALT: Final = bytes.fromhex("f0eec24a8068bee82e00d0d1029e7e576eec5d2d29806fab93b8e636cfeb31ae")
PLAYER_KEY: Final = b"Genuine Adobe Flash Player 001"
SERVER_KEY: Final = b"Genuine Adobe Flash Media Server 001"
_SERVER_VERSION: Final = bytes((1, 2, 3, 4))
_PLAYER_VERSION: Final = bytes((9, 0, 124, 2))

# Where the four bytes stand that tell the digest's place, and where the places begin: scheme 0 and scheme 1.
_SCHEMES: Final = ((8, 12), (772, 776))
_PLACES: Final = 728

Entropy = Callable[[int], bytes]


def _digest(key: bytes, data: bytes) -> bytes:
    return hmac.digest(key, data, "sha256")


def digest_place(block: bytes, scheme: int) -> int:
    """Return where the digest of a scheme stands in a block of BLOCK_BYTES."""
    pointer, first = _SCHEMES[scheme]
    return first + sum(block[pointer : pointer + 4]) % _PLACES


def block_digest(block: bytes, scheme: int, key: bytes) -> bytes:
    """Return the digest that a block ought to hold at the place of a scheme."""
    place = digest_place(block, scheme)
    return _digest(key, block[:place] + block[place + DIGEST_BYTES :])


def find_scheme(block: bytes, key: bytes) -> int | None:
    """Return the scheme whose digest the block holds, or None."""
    for scheme in range(len(_SCHEMES)):
        place = digest_place(block, scheme)
        if hmac.compare_digest(block[place : place + DIGEST_BYTES], block_digest(block, scheme, key)):
            return scheme
    return None


def signed_block(block: bytes, scheme: int, key: bytes) -> bytes:
    """Return the block with the digest of a scheme put in its place."""
    place = digest_place(block, scheme)
    return block[:place] + block_digest(block, scheme, key) + block[place + DIGEST_BYTES :]


def answer_block(random: bytes, peer_digest: bytes, key: bytes) -> bytes:
    """Return S2 or C2 of the digest form: random bytes and their digest under a key made from the peer's digest."""
    body = random[: BLOCK_BYTES - DIGEST_BYTES]
    return body + _digest(_digest(key + _SALT, peer_digest), body)


class ServerHandshake:
    """The server's side. `feed` returns the bytes after the handshake, b"" until it is done.

    entropy(n): n random bytes, for S1 and S2.
    """

    def __init__(self, entropy: Entropy) -> None:
        self.done = False
        self._entropy = entropy
        self._input = bytearray()
        self._output = b""
        self._answered = False

    def feed(self, data: bytes) -> bytes:
        """Take bytes from the peer. Raises RemoteProtocolError, UnsupportedError (RTMPE)."""
        self._input += data
        if self._input and not self._answered:
            self._check_version(self._input[0])
        if not self._answered and len(self._input) > BLOCK_BYTES:
            self._answer(bytes(self._input[1 : 1 + BLOCK_BYTES]))
        if len(self._input) < 1 + 2 * BLOCK_BYTES:
            return b""
        # C2 ought to echo S1; encoders send anything, and nothing depends on it.
        self.done = True
        rest = bytes(self._input[1 + 2 * BLOCK_BYTES :])
        self._input.clear()
        return rest

    def _check_version(self, version: int) -> None:
        if version in (6, 8, 9):
            raise UnsupportedError("RTMPE (encrypted RTMP) is not supported", offset=0, spec="RTMP 1.0 section 5.2.2")
        if version >= 32 or version < 3:
            raise RemoteProtocolError(f"not RTMP: first byte {version}", offset=0, spec="RTMP 1.0 section 5.2.2")

    def _answer(self, c1: bytes) -> None:
        self._answered = True
        random = self._entropy(2 * BLOCK_BYTES)
        scheme = find_scheme(c1, PLAYER_KEY) if any(c1[4:8]) else None
        if scheme is None:
            s1 = bytes(8) + random[8:BLOCK_BYTES]
            s2 = c1
        else:
            place = digest_place(c1, scheme)
            s1 = signed_block(bytes(4) + _SERVER_VERSION + random[8:BLOCK_BYTES], scheme, SERVER_KEY)
            s2 = answer_block(random[BLOCK_BYTES:], c1[place : place + DIGEST_BYTES], SERVER_KEY)
        self._output = bytes((VERSION,)) + s1 + s2

    def take_output(self) -> bytes:
        """Return what is to be sent, and forget it."""
        output, self._output = self._output, b""
        return output


class ClientHandshake:
    """The client's side. scheme: 0 or 1 to send a digest, None for the plain form."""

    def __init__(self, entropy: Entropy, scheme: int | None = None) -> None:
        self.done = False
        self._input = bytearray()
        c1 = bytes(4) + (bytes(4) if scheme is None else _PLAYER_VERSION) + entropy(BLOCK_BYTES - 8)
        self._c1 = c1 if scheme is None else signed_block(c1, scheme, PLAYER_KEY)
        self._entropy = entropy
        self._scheme = scheme
        self._output = bytes((VERSION,)) + self._c1

    def feed(self, data: bytes) -> bytes:
        """Take bytes from the server; return those after the handshake. Raises RemoteProtocolError."""
        self._input += data
        if self._input and self._input[0] != VERSION:
            raise RemoteProtocolError(f"server answers version {self._input[0]}", spec="RTMP 1.0 section 5.2.2")
        if len(self._input) < 1 + 2 * BLOCK_BYTES:
            return b""
        self.done = True
        self._output += self._c2(bytes(self._input[1 : 1 + BLOCK_BYTES]))
        rest = bytes(self._input[1 + 2 * BLOCK_BYTES :])
        self._input.clear()
        return rest

    def _c2(self, s1: bytes) -> bytes:
        scheme = find_scheme(s1, SERVER_KEY) if self._scheme is not None else None
        if scheme is None:
            return s1
        place = digest_place(s1, scheme)
        return answer_block(self._entropy(BLOCK_BYTES), s1[place : place + DIGEST_BYTES], PLAYER_KEY)

    def take_output(self) -> bytes:
        """Return what is to be sent, and forget it."""
        output, self._output = self._output, b""
        return output
