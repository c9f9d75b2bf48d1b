/* function.c - `Function`: a function that travels, and how an interpreter makes it.
 *
 * The record is raw memory with a count of its own. It has a number that no other one ever has, under
 * which each interpreter keeps the callable that it has made: so a second call of it finds that.
 */
#include "parcel.h"

#include <stdatomic.h>
#include <string.h>

struct function {
  _Atomic uint64_t references;
  uint64_t number;
  enum bridge_function_kind kind;
  size_t size;
  char data[];
};

typedef struct {
  PyObject_HEAD
  struct function *function;
} FunctionObject;

enum { LOADED_MOST = 1024 }; /* callables that an interpreter keeps */

struct function *bridge_function_ref(struct function *function) {
  /* Relaxed: the caller already holds a reference. */
  atomic_fetch_add_explicit(&function->references, 1, memory_order_relaxed);
  return function;
}

void bridge_function_unref(struct function *function) {
  /* acq_rel: who frees it comes after all that read it. */
  if (atomic_fetch_sub_explicit(&function->references, 1, memory_order_acq_rel) == 1)
    PyMem_RawFree(function);
}

bool bridge_function_is_reference(const struct function *function) {
  return function->kind == BRIDGE_BY_REFERENCE;
}

struct function *bridge_function_record(PyObject *function) {
  return ((FunctionObject *)function)->function;
}

/* Makes the callable, and keeps it under `number`. */
static PyObject *load(bridge_state *state, struct function *function, PyObject *number) {
  PyObject *callable = bridge_call_python("dromon._functions", "load", "iy#", (int)function->kind,
                                          function->data, (Py_ssize_t)function->size);
  if (callable == NULL)
    return NULL;
  if (PyDict_GET_SIZE(state->loaded) >= LOADED_MOST)
    PyDict_Clear(state->loaded); /* what is still in use is soon made again */
  if (PyDict_SetItem(state->loaded, number, callable) < 0)
    Py_CLEAR(callable);
  return callable;
}

PyObject *bridge_function_load(bridge_state *state, struct function *function) {
  PyObject *number = PyLong_FromUnsignedLongLong(function->number);
  if (number == NULL)
    return NULL;
  PyObject *callable = PyDict_GetItemWithError(state->loaded, number);
  if (callable != NULL)
    Py_INCREF(callable);
  else if (!PyErr_Occurred())
    callable = load(state, function, number);
  Py_DECREF(number);
  return callable;
}

/* ---- The type ------------------------------------------------------------------------------- */

static PyObject *function_new(PyTypeObject *type, PyObject *args, PyObject *kwargs) {
  static _Atomic uint64_t last_number; /* the process's: records go to all interpreters */
  static char *names[] = {"kind", "blob", NULL};
  int kind;
  const char *data;
  Py_ssize_t size;
  if (!PyArg_ParseTupleAndKeywords(args, kwargs, "iy#:Function", names, &kind, &data, &size))
    return NULL;
  struct function *function = PyMem_RawMalloc(sizeof *function + (size_t)size);
  if (function == NULL)
    return PyErr_NoMemory();
  FunctionObject *self = (FunctionObject *)type->tp_alloc(type, 0);
  if (self == NULL) {
    PyMem_RawFree(function);
    return NULL;
  }
  atomic_init(&function->references, 1);
  /* Relaxed: numbers only have to differ. */
  function->number = atomic_fetch_add_explicit(&last_number, 1, memory_order_relaxed);
  function->kind = (enum bridge_function_kind)kind;
  function->size = (size_t)size;
  memcpy(function->data, data, (size_t)size);
  self->function = function;
  return (PyObject *)self;
}

static void function_dealloc(FunctionObject *self) {
  PyTypeObject *type = Py_TYPE(self);
  bridge_function_unref(self->function);
  type->tp_free((PyObject *)self);
  Py_DECREF(type);
}

static PyType_Slot function_slots[] = {
    {Py_tp_doc, "Function(kind, blob)\n--\n\n"
                "A function that travels: see dromon._functions.portable."},
    {Py_tp_new, function_new},
    {Py_tp_dealloc, function_dealloc},
    {0, NULL},
};

PyType_Spec bridge_function_spec = {
    .name = "dromon._bridge.Function",
    .basicsize = sizeof(FunctionObject),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = function_slots,
};
