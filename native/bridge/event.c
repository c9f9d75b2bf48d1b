/* event.c - `Event`: a flag that can be waited for; see sync.h. */
#include "sync.h"

typedef struct {
  PyObject_HEAD
  struct waiters waiters;
  bool is_set;
} EventObject;

PyDoc_STRVAR(set_doc, "set($self, /)\n--\n\n"
                      "Set the flag, and wake all who wait for it. From any thread.");

static PyObject *event_set(EventObject *self, PyObject *Py_UNUSED(ignored)) {
  Py_BEGIN_CRITICAL_SECTION((PyObject *)self);
  self->is_set = true;
  bridge_wake_all(&self->waiters);
  Py_END_CRITICAL_SECTION();
  Py_RETURN_NONE;
}

PyDoc_STRVAR(clear_doc, "clear($self, /)\n--\n\n"
                        "Reset the flag: who waits from now on waits for the next `set`.");

static PyObject *event_clear(EventObject *self, PyObject *Py_UNUSED(ignored)) {
  Py_BEGIN_CRITICAL_SECTION((PyObject *)self);
  self->is_set = false;
  Py_END_CRITICAL_SECTION();
  Py_RETURN_NONE;
}

PyDoc_STRVAR(is_set_doc, "is_set($self, /)\n--\n\n"
                         "Return whether the flag is set.");

static PyObject *event_is_set(EventObject *self, PyObject *Py_UNUSED(ignored)) {
  bool is_set;
  Py_BEGIN_CRITICAL_SECTION((PyObject *)self);
  is_set = self->is_set;
  Py_END_CRITICAL_SECTION();
  return PyBool_FromLong(is_set);
}

PyDoc_STRVAR(
    wait_doc,
    "wait($self, /, timeout=None)\n--\n\n"
    "Wait until the flag is set.\n"
    "\n"
    "Raises `TimeoutError` after ``timeout`` seconds, and `RuntimeError` in the thread of an\n"
    "event loop.\n"
    "\n"
    "**Cancellation** ends the wait.");

static PyObject *event_wait(EventObject *self, PyObject *const *args, Py_ssize_t nargs,
                            PyObject *keywords) {
  int64_t timeout_ns;
  if (!bridge_timeout_argument("Event.wait", args, nargs, keywords, &timeout_ns) ||
      bridge_check_wait("trio.Event") < 0)
    return NULL;
  struct waiter waiter;
  bool is_set;
  Py_BEGIN_CRITICAL_SECTION((PyObject *)self);
  is_set = self->is_set;
  if (!is_set)
    bridge_waiter_add(&self->waiters, &waiter);
  Py_END_CRITICAL_SECTION();
  if (!is_set && !bridge_wait_on((PyObject *)self, &waiter, "Event.wait", timeout_ns))
    return NULL;
  Py_RETURN_NONE;
}

static PyMethodDef event_methods[] = {
    {"set", (PyCFunction)event_set, METH_NOARGS, set_doc},
    {"clear", (PyCFunction)event_clear, METH_NOARGS, clear_doc},
    {"is_set", (PyCFunction)event_is_set, METH_NOARGS, is_set_doc},
    {"wait", (PyCFunction)(void (*)(void))event_wait, METH_FASTCALL | METH_KEYWORDS, wait_doc},
    {NULL, NULL, 0, NULL},
};

PyDoc_STRVAR(event_doc, "Event()\n--\n\n"
                        "A flag, not set at first, that green threads and other threads can wait "
                        "for.");

static PyType_Slot event_slots[] = {
    {Py_tp_doc, (void *)event_doc},
    {Py_tp_methods, event_methods},
    {0, NULL},
};

PyType_Spec bridge_event_spec = {
    .name = "dromon.green.Event",
    .basicsize = sizeof(EventObject),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = event_slots,
};
