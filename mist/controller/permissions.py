"""Who asks something of the control API, and what that account may do."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final


class Permission(StrEnum):
    """What an account may do. Everybody who is let in may read; `admin` may do everything."""

    READ = "read"
    STREAMS = "streams"
    PUSHES = "pushes"
    CONFIG = "config"
    ADMIN = "admin"


EVERYTHING: Final = frozenset(Permission)


@dataclass(frozen=True, slots=True)
class Caller:
    """Whoever a command comes from. name: of the account, or how it came in without one."""

    name: str
    address: str
    permissions: frozenset[Permission]
    local: bool = False

    def may(self, permission: Permission) -> bool:
        """Return whether the caller has a permission."""
        return permission in self.permissions
