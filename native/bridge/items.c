/* items.c - the loop of a map's chunk: one function, item after item.
 *
 * In C, because between two items that let go of the GIL it is held for no longer than this loop takes, and
 * the other workers and the event loop wait for it.
 */
#include "bridge.h"

#include "isolated.h"

#include <time.h>

struct run {
  PyObject *function;
  bool star; /* whether an item is the arguments, and not the argument */
  PyObject *context;
  PyObject *take; /* the method of the items */
  PyObject *results;
};

/* As time.perf_counter has it. */
static double now(void) {
  struct timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return (double)time.tv_sec + 1e-9 * (double)time.tv_nsec;
}

static PyObject *call_with(const struct run *run, PyObject *item) {
  if (!run->star)
    return PyObject_CallOneArg(run->function, item);
  PyObject *arguments = PySequence_Tuple(item);
  if (arguments == NULL)
    return NULL;
  PyObject *value = PyObject_Call(run->function, arguments, NULL);
  Py_DECREF(arguments);
  return value;
}

static PyObject *call_in_context(const struct run *run, PyObject *item) {
  PyObject *context = PyContext_Copy(run->context);
  PyObject *value = NULL;
  if (context != NULL && PyContext_Enter(context) == 0) {
    value = call_with(run, item);
    PyContext_Exit(context); /* cannot fail: it is the one that we entered */
  }
  Py_XDECREF(context);
  if (value != NULL && PyCoro_CheckExact(value))
    value = bridge_refuse_coroutine(run->function, value);
  return value;
}

/* The next one; NULL without an exception if there is none. */
static PyObject *next_item(const struct run *run) {
  PyObject *item = PyObject_CallNoArgs(run->take);
  if (item == NULL && PyErr_ExceptionMatches(PyExc_IndexError))
    PyErr_Clear();
  return item;
}

/* 1; 0 if there is no item; -1 with an exception. */
static int run_item(const struct run *run) {
  PyObject *item = next_item(run);
  if (item == NULL)
    return PyErr_Occurred() ? -1 : 0;
  PyObject *value = call_in_context(run, item);
  Py_DECREF(item);
  int result = value == NULL || PyList_Append(run->results, value) < 0 ? -1 : 1;
  Py_XDECREF(value);
  return result;
}

PyObject *bridge_run_items(PyObject *module, PyObject *const *args, Py_ssize_t count) {
  (void)module;
  if (count != 6) {
    PyErr_SetString(PyExc_TypeError, "run_items takes 6 arguments");
    return NULL;
  }
  struct run run = {
      .function = args[0],
      .star = args[1] == Py_True,
      .context = args[2],
      .results = args[4],
  };
  double end = PyFloat_AsDouble(args[5]);
  if (end == -1.0 && PyErr_Occurred())
    return NULL;
  run.take = PyObject_GetAttrString(args[3], "popleft");
  if (run.take == NULL)
    return NULL;
  int result;
  bool is_over;
  do {
    result = bridge_is_unwanted() ? 0 : run_item(&run);
    is_over = result == 0 || now() >= end;
  } while (result > 0 && !is_over && !bridge_evaluator_is_wanted());
  Py_DECREF(run.take);
  return result < 0 ? NULL : PyBool_FromLong(is_over);
}
