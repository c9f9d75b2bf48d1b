/* errand.c - the submitter's side of calls that run in interpreters of their own: see isolated.h. All of
 * it runs in the main interpreter. */
#include "isolated.h"

#include <stddef.h>

/* ---- Functions that are known --------------------------------------------------------------- */

/* What stands for a callable by its module and name does so as long as the callable lives: it is kept here,
 * by the callable's address. */
static size_t slot_of(PyObject *function) {
  return ((uintptr_t)function / sizeof(max_align_t)) % BRIDGE_KNOWN;
}

static bool refers_to(PyObject *reference, PyObject *function) {
#if PY_VERSION_HEX < 0x030D0000
  return PyWeakref_GET_OBJECT(reference) == function;
#else
  PyObject *found;
  PyWeakref_GetRef(reference, &found);
  Py_XDECREF(found); /* if it is the function, that lives on */
  return found == function;
#endif
}

static PyObject *find_known(bridge_state *state, PyObject *function) {
  PyObject *portable = NULL;
  size_t slot = slot_of(function);
  Py_BEGIN_CRITICAL_SECTION((PyObject *)state->function_type);
  PyObject *reference = state->known[slot].reference;
  if (reference != NULL && refers_to(reference, function))
    portable = Py_NewRef(state->known[slot].portable);
  Py_END_CRITICAL_SECTION();
  return portable;
}

static void remember(bridge_state *state, PyObject *function, PyObject *portable) {
  PyObject *reference = PyWeakref_NewRef(function, NULL);
  if (reference == NULL) { /* of callables of a few types there is none */
    PyErr_Clear();
    return;
  }
  size_t slot = slot_of(function);
  PyObject *old_reference, *old_portable;
  Py_BEGIN_CRITICAL_SECTION((PyObject *)state->function_type);
  old_reference = state->known[slot].reference;
  old_portable = state->known[slot].portable;
  state->known[slot].reference = reference;
  state->known[slot].portable = Py_NewRef(portable);
  Py_END_CRITICAL_SECTION();
  Py_XDECREF(old_reference);
  Py_XDECREF(old_portable);
}

PyObject *bridge_portable(bridge_state *state, PyObject *function) {
  if (Py_IS_TYPE(function, state->function_type))
    return Py_NewRef(function);
  PyObject *portable = find_known(state, function);
  if (portable != NULL)
    return portable;
  portable = bridge_call_python("dromon._functions", "function_of", "O", function);
  if (portable != NULL && bridge_function_is_reference(bridge_function_record(portable)))
    remember(state, function, portable);
  return portable;
}

/* ---- Calls ---------------------------------------------------------------------------------- */

/* The values of the pool's context variables, where they have one, each after its number. */
static PyObject *values_of(PyObject *variables) {
  PyObject *pairs = PyList_New(0);
  for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(variables) && pairs != NULL; i++) {
    PyObject *value;
    int result = PyContextVar_Get(PyTuple_GET_ITEM(variables, i), NULL, &value);
    if (result == 0 && value != NULL) {
      PyObject *number = PyLong_FromSsize_t(i);
      result =
          number == NULL || PyList_Append(pairs, number) < 0 ? -1 : PyList_Append(pairs, value);
      Py_XDECREF(number);
      Py_DECREF(value);
    }
    if (result < 0)
      Py_CLEAR(pairs);
  }
  PyObject *values = pairs == NULL ? NULL : PyList_AsTuple(pairs);
  Py_XDECREF(pairs);
  return values;
}

static int write_variables(bridge_state *state, struct errand *errand, PyObject *variables) {
  if (variables == NULL || PyTuple_GET_SIZE(variables) == 0)
    return 0;
  PyObject *values = values_of(variables);
  int result = values == NULL ? -1 : bridge_parcel_write(state, &errand->variables, values);
  Py_XDECREF(values);
  return result;
}

struct errand *bridge_errand_new(bridge_state *state, CallObject *call) {
  struct errand *errand = PyMem_RawCalloc(1, sizeof *errand);
  if (errand == NULL) {
    PyErr_NoMemory();
    return NULL;
  }
  errand->on_abort = call->on_abort;
  PyObject *portable = bridge_portable(state, call->function);
  if (portable != NULL) {
    errand->function = bridge_function_ref(bridge_function_record(portable));
    Py_DECREF(portable);
  }
  if (portable == NULL || bridge_parcel_write(state, &errand->arguments, call->arguments) < 0 ||
      write_variables(state, errand, call->pool->variables) < 0) {
    bridge_errand_free(errand);
    return NULL;
  }
  return errand;
}

void bridge_errand_clear_inputs(struct errand *errand) {
  bridge_parcel_clear(&errand->arguments);
  bridge_parcel_clear(&errand->variables);
}

void bridge_errand_free(struct errand *errand) {
  bridge_errand_clear_inputs(errand);
  bridge_parcel_clear(&errand->outcome);
  bridge_parcel_clear(&errand->question);
  bridge_parcel_clear(&errand->answer);
  if (errand->function != NULL)
    bridge_function_unref(errand->function);
  PyMem_RawFree(errand);
}

/* The error of a call that did not run. */
static PyObject *failure_of(struct errand *errand) {
  return bridge_call_python("dromon._errors", "no_isolate", "s", errand->failure);
}

PyObject *bridge_errand_outcome(bridge_state *state, struct errand *errand, PyObject **error) {
  *error = NULL;
  PyObject *value = NULL;
  if (errand->failure != NULL)
    *error = failure_of(errand);
  else if (errand->is_error)
    *error = bridge_parcel_read_error(state, &errand->outcome);
  else
    value = bridge_parcel_read(state, &errand->outcome);
  bridge_parcel_clear(&errand->outcome);
  errand->has_outcome = false;
  if (value == NULL && *error == NULL)
    *error = bridge_take_raised_exception();
  return value;
}

/* What its call asks, for dromon._from_thread. */
static PyObject *question_of(bridge_state *state, CallObject *call) {
  struct errand *errand = call->errand;
  PyObject *question = bridge_parcel_read(state, &errand->question);
  PyObject *error = question == NULL ? bridge_take_raised_exception() : Py_NewRef(Py_None);
  PyObject *message = bridge_call_python("dromon._from_thread", "question", "OOOO", call,
                                         question == NULL ? Py_None : question, error,
                                         errand->is_async ? Py_True : Py_False);
  Py_XDECREF(question);
  Py_DECREF(error);
  return message;
}

PyObject *bridge_errand_question(bridge_state *state, CallObject *call) {
  /* Relaxed: it came with the post. */
  atomic_store_explicit(&call->errand->asks, false, memory_order_relaxed);
  return question_of(state, call);
}

int bridge_errand_answer(bridge_state *state, struct errand *errand, enum answer by,
                         PyObject *object) {
  int result = 0;
  if (by == ANSWER_VALUE)
    result = bridge_parcel_write(state, &errand->answer, object);
  else if (by == ANSWER_ERROR)
    result = bridge_parcel_write_error(state, &errand->answer, object);
  if (result < 0)
    return -1;
  errand->answered_by = by;
  dromon_park_set(&errand->answered); /* from here on the errand is the worker's again */
  return 0;
}
