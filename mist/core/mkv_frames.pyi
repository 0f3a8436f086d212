from typing import Final

FORMS: Final[dict[str, int]]
RULES: Final[dict[str, int]]
