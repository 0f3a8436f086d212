"""The control API of a running server as somebody from elsewhere meets it: TLS, keys that are withdrawn, wrong passwords."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import ssl
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.support.processes import wait_until
from tests.support.server import MistServer
from tests.support.tools import find_tool

ELSEWHERE = {"X-Real-IP": "192.0.2.9"}  # passed on by somebody, so not this machine's own


def write_certificate(folder: Path, name: str) -> Path:
    """Write a certificate for a name and its key where the server looks for them; returns a copy for who trusts it."""
    command = [find_tool("openssl"), "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
    files = ["-keyout", str(folder / "api.key"), "-out", str(folder / "api.crt")]
    names = ["-days", "2", "-subj", f"/CN={name}", "-addext", f"subjectAltName=DNS:{name}"]
    subprocess.run([*command, *files, *names], check=True, capture_output=True, timeout=60)
    trusted = folder / f"{name}.crt"
    trusted.write_bytes((folder / "api.crt").read_bytes())
    return trusted


def call(
    server: MistServer, command: dict[str, Any], trusted: Path, headers: dict[str, str] | None = None
) -> tuple[int, Any]:
    """Send a command over TLS to the name that a certificate is for; returns status and reply."""
    context = ssl.create_default_context(cafile=str(trusted))
    plain = socket.create_connection(("127.0.0.1", server.api_port), timeout=20)
    connection = http.client.HTTPConnection("localhost")
    with context.wrap_socket(plain, server_hostname=trusted.stem) as connection.sock:
        sent = {"Content-Type": "application/json", **(headers or {})}
        connection.request("POST", "/api2", json.dumps(command), sent)
        reply = connection.getresponse()
        text = reply.read()
    return reply.status, json.loads(text) if reply.status == 200 else text.decode()


@pytest.mark.tools("openssl")
def test_tls_keys_and_wrong_passwords() -> None:
    server = MistServer(streams={})
    trusted = write_certificate(server.folder, "one.example")
    tls = {"certificate": str(server.folder / "api.crt"), "key": str(server.folder / "api.key")}
    server.config["config"]["controller"]["tls"] = tls
    with server:
        # Nothing is said in the clear, and a renewed certificate is used after SIGHUP.
        with pytest.raises(OSError):
            server.api({"version": 1}, timeout_s=15)
        assert call(server, {"version": 1}, trusted)[1]["authorize"]["status"] == "NOACC"
        trusted = write_certificate(server.folder, "two.example")
        os.kill(server.pid, signal.SIGHUP)
        wait_until(lambda: is_used(server, trusted), 30, "the renewed certificate")

        # A key opens what it may do, until it is withdrawn; the log says who did what, and no secret.
        made = {"account_set": {"name": "ops", "password": "a secret", "permissions": ["streams"]}}
        assert call(server, made, trusted)[1]["account_set"] == {"name": "ops"}
        key = call(server, {"account_key": {"account": "ops", "name": "ci"}}, trusted)[1]["account_key"]["key"]
        bearer = {**ELSEWHERE, "Authorization": f"Bearer {key}"}
        reply = call(server, {"addstream": {"new": {"source": "push://@hidden"}}, "shutdown": "no"}, trusted, bearer)[1]
        assert reply["authorize"] == {"status": "OK", "denied": ["shutdown"]}
        server.wait_log('ops from 127.0.0.1: addstream {"new"')
        call(server, {"account_unkey": {"account": "ops", "name": "ci"}}, trusted)
        assert call(server, {"streams": 1}, trusted, bearer)[0] == 401
        assert not any("hidden" in line or key in line or "a secret" in line for line in server.log)

        # A password opens it, another one does not, and the log says who tried.
        def log_in(password: str) -> str:
            login = {"authorize": {"username": "ops", "clear": password}}
            return str(call(server, login, trusted, ELSEWHERE)[1]["authorize"]["status"])

        assert log_in("a secret") == "OK"
        assert log_in("a guess") == "CHALL"
        server.wait_log("Failed login as 'ops' from 127.0.0.1")


def is_used(server: MistServer, trusted: Path) -> bool:
    try:
        return call(server, {"version": 1}, trusted)[0] == 200
    except ssl.SSLError:
        return False
