"""Signatures of the published examples, addresses of objects, and errors of stores."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime

import pytest

from mist.net.s3 import EMPTY_HASH, Keys, error_text, is_s3, split_source

# The example requests of Amazon's S3 API reference ("Signature Calculations: Using the Authorization Header").
S3 = Keys("AKIAIOSFODNN7EXAMPLE", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY")
DAY = datetime(2013, 5, 24, tzinfo=UTC)
HOST = "https://examplebucket.s3.amazonaws.com"
BODY = hashlib.sha256(b"Welcome to Amazon S3.").hexdigest()
PUT = {"date": "Fri, 24 May 2013 00:00:00 GMT", "x-amz-storage-class": "REDUCED_REDUNDANCY"}
# The test suite of Signature Version 4.
SUITE = Keys("AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY", service="service")
SUITE_TIME = datetime(2015, 8, 30, 12, 36, tzinfo=UTC)


@pytest.mark.parametrize(
    ("method", "path", "headers", "content", "signature"),
    [
        (
            *("GET", "/test.txt", {"Range": "bytes=0-9"}, EMPTY_HASH),
            "f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41",
        ),
        (
            *("PUT", "/test$file.text", PUT, BODY),
            "98ad721746da40c64f1a55b78f14c238d841ea1380cd77a1b5971af0ece108bd",
        ),
        (
            *("GET", "/?lifecycle", {}, EMPTY_HASH),
            "fea454ca298b7da1c68078a5d1bdbfbbe0d65c699e0f91ac7a200a0136783543",
        ),
        (
            *("GET", "/?max-keys=2&prefix=J", {}, EMPTY_HASH),
            "34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7",
        ),
    ],
)
def test_requests_to_s3(method: str, path: str, headers: dict[str, str], content: str, signature: str) -> None:
    added = S3.sign(method, HOST + path, headers, content, DAY)
    assert added["x-amz-date"] == "20130524T000000Z" and added["x-amz-content-sha256"] == content
    assert added["Authorization"].startswith(
        "AWS4-HMAC-SHA256 Credential=AKIAIOSFODNN7EXAMPLE/20130524/us-east-1/s3/aws4_request, SignedHeaders="
    )
    assert added["Authorization"].endswith(f", Signature={signature}")


@pytest.mark.parametrize(
    ("method", "target", "signature"),
    [
        ("GET", "/", "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31"),
        ("POST", "/", "5da7c1a2acd57cee7505fc6676e4e544621c30862966e37dddb68e92efbe5d6b"),
        ("GET", "/?Param2=value2&Param1=value1", "b97d918cfa904a5beff61c982a1b6f458b799221646efd99d3219ec94cdf2500"),
    ],
)
def test_the_published_test_suite(method: str, target: str, signature: str) -> None:
    added = SUITE.sign(method, f"https://example.amazonaws.com{target}", now=SUITE_TIME)
    assert added["Authorization"] == (
        "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20150830/us-east-1/service/aws4_request, "
        f"SignedHeaders=host;x-amz-date, Signature={signature}"
    )


def test_a_path_is_signed_as_the_store_reads_it() -> None:
    plain, encoded = (S3.sign("GET", f"{HOST}/a{space}ü+b/c", now=DAY) for space in (" ", "%20"))
    assert plain == encoded


def test_addresses() -> None:
    assert is_s3("S3+http://host/b/k") and is_s3("s3://h/b/k") and not is_s3("http://h/k") and not is_s3("/s3/k")
    url, keys = split_source("s3+http://KEY:a%2Fb%2B@127.0.0.1:5000/bucket/a/b.mp4?x=1", {})
    assert url == "http://127.0.0.1:5000/bucket/a/b.mp4?x=1" and keys == Keys("KEY", "a/b+")
    assert split_source("s3://host/b/k", {}) == ("https://host/b/k", None)
    url, keys = split_source("s3+https://K:S@s3.eu-west-1.amazonaws.com/b/k", {"AWS_REGION": "x"})
    assert keys is not None and keys.region == "eu-west-1"
    for name in ("S3", "AWS"):
        environment = {f"{name}_ACCESS_KEY_ID": "k", f"{name}_SECRET_ACCESS_KEY": "s", "AWS_REGION": "de-1"}
        assert split_source("s3://host/b/k", environment)[1] == Keys("k", "s", "de-1")
    assert "secret" not in repr(Keys("k", "secret"))


def test_errors_say_what_the_store_says() -> None:
    body = b"<?xml version='1.0'?><Error><Code>NoSuchKey</Code><Message>The &quot;key&quot;\n is not there</Message></Error>"
    assert error_text(body) == 'NoSuchKey: The "key" is not there'
    assert error_text(b"<html>nothing</html>") == "" and len(error_text(b"<Code>" + b"x" * 9999 + b"</Code>")) == 300
