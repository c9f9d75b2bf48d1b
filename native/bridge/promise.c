/* promise.c - `Future`: a value that somebody will set, once; see sync.h. (future.c is of other ones, the
 * executor's.) What was set stays as it is, and may be read without the lock by who has seen that it is done. */
#include "sync.h"

typedef struct {
  PyObject_HEAD
  struct waiters waiters;
  bool is_done;
  PyObject *value; /* one of the two when it is done */
  PyObject *error;
} PromiseObject;

static void raise_invalid_state(void) {
  PyObject *module = PyImport_ImportModule("concurrent.futures");
  PyObject *class = module == NULL ? NULL : PyObject_GetAttrString(module, "InvalidStateError");
  if (class != NULL)
    PyErr_SetString(class, "the Future is done already");
  Py_XDECREF(class);
  Py_XDECREF(module);
}

/* One of `value` and `error` is NULL. */
static PyObject *settle(PromiseObject *self, PyObject *value, PyObject *error) {
  bool was_done;
  Py_BEGIN_CRITICAL_SECTION((PyObject *)self);
  was_done = self->is_done;
  if (!was_done) {
    self->is_done = true;
    self->value = Py_XNewRef(value);
    self->error = Py_XNewRef(error);
    bridge_wake_all(&self->waiters);
  }
  Py_END_CRITICAL_SECTION();
  if (!was_done)
    Py_RETURN_NONE;
  raise_invalid_state();
  return NULL;
}

PyDoc_STRVAR(set_result_doc,
             "set_result($self, result, /)\n--\n\n"
             "Set the result, and wake all who wait for it. From any thread.\n"
             "\n"
             "Raises `concurrent.futures.InvalidStateError` if it is done already.");

static PyObject *promise_set_result(PromiseObject *self, PyObject *value) {
  return settle(self, value, NULL);
}

PyDoc_STRVAR(set_exception_doc,
             "set_exception($self, exception, /)\n--\n\n"
             "Set the exception that `result` shall raise. Else as `set_result`.\n"
             "\n"
             "Raises `TypeError` if it is no exception.");

static PyObject *promise_set_exception(PromiseObject *self, PyObject *error) {
  if (PyExceptionInstance_Check(error))
    return settle(self, NULL, error);
  return PyErr_Format(PyExc_TypeError, "a Future's exception must be an exception, not %R", error);
}

PyDoc_STRVAR(done_doc, "done($self, /)\n--\n\n"
                       "Return whether the result, or an exception, was set.");

static PyObject *promise_done(PromiseObject *self, PyObject *Py_UNUSED(ignored)) {
  bool is_done;
  Py_BEGIN_CRITICAL_SECTION((PyObject *)self);
  is_done = self->is_done;
  Py_END_CRITICAL_SECTION();
  return PyBool_FromLong(is_done);
}

/* Until it is done; for `function`, which was called so. False with an exception. */
static bool wait_for(PromiseObject *self, const char *function, PyObject *const *args,
                     Py_ssize_t nargs, PyObject *keywords) {
  int64_t timeout_ns;
  if (!bridge_timeout_argument(function, args, nargs, keywords, &timeout_ns) ||
      bridge_check_wait("trio.Event") < 0)
    return false;
  struct waiter waiter;
  bool is_done;
  Py_BEGIN_CRITICAL_SECTION((PyObject *)self);
  is_done = self->is_done;
  if (!is_done)
    bridge_waiter_add(&self->waiters, &waiter);
  Py_END_CRITICAL_SECTION();
  return is_done || bridge_wait_on((PyObject *)self, &waiter, function, timeout_ns);
}

PyDoc_STRVAR(
    result_doc,
    "result($self, /, timeout=None)\n--\n\n"
    "Wait for the result and return it, or raise the exception that was set.\n"
    "\n"
    "Raises `TimeoutError` after ``timeout`` seconds, and `RuntimeError` in the thread of an\n"
    "event loop.\n"
    "\n"
    "**Cancellation** ends the wait.");

static PyObject *promise_result(PromiseObject *self, PyObject *const *args, Py_ssize_t nargs,
                                PyObject *keywords) {
  if (!wait_for(self, "Future.result", args, nargs, keywords))
    return NULL;
  if (self->error == NULL)
    return Py_NewRef(self->value);
  PyErr_SetObject((PyObject *)Py_TYPE(self->error), self->error);
  return NULL;
}

PyDoc_STRVAR(exception_doc,
             "exception($self, /, timeout=None)\n--\n\n"
             "Wait as `result` does, and return the exception that was set, or None.");

static PyObject *promise_exception(PromiseObject *self, PyObject *const *args, Py_ssize_t nargs,
                                   PyObject *keywords) {
  if (!wait_for(self, "Future.exception", args, nargs, keywords))
    return NULL;
  return Py_NewRef(self->error == NULL ? Py_None : self->error);
}

static int promise_traverse(PromiseObject *self, visitproc visit, void *arg) {
  Py_VISIT(Py_TYPE(self));
  Py_VISIT(self->value);
  Py_VISIT(self->error);
  return 0;
}

static int promise_clear(PromiseObject *self) {
  Py_CLEAR(self->value);
  Py_CLEAR(self->error);
  return 0;
}

static void promise_dealloc(PromiseObject *self) {
  PyTypeObject *type = Py_TYPE(self);
  PyObject_GC_UnTrack(self);
  promise_clear(self);
  type->tp_free((PyObject *)self);
  Py_DECREF(type);
}

static PyMethodDef promise_methods[] = {
    {"set_result", (PyCFunction)promise_set_result, METH_O, set_result_doc},
    {"set_exception", (PyCFunction)promise_set_exception, METH_O, set_exception_doc},
    {"done", (PyCFunction)promise_done, METH_NOARGS, done_doc},
    {"result", (PyCFunction)(void (*)(void))promise_result, METH_FASTCALL | METH_KEYWORDS,
     result_doc},
    {"exception", (PyCFunction)(void (*)(void))promise_exception, METH_FASTCALL | METH_KEYWORDS,
     exception_doc},
    {"__class_getitem__", Py_GenericAlias, METH_O | METH_CLASS, NULL},
    {NULL, NULL, 0, NULL},
};

PyDoc_STRVAR(promise_doc,
             "Future()\n--\n\n"
             "A result that one thread sets, once, and green threads and other threads wait for.");

static PyType_Slot promise_slots[] = {
    {Py_tp_doc, (void *)promise_doc},   {Py_tp_methods, promise_methods},
    {Py_tp_traverse, promise_traverse}, {Py_tp_clear, promise_clear},
    {Py_tp_dealloc, promise_dealloc},   {0, NULL},
};

PyType_Spec bridge_promise_spec = {
    .name = "dromon.green.Future",
    .basicsize = sizeof(PromiseObject),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = promise_slots,
};
