"""Key sets as nginx serves them: rotated, kept for as long as it says, and kept on while it cannot be reached."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from mist.net.key_sets import KeySets
from tests.support.nginx import Nginx

PERMISSIONS = {"output": True}
PLACES = (
    "root {folder}; location /now/ {{ add_header Cache-Control max-age=0; }} "
    'location /hour/ {{ add_header Cache-Control "public, max-age=3600"; }}'
)


def serve(folder: Path, *names: str) -> None:
    """Put sets with a key of each name, and a document that leads to one, where nginx serves them."""
    keys = [{"kty": "oct", "kid": name, "k": "c2VjcmV0"} for name in names]
    for place in ("now", "hour"):
        (folder / place).mkdir(exist_ok=True)
        (folder / place / "keys.json").write_text(json.dumps({"keys": [*keys, {"kty": "none"}]}))


def identifiers(found: list[list[object]]) -> list[str]:
    assert all(rest == [PERMISSIONS] for _, *rest in found)
    return [key["kid"] for key, _ in found if isinstance(key, dict)]


@pytest.mark.tools("nginx")
def test_rotation_and_outage(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    serve(tmp_path, "one")

    async def act() -> None:
        now, hour, found = KeySets(), KeySets(), KeySets()
        try:
            with Nginx(tmp_path, http=PLACES.format(folder=tmp_path)) as nginx:
                base = f"http://127.0.0.1:{nginx.http_port}"
                discovery = tmp_path / "now" / "openid-configuration"
                discovery.write_text(json.dumps({"issuer": "x", "jwks_uri": f"{base}/hour/keys.json"}))
                now.follow({f"{base}/now/keys.json": [PERMISSIONS]})
                hour.follow({f"{base}/hour/keys.json": [PERMISSIONS]})
                found.follow({f"{base}/now/openid-configuration": [PERMISSIONS]})
                for sets in (now, hour, found):
                    assert identifiers(await sets.keys()) == ["one"]
                serve(tmp_path, "two", "three")
                assert identifiers(await now.keys()) == ["two", "three"]
                assert identifiers(await hour.keys()) == identifiers(await found.keys()) == ["one"]
                hour.follow({f"{base}/hour/keys.json": [PERMISSIONS], f"{base}/now/missing.json": [PERMISSIONS]})
                assert identifiers(await hour.keys()) == ["one"]
            assert identifiers(await now.keys()) == ["two", "three"]
            assert identifiers(await hour.keys()) == ["one"]
        finally:
            for sets in (now, hour, found):
                sets.close()

    asyncio.run(act())
    missing, gone = [record.getMessage() for record in caplog.records if "its last keys stay" in record.getMessage()]
    assert "404" in missing
    assert "/now/keys.json" in gone
