"""A door in front of a server: while it is shut nobody reaches the server, and whoever was talking to it is cut off."""

from __future__ import annotations

import socket
import threading
from contextlib import suppress

from tests.support.ports import free_port


class Gate:
    """Carries connections from `port` to another port of the loopback. Open and shut it at will."""

    def __init__(self, target_port: int) -> None:
        self.port = free_port()
        self._target_port = target_port
        self._listener: socket.socket | None = None
        self._pairs: list[tuple[socket.socket, socket.socket]] = []
        self._lock = threading.Lock()

    def open(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", self.port))
        threading.Thread(target=self._accept, args=(self._listener,), daemon=True).start()

    def shut(self) -> None:
        """Refuse everybody, and reset the connections that there are."""
        listener, self._listener = self._listener, None
        if listener is None:
            return
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        with self._lock:
            pairs, self._pairs = self._pairs, []
        for sock in (one for pair in pairs for one in pair):
            with suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)

    def __enter__(self) -> Gate:
        self.open()
        return self

    def __exit__(self, *_: object) -> None:
        self.shut()

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                outer, _ = listener.accept()
            except OSError:
                return  # shut
            try:
                inner = socket.create_connection(("127.0.0.1", self._target_port), 5)
            except OSError:
                outer.close()
                continue
            inner.settimeout(None)
            with self._lock:
                self._pairs.append((outer, inner))
            threading.Thread(target=self._serve, args=(outer, inner), daemon=True).start()

    def _serve(self, outer: socket.socket, inner: socket.socket) -> None:
        back = threading.Thread(target=_carry, args=(inner, outer), daemon=True)
        back.start()
        _carry(outer, inner)
        back.join()
        with self._lock:
            self._pairs = [pair for pair in self._pairs if pair[0] is not outer]
        outer.close()
        inner.close()


def _carry(source: socket.socket, sink: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(65536):
            sink.sendall(data)
    with suppress(OSError):
        sink.shutdown(socket.SHUT_WR)
