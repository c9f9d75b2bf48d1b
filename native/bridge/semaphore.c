/* semaphore.c - `Semaphore`: a number of permits; see sync.h. */
#include "sync.h"

typedef struct {
  PyObject_HEAD
  struct waiters waiters;
  Py_ssize_t value; /* above 0: nobody waits who could go on */
  Py_ssize_t most;  /* below 0: no limit */
} SemaphoreObject;

/* Reads an int; false with an exception. */
static bool read_number(PyObject *object, const char *expected, Py_ssize_t *number) {
  if (!PyLong_Check(object)) {
    PyErr_SetString(PyExc_TypeError, expected);
    return false;
  }
  *number = PyLong_AsSsize_t(object);
  return *number != -1 || !PyErr_Occurred();
}

static PyObject *semaphore_new(PyTypeObject *type, PyObject *args, PyObject *keywords) {
  static char *names[] = {"initial_value", "max_value", NULL};
  PyObject *initial, *max = Py_None;
  if (!PyArg_ParseTupleAndKeywords(args, keywords, "O|$O:Semaphore", names, &initial, &max))
    return NULL;
  Py_ssize_t value, most = -1;
  if (!read_number(initial, "initial_value must be an int", &value) ||
      (max != Py_None && !read_number(max, "max_value must be None or an int", &most)))
    return NULL;
  if (value < 0) {
    PyErr_SetString(PyExc_ValueError, "initial_value must be >= 0");
    return NULL;
  }
  if (max != Py_None && most < value) {
    PyErr_SetString(PyExc_ValueError, "max_value must be >= initial_value");
    return NULL;
  }
  SemaphoreObject *self = (SemaphoreObject *)type->tp_alloc(type, 0);
  if (self != NULL) {
    self->value = value;
    self->most = most;
  }
  return (PyObject *)self;
}

/* With the semaphore locked. */
static bool take_permit(SemaphoreObject *self) {
  bool taken = self->value > 0;
  self->value -= taken;
  return taken;
}

PyDoc_STRVAR(
    acquire_doc,
    "acquire($self, /, timeout=None)\n--\n\n"
    "Take a permit, once those have had theirs who have waited longer.\n"
    "\n"
    "Raises `TimeoutError` after ``timeout`` seconds, and `RuntimeError` in the thread of an\n"
    "event loop.\n"
    "\n"
    "**Cancellation** ends the wait; no permit is taken then.");

static PyObject *acquire(SemaphoreObject *self, int64_t timeout_ns) {
  if (bridge_check_wait("trio.Semaphore") < 0)
    return NULL;
  struct waiter waiter;
  bool taken;
  Py_BEGIN_CRITICAL_SECTION((PyObject *)self);
  taken = take_permit(self);
  if (!taken)
    bridge_waiter_add(&self->waiters, &waiter);
  Py_END_CRITICAL_SECTION();
  if (!taken && !bridge_wait_on((PyObject *)self, &waiter, "Semaphore.acquire", timeout_ns))
    return NULL;
  Py_RETURN_NONE;
}

static PyObject *semaphore_acquire(SemaphoreObject *self, PyObject *const *args, Py_ssize_t nargs,
                                   PyObject *keywords) {
  int64_t timeout_ns;
  if (!bridge_timeout_argument("Semaphore.acquire", args, nargs, keywords, &timeout_ns))
    return NULL;
  return acquire(self, timeout_ns);
}

PyDoc_STRVAR(acquire_nowait_doc, "acquire_nowait($self, /)\n--\n\n"
                                 "Take a permit if there is one. From any thread.\n"
                                 "\n"
                                 "Raises `WouldBlock` if there is none.");

static PyObject *semaphore_acquire_nowait(SemaphoreObject *self, PyObject *Py_UNUSED(ignored)) {
  bool taken;
  Py_BEGIN_CRITICAL_SECTION((PyObject *)self);
  taken = take_permit(self);
  Py_END_CRITICAL_SECTION();
  if (taken)
    Py_RETURN_NONE;
  PyErr_SetString(bridge_state_of(Py_TYPE(self))->would_block, "the Semaphore has no permit left");
  return NULL;
}

PyDoc_STRVAR(release_doc,
             "release($self, /)\n--\n\n"
             "Give a permit back: to who has waited longest, if any. From any thread.\n"
             "\n"
             "Raises `ValueError` if there would be more than ``max_value``.");

/* With the semaphore locked: false if there are too many. */
static bool give_permit(SemaphoreObject *self) {
  if (bridge_wake_one(&self->waiters, NULL))
    return true;
  if (self->value == (self->most < 0 ? PY_SSIZE_T_MAX : self->most))
    return false;
  self->value++;
  return true;
}

static PyObject *semaphore_release(SemaphoreObject *self, PyObject *Py_UNUSED(ignored)) {
  bool given;
  Py_BEGIN_CRITICAL_SECTION((PyObject *)self);
  given = give_permit(self);
  Py_END_CRITICAL_SECTION();
  if (given)
    Py_RETURN_NONE;
  PyErr_SetString(PyExc_ValueError, "semaphore released too many times");
  return NULL;
}

static PyObject *semaphore_enter(SemaphoreObject *self, PyObject *Py_UNUSED(ignored)) {
  return acquire(self, -1);
}

static PyObject *semaphore_exit(SemaphoreObject *self, PyObject *const *Py_UNUSED(args),
                                Py_ssize_t Py_UNUSED(nargs)) {
  return semaphore_release(self, NULL);
}

static PyObject *get_value(SemaphoreObject *self, void *Py_UNUSED(closure)) {
  Py_ssize_t value;
  Py_BEGIN_CRITICAL_SECTION((PyObject *)self);
  value = self->value;
  Py_END_CRITICAL_SECTION();
  return PyLong_FromSsize_t(value);
}

static PyObject *get_max_value(SemaphoreObject *self, void *Py_UNUSED(closure)) {
  if (self->most < 0)
    Py_RETURN_NONE;
  return PyLong_FromSsize_t(self->most);
}

static PyGetSetDef semaphore_properties[] = {
    {"value", (getter)get_value, NULL, "How many permits are left.", NULL},
    {"max_value", (getter)get_max_value, NULL,
     "How many there can be, or None if there is no limit.", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyMethodDef semaphore_methods[] = {
    {"acquire", (PyCFunction)(void (*)(void))semaphore_acquire, METH_FASTCALL | METH_KEYWORDS,
     acquire_doc},
    {"acquire_nowait", (PyCFunction)semaphore_acquire_nowait, METH_NOARGS, acquire_nowait_doc},
    {"release", (PyCFunction)semaphore_release, METH_NOARGS, release_doc},
    {"__enter__", (PyCFunction)semaphore_enter, METH_NOARGS, NULL},
    {"__exit__", (PyCFunction)(void (*)(void))semaphore_exit, METH_FASTCALL, NULL},
    {NULL, NULL, 0, NULL},
};

PyDoc_STRVAR(semaphore_doc,
             "Semaphore(initial_value, *, max_value=None)\n--\n\n"
             "A number of permits, which green threads and other threads take and give back.\n"
             "\n"
             "Raises `TypeError` or `ValueError` unless ``0 <= initial_value <= max_value``.");

static PyType_Slot semaphore_slots[] = {
    {Py_tp_doc, (void *)semaphore_doc},
    {Py_tp_new, semaphore_new},
    {Py_tp_methods, semaphore_methods},
    {Py_tp_getset, semaphore_properties},
    {0, NULL},
};

PyType_Spec bridge_semaphore_spec = {
    .name = "dromon.green.Semaphore",
    .basicsize = sizeof(SemaphoreObject),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = semaphore_slots,
};
