/* pool.c - `Pool`: a counted reference to a core pool, through which calls are submitted. */
#include "bridge.h"

typedef struct {
  PyObject_HEAD
  dromon_pool *pool; /* counted */
} PoolObject;

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
static CallObject *call_from_arguments(PyTypeObject *defining_class, const char *method,
                                       PyObject *const *args, Py_ssize_t nargs) {
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
  return bridge_call_new(state, (PortObject *)args[0], args[1], args[2], args[3],
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
  CallObject *call = call_from_arguments(defining_class, "submit", args, nargs);
  if (call == NULL)
    return NULL;
  Py_INCREF(call); /* the queue's; first, since the call may be over before submit returns */
  return handed_over(call, dromon_pool_submit(self->pool, &call->task));
}

PyDoc_STRVAR(close_doc,
             "close($self, port, waiter, function, arguments, abandon_on_abort, /)\n--\n\n"
             "Refuse later calls and return the Call of the very last one: this, which "
             "runs when all\naccepted ones have ended. Returns None if the pool was "
             "closed already.");

static PyObject *pool_close(PoolObject *self, PyTypeObject *defining_class, PyObject *const *args,
                            Py_ssize_t nargs, PyObject *Py_UNUSED(keywords)) {
  CallObject *call = call_from_arguments(defining_class, "close", args, nargs);
  if (call == NULL)
    return NULL;
  Py_INCREF(call);
  return handed_over(call, dromon_pool_close(self->pool, &call->task));
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
