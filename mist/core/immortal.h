/* Objects whose reference count is never written again (PEP 683), where the interpreter has them: CPython 3.12 and newer. */
#ifndef MIST_IMMORTAL_H
#define MIST_IMMORTAL_H

#include <Python.h>

#if !defined(PYPY_VERSION) && !defined(Py_GIL_DISABLED) && PY_VERSION_HEX >= 0x030C0000 && PY_VERSION_HEX < 0x030E0000
#define MIST_HAS_IMMORTAL 1
static inline int mist_make_immortal(PyObject *object) {
    if (_Py_IsImmortal(object)) return 0;
    object->ob_refcnt = _Py_IMMORTAL_REFCNT;
    return 1;
}
#else
#define MIST_HAS_IMMORTAL 0
static inline int mist_make_immortal(PyObject *object) { (void)object; return 0; }
#endif

#endif
