from collections.abc import Callable
from typing import final

@final
class FileRun:
    sock: int
    position: int

@final
class FilePump:
    def __init__(self, loop_fd: int = -1) -> None: ...
    def fileno(self) -> int: ...
    def __len__(self) -> int: ...
    def send(
        self,
        sock: int,
        memory: int,
        position: int,
        count: int,
        on_taken: Callable[[int, int], None],
        on_end: Callable[[OSError | None], None],
    ) -> FileRun: ...
    def forget(self, run: FileRun) -> None: ...
    def run(self) -> None: ...
