"""moto's server as an S3 store that checks signatures."""

from __future__ import annotations

import json
import os
import re
import urllib.request
from pathlib import Path
from typing import Final
from urllib.parse import quote, urlencode

from mist.net.s3 import Keys
from tests.support.ports import free_port
from tests.support.processes import wait_until
from tests.support.tools import Running, find_tool

OPEN_REQUESTS: Final = 4  # that need no signature: those that make the user
POLICY: Final = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "*", "Resource": "*"}]}


class S3Server:
    """A store with one user, who may do everything."""

    def __init__(self, folder: Path) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.key = self.secret = ""
        self._log = folder / "moto.log"
        self._running: Running | None = None

    def __enter__(self) -> S3Server:
        command = [find_tool("moto_server"), "-H", "127.0.0.1", "-p", str(self.port)]
        env = {**os.environ, "INITIAL_NO_AUTH_ACTION_COUNT": str(OPEN_REQUESTS)}
        self._running = Running(command, self._log, env=env)
        try:
            wait_until(self._answers, 30, "moto_server")
            self._iam(Action="CreateUser", UserName="mist")
            found = self._iam(Action="CreateAccessKey", UserName="mist")
            self.key = re.findall("<AccessKeyId>([^<]+)", found)[0]
            self.secret = re.findall("<SecretAccessKey>([^<]+)", found)[0]
            policy = json.dumps(POLICY)
            self._iam(Action="PutUserPolicy", UserName="mist", PolicyName="all", PolicyDocument=policy)
            self._iam(Action="GetUser", UserName="mist")
        except BaseException:
            self._running.kill()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        if self._running is not None:
            self._running.stop()

    def _answers(self) -> bool:
        try:
            self._ask(urllib.request.Request(f"{self.url}/moto-api/"))
        except OSError:
            return False
        return True

    def _ask(self, request: urllib.request.Request) -> str:
        with urllib.request.urlopen(request, timeout=20) as answer:
            return str(answer.read().decode())

    def _iam(self, **fields: str) -> str:
        body = urlencode({**fields, "Version": "2010-05-08"}).encode()
        scope = "Credential=mist/20260101/us-east-1/iam/aws4_request, SignedHeaders=host, Signature=0"
        headers = {"Authorization": f"AWS4-HMAC-SHA256 {scope}"}
        return self._ask(urllib.request.Request(self.url, body, headers))

    def put(self, bucket: str, name: str, data: bytes) -> None:
        """Make a bucket, and an object in it."""
        for path, body in ((f"/{bucket}", b""), (f"/{bucket}/{quote(name)}", data)):
            signed = Keys(self.key, self.secret).sign("PUT", self.url + path, content_hash="UNSIGNED-PAYLOAD")
            headers = {**signed, "Content-Type": "application/octet-stream"}
            self._ask(urllib.request.Request(self.url + path, body, headers, method="PUT"))

    def get(self, path: str) -> bytes:
        """Return an object. path: with the bucket."""
        url = f"{self.url}/{quote(path)}"
        signed = Keys(self.key, self.secret).sign("GET", url)
        with urllib.request.urlopen(urllib.request.Request(url, headers=signed), timeout=20) as answer:
            return bytes(answer.read())

    def names(self, bucket: str, prefix: str) -> list[str]:
        """Return the names of a bucket's objects, sorted."""
        url = f"{self.url}/{bucket}?prefix={quote(prefix, safe='')}"
        signed = Keys(self.key, self.secret).sign("GET", url)
        return sorted(re.findall("<Key>([^<]+)", self._ask(urllib.request.Request(url, headers=signed))))

    def source(self, path: str, secret: str = "") -> str:
        """Return the source of an object. secret: another one than the right one."""
        pair = f"{quote(self.key, safe='')}:{quote(secret or self.secret, safe='')}"
        return f"s3+http://{pair}@127.0.0.1:{self.port}/{quote(path)}"
