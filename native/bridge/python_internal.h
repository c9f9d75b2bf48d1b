/* python_internal.h - CPython's internal headers, whose warnings are not ours. */
#pragma GCC system_header
#define Py_BUILD_CORE_MODULE 1
#include <Python.h>

#include <internal/pycore_interp.h>
#include <internal/pycore_runtime.h>
#if PY_VERSION_HEX >= 0x030E0000
#include <internal/pycore_interpframe_structs.h>
#include <internal/pycore_stackref.h>
#else
#include <internal/pycore_frame.h>
#endif
