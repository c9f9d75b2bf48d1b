/* isolated.c - how isolated workers run calls: each in an interpreter with a GIL of its own.
 *
 * The call is an object of the main interpreter, of which only its submitter's side may touch the
 * reference count. The worker reads and writes its errand, which is raw memory, and posts its task; what
 * takes the task from the port makes the outcome out of that.
 *
 * The worker has two thread states: one in its isolate, attached for each batch, and one in the main
 * interpreter, its home, for what only that can do: entering and leaving, the call that closes a pool, and
 * letting go of calls that nobody will take from a port.
 *
 * Interrupts follow interrupt.c, with the GIL of the isolate as the lock of all steps. A submitter does
 * not wait for that GIL: it counts in `interrupts`, and a thread that may wait raises what was counted
 * (bridge_errand_interrupt). Begin looks at the count, too. Either that thread finds the isolate in the
 * errand, or Begin finds the count: each writes its own word before it reads the other's, all seq_cst.
 */
#include "isolated.h"

#include <errno.h>
#include <string.h>

#if PY_VERSION_HEX >= 0x030C0000

/* Stands for the GIL of an isolate where there is none. */
#define LOCK_OF(isolate) (bridge_isolate_state(isolate)->loaded)

/* What the isolated workers of a pool share. */
struct isolation {
  PyInterpreterState *interpreter; /* the main one */
  PyObject *enter;                 /* called there, as for other workers; and its `fail` */
  char *name;
  char *settings;
  size_t settings_size;
  struct function *initializer; /* or NULL */
  uint64_t tasks_most;          /* after which an interpreter is emptied; 0: never */
};

struct isolated_worker {
  const struct isolation *isolation;
  uint32_t index;
  PyThreadState *home;
  WorkerObject *object;    /* of the main interpreter */
  struct isolate *isolate; /* NULL: to be opened */
  uint64_t tasks;          /* that ran in it */
  uint64_t tasks_most;     /* of the isolation, which a retired worker may outlive */
};

/* ---- At home -------------------------------------------------------------------------------- */

static void free_isolation(struct isolation *isolation) {
  Py_DECREF(isolation->enter);
  if (isolation->initializer != NULL)
    bridge_function_unref(isolation->initializer);
  PyMem_Free(isolation->settings);
  PyMem_Free(isolation->name);
  PyMem_Free(isolation);
}

static void free_capsule(PyObject *capsule) {
  free_isolation(PyCapsule_GetPointer(capsule, NULL));
}

static char *copy(const char *data, size_t size) {
  char *copied = PyMem_Malloc(size + 1);
  if (copied == NULL)
    return NULL;
  memcpy(copied, data, size);
  copied[size] = '\0';
  return copied;
}

PyObject *bridge_isolation_new(PyObject *enter, PyObject *name, PyObject *settings,
                               PyObject *initializer, unsigned long long tasks_most) {
  Py_ssize_t length;
  const char *text = PyUnicode_AsUTF8AndSize(name, &length);
  struct isolation *isolation = text == NULL ? NULL : PyMem_Calloc(1, sizeof *isolation);
  if (isolation == NULL)
    return text == NULL ? NULL : PyErr_NoMemory();
  *isolation = (struct isolation){
      .interpreter = PyInterpreterState_Get(),
      .enter = Py_NewRef(enter),
      .name = copy(text, (size_t)length),
      .settings = copy(PyBytes_AS_STRING(settings), (size_t)PyBytes_GET_SIZE(settings)),
      .settings_size = (size_t)PyBytes_GET_SIZE(settings),
      .tasks_most = tasks_most,
  };
  if (initializer != Py_None)
    isolation->initializer = bridge_function_ref(bridge_function_record(initializer));
  PyObject *capsule = isolation->name == NULL || isolation->settings == NULL
                          ? PyErr_NoMemory()
                          : PyCapsule_New(isolation, NULL, free_capsule);
  if (capsule == NULL)
    free_isolation(isolation);
  return capsule;
}

/* Runs fn(worker, arg) at home, where nothing else is attached. */
static void at_home(struct isolated_worker *worker, void (*fn)(struct isolated_worker *, void *),
                    void *arg) {
  PyEval_RestoreThread(worker->home);
  fn(worker, arg);
  PyEval_SaveThread();
}

static void drop_call(struct isolated_worker *worker, void *call) {
  (void)worker;
  Py_DECREF((CallObject *)call);
}

/* Buffers of the failure go back to their isolate, for which something has to be attached. */
static void forget_failure(struct isolated_worker *worker, void *failure) {
  (void)worker;
  bridge_parcel_clear(failure);
}

/* Lets go of the reference to a call, between two that run in the isolate. */
static void drop_from_isolate(struct isolated_worker *worker, CallObject *call) {
  bridge_isolate_leave_for_home(worker->isolate);
  at_home(worker, drop_call, call);
  bridge_isolate_come_back(worker->isolate);
}

/* ---- Its isolate ---------------------------------------------------------------------------- */

static int run_initializer(struct isolated_worker *worker, bridge_state *state,
                           struct parcel *failure) {
  struct function *initializer = worker->isolation->initializer;
  if (initializer == NULL)
    return 0;
  PyObject *function = bridge_function_load(state, initializer);
  PyObject *result = function == NULL ? NULL : PyObject_CallNoArgs(function);
  if (result != NULL && PyCoro_CheckExact(result)) {
    bridge_refuse_coroutine(function, result);
    result = NULL;
  }
  Py_XDECREF(function);
  Py_XDECREF(result);
  if (result != NULL)
    return 0;
  PyObject *error = PyErr_GetRaisedException();
  if (bridge_parcel_write_error(state, failure, error) < 0)
    PyErr_Clear();
  Py_DECREF(error);
  return -1;
}

static void close_isolate(struct isolated_worker *worker) {
  if (worker->isolate != NULL)
    bridge_isolate_close(worker->isolate);
  worker->isolate = NULL;
}

/* Gives the worker its isolate, detached. False, with why: the error that its set-up or the initializer
 * raised, or a text. */
static bool open_isolate(struct isolated_worker *worker, struct parcel *failure,
                         const char **text) {
  const struct isolation *isolation = worker->isolation;
  char name[64];
  PyOS_snprintf(name, sizeof name, "%.48s-%u", isolation->name, worker->index);
  *text = NULL;
  struct isolate *isolate =
      bridge_isolate_open(isolation->settings, isolation->settings_size, name, failure, text);
  if (isolate == NULL)
    return false;
  bool is_ready = run_initializer(worker, bridge_isolate_state(isolate), failure) == 0;
  bridge_isolate_detach(isolate);
  worker->isolate = isolate;
  worker->tasks = 0;
  if (!is_ready) {
    close_isolate(worker);
    *text = "its initializer has failed";
  }
  return is_ready;
}

/* ---- Running a call ------------------------------------------------------------------------- */

/* Raises what was asked for and not yet raised, unless the call waits for an answer. */
static void raise_due(struct isolate *isolate, struct errand *errand) {
  uint32_t asked = atomic_load(&errand->interrupts); /* seq_cst: see above */
  if (asked == errand->raised || errand->visiting)
    return;
  errand->raised = asked;
  bridge_isolate_set_exception(isolate, bridge_isolate_state(isolate)->interrupted);
}

static void begin(struct isolate *isolate, CallObject *call, uint32_t index) {
  struct errand *errand = call->errand;
  Py_BEGIN_CRITICAL_SECTION(LOCK_OF(isolate));
  bridge_isolate_set_call(isolate, call);
  atomic_store_explicit(&errand->worker, index, memory_order_relaxed); /* published by the next */
  atomic_store(&errand->isolate, isolate);                             /* seq_cst: see above */
  raise_due(isolate, errand);
  Py_END_CRITICAL_SECTION();
}

static void end(struct isolate *isolate, struct errand *errand) {
  Py_BEGIN_CRITICAL_SECTION(LOCK_OF(isolate));
  bridge_isolate_set_call(isolate, NULL);
  if (errand->raised > 0)
    bridge_isolate_set_exception(isolate, NULL);
  Py_END_CRITICAL_SECTION();
}

/* Sets the context variables that travelled. */
static int set_variables(struct isolate *isolate, bridge_state *state, struct errand *errand) {
  if (errand->variables.size == 0)
    return 0;
  PyObject *pairs = bridge_parcel_read(state, &errand->variables);
  int result = pairs == NULL ? -1 : 0;
  for (Py_ssize_t i = 0; result == 0 && i < PyTuple_GET_SIZE(pairs); i += 2) {
    Py_ssize_t number = PyLong_AsSsize_t(PyTuple_GET_ITEM(pairs, i));
    PyObject *variable = PyTuple_GetItem(bridge_isolate_variables(isolate), number);
    PyObject *token =
        variable == NULL ? NULL : PyContextVar_Set(variable, PyTuple_GET_ITEM(pairs, i + 1));
    result = token == NULL ? -1 : 0;
    Py_XDECREF(token);
  }
  Py_XDECREF(pairs);
  return result;
}

/* Calls it in the current context and writes the result. -1 with an exception. */
static int call_function(struct isolate *isolate, bridge_state *state, struct errand *errand) {
  PyObject *function = NULL, *arguments = NULL, *value = NULL;
  int result = -1;
  if (set_variables(isolate, state, errand) < 0)
    return -1;
  function = bridge_function_load(state, errand->function);
  if (function == NULL)
    return -1;
  arguments = bridge_parcel_read(state, &errand->arguments);
  if (arguments != NULL)
    value = PyObject_Call(function, arguments, NULL);
  Py_CLEAR(arguments); /* before the outcome is known: who gets it finds them released */
  if (value != NULL && PyCoro_CheckExact(value))
    value = bridge_refuse_coroutine(function, value);
  if (value != NULL)
    result = bridge_parcel_move(state, &errand->outcome, value);
  Py_DECREF(function);
  return result;
}

static int call_in_context(struct isolate *isolate, bridge_state *state, struct errand *errand) {
  PyObject *context = PyContext_New();
  if (context == NULL)
    return -1;
  int result = -1;
  if (PyContext_Enter(context) == 0) {
    result = call_function(isolate, state, errand);
    PyContext_Exit(context); /* cannot fail: it is the one that we entered */
  }
  Py_DECREF(context);
  return result;
}

/* Writes the exception that came out of it. */
static void write_error(bridge_state *state, struct errand *errand) {
  PyObject *error = PyErr_GetRaisedException();
  errand->is_error = true;
  errand->interrupted =
      errand->raised > 0 && PyErr_GivenExceptionMatches(error, state->interrupted);
  if (bridge_parcel_write_error(state, &errand->outcome, error) < 0) {
    PyErr_Clear();
    errand->failure = "there was no memory for its error";
  }
  Py_DECREF(error);
}

static void perform(struct isolated_worker *worker, CallObject *call, dromon_batch *batch) {
  struct isolate *isolate = worker->isolate;
  bridge_state *state = bridge_isolate_state(isolate);
  struct errand *errand = call->errand;
  begin(isolate, call, worker->index);
  dromon_batch_enter_task(batch, errand->has_name ? errand->name : NULL);
  int result = call_in_context(isolate, state, errand);
  dromon_batch_leave_task(batch);
  end(isolate, errand);
  if (result < 0)
    write_error(state, errand);
  errand->has_outcome = true;
}

/* Ends a call that has its outcome. Attached to the isolate, if the worker has one. */
static void finish(struct isolated_worker *worker, CallObject *call, dromon_batch *batch) {
  dromon_task *task = &call->native.task;
  task->interrupted = call->errand->interrupted;
  dromon_task_finish(task); /* abandoned or not: its outcome goes with the call */
  if (dromon_batch_post(batch, call->port->port, task) == 0)
    return;
  if (worker->isolate != NULL) /* the port is closed: its event loop is gone */
    drop_from_isolate(worker, call);
  else
    at_home(worker, drop_call, call);
}

/* A call that was withdrawn: its submitter lets go of it. */
static void post_withdrawn(struct isolated_worker *worker, CallObject *call) {
  dromon_port *port = call->port->port;
  dromon_port_ref(port);
  if (dromon_port_post(port, &call->native.task) == 0)
    dromon_port_notify(port);
  else
    drop_from_isolate(worker, call);
  dromon_port_unref(port);
}

/* ---- Running a batch ------------------------------------------------------------------------ */

/* A call that has no interpreter to run in. */
static void fail(struct isolated_worker *worker, CallObject *call, dromon_batch *batch,
                 struct parcel *failure, const char *text) {
  struct errand *errand = call->errand;
  errand->is_error = true;
  if (failure->size > 0 || failure->pickled != NULL)
    errand->outcome = *failure;
  else
    errand->failure = text;
  errand->has_outcome = true;
  dromon_batch_enter_task(batch, NULL);
  dromon_batch_leave_task(batch);
  finish(worker, call, batch);
}

struct home_call {
  dromon_batch *batch;
  CallObject *call;
};

/* The call that closes the pool: it is one of the main interpreter. */
static void run_home_call(struct isolated_worker *worker, void *arg) {
  struct home_call *home_call = arg;
  bridge_run_call(worker->object, home_call->batch, home_call->call);
}

/* The first task of a batch where there is no isolate. Whether the batch goes on in one. */
static bool begin_batch(struct isolated_worker *worker, dromon_batch *batch, CallObject *call) {
  struct parcel failure = {0};
  const char *text;
  if (call->errand == NULL) {
    at_home(worker, run_home_call, &(struct home_call){batch, call});
    return false;
  }
  if (worker->isolate == NULL && !open_isolate(worker, &failure, &text)) {
    if (dromon_task_is_withdrawn(&call->native.task)) {
      at_home(worker, forget_failure, &failure);
      at_home(worker, drop_call, call);
    } else {
      fail(worker, call, batch, &failure, text);
    }
    return false;
  }
  bridge_isolate_attach(worker->isolate);
  return true;
}

/* Runs one; false: the batch has to end. */
static bool run_task(struct isolated_worker *worker, dromon_batch *batch, CallObject *call) {
  if (dromon_task_is_withdrawn(&call->native.task)) {
    post_withdrawn(worker, call);
    return true;
  }
  perform(worker, call, batch);
  finish(worker, call, batch);
  worker->tasks++;
  return worker->tasks != worker->tasks_most && !bridge_gil_is_wanted();
}

static void isolated_run(void *state, dromon_batch *batch) {
  struct isolated_worker *worker = state;
  dromon_task *task = dromon_batch_next(batch);
  if (!begin_batch(worker, batch, bridge_call_of(task)))
    return;
  while (task != NULL && run_task(worker, batch, bridge_call_of(task)))
    task = dromon_batch_next(batch);
  bridge_isolate_detach(worker->isolate);
  if (worker->tasks == worker->tasks_most && worker->tasks > 0)
    close_isolate(worker); /* the next batch has an empty one */
}

/* ---- A worker's life ------------------------------------------------------------------------ */

static int enter_home(struct isolated_worker *worker) {
  worker->home = PyThreadState_New(worker->isolation->interpreter);
  if (worker->home == NULL)
    return -ENOMEM;
  PyEval_RestoreThread(worker->home);
  worker->object = bridge_worker_new(worker->home);
  int result = bridge_worker_call_enter(worker->isolation->enter, worker->object, worker->index);
  if (result == 0) {
    PyEval_SaveThread();
    return 0;
  }
  Py_XDECREF(worker->object);
  bridge_worker_leave(worker->home);
  return result;
}

static void leave_home(struct isolated_worker *worker) {
  PyEval_RestoreThread(worker->home);
  Py_DECREF(worker->object);
  bridge_worker_leave(worker->home);
}

/* Tells the opener of the pool what the initializer raised. */
static void tell_failure(struct isolated_worker *worker, void *failure) {
  bridge_state *state = bridge_current_state();
  PyObject *error = state == NULL ? NULL : bridge_parcel_read_error(state, failure);
  PyObject *told = error == NULL ? NULL
                                 : PyObject_CallMethod(worker->isolation->enter, "fail", "IO",
                                                       worker->index, error);
  if (told == NULL)
    PyErr_WriteUnraisable(NULL);
  Py_XDECREF(told);
  Py_XDECREF(error);
  bridge_parcel_clear(failure);
}

/* With an initializer the opener waits for the interpreter; else it is made in the background. */
static int enter_isolate(struct isolated_worker *worker) {
  struct parcel failure = {0};
  const char *text;
  if (worker->isolation->initializer == NULL || open_isolate(worker, &failure, &text))
    return 0;
  if (failure.size == 0 && failure.pickled == NULL)
    return -EIO;
  at_home(worker, tell_failure, &failure);
  return -ECANCELED;
}

static int isolated_enter(void *arg, uint32_t index, void **state) {
  struct isolated_worker *worker = PyMem_RawCalloc(1, sizeof *worker);
  if (worker == NULL)
    return -ENOMEM;
  const struct isolation *isolation = arg;
  *worker = (struct isolated_worker){
      .isolation = isolation, .index = index, .tasks_most = isolation->tasks_most};
  int result = enter_home(worker);
  if (result == 0) {
    result = enter_isolate(worker);
    if (result < 0)
      leave_home(worker);
  }
  if (result < 0)
    PyMem_RawFree(worker);
  else
    *state = worker;
  return result;
}

static void isolated_prepare(void *state) {
  struct isolated_worker *worker = state;
  struct parcel failure = {0};
  const char *text;
  /* If it fails the first call tries again, and tells. */
  if (worker->isolate == NULL && !open_isolate(worker, &failure, &text))
    at_home(worker, forget_failure, &failure);
}

static void isolated_drop(void *state, dromon_task *task) {
  at_home(state, drop_call, bridge_call_of(task));
}

static void isolated_leave(void *state) {
  struct isolated_worker *worker = state;
  close_isolate(worker);
  leave_home(worker);
  PyMem_RawFree(worker);
}

const dromon_ops bridge_isolated_ops = {
    .enter = isolated_enter,
    .prepare = isolated_prepare,
    .run = isolated_run,
    .drop = isolated_drop,
    .leave = isolated_leave,
};

/* ---- Interrupts and retirement -------------------------------------------------------------- */

static void raise_in_call(struct isolate *isolate, void *arg) {
  const CallObject *call = arg;
  Py_BEGIN_CRITICAL_SECTION(LOCK_OF(isolate));
  if (bridge_isolate_call(isolate) == call)
    raise_due(isolate, call->errand);
  Py_END_CRITICAL_SECTION();
}

void bridge_errand_note_interrupt(struct errand *errand) {
  atomic_fetch_add(&errand->interrupts, 1); /* seq_cst: see above */
}

void bridge_errand_interrupt(CallObject *call) {
  struct isolate *isolate = atomic_load(&call->errand->isolate); /* seq_cst: see above */
  if (isolate == NULL || bridge_isolate_call(isolate) != call)
    return; /* it has ended, or will find the count when it begins */
  PyThreadState *own = PyEval_SaveThread();
  bridge_isolate_visit(isolate, raise_in_call, call);
  PyEval_RestoreThread(own);
}

int bridge_errand_retire(CallObject *call) {
  struct errand *errand = call->errand;
  /* Acquire, pairs with the store in `begin`. */
  struct isolate *isolate = atomic_load_explicit(&errand->isolate, memory_order_acquire);
  if (isolate == NULL)
    return -EALREADY;
  if (atomic_exchange(&errand->retired, true)) /* else it could be the fresh worker that goes */
    return -EALREADY;
  uint32_t worker = atomic_load_explicit(&errand->worker, memory_order_relaxed);
  uint64_t began = dromon_pool_read_began(call->pool->pool, worker);
  if (bridge_isolate_call(isolate) != call)
    return -EALREADY;
  PyThreadState *own = PyEval_SaveThread(); /* which the new worker needs to enter */
  int result = dromon_pool_replace(call->pool->pool, worker, began);
  PyEval_RestoreThread(own);
  return result;
}

/* ---- Questions ------------------------------------------------------------------------------ */

/* The call that the calling thread runs; NULL with an exception if none of a trio task. */
static CallObject *asking_call(void) {
  struct isolate *isolate = bridge_isolate_current();
  CallObject *call = isolate == NULL ? NULL : (CallObject *)bridge_isolate_call(isolate);
  if (call != NULL && call->errand->has_run)
    return call;
  PyErr_SetString(PyExc_RuntimeError, "this thread runs no call of a trio task");
  return NULL;
}

PyObject *bridge_is_cancelled(void) {
  CallObject *call = asking_call();
  if (call == NULL)
    return NULL;
  /* Relaxed: a flag, which orders nothing. */
  return PyBool_FromLong(atomic_load_explicit(&call->errand->cancelled, memory_order_relaxed));
}

/* Raises an interrupt that is due, in the place of asking. */
static int refuse_interrupted(struct isolate *isolate, struct errand *errand) {
  bool is_set = PyThreadState_Get()->async_exc != NULL;
  uint32_t asked = atomic_load(&errand->interrupts); /* seq_cst: see above */
  if (!is_set && asked == errand->raised)
    return 0;
  bridge_isolate_set_exception(isolate, NULL);
  errand->raised = asked;
  PyErr_SetNone(bridge_isolate_state(isolate)->interrupted);
  return -1;
}

static int write_question(bridge_state *state, struct parcel *parcel, PyObject *function,
                          PyObject *arguments) {
  PyObject *portable = bridge_portable(state, function);
  if (portable == NULL)
    return -1;
  PyObject *question = PyTuple_Pack(2, portable, arguments);
  int result = question == NULL ? -1 : bridge_parcel_write(state, parcel, question);
  Py_XDECREF(question);
  Py_DECREF(portable);
  return result;
}

/* Posts the call itself to its port, as one that asks, and waits for the answer. */
static void post_question(CallObject *call) {
  struct errand *errand = call->errand;
  dromon_port *port = call->port->port;
  Py_BEGIN_ALLOW_THREADS dromon_port_ref(
      port); /* the call, and its port, are the submitter's once it is posted */
  atomic_store_explicit(&errand->asks, true, memory_order_relaxed); /* published by the post */
  if (dromon_port_post(port, &call->native.task) == 0) {
    dromon_port_notify(port);
    while (sem_wait(&errand->answered) < 0) {
    } /* EINTR */
  } else {
    atomic_store_explicit(&errand->asks, false, memory_order_relaxed);
    errand->answered_by = ANSWER_RUN_OVER;
  }
  dromon_port_unref(port);
  Py_END_ALLOW_THREADS
}

/* What the answer says. */
static PyObject *take_answer(bridge_state *state, struct errand *errand) {
  PyObject *result = NULL, *error;
  switch (errand->answered_by) {
  case ANSWER_VALUE:
    result = bridge_parcel_read(state, &errand->answer);
    break;
  case ANSWER_ERROR:
    error = bridge_parcel_read_error(state, &errand->answer);
    if (error != NULL)
      PyErr_SetRaisedException(error);
    break;
  case ANSWER_CANCELLED:
    PyErr_SetNone(state->interrupted);
    break;
  case ANSWER_RUN_OVER:
    PyErr_SetString(PyExc_RuntimeError, "the trio run is over");
    break;
  }
  bridge_parcel_clear(&errand->answer);
  return result;
}

PyObject *bridge_ask(PyObject *function, PyObject *arguments, bool is_async) {
  CallObject *call = asking_call();
  if (call == NULL)
    return NULL;
  struct errand *errand = call->errand;
  struct isolate *isolate = bridge_isolate_current();
  bridge_state *state = bridge_isolate_state(isolate);
  if (errand->visiting) {
    PyErr_SetString(PyExc_RuntimeError, "the call waits for an answer already");
    return NULL;
  }
  struct parcel question = {0}; /* what is pickled into it may ask, too */
  if (write_question(state, &question, function, arguments) < 0)
    return NULL;
  if (refuse_interrupted(isolate, errand) < 0) {
    bridge_parcel_clear(&question);
    return NULL;
  }
  errand->question = question;
  errand->is_async = is_async;
  errand->visiting = true;
  post_question(call);
  errand->visiting = false;
  bridge_parcel_clear(&errand->question);
  PyObject *result = take_answer(state, errand);
  raise_due(isolate, errand);
  return result;
}

#else /* no interpreter has a GIL of its own */

PyObject *bridge_isolation_new(PyObject *enter, PyObject *name, PyObject *settings,
                               PyObject *initializer, unsigned long long tasks_most) {
  (void)enter, (void)name, (void)settings, (void)initializer, (void)tasks_most;
  PyErr_SetString(PyExc_NotImplementedError, "needs Python 3.12");
  return NULL;
}

const dromon_ops bridge_isolated_ops = {0};

void bridge_errand_note_interrupt(struct errand *errand) {
  (void)errand;
}

void bridge_errand_interrupt(CallObject *call) {
  (void)call;
}

int bridge_errand_retire(CallObject *call) {
  (void)call;
  return -ENOSYS;
}

PyObject *bridge_ask(PyObject *function, PyObject *arguments, bool is_async) {
  (void)function, (void)arguments, (void)is_async;
  return bridge_is_cancelled();
}

PyObject *bridge_is_cancelled(void) {
  PyErr_SetString(PyExc_RuntimeError, "this thread runs no call of a trio task");
  return NULL;
}

#endif
