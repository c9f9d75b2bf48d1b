/* port.c - `Port`: where an event loop gets its finished calls. For the thread of that loop. */
#include "bridge.h"

#include "isolated.h"

#include <stddef.h>
#include <structmember.h>

static PyObject *raise_errno(int result) {
  errno = -result;
  return PyErr_SetFromErrno(PyExc_OSError);
}

static PyObject *port_new(PyTypeObject *type, PyObject *args, PyObject *kwargs) {
  static char *names[] = {"abort_succeeded", "abort_failed", "token", NULL};
  PyObject *abort_succeeded, *abort_failed, *token;
  if (!PyArg_ParseTupleAndKeywords(args, kwargs, "OOO:Port", names, &abort_succeeded, &abort_failed,
                                   &token))
    return NULL;
  dromon_port *port;
  int result = dromon_port_open(&port);
  if (result < 0)
    return raise_errno(result);
  PortObject *self = (PortObject *)type->tp_alloc(type, 0);
  if (self == NULL) {
    dromon_port_unref(port);
    return NULL;
  }
  self->port = port;
  self->taken = NULL;
  self->waiting = 0;
  self->submitted = false;
  bridge_gil_look_init(&self->gil_look);
  self->abort_succeeded = Py_NewRef(abort_succeeded);
  self->abort_failed = Py_NewRef(abort_failed);
  self->token = Py_NewRef(token);
  return (PyObject *)self;
}

PyDoc_STRVAR(fileno_doc, "fileno($self, /)\n--\n\n"
                         "The descriptor that is readable when take() has something to give.");

static PyObject *port_fileno(PortObject *self, PyObject *Py_UNUSED(ignored)) {
  return PyLong_FromLong(dromon_port_fd(self->port));
}

/* Whether a call from the port has not ended, but asks something: no reference comes with it. */
static bool asks(const CallObject *call) {
  /* Relaxed: it came with the post. */
  return call->errand != NULL && atomic_load_explicit(&call->errand->asks, memory_order_relaxed);
}

/* The next call that was taken out of the port: a new reference, or NULL. */
static CallObject *next_taken(PortObject *port) {
  dromon_task *task = port->taken;
  if (task == NULL)
    return NULL;
  CallObject *call = bridge_call_of(task);
  port->taken = task->next;
  if (asks(call)) {
    bridge_call_serve(call);
    return (CallObject *)Py_NewRef((PyObject *)call);
  }
  port->waiting -= !call->abandoned;
  if (call->list != NULL)
    bridge_waiting_remove(call);
  if (task->native || call->errand != NULL)
    bridge_call_clear_inputs(call); /* which the worker could not let go of */
  return call;                      /* with the port's reference */
}

PyDoc_STRVAR(take_doc, "take($self, most, /)\n--\n\n"
                       "Return a list of `most` finished calls at most, oldest first.\n\n"
                       "If it is that long there may be more, and fileno() need not be readable.");

static PyObject *port_take(PortObject *self, PyObject *argument) {
  Py_ssize_t most = PyLong_AsSsize_t(argument);
  if (most == -1 && PyErr_Occurred())
    return NULL;
  PyObject *calls = PyList_New(0);
  if (calls == NULL)
    return NULL;
  if (self->taken == NULL)
    self->taken = dromon_port_take(self->port);
  CallObject *call;
  while (PyList_GET_SIZE(calls) < most && (call = next_taken(self)) != NULL) {
    int result = PyList_Append(calls, (PyObject *)call);
    Py_DECREF(call);
    if (result < 0) {
      Py_DECREF(calls); /* what it holds is lost with the memory that there was none of */
      return NULL;
    }
  }
  return calls;
}

/* Gives the outcome of a call that ran in another interpreter to its future. */
static void fulfil(bridge_state *state, CallObject *call) {
  FutureObject *future = call->future;
  if (future == NULL || !call->errand->has_outcome)
    return; /* it was withdrawn */
  call->future = NULL;
  PyObject *error, *value = bridge_errand_outcome(state, call->errand, &error);
  if (bridge_future_begin(state, future))
    bridge_future_finish(state, future, value, error);
  Py_XDECREF(value);
  Py_XDECREF(error);
  Py_DECREF(future);
}

PyDoc_STRVAR(fulfil_doc, "fulfil($self, most, /)\n--\n\n"
                         "Take `most` finished calls at most, and give their outcomes to their "
                         "futures.\n\nReturn how many there were.");

static PyObject *port_fulfil(PortObject *self, PyTypeObject *defining_class, PyObject *const *args,
                             Py_ssize_t nargs, PyObject *Py_UNUSED(keywords)) {
  Py_ssize_t most = nargs == 1 ? PyLong_AsSsize_t(args[0]) : 0;
  if (most == -1 && PyErr_Occurred())
    return NULL;
  bridge_state *state = bridge_state_of(defining_class);
  Py_ssize_t count = 0;
  if (self->taken == NULL)
    self->taken = dromon_port_take(self->port);
  for (CallObject *call; count < most && (call = next_taken(self)) != NULL; count++) {
    fulfil(state, call);
    Py_DECREF(call);
  }
  return PyLong_FromSsize_t(count);
}

PyDoc_STRVAR(post_doc, "post($self, callback, /)\n--\n\n"
                       "Deliver a call that has nothing to run, with `callback` as its waiter.\n\n"
                       "From any thread. Does nothing if the port is closed.");

static PyObject *port_post(PortObject *self, PyTypeObject *defining_class, PyObject *const *args,
                           Py_ssize_t nargs, PyObject *Py_UNUSED(keywords)) {
  if (nargs != 1) {
    PyErr_Format(PyExc_TypeError, "post() takes 1 argument, not %zd", nargs);
    return NULL;
  }
  CallObject *call = bridge_message_new(bridge_state_of(defining_class), self, args[0]);
  if (call == NULL)
    return NULL;
  if (dromon_port_post(self->port, &call->native.task) == 0)
    dromon_port_notify(self->port);
  else
    Py_DECREF(call);
  Py_RETURN_NONE;
}

static void drop_all(dromon_task *task) {
  while (task != NULL) {
    dromon_task *next = task->next;
    CallObject *call = bridge_call_of(task);
    if (asks(call)) {
      atomic_store_explicit(&call->errand->asks, false, memory_order_relaxed);
      bridge_errand_answer(NULL, call->errand, ANSWER_RUN_OVER, NULL);
    } else {
      Py_DECREF(call);
    }
    task = next;
  }
}

PyDoc_STRVAR(
    look_doc,
    "look($self, most, /)\n--\n\n"
    "Before the loop sleeps for `most` seconds: wait a short while for a call that was just\n"
    "submitted, and then for the GIL, if that pays.\n\n"
    "Without the GIL, which a call that takes long may keep then: so there is one look after\n"
    "each submission.");

static PyObject *port_look(PortObject *self, PyObject *argument) {
  double most = PyFloat_AsDouble(argument);
  if (most == -1 && PyErr_Occurred())
    return NULL;
  if (!self->submitted || self->waiting == 0 || most <= 0)
    Py_RETURN_NONE;
  self->submitted = false;
  uint32_t length_ns = dromon_port_look_time(self->port);
  if (length_ns > 0) {
    PyThreadState *thread_state = PyEval_SaveThread();
    dromon_port_look(self->port, most * 1e9 < length_ns ? (uint32_t)(most * 1e9) : length_ns);
    bridge_gil_look(&self->gil_look, PyThreadState_GetInterpreter(thread_state));
    PyEval_RestoreThread(thread_state);
  }
  Py_RETURN_NONE;
}

PyDoc_STRVAR(close_doc, "close($self, /)\n--\n\n"
                        "Drop the calls that were not taken, and all that finish later.");

static PyObject *port_close(PortObject *self, PyObject *Py_UNUSED(ignored)) {
  dromon_task *taken = self->taken;
  self->taken = NULL;
  drop_all(taken);
  drop_all(dromon_port_close(self->port));
  Py_RETURN_NONE;
}

static int port_traverse(PortObject *self, visitproc visit, void *arg) {
  Py_VISIT(Py_TYPE(self));
  Py_VISIT(self->abort_succeeded);
  Py_VISIT(self->abort_failed);
  Py_VISIT(self->token);
  return 0;
}

static void port_dealloc(PortObject *self) {
  PyTypeObject *type = Py_TYPE(self);
  PyObject_GC_UnTrack(self);
  Py_XDECREF(port_close(self, NULL));
  dromon_port_unref(self->port);
  Py_DECREF(self->abort_succeeded);
  Py_DECREF(self->abort_failed);
  Py_DECREF(self->token);
  type->tp_free((PyObject *)self);
  Py_DECREF(type);
}

static PyMethodDef port_methods[] = {
    {"fileno", (PyCFunction)port_fileno, METH_NOARGS, fileno_doc},
    {"take", (PyCFunction)port_take, METH_O, take_doc},
    {"fulfil", (PyCFunction)(void (*)(void))port_fulfil,
     METH_METHOD | METH_FASTCALL | METH_KEYWORDS, fulfil_doc},
    {"post", (PyCFunction)(void (*)(void))port_post, METH_METHOD | METH_FASTCALL | METH_KEYWORDS,
     post_doc},
    {"look", (PyCFunction)port_look, METH_O, look_doc},
    {"close", (PyCFunction)port_close, METH_NOARGS, close_doc},
    {NULL, NULL, 0, NULL},
};

static PyMemberDef port_members[] = {
    {"token", T_OBJECT, offsetof(PortObject, token), READONLY, "The handle of its event loop."},
    {"waiting", T_PYSSIZET, offsetof(PortObject, waiting), READONLY,
     "How many calls are still to be delivered to somebody who waits."},
    {NULL, 0, 0, 0, NULL},
};

static PyType_Slot port_slots[] = {
    {Py_tp_doc, "Port(abort_succeeded, abort_failed, token)\n--\n\n"
                "Carries finished calls from workers to one event loop.\n\n"
                "The first two arguments are what Call.abort returns there."},
    {Py_tp_new, port_new},
    {Py_tp_methods, port_methods},
    {Py_tp_members, port_members},
    {Py_tp_traverse, port_traverse},
    {Py_tp_dealloc, port_dealloc},
    {0, NULL},
};

PyType_Spec bridge_port_spec = {
    .name = "dromon._bridge.Port",
    .basicsize = sizeof(PortObject),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = port_slots,
};
