/* unlink.c - leaving an interpreter behind at the end of the process.
 *
 * Py_FinalizeEx aborts the process (up to CPython 3.12), or ends the interpreter by itself and aborts if
 * threads are in it (from 3.14), when there are others than the main one. CPython has no function for
 * those that cannot be ended: the list is in its internal headers.
 */
#define PY_SSIZE_T_CLEAN
#include <patchlevel.h>
#if PY_VERSION_HEX >= 0x030C0000
#define Py_BUILD_CORE_MODULE 1
#endif
#include "isolate.h"

#if PY_VERSION_HEX >= 0x030C0000
#include <internal/pycore_interp.h>
#include <internal/pycore_pystate.h>
#include <internal/pycore_runtime.h>

void bridge_unlink_interpreter(PyInterpreterState *interpreter) {
  HEAD_LOCK(&_PyRuntime);
  PyInterpreterState **link = &_PyRuntime.interpreters.head;
  while (*link != NULL && *link != interpreter)
    link = &(*link)->next;
  if (*link != NULL)
    *link = interpreter->next;
  HEAD_UNLOCK(&_PyRuntime);
}
#endif
