/* gil.c - whether somebody has the GIL, or waits for it long enough to have asked for it, and what else Python code
 * would see to.
 *
 * A thread that waits for the GIL asks for it after a switch interval (sys.setswitchinterval). Python
 * code answers by itself, at its next call or loop. A worker that runs one C function after the other
 * would not, before the end of its batch.
 *
 * CPython has no function for this. Up to 3.12 the request is a flag of the interpreter, whose struct is
 * in CPython's internal headers; since 3.13 it is a bit of a field of PyThreadState, which is public,
 * though the bit is not: _PY_GIL_DROP_REQUEST_BIT of Include/internal/pycore_ceval.h.
 *
 * Whether the GIL is held stands in its own struct; since 3.13 CPython tells debuggers where.
 */
#define PY_SSIZE_T_CLEAN
#include "python_internal.h"

#include "bridge.h"

#include "../core/search.h"

#include <sched.h>
#include <time.h>

bool bridge_evaluator_is_wanted(void) {
#if PY_VERSION_HEX < 0x030D0000
  return _Py_atomic_load_relaxed(&PyInterpreterState_Get()->ceval.eval_breaker);
#else
  enum { EVENTS = 0xff }; /* _PY_EVAL_EVENTS_MASK; the other bits are a version */
  return __atomic_load_n(&PyThreadState_GetUnchecked()->eval_breaker, __ATOMIC_RELAXED) & EVENTS;
#endif
}

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

void bridge_gil_look_init(struct search *look) {
  search_init(look, dromon_longest_search_ns()); /* for the same reason */
}

#ifdef Py_GIL_DISABLED

void bridge_gil_look(struct search *look, const PyInterpreterState *interpreter) {
  (void)look;
  (void)interpreter;
}

#else

static bool is_held(const PyInterpreterState *interpreter) {
#if PY_VERSION_HEX < 0x030C0000
  (void)interpreter;
  const void *locked = &_PyRuntime.ceval.gil.locked;
#elif PY_VERSION_HEX < 0x030D0000
  const void *locked = &interpreter->ceval.gil->locked;
#else
  const struct _Py_DebugOffsets *offsets = &_PyRuntime.debug_offsets;
  const char *gil = *(const char *const *)(const void *)((const char *)interpreter +
                                                         offsets->interpreter_state.ceval_gil);
  /* Both are told as they lie in the state of an interpreter that has a GIL of its own. */
  const void *locked = gil + offsets->interpreter_state.gil_runtime_state_locked -
                       offsets->interpreter_state.gil_runtime_state;
#endif
  /* Relaxed: a hint. Who takes the GIL synchronizes with who gave it up. */
  return __atomic_load_n((const int *)locked, __ATOMIC_RELAXED) == 1;
}

static uint64_t now_ns(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

void bridge_gil_look(struct search *look, const PyInterpreterState *interpreter) {
  if (!is_held(interpreter))
    return;
  uint32_t length_ns = search_begin(look);
  if (length_ns == 0)
    return;
  uint64_t began = now_ns(), now;
  bool held;
  do {
    sched_yield(); /* to who has it */
    held = is_held(interpreter);
    now = now_ns();
  } while (held && now < began + length_ns);
  search_end(look, !held, now - began);
}

#endif
