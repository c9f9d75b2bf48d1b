/* pool.c - `Pool`: a counted reference to a core pool, through which calls are submitted. */
#include "bridge.h"

#include "isolated.h"

static PyObject *pool_new(PyTypeObject *type, PyObject *args, PyObject *kwargs) {
  static char *names[] = {"", "delivery", "variables", NULL};
  PyObject *address, *delivery = Py_None, *variables = NULL;
  PyTypeObject *port_type = ((bridge_state *)PyType_GetModuleState(type))->port_type;
  if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O!|OO!:Pool", names, &PyLong_Type, &address,
                                   &delivery, &PyTuple_Type, &variables))
    return NULL;
  if (delivery != Py_None && !Py_IS_TYPE(delivery, port_type)) {
    PyErr_SetString(PyExc_TypeError, "delivery must be a Port or None");
    return NULL;
  }
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
  if (delivery != Py_None)
    self->delivery = (PortObject *)Py_NewRef(delivery);
  self->variables = Py_XNewRef(variables);
  return (PyObject *)self;
}

static bool is_port(PyTypeObject *defining_class, PyObject *object) {
  return Py_IS_TYPE(object, bridge_state_of(defining_class)->port_type);
}

/* An attribute that is a str, or else str() of it; "None" if there is none. */
static PyObject *name_of(PyObject *object, PyObject *attribute) {
  PyObject *name = PyObject_GetAttr(object, attribute);
  if (name == NULL) {
    if (!PyErr_ExceptionMatches(PyExc_AttributeError))
      return NULL;
    PyErr_Clear();
    return PyUnicode_FromString("None");
  }
  if (PyUnicode_CheckExact(name))
    return name;
  PyObject *text = PyObject_Str(name);
  Py_DECREF(name);
  return text;
}

/* Interned, as CPython's cache of attributes needs. */
int bridge_name_words_init(bridge_state *state) {
  static const char *const words[] = {"__name__", "name"};
  for (int i = 0; i < BRIDGE_NAME_WORDS; i++) {
    if ((state->name_words[i] = PyUnicode_InternFromString(words[i])) == NULL)
      return -1;
  }
  return 0;
}

/* What the thread is called while it runs the call: `thread_name`, or after the function and `host`, who
 * may be None: then as always. */
static int give_name(bridge_state *state, CallObject *call, PyObject *thread_name, PyObject *host) {
  if (thread_name != Py_None) {
    if (!PyUnicode_Check(thread_name)) {
      PyErr_Format(PyExc_TypeError, "thread_name must be a string or None, not %R", thread_name);
      return -1;
    }
    call->name = Py_NewRef(thread_name);
    return 0;
  }
  if (host == Py_None)
    return 0;
  call->name = name_of(call->function, state->name_words[0]);
  if (call->name == NULL)
    return -1;
  call->host_name = name_of(host, state->name_words[1]);
  return call->host_name == NULL ? -1 : 0;
}

static CallObject *new_call(bridge_state *state, PoolObject *self, PyObject *function,
                            PyObject *arguments, enum bridge_on_abort on_abort) {
  return self->delivery == NULL
             ? bridge_call_new(state, self, function, arguments, on_abort)
             : bridge_isolated_call_new(state, self, function, arguments, on_abort);
}

PyDoc_STRVAR(
    call_doc,
    "call($self, function, arguments, on_abort, thread_name, host, /)\n--\n\n"
    "Return a new Call of function(*arguments), to be run in a copy of the current context.\n\n"
    "Its thread is called `thread_name` meanwhile or, if that is None, after the function and\n"
    "`host`, a trio task or None. Call.submit queues it. Raises TypeError if the function cannot\n"
    "be called, or is asynchronous.");

static PyObject *pool_call(PoolObject *self, PyTypeObject *defining_class, PyObject *const *args,
                           Py_ssize_t nargs, PyObject *Py_UNUSED(keywords)) {
  if (nargs != 5 || !PyTuple_CheckExact(args[1])) {
    PyErr_SetString(PyExc_TypeError,
                    "call() needs a function, a tuple, a number, a name and a task");
    return NULL;
  }
  long on_abort = PyLong_AsLong(args[2]);
  if (PyErr_Occurred() || bridge_check_function(args[0]) < 0)
    return NULL;
  bridge_state *state = bridge_state_of(defining_class);
  CallObject *call = new_call(state, self, args[0], args[1], (enum bridge_on_abort)on_abort);
  if (call != NULL && give_name(state, call, args[3], args[4]) < 0)
    Py_CLEAR(call);
  return (PyObject *)call;
}

PyDoc_STRVAR(close_doc,
             "close($self, port, waiter, function, /)\n--\n\n"
             "Refuse later calls and return the Call of the very last one: of `function`, which "
             "runs when all\naccepted ones have ended. Returns None if the pool was "
             "closed already.\n\nAbandoned calls are cancelled where they wait.");

/* Of what cannot undo the closing. */
static void report_failure(int result) {
  if (result < 0)
    PyErr_WriteUnraisable(NULL);
}

static PyObject *pool_close(PoolObject *self, PyTypeObject *defining_class, PyObject *const *args,
                            Py_ssize_t nargs, PyObject *Py_UNUSED(keywords)) {
  if (nargs != 3 || !is_port(defining_class, args[0])) {
    PyErr_SetString(PyExc_TypeError, "close() needs a Port, a waiter and a function");
    return NULL;
  }
  PortObject *port = (PortObject *)args[0];
  PyObject *arguments = PyTuple_New(0);
  if (arguments == NULL)
    return NULL;
  CallObject *call =
      bridge_call_new(bridge_state_of(defining_class), self, args[2], arguments, BRIDGE_WAIT);
  Py_DECREF(arguments);
  if (call == NULL)
    return NULL;
  bridge_call_deliver_to(call, port, args[1]);
  Py_INCREF(call); /* the queue's; first, since the call may be over before close returns */
  port->waiting++;
  if (dromon_pool_close(self->pool, &call->native.task) == 0) {
    report_failure(bridge_waiting_end_abandoned(self));
    return (PyObject *)call;
  }
  port->waiting--;
  Py_DECREF(call);
  Py_DECREF(call);
  Py_RETURN_NONE;
}

PyDoc_STRVAR(
    native_call_doc,
    "native_call($self, fn, arg, kept_alive, on_abort, /)\n--\n\n"
    "Return a new Call of the C function at address `fn` with the address `arg`, without the\n"
    "GIL. `kept_alive` is, until it has ended.\n\n"
    "Else as call(). What it returned is what Call.unwrap returns or, if it is negative,\n"
    "raises as OSError.");

static PyObject *pool_native_call(PoolObject *self, PyTypeObject *defining_class,
                                  PyObject *const *args, Py_ssize_t nargs,
                                  PyObject *Py_UNUSED(keywords)) {
  if (nargs != 4) {
    PyErr_SetString(PyExc_TypeError, "native_call() needs two addresses, an object and a number");
    return NULL;
  }
  void *fn = PyLong_AsVoidPtr(args[0]);
  void *arg = PyErr_Occurred() ? NULL : PyLong_AsVoidPtr(args[1]);
  long on_abort = PyErr_Occurred() ? 0 : PyLong_AsLong(args[3]);
  if (PyErr_Occurred())
    return NULL;
  return (PyObject *)bridge_native_call_new(bridge_state_of(defining_class), self,
                                            (int (*)(void *))(uintptr_t)fn, arg, args[2],
                                            (enum bridge_on_abort)on_abort);
}

PyDoc_STRVAR(
    waiting_doc,
    "waiting($self, /)\n--\n\n"
    "Return a list of pairs: the function and the arguments of each call that no worker has\n"
    "begun, oldest first. Native calls are not in it.");

static PyObject *pool_waiting(PoolObject *self, PyObject *Py_UNUSED(ignored)) {
  return bridge_waiting_list(self);
}

PyDoc_STRVAR(pending_doc, "pending($self, /)\n--\n\n"
                          "Return a list of the futures of calls that no worker has begun.");

static PyObject *pool_pending(PoolObject *self, PyObject *Py_UNUSED(ignored)) {
  return bridge_waiting_futures(self);
}

/* Waits for room in the queue, with the GIL given up. */
static int submit_when_there_is_room(PoolObject *self, CallObject *call) {
  int result = dromon_pool_submit_nowait(self->pool, &call->native.task);
  while (result == -EAGAIN) {
    PyThreadState *thread_state = PyEval_SaveThread();
    result = dromon_pool_submit_wait(self->pool, &call->native.task, -1);
    PyEval_RestoreThread(thread_state);
    if (result == -EINTR)
      result = PyErr_CheckSignals() < 0 ? -EINTR : -EAGAIN;
  }
  return result;
}

static int submit(PoolObject *self, CallObject *call, long if_full) {
  switch (if_full) {
  case BRIDGE_BLOCK:
    return submit_when_there_is_room(self, call);
  case BRIDGE_REFUSE:
    return dromon_pool_submit_nowait(self->pool, &call->native.task);
  default:
    return dromon_pool_submit(self->pool, &call->native.task);
  }
}

PyDoc_STRVAR(
    future_doc,
    "future($self, type, function, arguments, if_full, /)\n--\n\n"
    "Queue function(*arguments) and return a new future of its outcome, of a type that is\n"
    "derived from FutureState. Return None if the pool is closed.\n\n"
    "If the queue is full: LINE_UP lets the call wait in line behind it; BLOCK waits for room,\n"
    "without the GIL; with REFUSE the result is False.");

static PyObject *pool_future(PoolObject *self, PyTypeObject *defining_class, PyObject *const *args,
                             Py_ssize_t nargs, PyObject *Py_UNUSED(keywords)) {
  bridge_state *state = bridge_state_of(defining_class);
  if (nargs != 4 || !PyType_Check(args[0]) ||
      !PyType_IsSubtype((PyTypeObject *)args[0], state->future_type) ||
      !PyTuple_CheckExact(args[2])) {
    PyErr_SetString(PyExc_TypeError, "future() needs a type, a function, a tuple and a number");
    return NULL;
  }
  long if_full = PyLong_AsLong(args[3]);
  if (PyErr_Occurred())
    return NULL;
  CallObject *call = new_call(state, self, args[1], args[2], BRIDGE_WAIT);
  if (call == NULL)
    return NULL;
  if (self->delivery != NULL)
    bridge_call_deliver_to(call, self->delivery, Py_None);
  FutureObject *future = bridge_future_new(state, (PyTypeObject *)args[0]);
  if (future == NULL) {
    Py_DECREF(call);
    return NULL;
  }
  call->future = (FutureObject *)Py_NewRef((PyObject *)future);
  if (call->errand != NULL) {
    future->call = (CallObject *)Py_NewRef((PyObject *)call);
    call->abandoned = true; /* the port need not count it */
  }
  Py_INCREF(call); /* the queue's */
  bridge_waiting_add(call);
  int result = submit(self, call, if_full);
  if (result < 0) {
    bridge_waiting_remove(call);
    Py_DECREF(call);
  }
  Py_DECREF(call);
  if (result == 0)
    return (PyObject *)future;
  Py_CLEAR(future->call);
  Py_DECREF(future);
  if (result == -EINTR)
    return NULL;
  return Py_NewRef(result == -EAGAIN ? Py_False : Py_None);
}

PyDoc_STRVAR(
    end_doc,
    "end($self, function, /)\n--\n\n"
    "Refuse later calls, and let function() be the very last one, which nobody waits for.\n\n"
    "Does nothing if the pool was closed already.");

static PyObject *pool_end(PoolObject *self, PyTypeObject *defining_class, PyObject *const *args,
                          Py_ssize_t nargs, PyObject *Py_UNUSED(keywords)) {
  if (nargs != 1) {
    PyErr_Format(PyExc_TypeError, "end() takes 1 argument, not %zd", nargs);
    return NULL;
  }
  PyObject *no_arguments = PyTuple_New(0);
  if (no_arguments == NULL)
    return NULL;
  CallObject *call =
      bridge_call_new(bridge_state_of(defining_class), self, args[0], no_arguments, BRIDGE_WAIT);
  Py_DECREF(no_arguments);
  if (call == NULL)
    return NULL;
  if (dromon_pool_close(self->pool, &call->native.task) < 0)
    Py_DECREF(call);
  else /* the reference is the core's */
    report_failure(bridge_waiting_end_abandoned(self));
  Py_RETURN_NONE;
}

static PyObject *pool_closed(PoolObject *self, void *Py_UNUSED(closure)) {
  return PyBool_FromLong(dromon_pool_is_closed(self->pool));
}

static int pool_traverse(PyObject *self, visitproc visit, void *arg) {
  Py_VISIT(Py_TYPE(self));
  Py_VISIT(((PoolObject *)self)->delivery);
  Py_VISIT(((PoolObject *)self)->variables);
  return 0;
}

static void pool_dealloc(PoolObject *self) {
  PyTypeObject *type = Py_TYPE(self);
  PyObject_GC_UnTrack(self);
  Py_XDECREF(self->delivery);
  Py_XDECREF(self->variables);
  dromon_pool_unref(self->pool);
  type->tp_free((PyObject *)self);
  Py_DECREF(type);
}

#define METHOD(function) (PyCFunction)(void (*)(void))(function)

static PyMethodDef pool_methods[] = {
    {"call", METHOD(pool_call), METH_METHOD | METH_FASTCALL | METH_KEYWORDS, call_doc},
    {"native_call", METHOD(pool_native_call), METH_METHOD | METH_FASTCALL | METH_KEYWORDS,
     native_call_doc},
    {"close", METHOD(pool_close), METH_METHOD | METH_FASTCALL | METH_KEYWORDS, close_doc},
    {"waiting", (PyCFunction)pool_waiting, METH_NOARGS, waiting_doc},
    {"pending", (PyCFunction)pool_pending, METH_NOARGS, pending_doc},
    {"future", METHOD(pool_future), METH_METHOD | METH_FASTCALL | METH_KEYWORDS, future_doc},
    {"end", METHOD(pool_end), METH_METHOD | METH_FASTCALL | METH_KEYWORDS, end_doc},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef pool_getset[] = {
    {"closed", (getter)pool_closed, NULL, "Whether the pool refuses calls.", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot pool_slots[] = {
    {Py_tp_doc,
     "Pool(address, /, delivery=None, variables=())\n--\n\n"
     "Submits calls to the core pool at `address`.\n\n"
     "With `delivery`, a Port, its workers are isolated: calls with a future come out of "
     "that, and the\nvalues of these context variables travel with each call."},
    {Py_tp_new, pool_new},
    {Py_tp_methods, pool_methods},
    {Py_tp_getset, pool_getset},
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
