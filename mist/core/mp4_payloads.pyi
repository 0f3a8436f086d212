from typing import Final

FORM_SKIPPED: Final[int]
FORM_AS_IT_IS: Final[int]
FORM_NAL_UNITS: Final[int]
FORM_LITTLE_ENDIAN: Final[int]
FORM_SIGNED_BYTES: Final[int]
FORM_LENGTH_AND_TEXT: Final[int]
FORM_OBUS: Final[int]
FORM_CUES: Final[int]
