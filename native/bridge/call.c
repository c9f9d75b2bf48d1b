/* call.c - `Call`: one submitted call; see bridge.h for who owns which field when. */
#include "bridge.h"

#include <stddef.h>
#include <structmember.h>

CallObject *bridge_call_of(dromon_task *task) {
  return (CallObject *)(void *)((char *)task - offsetof(CallObject, task));
}

CallObject *bridge_call_new(bridge_state *state, dromon_port *port, PyObject *waiter,
                            PyObject *context, PyObject *function, PyObject *arguments) {
  CallObject *call = PyObject_GC_New(CallObject, state->call_type);
  if (call == NULL)
    return NULL;
  dromon_task_init(&call->task);
  dromon_port_ref(port);
  call->port = port;
  call->function = Py_NewRef(function);
  call->arguments = Py_NewRef(arguments);
  call->context = Py_NewRef(context);
  call->value = NULL;
  call->error = NULL;
  call->waiter = Py_NewRef(waiter);
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

static void clear_inputs(CallObject *call) {
  Py_CLEAR(call->function);
  Py_CLEAR(call->arguments);
  Py_CLEAR(call->context);
}

void bridge_call_run(CallObject *call) {
  PyObject *value = NULL;
  if (PyContext_Enter(call->context) == 0) {
    value = PyObject_Call(call->function, call->arguments, NULL);
    if (value == NULL)
      call->error = take_raised_exception();
    PyContext_Exit(call->context); /* cannot fail: it is the one that we entered */
  } else {
    call->error = take_raised_exception();
  }
  call->value = value;
  /* Before anybody is told: who gets the result finds the arguments released. */
  clear_inputs(call);
}

void bridge_call_discard(CallObject *call) {
  Py_CLEAR(call->value);
  Py_CLEAR(call->error);
}

/* ---- The type ------------------------------------------------------------------------------- */

PyDoc_STRVAR(withdraw_doc, "withdraw($self, /)\n--\n\n"
                           "Take the call back if no worker has started it.\n\n"
                           "Returns True if it will never run, False if it is too late.");

static PyObject *call_withdraw(CallObject *self, PyObject *Py_UNUSED(ignored)) {
  if (dromon_task_withdraw(&self->task) < 0)
    Py_RETURN_FALSE;
  clear_inputs(self); /* no worker looks at them any more */
  Py_RETURN_TRUE;
}

PyDoc_STRVAR(abandon_doc,
             "abandon($self, /)\n--\n\n"
             "Give up the outcome of a running call.\n\n"
             "Returns True if the outcome will be dropped (the call is still delivered "
             "to the port when\nit ends), False if it has ended already.");

static PyObject *call_abandon(CallObject *self, PyObject *Py_UNUSED(ignored)) {
  return PyBool_FromLong(dromon_task_abandon(&self->task) == 0);
}

PyDoc_STRVAR(unwrap_doc, "unwrap($self, /)\n--\n\n"
                         "Return what the function returned, or raise what it raised. Once.\n\n"
                         "As outcome.Outcome.unwrap. Raises RuntimeError if there is no outcome "
                         "(yet, or any more).");

static PyObject *call_unwrap(CallObject *self, PyObject *Py_UNUSED(ignored)) {
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
  Py_VISIT(self->function);
  Py_VISIT(self->arguments);
  Py_VISIT(self->context);
  Py_VISIT(self->value);
  Py_VISIT(self->error);
  Py_VISIT(self->waiter);
  return 0;
}

static int call_clear(CallObject *self) {
  clear_inputs(self);
  bridge_call_discard(self);
  Py_CLEAR(self->waiter);
  return 0;
}

static void call_dealloc(CallObject *self) {
  PyTypeObject *type = Py_TYPE(self);
  PyObject_GC_UnTrack(self);
  call_clear(self);
  dromon_port_unref(self->port);
  PyObject_GC_Del(self);
  Py_DECREF(type);
}

static PyMethodDef call_methods[] = {
    {"withdraw", (PyCFunction)call_withdraw, METH_NOARGS, withdraw_doc},
    {"abandon", (PyCFunction)call_abandon, METH_NOARGS, abandon_doc},
    {"unwrap", (PyCFunction)call_unwrap, METH_NOARGS, unwrap_doc},
    {NULL, NULL, 0, NULL},
};

static PyMemberDef call_members[] = {
    {"waiter", T_OBJECT, offsetof(CallObject, waiter), 0,
     "What the submitter wants to find when the call is delivered; None if nobody waits."},
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
