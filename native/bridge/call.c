/* call.c - `Call`: one submitted call; see bridge.h for who owns which field when. */
#include "bridge.h"

#include "fiber.h"
#include "isolated.h"

#include <stddef.h>
#include <structmember.h>

CallObject *bridge_call_of(dromon_task *task) {
  return (CallObject *)(void *)((char *)task - offsetof(CallObject, native));
}

/* `pool`, `function`, `arguments` and `context` may be NULL. */
static CallObject *new_call(bridge_state *state, PoolObject *pool, PyObject *function,
                            PyObject *arguments, PyObject *context, enum bridge_on_abort on_abort) {
  CallObject *call = PyObject_GC_New(CallObject, state->call_type);
  if (call == NULL)
    return NULL;
  call->pool = (PoolObject *)Py_XNewRef((PyObject *)pool);
  call->port = NULL;
  call->function = Py_XNewRef(function);
  call->arguments = Py_XNewRef(arguments);
  call->context = Py_XNewRef(context);
  call->name = call->host_name = NULL;
  call->future = NULL;
  call->value = call->error = NULL;
  call->waiter = call->limiter = call->raise_cancel = NULL;
  call->on_abort = on_abort;
  call->abandoned = false;
  call->thread_state = NULL;
  call->task = NULL;
  call->cancel_due = call->cancel_told = false;
  call->interrupts = 0;
  call->visiting = 0;
  call->deferred = false;
  call->list = NULL;
  call->weak_references = NULL;
  call->errand = NULL;
  return call;
}

CallObject *bridge_call_new(bridge_state *state, PoolObject *pool, PyObject *function,
                            PyObject *arguments, enum bridge_on_abort on_abort) {
  PyObject *context = PyContext_CopyCurrent();
  if (context == NULL)
    return NULL;
  CallObject *call = new_call(state, pool, function, arguments, context, on_abort);
  Py_DECREF(context);
  if (call == NULL)
    return NULL;
  dromon_task_init(&call->native.task);
  PyObject_GC_Track(call);
  return call;
}

CallObject *bridge_isolated_call_new(bridge_state *state, PoolObject *pool, PyObject *function,
                                     PyObject *arguments, enum bridge_on_abort on_abort) {
  CallObject *call = new_call(state, pool, function, arguments, NULL, on_abort);
  if (call == NULL)
    return NULL;
  dromon_task_init(&call->native.task);
  PyObject_GC_Track(call);
  call->errand = bridge_errand_new(state, call);
  if (call->errand == NULL)
    Py_CLEAR(call);
  return call;
}

CallObject *bridge_native_call_new(bridge_state *state, PoolObject *pool, int (*fn)(void *),
                                   void *arg, PyObject *kept_alive, enum bridge_on_abort on_abort) {
  CallObject *call = new_call(state, pool, NULL, kept_alive, NULL, on_abort);
  if (call == NULL)
    return NULL;
  dromon_native_task_init(&call->native, fn, arg, NULL);
  PyObject_GC_Track(call);
  return call;
}

CallObject *bridge_message_new(bridge_state *state, PortObject *port, PyObject *waiter) {
  CallObject *call = new_call(state, NULL, NULL, NULL, NULL, BRIDGE_WAIT);
  if (call == NULL)
    return NULL;
  dromon_task_init(&call->native.task);
  bridge_call_deliver_to(call, port, waiter);
  call->abandoned = true;
  PyObject_GC_Track(call);
  return call;
}

void bridge_call_deliver_to(CallObject *call, PortObject *port, PyObject *waiter) {
  Py_XSETREF(call->port, (PortObject *)Py_NewRef((PyObject *)port));
  Py_XSETREF(call->waiter, waiter == Py_None ? NULL : Py_NewRef(waiter));
  if (call->native.task.native)
    call->native.port = port->port;
  if (call->errand != NULL)
    call->errand->has_run = port->token != Py_None;
}

/* ---- Functions ------------------------------------------------------------------------------ */

/* A function's `__qualname__` for people to read, or the function itself. */
static PyObject *readable_name(PyObject *function) {
  PyObject *name = PyObject_GetAttrString(function, "__qualname__");
  if (name != NULL)
    return name;
  PyErr_Clear();
  return Py_NewRef(function);
}

static void refuse_asynchronous(PyObject *function) {
  PyObject *name = readable_name(function);
  PyErr_Format(PyExc_TypeError,
               "dromon expected a sync function, but %R appears to be asynchronous", name);
  Py_DECREF(name);
}

bool bridge_is_coroutine_function(PyObject *function) {
  if (PyMethod_Check(function))
    function = PyMethod_GET_FUNCTION(function);
  return PyFunction_Check(function) &&
         ((PyCodeObject *)PyFunction_GET_CODE(function))->co_flags & CO_COROUTINE;
}

int bridge_check_function(PyObject *function) {
  if (bridge_is_coroutine_function(function)) {
    refuse_asynchronous(function);
    return -1;
  }
  if (!PyCallable_Check(function)) {
    PyErr_Format(PyExc_TypeError, "sync_fn must be callable, not %R", function);
    return -1;
  }
  return 0;
}

PyObject *bridge_call_thread_name(CallObject *call) {
  if (call->name == NULL || call->host_name == NULL)
    return Py_XNewRef(call->name);
  return PyUnicode_FromFormat("%U from %S", call->name, call->host_name);
}

/* Appends as much of `text`, which is UTF-8, as fits, in whole characters. */
static size_t append(char name[16], size_t length, const char *text) {
  while (length < 15 && *text != '\0')
    name[length++] = *text++;
  if ((*text & 0xC0) == 0x80) { /* inside of a character: back to before its first byte */
    while ((name[--length] & 0xC0) == 0x80) {
    }
  }
  name[length] = '\0';
  return length;
}

static size_t append_str(char name[16], size_t length, PyObject *str) {
  const char *text = PyUnicode_AsUTF8(str);
  if (text != NULL)
    return append(name, length, text);
  PyErr_Clear(); /* half a pair of surrogates, say */
  PyObject *bytes = PyUnicode_AsEncodedString(str, "utf-8", "replace");
  if (bytes == NULL) {
    PyErr_Clear();
    return append(name, length, "?");
  }
  length = append(name, length, PyBytes_AS_STRING(bytes));
  Py_DECREF(bytes);
  return length;
}

bool bridge_call_short_name(CallObject *call, char name[16]) {
  if (call->name == NULL)
    return false;
  size_t length = append_str(name, 0, call->name);
  if (call->host_name != NULL)
    append_str(name, append(name, length, " from "), call->host_name);
  return true;
}

/* ---- Outcomes ------------------------------------------------------------------------------- */

#if PY_VERSION_HEX < 0x030C0000
PyObject *bridge_take_raised_exception(void) {
  PyObject *type, *value, *traceback;
  PyErr_Fetch(&type, &value, &traceback);
  PyErr_NormalizeException(&type, &value, &traceback);
  if (traceback != NULL)
    PyException_SetTraceback(value, traceback);
  Py_XDECREF(type);
  Py_XDECREF(traceback);
  return value;
}

void bridge_raise_again(PyObject *error) {
  PyErr_Restore(Py_NewRef(Py_TYPE(error)), error, PyException_GetTraceback(error));
}
#else
PyObject *bridge_take_raised_exception(void) {
  return PyErr_GetRaisedException();
}

void bridge_raise_again(PyObject *error) {
  PyErr_SetRaisedException(error);
}
#endif

void bridge_call_clear_inputs(CallObject *call) {
  Py_CLEAR(call->function);
  Py_CLEAR(call->arguments);
  Py_CLEAR(call->context);
  if (call->errand != NULL)
    bridge_errand_clear_inputs(call->errand);
}

PyObject *bridge_refuse_coroutine(PyObject *function, PyObject *coroutine) {
  /* Closed, so that Python does not warn that it was never awaited. */
  PyObject *closed = PyObject_CallMethod(coroutine, "close", NULL);
  Py_DECREF(coroutine);
  if (closed == NULL)
    return NULL;
  Py_DECREF(closed);
  refuse_asynchronous(function);
  return NULL;
}

/* Calls its function, in its context. */
static PyObject *call_function(CallObject *call, struct bridge_fiber *fiber, dromon_batch *batch) {
  char name[16];
  bool has_name = bridge_call_short_name(call, name);
  bridge_call_begin(call, fiber);
  dromon_batch_enter_task(batch, has_name ? name : NULL);
  PyObject *value = PyObject_Call(call->function, call->arguments, NULL);
  dromon_batch_leave_task(batch);
  bridge_call_end(call, fiber);
  return value;
}

/* Gives the outcome to the future. */
static void fulfil(bridge_state *state, CallObject *call) {
  bridge_future_finish(state, call->future, call->value, call->error);
  Py_CLEAR(call->future);
  bridge_call_discard(call);
}

/* What the frames of an interrupted call hold is let go of here, by the thread that ran them: it may be a
 * generator that stands in the middle of something of this thread's, an event loop for instance. */
static void clear_interrupted_frames(CallObject *call) {
  PyObject *module = PyImport_ImportModule("dromon._worker");
  PyObject *cleared =
      module == NULL ? NULL : PyObject_CallMethod(module, "clear_frames", "O", call->error);
  if (cleared == NULL)
    PyErr_WriteUnraisable(NULL);
  Py_XDECREF(cleared);
  Py_XDECREF(module);
}

void bridge_call_run(CallObject *call, struct bridge_fiber *fiber, dromon_batch *batch) {
  bridge_state *state = bridge_state_of(Py_TYPE(call));
  PyObject *value = NULL;
  if (call->future != NULL && !bridge_future_begin(state, call->future)) {
    bridge_call_clear_inputs(call);
    return;
  }
  if (PyContext_Enter(call->context) == 0) {
    value = call_function(call, fiber, batch);
    if (value != NULL && PyCoro_CheckExact(value))
      value = bridge_refuse_coroutine(call->function, value);
    if (value == NULL)
      call->error = bridge_take_raised_exception();
    if (call->error != NULL && call->interrupts > 0)
      clear_interrupted_frames(call);
    PyContext_Exit(call->context); /* cannot fail: it is the one that we entered */
  } else {
    call->error = bridge_take_raised_exception();
  }
  call->value = value;
  /* Before anybody is told: who gets the result finds the arguments released. */
  bridge_call_clear_inputs(call);
  if (call->future != NULL)
    fulfil(state, call);
}

void bridge_call_report(CallObject *call) {
  if (call->error == NULL)
    return;
  bridge_raise_again(call->error);
  call->error = NULL;
  PyErr_WriteUnraisable(NULL);
}

void bridge_call_discard(CallObject *call) {
  Py_CLEAR(call->value);
  Py_CLEAR(call->error);
}

/* ---- The type ------------------------------------------------------------------------------- */

bool bridge_call_withdraw(CallObject *call) {
  int withdrawn = dromon_pool_withdraw(call->pool->pool, &call->native.task);
  if (withdrawn < 0)
    return false;
  bridge_waiting_remove(call);
  bridge_call_clear_inputs(call); /* no worker looks at them any more */
  call->port->waiting -= !call->abandoned;
  call->abandoned = true;
  Py_CLEAR(call->waiter);
  Py_CLEAR(call->limiter);
  Py_CLEAR(call->future);
  if (withdrawn == 1)
    Py_DECREF(call); /* the queue's reference */
  return true;
}

PyDoc_STRVAR(submit_doc,
             "submit($self, port, waiter, /)\n--\n\n"
             "Queue the call, once. Return False if the pool is closed.\n\n"
             "It is delivered to `port` when it has ended, with `waiter`: a trio task, a callable, "
             "or None.\n\n"
             "For the thread of the port's event loop. Does not give up the GIL.");

static PyObject *call_submit(CallObject *self, PyObject *const *args, Py_ssize_t nargs) {
  if (nargs != 2 || self->port != NULL ||
      !Py_IS_TYPE(args[0], bridge_state_of(Py_TYPE(self))->port_type)) {
    PyErr_SetString(PyExc_TypeError, "submit() needs a Port and a waiter, once");
    return NULL;
  }
  bridge_call_deliver_to(self, (PortObject *)args[0], args[1]);
  Py_INCREF(self);       /* the queue's; first, since the call may be over before submit returns */
  self->port->waiting++; /* for the port's own thread, which this is: nobody has looked yet */
  self->port->submitted = true;
  if (!self->native.task.native)
    bridge_waiting_add(self);
  if (self->errand != NULL)
    self->errand->has_name = bridge_call_short_name(self, self->errand->name);
  if (dromon_pool_submit(self->pool->pool, &self->native.task) == 0)
    Py_RETURN_TRUE;
  bridge_waiting_remove(self);
  self->port->waiting--;
  Py_DECREF(self);
  Py_RETURN_FALSE;
}

PyDoc_STRVAR(
    abort_doc,
    "abort($self, raise_cancel, /)\n--\n\n"
    "Stop waiting for the call, if that is possible: trio's abort function.\n\n"
    "A call that no worker has started is withdrawn and never runs. One that runs is\n"
    "interrupted (once, however often it is aborted), waited for, or abandoned (it is\n"
    "delivered without a waiter then, and without outcome), as it was made. Returns one of\n"
    "the two values that its Port was made with.");

/* Interrupts it: at once, or in the background if that may take a switch interval. */
static int interrupt(CallObject *call) {
  if (call->errand == NULL) {
    bridge_call_interrupt(call);
    return 0;
  }
  bridge_errand_note_interrupt(call->errand);
  PyObject *started = bridge_call_python("dromon._interruption", "raise_soon", "O", call);
  Py_XDECREF(started);
  return started == NULL ? -1 : 0;
}

static int end_soon(CallObject *call) {
  return call->on_abort == BRIDGE_INTERRUPT ? interrupt(call) : bridge_call_cancel(call);
}

/* Nobody waits for it any longer. False: it has ended, or visits. */
static bool abandon(CallObject *call) {
  if (!bridge_call_abandon(call))
    return false;
  bridge_waiting_abandon(call);
  if (dromon_pool_is_closed(call->pool->pool) && bridge_call_cancel(call) < 0)
    PyErr_WriteUnraisable((PyObject *)call);
  return true;
}

static PyObject *call_abort(CallObject *self, PyObject *raise_cancel) {
  PortObject *port = self->port;
  if (port == NULL) {
    PyErr_SetString(PyExc_RuntimeError, "the call was not submitted");
    return NULL;
  }
  if (bridge_call_withdraw(self))
    return Py_NewRef(port->abort_succeeded);
  bool again =
      self->raise_cancel != NULL; /* after a visit the task waits, and is cancelled, anew */
  if (!again)
    self->raise_cancel = Py_NewRef(raise_cancel);
  if (self->errand != NULL) /* relaxed: a flag, which orders nothing */
    atomic_store_explicit(&self->errand->cancelled, true, memory_order_relaxed);
  if (self->on_abort == BRIDGE_ABANDON && abandon(self)) {
    Py_CLEAR(self->waiter);
    return Py_NewRef(port->abort_succeeded);
  }
  if (self->on_abort != BRIDGE_ABANDON && !again && end_soon(self) < 0)
    return NULL;
  return Py_NewRef(port->abort_failed);
}

PyDoc_STRVAR(interrupt_doc, "interrupt($self, /)\n--\n\n"
                            "Raise Interrupted in the call, if it runs; see interrupt.c.");

static PyObject *call_interrupt(CallObject *self, PyObject *Py_UNUSED(ignored)) {
  if (interrupt(self) < 0)
    return NULL;
  Py_RETURN_NONE;
}

PyDoc_STRVAR(raise_interrupt_doc,
             "raise_interrupt($self, /)\n--\n\n"
             "Raise what interrupt() has asked for, if the call runs in another interpreter.\n\n"
             "Waits until that lets its GIL go: not for the thread of an event loop.");

static PyObject *call_raise_interrupt(CallObject *self, PyObject *Py_UNUSED(ignored)) {
  bridge_errand_interrupt(self);
  Py_RETURN_NONE;
}

PyDoc_STRVAR(retire_doc, "retire($self, /)\n--\n\n"
                         "Let a new worker take the place of the one that runs the call in another "
                         "interpreter.\n\n"
                         "Returns 0 or, if that could not be, an errno.");

static PyObject *call_retire(CallObject *self, PyObject *Py_UNUSED(ignored)) {
  return PyLong_FromLong(self->errand == NULL ? 0 : -bridge_errand_retire(self));
}

PyDoc_STRVAR(answer_doc, "answer($self, by, object, /)\n--\n\n"
                         "Answer what the call asked from another interpreter: by VALUE, by ERROR "
                         "with an exception,\nor by CANCELLED.");

static PyObject *call_answer(CallObject *self, PyObject *args) {
  int by;
  PyObject *object;
  if (!PyArg_ParseTuple(args, "iO:answer", &by, &object))
    return NULL;
  bridge_state *state = bridge_state_of(Py_TYPE(self));
  if (bridge_errand_answer(state, self->errand, (enum answer)by, object) < 0)
    return NULL;
  Py_RETURN_NONE;
}

PyDoc_STRVAR(abandon_doc,
             "abandon($self, /)\n--\n\n"
             "Wait no longer for the running call, which will be delivered without outcome.\n\n"
             "Return False if that cannot be: it has ended, or waits for its submitter.");

static PyObject *call_abandon(CallObject *self, PyObject *Py_UNUSED(ignored)) {
  return PyBool_FromLong(abandon(self));
}

PyDoc_STRVAR(
    visit_doc,
    "visit($self, /)\n--\n\n"
    "For the call's own thread: whether its submitter may be asked for something.\n\n"
    "If so the call is not interrupted before leave(). Raises Interrupted if that was due.");

static PyObject *call_visit(CallObject *self, PyObject *Py_UNUSED(ignored)) {
  int visiting = bridge_call_visit(self);
  return visiting < 0 ? NULL : PyBool_FromLong(visiting);
}

PyDoc_STRVAR(leave_doc, "leave($self, /)\n--\n\n"
                        "For the submitter: what the call asked for by visit() is done.");

static PyObject *call_leave(CallObject *self, PyObject *Py_UNUSED(ignored)) {
  bridge_call_leave(self);
  Py_RETURN_NONE;
}

PyDoc_STRVAR(tell_cancelled_doc,
             "tell_cancelled($self, /)\n--\n\n"
             "For the submitter: what the call asked for is answered by its cancellation.\n\n"
             "Then that is not raised once more at the call's next wait.");

static PyObject *call_tell_cancelled(CallObject *self, PyObject *Py_UNUSED(ignored)) {
  bridge_call_tell_cancelled(self);
  Py_RETURN_NONE;
}

PyDoc_STRVAR(
    unwrap_doc,
    "unwrap($self, /)\n--\n\n"
    "Return what the function returned, or raise what it raised. Once.\n\n"
    "As outcome.Outcome.unwrap. Where the function was interrupted since its submitter was\n"
    "cancelled, that cancellation is raised, with the Interrupted as its cause. Raises\n"
    "RuntimeError if there is no outcome (yet, or any more).");

/* What a C function returned: by the core's convention a negative errno is a failure. */
static PyObject *unwrap_status(int32_t status) {
  if (status >= 0)
    return PyLong_FromLong(status);
  errno = status == INT32_MIN ? INT32_MAX : -status;
  return PyErr_SetFromErrno(PyExc_OSError);
}

/* The KeyboardInterrupt that the call was about to let pass when it was interrupted; borrowed, or NULL. */
static PyObject *keyboard_interrupt_before(PyObject *interrupted) {
  PyObject *error = Py_NewRef(interrupted);
  while (error != NULL && !PyErr_GivenExceptionMatches(error, PyExc_KeyboardInterrupt)) {
    PyObject *context = PyException_GetContext(error);
    Py_DECREF(error);
    error = context;
  }
  Py_XDECREF(error); /* the one before it in the chain has another reference */
  return error;
}

/* Raises what the submitter was cancelled with, because of `interrupted`, whose reference it steals. */
static void raise_cancelled(CallObject *call, PyObject *interrupted) {
  PyObject *keyboard_interrupt = keyboard_interrupt_before(interrupted);
  if (keyboard_interrupt != NULL) { /* a Ctrl-C must not get lost */
    Py_INCREF(keyboard_interrupt);
    Py_DECREF(interrupted);
    bridge_raise_again(keyboard_interrupt);
    return;
  }
  PyObject *returned = PyObject_CallNoArgs(call->raise_cancel);
  if (returned != NULL) {
    Py_DECREF(returned);
    bridge_raise_again(interrupted);
    return;
  }
  PyObject *cancelled = bridge_take_raised_exception();
  PyException_SetCause(cancelled, interrupted);
  bridge_raise_again(cancelled);
}

/* Whether it is an interrupt, or the Interrupted of check_cancelled in another interpreter. */
static bool was_interrupted(CallObject *call, PyObject *error) {
  if (call->errand == NULL)
    return bridge_call_was_interrupted(call, error);
  return PyErr_GivenExceptionMatches(error, bridge_state_of(Py_TYPE(call))->interrupted);
}

static PyObject *call_unwrap(CallObject *self, PyObject *Py_UNUSED(ignored)) {
  if (self->native.task.native)
    return unwrap_status(self->native.status);
  bridge_state *state = bridge_state_of(Py_TYPE(self));
  if (self->errand != NULL && self->errand->asks)
    return bridge_errand_question(state, self);
  if (self->errand != NULL && self->errand->has_outcome)
    self->value = bridge_errand_outcome(state, self->errand, &self->error);
  /* The outcome is moved out: an exception whose traceback leads to a frame that holds this call
   * would otherwise be a reference cycle. */
  PyObject *value = self->value;
  PyObject *error = self->error;
  self->value = self->error = NULL;
  if (error == NULL) {
    if (value == NULL)
      PyErr_SetString(PyExc_RuntimeError, "the call has no outcome");
    return value;
  }
  if (self->raise_cancel != NULL && was_interrupted(self, error))
    raise_cancelled(self, error);
  else
    bridge_raise_again(error);
  return NULL;
}

static PyObject *call_repr(CallObject *self) {
  PyObject *name = bridge_call_thread_name(self);
  if (name == NULL)
    return PyErr_Occurred() ? NULL : PyUnicode_FromString("<dromon call>");
  PyObject *text = PyUnicode_FromFormat("<dromon call of %U>", name);
  Py_DECREF(name);
  return text;
}

static int call_traverse(CallObject *self, visitproc visit, void *arg) {
  Py_VISIT(Py_TYPE(self));
  Py_VISIT(self->pool);
  Py_VISIT(self->port);
  Py_VISIT(self->function);
  Py_VISIT(self->arguments);
  Py_VISIT(self->context);
  Py_VISIT(self->future);
  Py_VISIT(self->value);
  Py_VISIT(self->error);
  Py_VISIT(self->name);
  Py_VISIT(self->host_name);
  Py_VISIT(self->waiter);
  Py_VISIT(self->limiter);
  Py_VISIT(self->raise_cancel);
  return 0;
}

static int call_clear(CallObject *self) {
  bridge_call_clear_inputs(self);
  bridge_call_discard(self);
  Py_CLEAR(self->future);
  Py_CLEAR(self->name);
  Py_CLEAR(self->host_name);
  Py_CLEAR(self->waiter);
  Py_CLEAR(self->limiter);
  Py_CLEAR(self->raise_cancel);
  return 0;
}

static void call_dealloc(CallObject *self) {
  PyTypeObject *type = Py_TYPE(self);
  PyObject_GC_UnTrack(self);
  if (self->weak_references != NULL)
    PyObject_ClearWeakRefs((PyObject *)self);
  if (self->list != NULL) /* its port was closed before it came out */
    bridge_waiting_remove(self);
  call_clear(self);
  /* Not in call_clear: abort and the worker rely on them. */
  Py_XDECREF(self->pool);
  Py_XDECREF(self->port);
  if (self->errand != NULL)
    bridge_errand_free(self->errand);
  PyObject_GC_Del(self);
  Py_DECREF(type);
}

#define METHOD(name, flags) {#name, (PyCFunction)call_##name, flags, name##_doc}

static PyMethodDef call_methods[] = {
    METHOD(raise_interrupt, METH_NOARGS),
    METHOD(retire, METH_NOARGS),
    METHOD(answer, METH_VARARGS),
    METHOD(abandon, METH_NOARGS),
    METHOD(abort, METH_O),
    METHOD(interrupt, METH_NOARGS),
    METHOD(leave, METH_NOARGS),
    {"submit", (PyCFunction)(void (*)(void))call_submit, METH_FASTCALL, submit_doc},
    METHOD(tell_cancelled, METH_NOARGS),
    METHOD(unwrap, METH_NOARGS),
    METHOD(visit, METH_NOARGS),
    {NULL, NULL, 0, NULL},
};

static PyObject *get_thread_name(CallObject *self, void *Py_UNUSED(closure)) {
  PyObject *name = bridge_call_thread_name(self);
  if (name == NULL && !PyErr_Occurred())
    Py_RETURN_NONE;
  return name;
}

static int set_thread_name(CallObject *self, PyObject *name, void *Py_UNUSED(closure)) {
  if (name == NULL || !PyUnicode_Check(name)) {
    PyErr_SetString(PyExc_TypeError, "thread_name must be a string");
    return -1;
  }
  Py_CLEAR(self->host_name);
  Py_XSETREF(self->name, Py_NewRef(name));
  return 0;
}

static PyObject *get_asks(CallObject *self, void *Py_UNUSED(closure)) {
  /* Relaxed: it came with the post. */
  return PyBool_FromLong(self->errand != NULL &&
                         atomic_load_explicit(&self->errand->asks, memory_order_relaxed));
}

static PyGetSetDef call_properties[] = {
    {"asks", (getter)get_asks, NULL,
     "Whether it has not ended, but asks its submitter something: unwrap() gives what.", NULL},
    {"thread_name", (getter)get_thread_name, (setter)set_thread_name,
     "What its thread is called while it runs; None: as always.", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyMemberDef call_members[] = {
    {"__weaklistoffset__", T_PYSSIZET, offsetof(CallObject, weak_references), READONLY, NULL},
    {"limiter", T_OBJECT, offsetof(CallObject, limiter), 0,
     "What the call has a token of, for who delivers it when nobody waits any more; or None."},
    {"on_abort", T_INT, offsetof(CallObject, on_abort), READONLY,
     "What is to happen to it when its task is cancelled."},
    {"port", T_OBJECT, offsetof(CallObject, port), READONLY, "Where it is delivered, or None."},
    {"raise_cancel", T_OBJECT, offsetof(CallObject, raise_cancel), READONLY,
     "Raises what its submitter was cancelled with; None if it was not."},
    {"waiter", T_OBJECT, offsetof(CallObject, waiter), 0,
     "What the submitter wants to find when the call is delivered; None if nobody waits."},
    {NULL, 0, 0, 0, NULL},
};

static PyType_Slot call_slots[] = {
    {Py_tp_doc, "One call; made by Pool.call."},
    {Py_tp_repr, call_repr},
    {Py_tp_methods, call_methods},
    {Py_tp_members, call_members},
    {Py_tp_getset, call_properties},
    {Py_tp_traverse, call_traverse},
    {Py_tp_clear, call_clear},
    {Py_tp_dealloc, call_dealloc},
    {0, NULL},
};

PyType_Spec bridge_call_spec = {
    .name = "dromon._bridge.Call",
    .basicsize = sizeof(CallObject),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_DISALLOW_INSTANTIATION |
             Py_TPFLAGS_IMMUTABLETYPE,
    .slots = call_slots,
};
