/* python_internal.h - CPython's internal headers, whose warnings are not ours. */
#pragma GCC system_header
#define Py_BUILD_CORE_MODULE 1
#include <Python.h>

#include <internal/pycore_interp.h>
#include <internal/pycore_runtime.h>
