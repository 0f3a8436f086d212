from collections.abc import Mapping
from typing import Any, Final

METADATA: Final[str]
UNNAMED: Final[str]
ABOUT_THE_STREAM: Final[frozenset[str]]
MAX_SCRIPT_BYTES: Final[int]

def amf_value(value: Any, depth: int = 0) -> bytes: ...
def metadata_body(values: Mapping[str, Any]) -> bytes: ...
def script_body(document: bytes) -> bytes: ...
