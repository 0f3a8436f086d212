"""Logging in to HTTP servers: the examples of the specifications."""

from __future__ import annotations

import pytest

from mist.errors import UnsupportedError
from mist.net.http_login import Login, basic

HERE = ("http", "www.example.org", 80)
CHALLENGE = (
    'Digest realm="http-auth@example.org", qop="auth, auth-int", algorithm={}, '
    'nonce="7ypf/xlj9XXwfDPEoM4URrv/xwf94BcCAzFZH4GiTo0v", opaque="FQhe/qaU925kfnzjCev0ciny7QMkPqMAFRtzCUYo5tdS"'
)


def test_basic() -> None:
    assert basic("Aladdin", "open sesame") == "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ=="  # RFC 7617 section 2


@pytest.mark.parametrize(
    ("algorithm", "response"),
    [
        ("MD5", "8ca523f5e9506fed4657c9700eebdbec"),
        ("SHA-256", "753927fa0e85d155564e2e272a28d1802ca10daf4496794697cf8db5856cb6c1"),
    ],
)
def test_digest(algorithm: str, response: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """RFC 7616 section 3.9.1."""
    monkeypatch.setattr("mist.net.http_login.new_nonce", lambda: "f2/wE4q74E6zIJEtWaHKaf5wv/H5QzzpXusqGemxURZJ")
    login = Login("Mufasa", "Circle of Life", HERE)
    login.take(CHALLENGE.format(algorithm))
    said = login.answer("GET", "/dir/index.html")
    assert f'response="{response}"' in said
    assert (
        said.startswith("Digest username=") and ", qop=auth, nc=00000001" in said and f"algorithm={algorithm}" in said
    )


def test_digest_without_anything_newer() -> None:
    login = Login("Mufasa", "Circle Of Life", HERE)
    login.take('Digest realm="testrealm@host.com", nonce="dcd98b7102dd2f0e8b11d0f600bfb0c093"')
    assert 'response="670fd8c2df070c60b045671b8b24ff02"' in login.answer(
        "GET", "/dir/index.html"
    )  # RFC 2069 errata 749


def test_an_algorithm_that_is_not_known() -> None:
    login = Login("a", "b", HERE)
    login.take('Digest realm="a", nonce="b", algorithm=ROT13')
    with pytest.raises(UnsupportedError, match="ROT13"):
        login.answer("GET", "/")


def test_whom_it_is_for() -> None:
    login = Login("a", "b", HERE)
    assert not login.applies(HERE)
    login.take("Basic")
    assert login.applies(HERE) and not login.applies(("https", *HERE[1:]))
