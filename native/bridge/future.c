/* future.c - `FutureState`: what the executor's futures keep, in the place of a `__dict__`.
 *
 * A future of dromon's is a concurrent.futures.Future whose attributes are those of this base. Nearly all
 * its methods are the standard library's, which hold the future's condition while they touch it. The
 * condition is made when the first of them asks for it. As long as none has, nobody waits for the future,
 * no callback was added and nobody is about to look at it under the condition's lock: the worker may
 * change it without that, in one step that nothing comes between (it holds the GIL, or has locked the
 * object). So a future that nobody looks at before it is done costs neither locks nor calls.
 */
#include "bridge.h"

#include <stddef.h>
#include <structmember.h>

/* The standard library's words, each the one interned string that is spelt so. */
static PyObject *word(bridge_state *state, enum bridge_future_word which) {
  return state->future_words[which];
}

int bridge_future_words_init(bridge_state *state) {
  static const char *const words[] = {"PENDING", "RUNNING", "FINISHED"};
  for (int i = 0; i < BRIDGE_FUTURE_WORDS; i++) {
    state->future_words[i] = PyUnicode_InternFromString(words[i]);
    if (state->future_words[i] == NULL)
      return -1;
  }
  return 0;
}

FutureObject *bridge_future_new(bridge_state *state, PyTypeObject *type) {
  FutureObject *future = (FutureObject *)type->tp_alloc(type, 0);
  if (future != NULL)
    future->progress = Py_NewRef(word(state, BRIDGE_FUTURE_PENDING));
  return future;
}

/* Changes a future that nobody has looked at; false if somebody has. */
static bool change(FutureObject *future, PyObject *from, PyObject *to, PyObject *result,
                   PyObject *exception) {
  bool changed = false;
  PyObject *old = NULL;
  Py_BEGIN_CRITICAL_SECTION((PyObject *)future);
  if (future->condition == NULL && future->progress == from) {
    old = future->progress;
    future->result = Py_XNewRef(result);
    future->exception = Py_XNewRef(exception);
    future->progress = Py_NewRef(to);
    changed = true;
  }
  Py_END_CRITICAL_SECTION();
  Py_XDECREF(old);
  return changed;
}

bool bridge_future_begin(bridge_state *state, FutureObject *future) {
  if (change(future, word(state, BRIDGE_FUTURE_PENDING), word(state, BRIDGE_FUTURE_RUNNING), NULL,
             NULL))
    return true;
  PyObject *begun = PyObject_CallMethod((PyObject *)future, "set_running_or_notify_cancel", NULL);
  if (begun == NULL)
    PyErr_WriteUnraisable((PyObject *)future);
  bool result = begun == Py_True;
  Py_XDECREF(begun);
  return result;
}

/* Moves the reference to its call out; NULL: there is none (any more). */
static PyObject *take_call(FutureObject *future) {
  CallObject *call;
  Py_BEGIN_CRITICAL_SECTION((PyObject *)future);
  call = future->call;
  future->call = NULL;
  Py_END_CRITICAL_SECTION();
  return (PyObject *)call;
}

/* A reference to its call; NULL: as above. */
static CallObject *get_call(FutureObject *future) {
  PyObject *call;
  Py_BEGIN_CRITICAL_SECTION((PyObject *)future);
  call = Py_XNewRef((PyObject *)future->call);
  Py_END_CRITICAL_SECTION();
  return (CallObject *)call;
}

void bridge_future_finish(bridge_state *state, FutureObject *future, PyObject *value,
                          PyObject *error) {
  Py_XDECREF(take_call(future));
  if (change(future, word(state, BRIDGE_FUTURE_RUNNING), word(state, BRIDGE_FUTURE_FINISHED), value,
             error))
    return;
  PyObject *name = PyUnicode_InternFromString(error != NULL ? "set_exception" : "set_result");
  PyObject *set = name == NULL ? NULL
                               : PyObject_CallMethodOneArg((PyObject *)future, name,
                                                           error != NULL ? error : value);
  Py_XDECREF(name);
  if (set == NULL)
    PyErr_WriteUnraisable((PyObject *)future);
  Py_XDECREF(set);
}

/* ---- The type ------------------------------------------------------------------------------- */

static PyObject *future_new(PyTypeObject *type, PyObject *Py_UNUSED(args),
                            PyObject *Py_UNUSED(kwargs)) {
  FutureObject *self = (FutureObject *)type->tp_alloc(type, 0);
  if (self == NULL)
    return NULL;
  self->progress = PyUnicode_InternFromString("PENDING");
  if (self->progress == NULL)
    Py_CLEAR(self);
  return (PyObject *)self;
}

/* Gives what is there, or makes it by `make`. */
static PyObject *get_or_make(FutureObject *self, PyObject **field, PyObject *(*make)(void)) {
  (void)self; /* before Python 3.13 nothing locks it */
  PyObject *value;
  Py_BEGIN_CRITICAL_SECTION((PyObject *)self);
  value = Py_XNewRef(*field);
  Py_END_CRITICAL_SECTION();
  if (value != NULL)
    return value;
  PyObject *made = make(); /* other threads may run meanwhile */
  if (made == NULL)
    return NULL;
  Py_BEGIN_CRITICAL_SECTION((PyObject *)self);
  if (*field == NULL)
    *field = Py_NewRef(made);
  value = Py_NewRef(*field);
  Py_END_CRITICAL_SECTION();
  Py_DECREF(made);
  return value;
}

static PyObject *make_condition(void) {
  PyObject *threading = PyImport_ImportModule("threading");
  PyObject *condition =
      threading == NULL ? NULL : PyObject_CallMethod(threading, "Condition", NULL);
  Py_XDECREF(threading);
  return condition;
}

static PyObject *make_list(void) {
  return PyList_New(0);
}

static PyObject *get_condition(FutureObject *self, void *Py_UNUSED(closure)) {
  return get_or_make(self, &self->condition, make_condition);
}

static PyObject *get_waiters(FutureObject *self, void *Py_UNUSED(closure)) {
  return get_or_make(self, &self->waiters, make_list);
}

static PyObject *get_callbacks(FutureObject *self, void *Py_UNUSED(closure)) {
  return get_or_make(self, &self->callbacks, make_list);
}

static int set_field(FutureObject *self, PyObject *value, void *offset) {
  PyObject **field = (PyObject **)(void *)((char *)self + (size_t)offset);
  Py_XSETREF(*field, Py_XNewRef(value));
  return 0;
}

/* Whether it is done, without an exception; with what it gives. NULL also if it is not. */
static PyObject *finished_result(FutureObject *self) {
  PyObject *result = NULL;
  Py_BEGIN_CRITICAL_SECTION((PyObject *)self);
  /* Compared as words are interned; one that is spelt the same but is another takes the other way. */
  bool finished = PyUnicode_CompareWithASCIIString(self->progress, "FINISHED") == 0;
  if (finished && (self->exception == NULL || self->exception == Py_None))
    result = Py_NewRef(self->result == NULL ? Py_None : self->result);
  Py_END_CRITICAL_SECTION();
  return result;
}

PyDoc_STRVAR(result_doc, "result($self, timeout=None)\n--\n\n"
                         "As concurrent.futures.Future.result.");

static PyObject *future_result(FutureObject *self, PyTypeObject *defining_class,
                               PyObject *const *args, Py_ssize_t nargs, PyObject *keywords) {
  PyObject *result = finished_result(self);
  if (result != NULL)
    return result;
  PyObject *super = PyObject_CallFunction((PyObject *)&PySuper_Type, "OO",
                                          (PyObject *)defining_class, (PyObject *)self);
  PyObject *method = super == NULL ? NULL : PyObject_GetAttrString(super, "result");
  if (method != NULL)
    result = PyObject_Vectorcall(method, args, (size_t)nargs, keywords);
  Py_XDECREF(method);
  Py_XDECREF(super);
  return result;
}

PyDoc_STRVAR(withdraw_doc, "withdraw($self, /)\n--\n\n"
                           "Take back the call, which was to run in another interpreter, if no "
                           "worker has begun it.");

static PyObject *future_withdraw(FutureObject *self, PyObject *Py_UNUSED(ignored)) {
  CallObject *call = get_call(self);
  bool withdrawn = call != NULL && bridge_call_withdraw(call);
  if (withdrawn)
    Py_XDECREF(take_call(self));
  Py_XDECREF(call);
  return PyBool_FromLong(withdrawn);
}

static PyObject *get_begun(FutureObject *self, void *Py_UNUSED(closure)) {
  CallObject *call = get_call(self);
  bool begun = call != NULL && dromon_task_read_state(&call->native.task) != DROMON_TASK_QUEUED;
  Py_XDECREF(call);
  return PyBool_FromLong(begun);
}

static int future_traverse(FutureObject *self, visitproc visit, void *arg) {
  Py_VISIT(Py_TYPE(self));
  Py_VISIT(self->call);
  Py_VISIT(self->condition);
  Py_VISIT(self->result);
  Py_VISIT(self->exception);
  Py_VISIT(self->waiters);
  Py_VISIT(self->callbacks);
  return 0;
}

static int future_clear(FutureObject *self) {
  Py_CLEAR(self->call);
  Py_CLEAR(self->condition);
  Py_CLEAR(self->result);
  Py_CLEAR(self->exception);
  Py_CLEAR(self->waiters);
  Py_CLEAR(self->callbacks);
  return 0;
}

static void future_dealloc(FutureObject *self) {
  PyTypeObject *type = Py_TYPE(self);
  PyObject_GC_UnTrack(self);
  future_clear(self);
  Py_CLEAR(self->progress);
  type->tp_free((PyObject *)self);
  Py_DECREF(type);
}

static PyMethodDef future_methods[] = {
    {"result", (PyCFunction)(void (*)(void))future_result,
     METH_METHOD | METH_FASTCALL | METH_KEYWORDS, result_doc},
    {"withdraw", (PyCFunction)future_withdraw, METH_NOARGS, withdraw_doc},
    {NULL, NULL, 0, NULL},
};

#define OFFSET(field) (void *)offsetof(FutureObject, field)

static PyGetSetDef future_properties[] = {
    {"begun", (getter)get_begun, NULL,
     "Whether a worker has begun its call, which runs in another interpreter, and it is not done.",
     NULL},
    {"_condition", (getter)get_condition, (setter)set_field, NULL, OFFSET(condition)},
    {"_waiters", (getter)get_waiters, (setter)set_field, NULL, OFFSET(waiters)},
    {"_done_callbacks", (getter)get_callbacks, (setter)set_field, NULL, OFFSET(callbacks)},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyMemberDef future_members[] = {
    {"_state", T_OBJECT, offsetof(FutureObject, progress), 0, NULL},
    {"_result", T_OBJECT, offsetof(FutureObject, result), 0, NULL},
    {"_exception", T_OBJECT, offsetof(FutureObject, exception), 0, NULL},
    {NULL, 0, 0, 0, NULL},
};

static PyType_Slot future_slots[] = {
    {Py_tp_doc, "The state of a concurrent.futures.Future; see future.c."},
    {Py_tp_new, future_new},
    {Py_tp_methods, future_methods},
    {Py_tp_members, future_members},
    {Py_tp_getset, future_properties},
    {Py_tp_traverse, future_traverse},
    {Py_tp_clear, future_clear},
    {Py_tp_dealloc, future_dealloc},
    {0, NULL},
};

PyType_Spec bridge_future_spec = {
    .name = "dromon._bridge.FutureState",
    .basicsize = sizeof(FutureObject),
    .flags =
        Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = future_slots,
};
