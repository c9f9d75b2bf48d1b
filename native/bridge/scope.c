/* scope.c - `Scope`: where children of a green task live; see task.h.
 *
 * Who opens a scope leaves it when all its children have ended. What a child raises cancels the others and
 * what its host waits for in the scope; the host leaves by an exception group of all that was raised.
 */
#include "task.h"

#include "fiber.h"

#include <stddef.h>
#include <structmember.h>

/* ---- Children ------------------------------------------------------------------------------- */

static void link_child(ScopeObject *scope, TaskObject *child) {
  child->younger = NULL;
  child->older = scope->youngest;
  if (child->older != NULL)
    child->older->younger = child;
  scope->youngest = child;
  scope->living++;
}

static void unlink_child(ScopeObject *scope, TaskObject *child) {
  if (child->older != NULL)
    child->older->younger = child->younger;
  *(child->younger == NULL ? &scope->youngest : &child->younger->older) = child->older;
  scope->living--;
}

/* Cancels what is in it, and what its host does in it, also in further scopes. */
static void cancel(ScopeObject *scope) {
  if (scope->is_cancelled)
    return;
  bool interrupt = scope->host->root->interruptible;
  for (ScopeObject *inner = scope->host->scopes; inner != scope; inner = inner->outer)
    bridge_scope_cancel_children(inner, interrupt);
  bridge_scope_cancel_children(scope, interrupt);
  if (!scope->is_leaving)
    bridge_task_cancel_self(scope->host, scope, false);
}

/* Cancels what is in it, once. */
static void cancel_children(ScopeObject *scope) {
  if (!scope->is_cancelled)
    bridge_scope_cancel_children(scope, scope->host->root->interruptible);
}

static void note_error(ScopeObject *scope, PyObject *error) {
  if (scope->errors == NULL)
    scope->errors = PyList_New(0);
  if (scope->errors == NULL || PyList_Append(scope->errors, error) < 0)
    PyErr_WriteUnraisable((PyObject *)scope);
}

void bridge_scope_child_ended(ScopeObject *scope, TaskObject *child) {
  unlink_child(scope, child);
  if (child->error != NULL) {
    note_error(scope, child->error);
    if (scope->is_open)
      cancel(scope);
  }
  if (scope->living == 0)
    bridge_wake_all(&scope->leaving);
}

/* ---- Opening and leaving -------------------------------------------------------------------- */

static PyObject *scope_new(PyTypeObject *type, PyObject *args, PyObject *kwargs) {
  static char *names[] = {NULL};
  if (!PyArg_ParseTupleAndKeywords(args, kwargs, ":open_scope", names))
    return NULL;
  return type->tp_alloc(type, 0);
}

/* False: it was before. */
static bool open_scope(ScopeObject *self, TaskObject *host) {
  bool opened;
  Py_BEGIN_CRITICAL_SECTION2((PyObject *)self, host->lock);
  opened = self->host == NULL;
  if (opened) {
    self->host = (TaskObject *)Py_NewRef((PyObject *)host);
    self->leaving.lock = host->lock;
    self->outer = host->scopes;
    self->is_open = true;
    host->scopes = self; /* borrowed: the with statement that it is of has a reference */
  }
  Py_END_CRITICAL_SECTION2();
  return opened;
}

static PyObject *scope_enter(ScopeObject *self, PyTypeObject *defining_class,
                             PyObject *const *Py_UNUSED(args), Py_ssize_t Py_UNUSED(nargs),
                             PyObject *Py_UNUSED(keywords)) {
  TaskObject *task = bridge_current_task(bridge_state_of(defining_class));
  if (task == NULL && PyErr_Occurred())
    return NULL;
  if (task == NULL) {
    PyErr_SetString(
        PyExc_RuntimeError,
        "a green scope is for functions that run on a dromon worker; in a trio task use "
        "trio.open_nursery(), elsewhere dromon.Executor");
    return NULL;
  }
  if (!open_scope(self, task)) {
    PyErr_SetString(PyExc_RuntimeError, "the scope was opened before");
    return NULL;
  }
  return Py_NewRef((PyObject *)self);
}

static void close_scope(ScopeObject *self) {
  TaskObject *host = self->host;
  ScopeObject **link = &host->scopes;
  while (*link != self)
    link = &(*link)->outer;
  *link = self->outer;
  self->is_open = false;
  self->outer = NULL;
  if (host->is_due && host->due_scope == self) {
    host->is_due = false;
    host->due_scope = NULL;
  }
}

void bridge_scope_close_all(TaskObject *host) {
  while (host->scopes != NULL) {
    cancel_children(host->scopes);
    close_scope(host->scopes);
  }
}

/* Delivers what came while the host ran, and no wait has told it; so that each leaving is a checkpoint. */
static PyObject *take_due(bridge_state *state, ScopeObject *self) {
  if (bridge_task_deliver(state, self->host) == 0)
    return NULL;
  return bridge_take_raised_exception();
}

/* Waits for the last child: NULL or, if the host is to hear it, what the wait was ended by. */
static PyObject *await_children(ScopeObject *self, bool to_hear) {
  struct waiter waiter;
  bool waits;
  Py_BEGIN_CRITICAL_SECTION(self->host->lock);
  waits = self->living > 0;
  if (waits)
    bridge_waiter_add(&self->leaving, &waiter);
  Py_END_CRITICAL_SECTION();
  if (!waits || bridge_wait(&waiter, (PyObject *)self, "leaving a scope", -1,
                            to_hear ? WAIT_ORDINARY : WAIT_SHIELDED) == WAIT_WOKEN)
    return NULL;
  return bridge_take_raised_exception();
}

/* The host leaves; if it is by an exception, its children are cancelled. */
static void begin_to_leave(ScopeObject *self, bool failed) {
  Py_BEGIN_CRITICAL_SECTION(self->host->lock);
  self->is_leaving = true;
  if (failed)
    cancel_children(self);
  Py_END_CRITICAL_SECTION();
}

/* A new reference; NULL if no child lives. */
static TaskObject *get_youngest(ScopeObject *self) {
  PyObject *child;
  Py_BEGIN_CRITICAL_SECTION(self->host->lock);
  child = Py_XNewRef((PyObject *)self->youngest);
  Py_END_CRITICAL_SECTION();
  return (TaskObject *)child;
}

/* Comes back when no child lives. The result is what the host has met meanwhile: a new reference, or NULL. What
 * leaves the body or is met cancels the children; a further cancellation waits for the host's next wait. */
static PyObject *leave(bridge_state *state, ScopeObject *self, PyObject *body) {
  PyObject *met = body == NULL ? take_due(state, self) : NULL;
  begin_to_leave(self, body != NULL || met != NULL);
  TaskObject *child;
  while ((child = get_youngest(self)) != NULL) {
    bool has_run = bridge_task_run_here(state, child, "leaving a scope");
    Py_DECREF(child);
    PyObject *error = has_run ? NULL : await_children(self, body == NULL && met == NULL);
    if (error != NULL) {
      met = error;
      begin_to_leave(self, true);
    }
  }
  return met == NULL && body == NULL ? take_due(state, self) : met;
}

/* ---- What comes out ------------------------------------------------------------------------- */

static bool is_cancellation(bridge_state *state, PyObject *error) {
  return PyErr_GivenExceptionMatches(error, state->interrupted);
}

/* Adds what the body has raised, unless a child has raised the very same. */
static void note_body(ScopeObject *self, PyObject *error) {
  for (Py_ssize_t i = 0; self->errors != NULL && i < PyList_GET_SIZE(self->errors); i++) {
    if (PyList_GET_ITEM(self->errors, i) == error)
      return;
  }
  note_error(self, error);
}

/* In place of the body's exception, which is in the group or was its end, and so is no context of it. */
static void raise_group(PyObject *errors, PyObject *body) {
  PyObject *group =
      PyObject_CallFunction(PyExc_BaseExceptionGroup, "sO", "exceptions of a green scope", errors);
  if (group == NULL)
    return;
  PyErr_SetObject((PyObject *)Py_TYPE(group), group);
  if (body != NULL)
    PyException_SetContext(group, PyException_GetContext(body));
  Py_DECREF(group);
}

/* The result of __exit__: the exception of the body goes on (False), or not (True), or another one comes. */
static PyObject *come_out(bridge_state *state, ScopeObject *self, PyObject *body, PyObject *met) {
  PyObject *errors, *own = self->own;
  if (body != NULL && !is_cancellation(state, body))
    note_body(self, body);
  if (met != NULL && !is_cancellation(state, met))
    note_body(self, met);
  errors = self->errors;
  self->errors = NULL;
  PyObject *result = NULL;
  if (errors != NULL) {
    raise_group(errors, body);
  } else if (body != NULL && body != own) {
    result = Py_NewRef(Py_False);
  } else if (met != NULL && met != own) {
    bridge_raise_again(Py_NewRef(met));
  } else {
    result = Py_NewRef(body == NULL ? Py_False : Py_True);
  }
  Py_XDECREF(errors);
  return result;
}

/* Cancels it by one of the two functions, unless it is closed. */
static void cancel_open(ScopeObject *self, void (*by)(ScopeObject *)) {
  if (self->host == NULL)
    return;
  Py_BEGIN_CRITICAL_SECTION(self->host->lock);
  if (self->is_open)
    by(self);
  Py_END_CRITICAL_SECTION();
}

static PyObject *scope_exit(ScopeObject *self, PyTypeObject *defining_class, PyObject *const *args,
                            Py_ssize_t nargs, PyObject *Py_UNUSED(keywords)) {
  bridge_state *state = bridge_state_of(defining_class);
  PyObject *body = nargs == 3 && args[1] != Py_None ? args[1] : NULL;
  if (!self->is_open || self->host->scopes != self || bridge_current_task(state) != self->host) {
    cancel_open(self, cancel_children);
    PyErr_SetString(PyExc_RuntimeError,
                    "a scope is left by the task that has opened it, the innermost first");
    return NULL;
  }
  PyObject *met = leave(state, self, body);
  Py_BEGIN_CRITICAL_SECTION(self->host->lock);
  close_scope(self);
  Py_END_CRITICAL_SECTION();
  PyObject *result = come_out(state, self, body, met);
  Py_XDECREF(met);
  Py_CLEAR(self->own);
  return result;
}

/* ---- The type ------------------------------------------------------------------------------- */

PyDoc_STRVAR(
    spawn_doc,
    "spawn($self, fn, /, *args, name=None)\n--\n\n"
    "Start ``fn(*args)`` as a child, and return its `Task`.\n\n"
    "It begins when a worker has time for it, at the latest when somebody waits for it, in a\n"
    "copy of the current context. For any task within the scope.\n\n"
    "Raises `TypeError` if ``fn`` is asynchronous or no function; `RuntimeError` if the scope\n"
    "is not open, or this is no worker.");

static int refuse_closed(void) {
  PyErr_SetString(PyExc_RuntimeError, "the scope is not open");
  return -1;
}

static int check_spawn(bridge_state *state, ScopeObject *self, PyObject *const *args,
                       Py_ssize_t nargs) {
  if (nargs < 1) {
    PyErr_SetString(PyExc_TypeError, "spawn() needs a function");
    return -1;
  }
  if (bridge_is_coroutine_function(args[0])) {
    PyErr_Format(PyExc_TypeError,
                 "spawn() needs a sync function, but %R is asynchronous: spawn "
                 "dromon.from_thread.run with it and its arguments, which runs it in trio",
                 args[0]);
    return -1;
  }
  if (!PyCallable_Check(args[0])) {
    PyErr_Format(PyExc_TypeError, "fn must be callable, not %R", args[0]);
    return -1;
  }
  if (!self->is_open)
    return refuse_closed();
  if (bridge_current_task(state) == NULL) {
    if (!PyErr_Occurred())
      PyErr_SetString(PyExc_RuntimeError, "only what runs on a worker can spawn");
    return -1;
  }
  return 0;
}

/* The keyword `name`: a borrowed reference or NULL; false with an exception. */
static bool take_name(PyObject *keywords, PyObject *const *values, PyObject **name) {
  *name = NULL;
  if (keywords == NULL || PyTuple_GET_SIZE(keywords) == 0)
    return true;
  if (PyTuple_GET_SIZE(keywords) > 1 ||
      PyUnicode_CompareWithASCIIString(PyTuple_GET_ITEM(keywords, 0), "name") != 0) {
    PyErr_SetString(PyExc_TypeError, "spawn() takes only the keyword argument name; use "
                                     "functools.partial for those of the function");
    return false;
  }
  if (values[0] != Py_None && !PyUnicode_Check(values[0])) {
    PyErr_Format(PyExc_TypeError, "name must be a str or None, not %R", values[0]);
    return false;
  }
  *name = values[0] == Py_None ? NULL : values[0];
  return true;
}

/* False: the scope was closed meanwhile. */
static bool queue_child(ScopeObject *self, TaskObject *child) {
  bool is_open;
  Py_BEGIN_CRITICAL_SECTION(child->lock);
  is_open = self->is_open;
  if (is_open) {
    child->is_due = self->is_cancelled;
    link_child(self, child);
    Py_INCREF(child); /* the queue's */
    dromon_submit_child(&child->task, bridge_current_fiber()->isolated != NULL);
  }
  Py_END_CRITICAL_SECTION();
  return is_open;
}

static PyObject *scope_spawn(ScopeObject *self, PyTypeObject *defining_class, PyObject *const *args,
                             Py_ssize_t nargs, PyObject *keywords) {
  bridge_state *state = bridge_state_of(defining_class);
  PyObject *name;
  if (check_spawn(state, self, args, nargs) < 0 || !take_name(keywords, args + nargs, &name))
    return NULL;
  PyObject *arguments = PyTuple_New(nargs - 1);
  if (arguments == NULL)
    return NULL;
  for (Py_ssize_t i = 1; i < nargs; i++)
    PyTuple_SET_ITEM(arguments, i - 1, Py_NewRef(args[i]));
  TaskObject *child = bridge_child_new(state, self, args[0], arguments);
  Py_DECREF(arguments);
  if (child == NULL)
    return NULL;
  child->name = Py_XNewRef(name);
  if (queue_child(self, child))
    return (PyObject *)child;
  bridge_child_discard(state, child);
  refuse_closed();
  return NULL;
}

PyDoc_STRVAR(scope_cancel_doc,
             "cancel($self, /)\n--\n\n"
             "Ask all children, and what the scope's own task does in it, to end.\n\n"
             "Then the with statement ends without an exception, unless there is another one.");

static PyObject *scope_cancel(ScopeObject *self, PyObject *Py_UNUSED(ignored)) {
  cancel_open(self, cancel);
  Py_RETURN_NONE;
}

static PyObject *scope_get_cancel_called(ScopeObject *self, void *Py_UNUSED(closure)) {
  return PyBool_FromLong(self->is_cancelled);
}

static int scope_traverse(ScopeObject *self, visitproc visit, void *arg) {
  Py_VISIT(Py_TYPE(self));
  Py_VISIT(self->host);
  Py_VISIT(self->errors);
  Py_VISIT(self->own);
  return 0;
}

static int scope_clear(ScopeObject *self) {
  Py_CLEAR(self->errors);
  Py_CLEAR(self->own);
  if (!self->is_open)
    Py_CLEAR(self->host);
  return 0;
}

static void scope_dealloc(ScopeObject *self) {
  PyTypeObject *type = Py_TYPE(self);
  PyObject_GC_UnTrack(self);
  if (self->is_open) { /* its with statement has ended without its __exit__: only by force */
    Py_BEGIN_CRITICAL_SECTION(self->host->lock);
    close_scope(self);
    Py_END_CRITICAL_SECTION();
  }
  scope_clear(self);
  type->tp_free((PyObject *)self);
  Py_DECREF(type);
}

#define WITH_CLASS METH_METHOD | METH_FASTCALL | METH_KEYWORDS

static PyMethodDef scope_methods[] = {
    {"__enter__", (PyCFunction)(void (*)(void))scope_enter, WITH_CLASS, NULL},
    {"__exit__", (PyCFunction)(void (*)(void))scope_exit, WITH_CLASS, NULL},
    {"spawn", (PyCFunction)(void (*)(void))scope_spawn, WITH_CLASS, spawn_doc},
    {"cancel", (PyCFunction)scope_cancel, METH_NOARGS, scope_cancel_doc},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef scope_properties[] = {
    {"cancel_called", (getter)scope_get_cancel_called, NULL, "Whether it was cancelled.", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot scope_slots[] = {
    {Py_tp_doc, "Where green tasks live: a with statement that ends when all of them have."},
    {Py_tp_new, scope_new},
    {Py_tp_methods, scope_methods},
    {Py_tp_getset, scope_properties},
    {Py_tp_traverse, scope_traverse},
    {Py_tp_clear, scope_clear},
    {Py_tp_dealloc, scope_dealloc},
    {0, NULL},
};

PyType_Spec bridge_scope_spec = {
    .name = "dromon.green.Scope",
    .basicsize = sizeof(ScopeObject),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = scope_slots,
};
