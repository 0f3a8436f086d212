"""Removing what a server that ended without its own doing, say by a power cut of a container, left on the machine."""

from __future__ import annotations

import os
import re
from contextlib import suppress
from pathlib import Path

from mist.errors import ConfigError
from mist.runtime.instance import AlreadyRunning, Instance, base_folder, unlink_shared
from mist.stream.names import SHARED_MEMORY


def clean_up(instance: Instance) -> list[str]:
    """Remove what is left of an instance and return what that was. Raises AlreadyRunning, ConfigError."""
    names = instance.shared_names()
    found = [str(SHARED_MEMORY / name) for name in names]
    if not instance.folder.exists():
        if names and is_mapped(instance):
            raise AlreadyRunning(
                f'the shared memory of instance "{instance.name}" is in use by a server with another runtime directory '
                f"than {instance.folder} (MIST_RUNTIME_DIR says which)"
            )
        unlink_shared(names)
        return found
    found += sorted(str(path) for path in instance.folder.rglob("*"))
    if instance.acquire():
        instance.release(clear=False)
        raise AlreadyRunning(
            f'processes of instance "{instance.name}" still run without their main process: start it again with '
            f'"mist serve --instance {instance.name}", or wait until they have given up'
        )
    instance.release()
    return found


def is_mapped(instance: Instance) -> bool:
    """Tell whether a process has shared memory of an instance mapped; the main process has its account, all the time."""
    pattern = re.compile(rf"{re.escape(str(SHARED_MEMORY / instance.prefix[:-1]))}[. \n]".encode())
    for entry in os.scandir("/proc"):
        if entry.name.isdigit():
            with suppress(OSError):
                if pattern.search(Path(entry.path, "maps").read_bytes()):
                    return True
    return False


def known_instances() -> list[Instance]:
    """Return the instances that have a runtime directory or names in shared memory."""
    found: set[str] = set()
    with suppress(FileNotFoundError):
        found.update(entry.name for entry in os.scandir(base_folder()) if entry.is_dir(follow_symlinks=False))
    for path in SHARED_MEMORY.iterdir():
        kind, _, rest = path.name.partition(".")
        if kind == "mist" and rest:
            found.add(rest.partition(".")[0])
    instances = []
    for name in sorted(found):
        with suppress(ConfigError):  # a name that no instance can have
            instances.append(Instance(name))
    return instances
