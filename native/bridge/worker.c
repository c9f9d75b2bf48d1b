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

static void delete_thread_state(PyThreadState *thread_state) {
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
    delete_thread_state(thread_state);
    return -EIO;
  }
  PyEval_SaveThread();
  *state = thread_state;
  return 0;
}

static void worker_run(void *state, dromon_batch *batch) {
  PyEval_RestoreThread(state);
  dromon_task *task;
  while ((task = dromon_batch_next(batch)) != NULL) {
    CallObject *call = bridge_call_of(task);
    if (dromon_task_is_withdrawn(task)) {
      Py_DECREF(call); /* the queue's reference */
      continue;
    }
    bridge_call_run(call);
    if (dromon_task_finish(task) < 0)
      bridge_call_discard(call); /* abandoned: nobody will ask for the outcome */
    if (dromon_batch_post(batch, call->port->port, task) < 0)
      Py_DECREF(call); /* the port is closed: its event loop is gone */
  }
  PyEval_SaveThread();
}

static void worker_leave(void *state) {
  PyEval_RestoreThread(state);
  if (call_hook("leave", NULL, 0) < 0)
    PyErr_WriteUnraisable(NULL);
  delete_thread_state(state);
}

const dromon_ops bridge_worker_ops = {
    .enter = worker_enter,
    .run = worker_run,
    .leave = worker_leave,
};
