"""Keeps inherited memory shared: objects made before a fork whose reference counts are not written any more.

Every use of a Python object writes its reference count, and the first write to a page after a fork copies the page. CPython 3.12 and newer
leave the counts of immortal objects alone (PEP 683), so a forked process that only uses what its parent imported copies little.
"""

import gc
import types

cdef extern from "mist/core/immortal.h":
    enum:
        MIST_HAS_IMMORTAL
    int mist_make_immortal(object)

AVAILABLE = MIST_HAS_IMMORTAL != 0

# What is alive only for a while: a frame or generator that never dies keeps everything it refers to.
_PASSING = (types.FrameType, types.GeneratorType, types.CoroutineType, types.AsyncGeneratorType, types.TracebackType)


def make_immortal():
    """Make all objects that exist now immortal, and return how many; does nothing before CPython 3.12.

    To be called right before a process forks its children for the first time, after everything they need was imported: what exists is never
    freed from then on. Objects that are made later live and die as usual.
    """
    cdef list waiting, parts
    count = 0
    if not AVAILABLE:
        return count
    gc.collect()
    waiting = gc.get_objects()
    while waiting:
        parts = []
        for one in waiting:
            if not isinstance(one, _PASSING) and mist_make_immortal(one):
                count += 1
                _add_parts(one, parts)
        waiting = parts
    return count


cdef int _add_parts(object one, list parts) except -1:
    """Append the objects that an object refers to and the collector does not list by itself."""
    if isinstance(one, types.CodeType):  # not tracked
        parts += (one.co_consts, one.co_names, one.co_filename, one.co_name, one.co_qualname, one.co_linetable)
        parts.append(one.co_exceptiontable)
        return 0
    for part in gc.get_referents(one):
        if not gc.is_tracked(part):
            parts.append(part)
    return 0
