/* pool.c - `Pool`: a counted reference to a core pool, through which calls are submitted. */
#include "bridge.h"

static PyObject *pool_new(PyTypeObject *type, PyObject *args, PyObject *kwargs) {
  static char *names[] = {"", NULL};
  PyObject *address;
  if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O!:Pool", names, &PyLong_Type, &address))
    return NULL;
  dromon_pool *pool = PyLong_AsVoidPtr(address);
  if (pool == NULL) {
    if (!PyErr_Occurred())
      PyErr_SetString(PyExc_ValueError, "address must not be 0");
    return NULL;
  }
  PoolObject *self = (PoolObject *)type->tp_alloc(type, 0);
  if (self == NULL)
    return NULL;
  dromon_pool_ref(pool);
  self->pool = pool;
  return (PyObject *)self;
}

/* A call made of the arguments (port, waiter, function, arguments, abandon_on_abort). */
static CallObject *call_from_arguments(PoolObject *self, PyTypeObject *defining_class,
                                       const char *method, PyObject *const *args,
                                       Py_ssize_t nargs) {
  bridge_state *state = bridge_state_of(defining_class);
  if (nargs != 5) {
    PyErr_Format(PyExc_TypeError, "%s() takes 5 arguments, not %zd", method, nargs);
    return NULL;
  }
  if (!Py_IS_TYPE(args[0], state->port_type) || !PyTuple_CheckExact(args[3])) {
    PyErr_Format(PyExc_TypeError, "%s() needs a Port, a waiter, a function, a tuple and a bool",
                 method);
    return NULL;
  }
  return bridge_call_new(state, self, (PortObject *)args[0], args[1], args[2], args[3],
                         args[4] == Py_True);
}

/* What submit and close return: the call if the core has taken it, else None. */
static PyObject *handed_over(CallObject *call, int result) {
  if (result == 0) {
    call->port->waiting++;   /* for the port's own thread, which this is: nobody has looked yet */
    return (PyObject *)call; /* its other reference was taken before */
  }
  Py_DECREF(call);
  Py_DECREF(call);
  Py_RETURN_NONE;
}

PyDoc_STRVAR(submit_doc,
             "submit($self, port, waiter, function, arguments, abandon_on_abort, /)\n--\n\n"
             "Queue function(*arguments), to be run in a copy of the current context,\n"
             "and return its Call.\n\n"
             "The Call is delivered to `port` when it has ended. Returns None if the "
             "pool is closed.\nDoes not give up the GIL.");

static PyObject *pool_submit(PoolObject *self, PyTypeObject *defining_class, PyObject *const *args,
                             Py_ssize_t nargs, PyObject *Py_UNUSED(keywords)) {
  CallObject *call = call_from_arguments(self, defining_class, "submit", args, nargs);
  if (call == NULL)
    return NULL;
  Py_INCREF(call); /* the queue's; first, since the call may be over before submit returns */
  return handed_over(call, dromon_pool_submit(self->pool, &call->native.task));
}

PyDoc_STRVAR(close_doc,
             "close($self, port, waiter, function, arguments, abandon_on_abort, /)\n--\n\n"
             "Refuse later calls and return the Call of the very last one: this, which "
             "runs when all\naccepted ones have ended. Returns None if the pool was "
             "closed already.");

static PyObject *pool_close(PoolObject *self, PyTypeObject *defining_class, PyObject *const *args,
                            Py_ssize_t nargs, PyObject *Py_UNUSED(keywords)) {
  CallObject *call = call_from_arguments(self, defining_class, "close", args, nargs);
  if (call == NULL)
    return NULL;
  Py_INCREF(call);
  return handed_over(call, dromon_pool_close(self->pool, &call->native.task));
}

PyDoc_STRVAR(
    submit_native_doc,
    "submit_native($self, port, waiter, fn, arg, kept_alive, abandon_on_abort, /)\n--\n\n"
    "Queue the C function at address `fn`, to be called with the address `arg` and without\n"
    "the GIL, and return its Call. `kept_alive` is, until it has ended.\n\n"
    "Else as submit. What it returned is what Call.unwrap returns or, if it is negative,\n"
    "raises as OSError.");

static PyObject *pool_submit_native(PoolObject *self, PyTypeObject *defining_class,
                                    PyObject *const *args, Py_ssize_t nargs,
                                    PyObject *Py_UNUSED(keywords)) {
  bridge_state *state = bridge_state_of(defining_class);
  if (nargs != 6 || !Py_IS_TYPE(args[0], state->port_type)) {
    PyErr_SetString(PyExc_TypeError, "submit_native() needs a Port, a waiter, two addresses, an "
                                     "object and a bool");
    return NULL;
  }
  void *fn = PyLong_AsVoidPtr(args[2]);
  void *arg = PyErr_Occurred() ? NULL : PyLong_AsVoidPtr(args[3]);
  if (PyErr_Occurred())
    return NULL;
  CallObject *call =
      bridge_native_call_new(state, self, (PortObject *)args[0], args[1],
                             (int (*)(void *))(uintptr_t)fn, arg, args[4], args[5] == Py_True);
  if (call == NULL)
    return NULL;
  Py_INCREF(call); /* the queue's */
  return handed_over(call, dromon_pool_submit(self->pool, &call->native.task));
}

/* Queues a call that nobody waits for. Waits for room with the GIL given up, if that is wanted. */
static int start(PoolObject *self, CallObject *call, bool wait) {
  int result = dromon_pool_submit_nowait(self->pool, &call->native.task);
  while (result == -EAGAIN && wait) {
    PyThreadState *thread_state = PyEval_SaveThread();
    result = dromon_pool_submit_wait(self->pool, &call->native.task, -1);
    PyEval_RestoreThread(thread_state);
    if (result == -EINTR)
      result = PyErr_CheckSignals() < 0 ? -EINTR : -EAGAIN;
  }
  return result;
}

PyDoc_STRVAR(start_doc,
             "start($self, function, arguments, wait, /)\n--\n\n"
             "Queue function(*arguments), which nobody waits for; an exception that it raises is\n"
             "unraisable. Return True, or None if the pool is closed.\n\n"
             "If the queue is full: waits for room, without the GIL, or returns False.");

static PyObject *pool_start(PoolObject *self, PyTypeObject *defining_class, PyObject *const *args,
                            Py_ssize_t nargs, PyObject *Py_UNUSED(keywords)) {
  if (nargs != 3 || !PyTuple_CheckExact(args[1])) {
    PyErr_SetString(PyExc_TypeError, "start() needs a function, a tuple and a bool");
    return NULL;
  }
  CallObject *call =
      bridge_call_new(bridge_state_of(defining_class), self, NULL, NULL, args[0], args[1], false);
  if (call == NULL)
    return NULL;
  Py_INCREF(call); /* the queue's */
  int result = start(self, call, args[2] == Py_True);
  Py_DECREF(call);
  if (result < 0)
    Py_DECREF(call);
  if (result == -EINTR)
    return NULL;
  if (result == -ESHUTDOWN)
    Py_RETURN_NONE;
  return PyBool_FromLong(result == 0);
}

static int pool_traverse(PyObject *self, visitproc visit, void *arg) {
  Py_VISIT(Py_TYPE(self));
  return 0;
}

static void pool_dealloc(PoolObject *self) {
  PyTypeObject *type = Py_TYPE(self);
  PyObject_GC_UnTrack(self);
  dromon_pool_unref(self->pool);
  type->tp_free((PyObject *)self);
  Py_DECREF(type);
}

#define METHOD(function) (PyCFunction)(void (*)(void))(function)

static PyMethodDef pool_methods[] = {
    {"submit", METHOD(pool_submit), METH_METHOD | METH_FASTCALL | METH_KEYWORDS, submit_doc},
    {"submit_native", METHOD(pool_submit_native), METH_METHOD | METH_FASTCALL | METH_KEYWORDS,
     submit_native_doc},
    {"start", METHOD(pool_start), METH_METHOD | METH_FASTCALL | METH_KEYWORDS, start_doc},
    {"close", METHOD(pool_close), METH_METHOD | METH_FASTCALL | METH_KEYWORDS, close_doc},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot pool_slots[] = {
    {Py_tp_doc, "Pool(address, /)\n--\n\nSubmits calls to the core pool at `address`."},
    {Py_tp_new, pool_new},
    {Py_tp_methods, pool_methods},
    {Py_tp_traverse, pool_traverse},
    {Py_tp_dealloc, pool_dealloc},
    {0, NULL},
};

PyType_Spec bridge_pool_spec = {
    .name = "dromon._bridge.Pool",
    .basicsize = sizeof(PoolObject),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = pool_slots,
};
