"""The server's figures, scraped by Prometheus itself and checked by its tool."""

from __future__ import annotations

import json
import subprocess
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.ports import free_port
from tests.support.processes import wait_until
from tests.support.server import MistServer
from tests.support.tools import Running, find_tool
from tests.support.trigger_service import Service

pytestmark = pytest.mark.tools("prometheus", "promtool")
PASSPHRASE = "figures"


@pytest.fixture(scope="module")
def server() -> Iterator[MistServer]:
    service = Service()
    triggers = {"CONN_PLAY": [{"handler": service.url, "sync": True}]}
    streams = {"test": {"source": "demo:?width=64&height=64&fps=10"}}
    config = {"prometheus": PASSPHRASE, "triggers": triggers}
    with MistServer(config=config, streams=streams) as started:
        started.api(
            {"bandwidth": {"limit": 1_000_000, "exceptions": ["192.0.2.0/24"]}}
        )  # this machine's own viewers count, too
        with urllib.request.urlopen(started.play_url("flv", "test"), timeout=20) as viewer:
            viewer.read(1000)
            wait_until(lambda: b'mist_viewcount{stream="test"} 1' in figures(started), 20, "the viewer's session")
            yield started
    service.close()


def figures(server: MistServer) -> bytes:
    with urllib.request.urlopen(f"http://127.0.0.1:{server.api_port}/{PASSPHRASE}", timeout=20) as reply:
        return bytes(reply.read())


class Prometheus:
    """A Prometheus that scrapes one server each second."""

    def __init__(self, server: MistServer, folder: Path) -> None:
        job = {
            "job_name": "mist",
            "metrics_path": f"/{PASSPHRASE}",
            "static_configs": [{"targets": [f"127.0.0.1:{server.api_port}"]}],
        }
        wanted = {"global": {"scrape_interval": "1s", "scrape_timeout": "1s"}, "scrape_configs": [job]}
        config = folder / "prometheus.yml"
        config.write_text(json.dumps(wanted))  # which is YAML, too
        subprocess.run([find_tool("promtool"), "check", "config", str(config)], check=True, capture_output=True)
        self._url = f"127.0.0.1:{free_port()}"
        self.log = folder / "prometheus.log"
        options = [f"--config.file={config}", f"--storage.tsdb.path={folder / 'data'}"]
        self._process = Running([find_tool("prometheus"), *options, f"--web.listen-address={self._url}"], self.log)

    def ask(self, path: str, **values: str) -> Any:
        """Return what its API answers, None while it does not."""
        try:
            with urllib.request.urlopen(f"http://{self._url}/api/v1/{path}?{urllib.parse.urlencode(values)}") as reply:
                return json.load(reply)["data"]
        except (urllib.error.URLError, ConnectionError):
            return None

    def value(self, query: str) -> float:
        """Return the newest value of the one series that a query finds, -1 when there is none yet."""
        found = (self.ask("query", query=query) or {}).get("result")
        return float(found[0]["value"][1]) if found else -1.0

    def stop(self) -> None:
        self._process.stop()


@pytest.fixture(scope="module")
def prometheus(server: MistServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    started = Prometheus(server, tmp_path_factory.mktemp("prometheus"))
    yield started
    started.stop()


def test_a_scrape_is_complete(server: MistServer, prometheus: Prometheus) -> None:
    wait_until(lambda: prometheus.value('mist_bw_total{direction="up"}') > 0, 40, "the first scrape")
    [target] = prometheus.ask("targets")["activeTargets"]
    assert (target["health"], target["lastError"]) == ("up", "")
    assert prometheus.value('up{job="mist"}') == 1
    assert prometheus.value('mist_sessions{stream="test",sessType="viewers"}') == 1
    assert prometheus.value('mist_outputs{output="FLV"}') == 1
    assert prometheus.value('mist_trigger_count{trigger="CONN_PLAY"}') == 1
    assert prometheus.value("mist_bw_limit") == 1_000_000
    assert prometheus.value("mist_mem_total") > prometheus.value("mist_mem_used") > 0
    # Each sample of the page is a series: none was dropped or taken for another.
    samples = [line for line in figures(server).splitlines() if line and not line.startswith(b"#")]
    assert prometheus.value('scrape_samples_scraped{job="mist"}') == len(samples)
    assert prometheus.value('count({job="mist", __name__=~"mist_.*|stat_.*"})') == len(samples)


def test_counters_are_rates_and_have_words(prometheus: Prometheus) -> None:
    wait_until(lambda: prometheus.value('rate(mist_bw_total{direction="up"}[20s])') >= 0, 40, "a rate")
    told = prometheus.ask("metadata")
    assert told["mist_viewseconds_total"][0]["type"] == "counter"
    assert all(entry["help"] for name, entries in told.items() if name.startswith("mist_") for entry in entries)


def test_the_tool_of_prometheus_reads_it(server: MistServer) -> None:
    check = subprocess.run(
        [find_tool("promtool"), "check", "metrics"], input=figures(server), capture_output=True, timeout=30, check=False
    )
    assert check.returncode in (0, 3), check.stderr  # 3: it would have named some metrics otherwise
    assert b"error while linting" not in check.stderr
    assert b"no help text" not in check.stderr
