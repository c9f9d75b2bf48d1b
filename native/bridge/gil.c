/* gil.c - whether somebody waits for the GIL long enough to have asked for it.
 *
 * A thread that waits for the GIL asks for it after a switch interval (sys.setswitchinterval). Python
 * code answers by itself, at its next call or loop. A worker that runs one C function after the other
 * would not, before the end of its batch.
 *
 * CPython has no function for this. Up to 3.12 the request is a flag of the interpreter, whose struct is
 * in CPython's internal headers; since 3.13 it is a bit of a field of PyThreadState, which is public,
 * though the bit is not: _PY_GIL_DROP_REQUEST_BIT of Include/internal/pycore_ceval.h.
 */
#define PY_SSIZE_T_CLEAN
#include <patchlevel.h>
#if PY_VERSION_HEX < 0x030D0000
#define Py_BUILD_CORE_MODULE 1
#endif
#include "bridge.h"

#if PY_VERSION_HEX < 0x030D0000
#include <internal/pycore_interp.h>
#endif

bool bridge_gil_is_wanted(void) {
#ifdef Py_GIL_DISABLED
  return false;
#elif PY_VERSION_HEX < 0x030D0000
  return _Py_atomic_load_relaxed(&PyInterpreterState_Get()->ceval.gil_drop_request);
#else
  enum { GIL_DROP_REQUEST = 1 };
  return __atomic_load_n(&PyThreadState_GetUnchecked()->eval_breaker, __ATOMIC_RELAXED) &
         GIL_DROP_REQUEST;
#endif
}
