/* worker.c - the table of functions by which the core's workers run Python calls.
 *
 * Each worker has one thread state for all its life, in the interpreter that opened the pool. It
 * attaches it (takes the GIL, where there is one) for each batch and holds nothing between two.
 */
#include "bridge.h"

/* Calls dromon._worker.<name>(*arguments). */
static int call_hook(const char *name, const char *format, unsigned argument) {
  PyObject *module = PyImport_ImportModule("dromon._worker");
  if (module == NULL)
    return -1;
  PyObject *result = PyObject_CallMethod(module, name, format, argument);
  Py_DECREF(module);
  Py_XDECREF(result);
  return result == NULL ? -1 : 0;
}

static void leave_interpreter(PyThreadState *thread_state) {
  /* Not under the hooks of a tracer or profiler, which may raise. */
  PyEval_SetTrace(NULL, NULL);
  PyEval_SetProfile(NULL, NULL);
  if (call_hook("leave", NULL, 0) < 0)
    PyErr_WriteUnraisable(NULL);
  PyThreadState_Clear(thread_state);
  PyThreadState_DeleteCurrent();
}

static int worker_enter(void *arg, uint32_t worker, void **state) {
  PyThreadState *thread_state = PyThreadState_New((PyInterpreterState *)arg);
  if (thread_state == NULL)
    return -ENOMEM;
  PyEval_RestoreThread(thread_state);
  if (call_hook("enter", "I", worker) < 0) {
    PyErr_WriteUnraisable(NULL);
    leave_interpreter(thread_state);
    return -EIO;
  }
  PyEval_SaveThread();
  *state = thread_state;
  return 0;
}

static void run_call(dromon_batch *batch, CallObject *call) {
  dromon_task *task = &call->native.task;
  bridge_call_run(call);
  if (dromon_task_finish(task) < 0)
    bridge_call_discard(call); /* abandoned: nobody will ask for the outcome */
  if (call->port == NULL) {
    bridge_call_report(call);
    dromon_batch_end(batch, task);
  } else if (dromon_batch_post(batch, call->port->port, task) == 0) {
    return;
  } /* else the port is closed: its event loop is gone */
  Py_DECREF(call);
}

static void worker_run(void *state, dromon_batch *batch) {
  PyEval_RestoreThread(state);
  dromon_task *task;
  while ((task = dromon_batch_next(batch)) != NULL) {
    CallObject *call = bridge_call_of(task);
    if (dromon_task_is_withdrawn(task))
      Py_DECREF(call); /* the queue's reference */
    else
      run_call(batch, call);
    if (bridge_gil_is_wanted())
      break;
  }
  PyEval_SaveThread();
}

static void worker_drop(void *state, dromon_task *task) {
  PyEval_RestoreThread(state);
  Py_DECREF(bridge_call_of(task));
  PyEval_SaveThread();
}

static void worker_leave(void *state) {
  PyEval_RestoreThread(state);
  leave_interpreter(state);
}

static bool interpreter_is_ending(void) {
#if PY_VERSION_HEX < 0x030D0000
  return _Py_IsFinalizing();
#else
  return Py_IsFinalizing();
#endif
}

void bridge_on_stall(void *callback, uint32_t worker, uint64_t began_ns, uint64_t running_ns) {
  if (interpreter_is_ending())
    return;
  PyGILState_STATE gil = PyGILState_Ensure();
  PyObject *result = PyObject_CallFunction(callback, "IKd", worker, (unsigned long long)began_ns,
                                           (double)running_ns / 1e9);
  if (result == NULL)
    PyErr_WriteUnraisable(callback);
  Py_XDECREF(result);
  PyGILState_Release(gil);
}

const dromon_ops bridge_worker_ops = {
    .enter = worker_enter,
    .run = worker_run,
    .drop = worker_drop,
    .leave = worker_leave,
};
