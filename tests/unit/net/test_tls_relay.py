"""TLS in front of a plain socket: what peers that never finish the handshake leave in the log."""

from __future__ import annotations

import asyncio
import logging
import socket
from pathlib import Path

import pytest

from mist.net.tls_relay import accept_tls
from tests.support.tls_front import make_certificate


@pytest.mark.tools("openssl")
@pytest.mark.parametrize(
    ("hello", "reason"),
    [
        (b"", "the connection was closed in the handshake"),
        (b"\x16\x03\x01\x00\xa5\x01\x00\x00\xa1\x03\x03", "the connection was closed in the handshake"),
        (b"GET / HTTP/1.1\r\n\r\n", "HTTP_REQUEST"),
    ],
)
def test_the_log_says_why_there_was_no_handshake(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, hello: bytes, reason: str
) -> None:
    certificate, key = make_certificate(tmp_path)

    async def main() -> None:
        ours, theirs = socket.socketpair()
        theirs.setblocking(False)
        options = {"cert": str(certificate), "key": str(key)}
        relay = accept_tls(asyncio.get_running_loop(), theirs, options, "192.0.2.1")
        assert relay is not None
        ours.sendall(hello)
        ours.close()
        await relay.wait_sent(5)
        relay.inner.close()
        assert relay.error is not None

    with caplog.at_level(logging.INFO):
        asyncio.run(main())
    assert [reason in record.getMessage() for record in caplog.records if "192.0.2.1" in record.getMessage()] == [True]
