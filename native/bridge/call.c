/* call.c - `Call`: one submitted call; see bridge.h for who owns which field when. */
#include "bridge.h"

#include <stddef.h>
#include <structmember.h>

CallObject *bridge_call_of(dromon_task *task) {
  return (CallObject *)(void *)((char *)task - offsetof(CallObject, native));
}

/* `port`, `waiter`, `function`, `arguments`, `context` and `pool` may be NULL. */
static CallObject *new_call(bridge_state *state, PoolObject *pool, PortObject *port,
                            PyObject *waiter, PyObject *function, PyObject *arguments,
                            PyObject *context, bool abandon_on_abort) {
  CallObject *call = PyObject_GC_New(CallObject, state->call_type);
  if (call == NULL)
    return NULL;
  call->pool = (PoolObject *)Py_XNewRef((PyObject *)pool);
  call->port = (PortObject *)Py_XNewRef((PyObject *)port);
  call->function = Py_XNewRef(function);
  call->arguments = Py_XNewRef(arguments);
  call->context = Py_XNewRef(context);
  call->value = NULL;
  call->error = NULL;
  call->waiter = Py_XNewRef(waiter);
  call->after_abandoned = NULL;
  call->abandon_on_abort = abandon_on_abort;
  call->abandoned = false;
  return call;
}

CallObject *bridge_call_new(bridge_state *state, PoolObject *pool, PortObject *port,
                            PyObject *waiter, PyObject *function, PyObject *arguments,
                            bool abandon_on_abort) {
  PyObject *context = PyContext_CopyCurrent();
  if (context == NULL)
    return NULL;
  CallObject *call =
      new_call(state, pool, port, waiter, function, arguments, context, abandon_on_abort);
  Py_DECREF(context);
  if (call == NULL)
    return NULL;
  dromon_task_init(&call->native.task);
  PyObject_GC_Track(call);
  return call;
}

CallObject *bridge_native_call_new(bridge_state *state, PoolObject *pool, PortObject *port,
                                   PyObject *waiter, int (*fn)(void *), void *arg,
                                   PyObject *kept_alive, bool abandon_on_abort) {
  CallObject *call = new_call(state, pool, port, waiter, NULL, kept_alive, NULL, abandon_on_abort);
  if (call == NULL)
    return NULL;
  dromon_native_task_init(&call->native, fn, arg, port->port);
  PyObject_GC_Track(call);
  return call;
}

CallObject *bridge_message_new(bridge_state *state, PortObject *port, PyObject *waiter) {
  CallObject *call = new_call(state, NULL, port, waiter, NULL, NULL, NULL, false);
  if (call == NULL)
    return NULL;
  dromon_task_init(&call->native.task);
  call->abandoned = true;
  PyObject_GC_Track(call);
  return call;
}

/* ---- Outcomes ------------------------------------------------------------------------------- */

#if PY_VERSION_HEX < 0x030C0000
static PyObject *take_raised_exception(void) {
  PyObject *type, *value, *traceback;
  PyErr_Fetch(&type, &value, &traceback);
  PyErr_NormalizeException(&type, &value, &traceback);
  if (traceback != NULL)
    PyException_SetTraceback(value, traceback);
  Py_XDECREF(type);
  Py_XDECREF(traceback);
  return value;
}

/* Steals the reference. */
static void raise_again(PyObject *error) {
  PyErr_Restore(Py_NewRef(Py_TYPE(error)), error, PyException_GetTraceback(error));
}
#else
#define take_raised_exception PyErr_GetRaisedException
#define raise_again PyErr_SetRaisedException
#endif

void bridge_call_clear_inputs(CallObject *call) {
  Py_CLEAR(call->function);
  Py_CLEAR(call->arguments);
  Py_CLEAR(call->context);
}

/* What a function returned that turns out to be asynchronous: an exception in its place, as trio. */
static PyObject *refuse_coroutine(PyObject *function, PyObject *coroutine) {
  /* Closed, so that Python does not warn that it was never awaited. */
  PyObject *closed = PyObject_CallMethod(coroutine, "close", NULL);
  Py_DECREF(coroutine);
  if (closed == NULL)
    return NULL;
  Py_DECREF(closed);
  PyObject *name = PyObject_GetAttrString(function, "__qualname__");
  if (name == NULL) {
    PyErr_Clear();
    name = Py_NewRef(function);
  }
  PyErr_Format(PyExc_TypeError,
               "dromon expected a sync function, but %R appears to be asynchronous", name);
  Py_DECREF(name);
  return NULL;
}

void bridge_call_run(CallObject *call) {
  PyObject *value = NULL;
  if (PyContext_Enter(call->context) == 0) {
    value = PyObject_Call(call->function, call->arguments, NULL);
    if (value != NULL && PyCoro_CheckExact(value))
      value = refuse_coroutine(call->function, value);
    if (value == NULL)
      call->error = take_raised_exception();
    PyContext_Exit(call->context); /* cannot fail: it is the one that we entered */
  } else {
    call->error = take_raised_exception();
  }
  call->value = value;
  /* Before anybody is told: who gets the result finds the arguments released. */
  bridge_call_clear_inputs(call);
}

void bridge_call_report(CallObject *call) {
  if (call->error == NULL)
    return;
  raise_again(call->error);
  call->error = NULL;
  PyErr_WriteUnraisable(NULL);
}

void bridge_call_discard(CallObject *call) {
  Py_CLEAR(call->value);
  Py_CLEAR(call->error);
}

/* ---- The type ------------------------------------------------------------------------------- */

/* Nobody waits for the call any longer. */
static bool stop_waiting(CallObject *call, PyObject *waiter) {
  call->abandoned = true;
  Py_XSETREF(call->waiter, Py_XNewRef(waiter));
  call->port->waiting--;
  return true;
}

/* Whether nobody need wait for the call any longer. */
static bool give_up(CallObject *call) {
  if (call->pool == NULL)
    return false; /* a message: nobody waits */
  int withdrawn = dromon_pool_withdraw(call->pool->pool, &call->native.task);
  if (withdrawn >= 0) {
    bridge_call_clear_inputs(call); /* no worker looks at them any more */
    stop_waiting(call, NULL);
    if (withdrawn == 1)
      Py_DECREF(call); /* the queue's reference */
    return true;
  }
  return call->abandon_on_abort && dromon_task_abandon(&call->native.task) == 0 &&
         stop_waiting(call, call->after_abandoned);
}

PyDoc_STRVAR(abort_doc,
             "abort($self, raise_cancel, /)\n--\n\n"
             "Stop waiting for the call, if that is possible: trio's abort function.\n\n"
             "A call that no worker has started is withdrawn and never runs. A running "
             "one is abandoned\nif it was submitted so: when it ends it is delivered "
             "without outcome, with\n`after_abandoned` as its waiter. Returns one of the "
             "two values that its Port was made with.");

static PyObject *call_abort(CallObject *self, PyObject *Py_UNUSED(raise_cancel)) {
  PortObject *port = self->port;
  return Py_NewRef(give_up(self) ? port->abort_succeeded : port->abort_failed);
}

PyDoc_STRVAR(unwrap_doc, "unwrap($self, /)\n--\n\n"
                         "Return what the function returned, or raise what it raised. Once.\n\n"
                         "As outcome.Outcome.unwrap. Raises RuntimeError if there is no outcome "
                         "(yet, or any more).");

/* What a C function returned: by the core's convention a negative errno is a failure. */
static PyObject *unwrap_status(int32_t status) {
  if (status >= 0)
    return PyLong_FromLong(status);
  errno = status == INT32_MIN ? INT32_MAX : -status;
  return PyErr_SetFromErrno(PyExc_OSError);
}

static PyObject *call_unwrap(CallObject *self, PyObject *Py_UNUSED(ignored)) {
  if (self->native.task.native)
    return unwrap_status(self->native.status);
  /* The outcome is moved out: an exception whose traceback leads to a frame that holds this call
   * would otherwise be a reference cycle. */
  PyObject *value = self->value;
  PyObject *error = self->error;
  self->value = self->error = NULL;
  if (error != NULL)
    raise_again(error);
  else if (value == NULL)
    PyErr_SetString(PyExc_RuntimeError, "the call has no outcome");
  return value;
}

static int call_traverse(CallObject *self, visitproc visit, void *arg) {
  Py_VISIT(Py_TYPE(self));
  Py_VISIT(self->pool);
  Py_VISIT(self->port);
  Py_VISIT(self->function);
  Py_VISIT(self->arguments);
  Py_VISIT(self->context);
  Py_VISIT(self->value);
  Py_VISIT(self->error);
  Py_VISIT(self->waiter);
  Py_VISIT(self->after_abandoned);
  return 0;
}

static int call_clear(CallObject *self) {
  bridge_call_clear_inputs(self);
  bridge_call_discard(self);
  Py_CLEAR(self->waiter);
  Py_CLEAR(self->after_abandoned);
  return 0;
}

static void call_dealloc(CallObject *self) {
  PyTypeObject *type = Py_TYPE(self);
  PyObject_GC_UnTrack(self);
  call_clear(self);
  /* Not in call_clear: abort and the worker rely on them. */
  Py_XDECREF(self->pool);
  Py_XDECREF(self->port);
  PyObject_GC_Del(self);
  Py_DECREF(type);
}

static PyMethodDef call_methods[] = {
    {"abort", (PyCFunction)call_abort, METH_O, abort_doc},
    {"unwrap", (PyCFunction)call_unwrap, METH_NOARGS, unwrap_doc},
    {NULL, NULL, 0, NULL},
};

static PyMemberDef call_members[] = {
    {"waiter", T_OBJECT, offsetof(CallObject, waiter), 0,
     "What the submitter wants to find when the call is delivered; None if nobody waits."},
    {"after_abandoned", T_OBJECT, offsetof(CallObject, after_abandoned), 0,
     "The waiter of the call from the moment that it is abandoned."},
    {NULL, 0, 0, 0, NULL},
};

static PyType_Slot call_slots[] = {
    {Py_tp_doc, "One submitted call; made by Pool.submit."},
    {Py_tp_methods, call_methods},
    {Py_tp_members, call_members},
    {Py_tp_traverse, call_traverse},
    {Py_tp_clear, call_clear},
    {Py_tp_dealloc, call_dealloc},
    {0, NULL},
};

PyType_Spec bridge_call_spec = {
    .name = "dromon._bridge.Call",
    .basicsize = sizeof(CallObject),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_DISALLOW_INSTANTIATION |
             Py_TPFLAGS_IMMUTABLETYPE,
    .slots = call_slots,
};
