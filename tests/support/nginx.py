"""nginx with its RTMP module as a peer: it receives a stream and pushes it on, or pulls one and serves it."""

from __future__ import annotations

import os
from pathlib import Path

from tests.support.ports import free_port
from tests.support.processes import wait_until
from tests.support.tools import Running, find_tool

MODULE_FOLDERS = ("/usr/lib/nginx/modules", "/usr/lib64/nginx/modules")


def rtmp_module() -> Path | None:
    """Return the path of nginx's RTMP module, or None."""
    found = (Path(folder, "ngx_rtmp_module.so") for folder in MODULE_FOLDERS)
    return next((path for path in found if path.exists()), None)


class Nginx:
    """A foreground nginx in a folder of its own. rtmp: the inside of its rtmp application `live`; http: of a server."""

    def __init__(self, folder: Path, *, rtmp: str = "", http: str = "", workers: int = 1) -> None:
        self.folder = folder
        self.rtmp_port, self.http_port = free_port(), free_port()
        module = rtmp_module()
        lines = [f"load_module {module};"] if rtmp else []
        lines += [
            *("daemon off; master_process on;", f"worker_processes {workers}; pid {folder}/nginx.pid;"),
            f"error_log {folder}/error.log info;",
            *(("user root;",) if os.getuid() == 0 else ()),
            "events { worker_connections 4096; }",
        ]
        if rtmp:
            block = f"server {{ listen 127.0.0.1:{self.rtmp_port}; application live {{ live on; {rtmp} }} }}"
            lines.append(f"rtmp {{ access_log off; {block} }}")
        if http:
            places = " ".join(
                f"{name}_temp_path {folder}/{name};" for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
            )
            fixed = "access_log off; sendfile on; tcp_nopush on; keepalive_requests 1000000000; keepalive_timeout 600;"
            lines.append(f"http {{ {fixed} {places} server {{ listen 127.0.0.1:{self.http_port}; {http} }} }}")
        self.config = folder / "nginx.conf"
        self.config.write_text("\n".join(lines) + "\n")
        self._running: Running | None = None

    def __enter__(self) -> Nginx:
        command = [find_tool("nginx"), "-e", f"{self.folder}/error.log", "-p", str(self.folder), "-c", str(self.config)]
        self._running = running = Running(command, self.folder / "nginx.log")
        try:
            wait_until(lambda: (self.folder / "nginx.pid").exists() or running.process.poll() is not None, 10, "nginx")
            assert running.process.poll() is None, running.output
        except BaseException:
            running.kill()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        if self._running is not None:
            self._running.stop()

    @property
    def pid(self) -> int:
        assert self._running is not None
        return self._running.pid

    def url(self, stream: str) -> str:
        return f"rtmp://127.0.0.1:{self.rtmp_port}/live/{stream}"
