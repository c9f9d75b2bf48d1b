/* worker.c - `Worker`, and the table of functions by which the core's workers run Python calls.
 *
 * Each worker has a thread state for all its life, in the interpreter that opened the pool, and one more for
 * each green thread (fiber.h). It attaches one of them (takes the GIL, where there is one) for each batch and
 * holds nothing between two.
 */
#include "fiber.h"
#include "task.h"
#include "thread_state.h"

#include <stddef.h>
#include <structmember.h>

CallObject *bridge_current_call(void) {
  const struct bridge_fiber *fiber = bridge_current_fiber();
  return fiber == NULL ? NULL : fiber->call;
}

/* ---- A worker's life ------------------------------------------------------------------------ */

/* Where and how workers enter; the pool's `ops_arg`. */
struct entrance {
  PyInterpreterState *interpreter;
  PyObject *enter; /* called with the Worker and its index; tells whether it may go on */
};

static void free_entrance(PyObject *capsule) {
  struct entrance *entrance = PyCapsule_GetPointer(capsule, NULL);
  Py_DECREF(entrance->enter);
  PyMem_Free(entrance);
}

PyObject *bridge_entrance_new(PyObject *enter) {
  struct entrance *entrance = PyMem_Malloc(sizeof *entrance);
  if (entrance == NULL)
    return PyErr_NoMemory();
  *entrance = (struct entrance){PyInterpreterState_Get(), Py_NewRef(enter)};
  PyObject *capsule = PyCapsule_New(entrance, NULL, free_entrance);
  if (capsule == NULL) {
    Py_DECREF(enter);
    PyMem_Free(entrance);
  }
  return capsule;
}

WorkerObject *bridge_worker_new(void) {
  bridge_state *state = bridge_current_state();
  return state == NULL ? NULL : (WorkerObject *)state->worker_type->tp_alloc(state->worker_type, 0);
}

int bridge_worker_call_enter(PyObject *enter, WorkerObject *worker, unsigned index) {
  PyObject *entered =
      worker == NULL ? NULL : PyObject_CallFunction(enter, "OI", (PyObject *)worker, index);
  if (entered == NULL) {
    PyErr_WriteUnraisable(NULL);
    return -EIO;
  }
  int result = entered == Py_True ? 0 : -ECANCELED;
  Py_DECREF(entered);
  return result;
}

void bridge_worker_leave(PyThreadState *thread_state) {
  /* Not under the hooks of a tracer or profiler, which may raise. */
  PyEval_SetTrace(NULL, NULL);
  PyEval_SetProfile(NULL, NULL);
  PyObject *module = PyImport_ImportModule("dromon._worker");
  PyObject *left = module == NULL ? NULL : PyObject_CallMethod(module, "leave", NULL);
  if (left == NULL)
    PyErr_WriteUnraisable(NULL);
  Py_XDECREF(left);
  Py_XDECREF(module);
  bridge_thread_state_delete(thread_state);
}

bool bridge_fiber_make_own(struct bridge_fiber *fiber, PyInterpreterState *interpreter) {
  PyThreadState *hub = bridge_hub_new(interpreter);
  *fiber = (struct bridge_fiber){
      .thread_state = bridge_thread_state_new(interpreter),
      .ident = PyThread_get_thread_ident(),
  };
  if (fiber->thread_state == NULL) {
    bridge_hub_delete(hub);
    return false;
  }
  bridge_gil_look_init(&fiber->gil_look);
  bridge_note_for_gil_state(fiber->thread_state);
  PyEval_RestoreThread(fiber->thread_state);
  fiber->thread_state->thread_id = fiber->ident;
  fiber->state = bridge_current_state();
  fiber->worker = bridge_worker_new();
  if (fiber->worker != NULL)
    fiber->worker->hub = hub;
  return true;
}

void bridge_fiber_end_own(struct bridge_fiber *fiber) {
  PyThreadState *hub = fiber->worker == NULL ? NULL : fiber->worker->hub;
  bridge_fiber_set_current(NULL);
  Py_XDECREF(fiber->worker);
  bridge_worker_leave(fiber->thread_state);
  bridge_hub_delete(hub);
}

static int worker_enter(void *arg, uint32_t index, void **state) {
  struct entrance *entrance = arg;
  struct bridge_fiber *fiber = PyMem_RawMalloc(sizeof *fiber);
  int result = -ENOMEM;
  if (fiber != NULL && bridge_fiber_make_own(fiber, entrance->interpreter)) {
    result = bridge_worker_call_enter(entrance->enter, fiber->worker, index);
    if (result < 0)
      bridge_fiber_end_own(fiber);
    else
      bridge_fiber_detach(fiber);
  }
  if (result < 0)
    PyMem_RawFree(fiber);
  else
    *state = fiber;
  return result;
}

void bridge_run_call(struct bridge_fiber *fiber, dromon_batch *batch, CallObject *call) {
  dromon_task *task = &call->native.task;
  bridge_waiting_remove(call);
  bridge_call_run(call, fiber, batch);
  task->interrupted = call->error != NULL && bridge_call_was_interrupted(call, call->error);
  if (dromon_task_finish(task) < 0) {
    bridge_waiting_remove(call);
    bridge_call_discard(call); /* abandoned: nobody will ask for the outcome */
  }
  if (call->port == NULL) {
    bridge_call_report(call);
    dromon_batch_end(batch, task);
  } else if (dromon_batch_post(batch, call->port->port, task) == 0) {
    return;
  } /* else the port is closed: its event loop is gone */
  Py_DECREF(call);
}

/* Runs a call, or a child of one, if it was not withdrawn, and lets go of it. */
static void run_task(struct bridge_fiber *fiber, dromon_batch *batch, dromon_task *task) {
  PyObject *owner = bridge_task_owner(task);
  if (Py_TYPE(owner) == fiber->state->task_type)
    bridge_task_run(fiber->state, (TaskObject *)owner, batch);
  else if (dromon_task_is_withdrawn(task))
    Py_DECREF(owner); /* the queue's reference */
  else
    bridge_run_call(fiber, batch, (CallObject *)owner);
}

static void worker_run(void *state, dromon_batch *batch) {
  struct bridge_fiber *fiber = state;
  bridge_fiber_attach(fiber);
  dromon_task *task;
  while ((task = dromon_batch_next(batch)) != NULL) {
    run_task(fiber, batch, task);
    if (bridge_gil_is_wanted())
      break;
  }
  bridge_fiber_detach(fiber);
  bridge_hub_run(fiber->state, fiber->worker->hub);
}

static void worker_drop(void *state, dromon_task *task) {
  bridge_fiber_attach(state);
  Py_DECREF(bridge_call_of(task));
  bridge_fiber_detach(state);
}

static void worker_leave(void *state) {
  struct bridge_fiber *fiber = state;
  bridge_fiber_attach(fiber);
  bridge_fiber_end_own(fiber);
  PyMem_RawFree(fiber);
}

const dromon_ops bridge_worker_ops = {
    .enter = worker_enter,
    .run = worker_run,
    .drop = worker_drop,
    .leave = worker_leave,
    .enter_fiber = bridge_enter_fiber,
    .leave_fiber = bridge_leave_fiber,
};

/* ---- The monitor ---------------------------------------------------------------------------- */

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

void bridge_on_saturated(void *callback, uint64_t waiting, uint64_t running,
                         uint64_t saturated_ns) {
  (void)running;
  if (interpreter_is_ending())
    return;
  PyGILState_STATE gil = PyGILState_Ensure();
  PyObject *result = PyObject_CallFunction(callback, "Kd", (unsigned long long)waiting,
                                           (double)saturated_ns / 1e9);
  if (result == NULL)
    PyErr_WriteUnraisable(callback);
  Py_XDECREF(result);
  PyGILState_Release(gil);
}

/* ---- The type ------------------------------------------------------------------------------- */

static PyObject *worker_get_call(WorkerObject *self, void *Py_UNUSED(closure)) {
  PyObject *call;
  Py_BEGIN_CRITICAL_SECTION(self);
  call = Py_NewRef(self->call == NULL ? Py_None : (PyObject *)self->call);
  Py_END_CRITICAL_SECTION();
  return call;
}

static PyGetSetDef worker_properties[] = {
    {"call", (getter)worker_get_call, NULL, "The Call that the worker runs, or None.", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static void worker_dealloc(WorkerObject *self) {
  PyTypeObject *type = Py_TYPE(self);
  type->tp_free((PyObject *)self);
  Py_DECREF(type);
}

static PyType_Slot worker_slots[] = {
    {Py_tp_doc, "One worker thread."},
    {Py_tp_getset, worker_properties},
    {Py_tp_dealloc, worker_dealloc},
    {0, NULL},
};

PyType_Spec bridge_worker_spec = {
    .name = "dromon._bridge.Worker",
    .basicsize = sizeof(WorkerObject),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = worker_slots,
};
