/* thread_state.c - see thread_state.h.
 *
 * PyGILState. Up to 3.11 CPython keeps the thread state of a thread, for PyGILState_Ensure, in a key that it
 * sets once and that is only in its internal headers. Since 3.12 each attach keeps it in step
 * (python/cpython#101431).
 *
 * Asynchronous exceptions. PyThreadState_SetAsyncExc takes one back by NULL. Up to 3.12 the request to look for
 * exceptions stays set all the same, for the whole interpreter and until one is raised: each look costs, and in
 * 3.11 traced code looks for ever. So there it is raised, where nobody else hears it.
 *
 * Stack limits. Up to 3.13 CPython counts C calls. 3.14 compares the stack pointer with the limits of the
 * thread's own stack. 3.14.0 takes any other stack for an overflow, and is refused by the package; from 3.14.1 on it
 * does not check outside of the known limits, and PyUnstable_ThreadState_SetStackProtection tells it others (python/cpython#139653).
 */
#define PY_SSIZE_T_CLEAN
#include <patchlevel.h>
#if PY_VERSION_HEX < 0x030C0000
#include "python_internal.h"
#endif

#include "thread_state.h"

#include <dlfcn.h>

void bridge_note_for_gil_state(PyThreadState *thread_state) {
#if PY_VERSION_HEX < 0x030C0000
  PyThread_tss_set(&_PyRuntime.gilstate.autoTSSkey, thread_state);
#else
  (void)thread_state;
#endif
}

void bridge_set_stack_limits(PyThreadState *thread_state) {
#if PY_VERSION_HEX < 0x030E0000
  (void)thread_state;
#else
  int (*set)(PyThreadState *, void *, size_t);
  void *low;
  uint64_t size;
  /* Not linked: it came with a patch release. The cast through a pointer to it is POSIX's. */
  *(void **)&set = dlsym(RTLD_DEFAULT, "PyUnstable_ThreadState_SetStackProtection");
  if (set != NULL && dromon_current_stack(&low, &size) && set(thread_state, low, size) < 0)
    PyErr_Clear();
#endif
}

#ifdef Py_GIL_DISABLED

/* The others go on meanwhile, unless they are stopped for this. */
PyObject *bridge_frame_of_ident(unsigned long ident) {
  PyObject *frames = bridge_call_python("sys", "_current_frames", NULL);
  PyObject *key = PyLong_FromUnsignedLong(ident);
  PyObject *frame =
      frames == NULL || key == NULL ? NULL : Py_XNewRef(PyDict_GetItemWithError(frames, key));
  Py_XDECREF(key);
  Py_XDECREF(frames);
  return frame;
}

PyObject *bridge_frame_of(PyThreadState *thread_state) {
  return bridge_frame_of_ident(thread_state->thread_id);
}

#else

PyObject *bridge_frame_of(PyThreadState *thread_state) {
  return (PyObject *)PyThreadState_GetFrame(thread_state);
}

PyObject *bridge_frame_of_ident(unsigned long ident) {
  PyThreadState *each = PyInterpreterState_ThreadHead(PyInterpreterState_Get());
  while (each != NULL && each->thread_id != ident)
    each = PyThreadState_Next(each);
  return each == NULL ? NULL : bridge_frame_of(each);
}

#endif

/* ---- Doing what was put off ----------------------------------------------------------------- */

int bridge_nothing_init(bridge_state *state) {
  PyObject *globals = PyDict_New();
  if (globals == NULL || PyDict_SetItemString(globals, "__builtins__", PyEval_GetBuiltins()) < 0) {
    Py_XDECREF(globals);
    return -1;
  }
  state->nothing = PyRun_String("lambda: None", Py_eval_input, globals, globals);
  Py_DECREF(globals);
  return state->nothing == NULL ? -1 : 0;
}

int bridge_run_nothing(bridge_state *state) {
  PyObject *result = PyObject_CallNoArgs(state->nothing);
  Py_XDECREF(result);
  return result == NULL ? -1 : 0;
}

void bridge_take_back_exception(bridge_state *state) {
  PyThreadState *thread_state = PyThreadState_Get();
  if (thread_state->async_exc == NULL)
    return;
#if PY_VERSION_HEX >= 0x030D0000
  (void)state;
  PyThreadState_SetAsyncExc(thread_state->thread_id, NULL);
#else
  PyObject *raised = PyErr_Occurred() ? bridge_take_raised_exception() : NULL;
  while (thread_state->async_exc != NULL && bridge_run_nothing(state) < 0)
    PyErr_Clear();
  if (raised != NULL)
    bridge_raise_again(raised);
#endif
}
