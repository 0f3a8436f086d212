"""What `make run` prints fits the ports that it uses, and other ports can be asked for."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def run(folder: Path, **ports: str) -> str:
    command = [sys.executable, ROOT / "packaging/run-demo", "/bin/echo", "--instance", "x"]
    environment = {**os.environ, **ports}
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=True, timeout=60
    ).stdout


def test_the_printed_lines(tmp_path: Path) -> None:
    (tmp_path / "packaging").symlink_to(ROOT / "packaging")
    said = run(tmp_path)
    assert "http://localhost:8080/demo.html" in said
    assert "-f flv rtmp://127.0.0.1/live/live" in said
    assert said.endswith("serve --demo --config build/run/config.json --instance x\n")
    run(tmp_path, HTTP_PORT="8081", RTMP_PORT="1936", API_PORT="4243")
    said = run(tmp_path)  # they stay
    assert "http://localhost:8081/hls/demo/index.m3u8" in said
    assert "rtmp://127.0.0.1:1936/play/demo" in said
    assert "http://localhost:4243/" in said
    config = json.loads((tmp_path / "build/run/config.json").read_text())["config"]
    assert [entry["port"] for entry in config["protocols"]] == [8081, 1936]
