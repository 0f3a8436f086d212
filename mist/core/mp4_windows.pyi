from typing import final

@final
class Windows:
    def wanted(self) -> tuple[int, int]: ...
