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

#include "fiber.h"
#include "parkable.h"
#include "task.h"
#include "thread_state.h"

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
  struct bridge_fiber home; /* in the main interpreter */
  struct isolate *isolate;  /* NULL: to be opened */
  struct bridge_fiber own;  /* there; the first of the list of all its fibers */
  uint64_t tasks;           /* that ran in it */
  uint64_t tasks_most;      /* of the isolation, which a retired worker may outlive */
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
  bridge_fiber_attach(&worker->home);
  fn(worker, arg);
  bridge_fiber_detach(&worker->home);
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
static void drop_from_isolate(struct bridge_fiber *fiber, CallObject *call) {
  struct isolated_worker *worker = fiber->isolated;
  bridge_isolate_leave_for_home(worker->isolate);
  at_home(worker, drop_call, call);
  bridge_isolate_come_back(worker->isolate, fiber->thread_state);
  bridge_fiber_set_current(fiber);
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

/* By a fiber that has a thread state in there. */
static void close_isolate(struct bridge_fiber *self) {
  struct isolated_worker *worker = self->isolated;
  for (struct bridge_fiber *fiber = &worker->own; fiber != NULL; fiber = fiber->next) {
    if (fiber != self && fiber->thread_state != NULL)
      bridge_isolate_thread_state_delete(worker->isolate, fiber->thread_state);
    if (fiber != self)
      fiber->thread_state = NULL;
  }
  bridge_isolate_close(worker->isolate, self->thread_state);
  self->thread_state = NULL;
  worker->isolate = NULL;
}

/* Gives the worker its isolate, detached. False, with why: the error that its set-up or the initializer
 * raised, or a text. */
static bool open_isolate(struct bridge_fiber *fiber, struct parcel *failure, const char **text) {
  struct isolated_worker *worker = fiber->isolated;
  const struct isolation *isolation = worker->isolation;
  char name[64];
  PyOS_snprintf(name, sizeof name, "%.48s-%u", isolation->name, worker->index);
  *text = NULL;
  struct isolate *isolate = bridge_isolate_open(isolation->settings, isolation->settings_size, name,
                                                &fiber->thread_state, failure, text);
  if (isolate == NULL) {
    fiber->thread_state = NULL;
    return false;
  }
  bool is_ready = run_initializer(worker, bridge_isolate_state(isolate), failure) == 0;
  bridge_isolate_detach(isolate);
  worker->isolate = isolate;
  worker->tasks = 0;
  if (!is_ready) {
    close_isolate(fiber);
    *text = "its initializer has failed";
  }
  return is_ready;
}

/* Has the fiber ready to be attached. False, with why, as open_isolate. The initializer has set up the interpreter, and
 * so does not run again for each green thread. */
static bool be_ready(struct bridge_fiber *fiber, struct parcel *failure, const char **text) {
  if (fiber->isolated->isolate == NULL && !open_isolate(fiber, failure, text))
    return false;
  if (fiber->thread_state == NULL)
    fiber->thread_state = bridge_isolate_thread_state_new(fiber->isolated->isolate);
  *text = "there is no memory";
  if (fiber->thread_state == NULL)
    return false;
  fiber->state = bridge_isolate_state(fiber->isolated->isolate);
  return true;
}

void bridge_isolated_attach(struct bridge_fiber *fiber) {
  bridge_isolate_attach(fiber->isolated->isolate, fiber->thread_state);
}

void bridge_isolated_detach(struct bridge_fiber *fiber) {
  bridge_isolate_detach(fiber->isolated->isolate);
}

void bridge_isolated_set_call(struct bridge_fiber *fiber, CallObject *call) {
  bridge_isolate_set_call(fiber->isolated->isolate, call);
}

/* ---- Running a call ------------------------------------------------------------------------- */

/* Raises what was asked for and not yet raised, unless the call waits for an answer. */
static void raise_due(struct isolate *isolate, struct errand *errand) {
  uint32_t asked = atomic_load(&errand->interrupts); /* seq_cst: see above */
  if (asked == errand->raised || errand->visitor != NULL)
    return;
  errand->raised = asked;
  bridge_isolate_set_exception(isolate, bridge_isolate_state(isolate)->interrupted);
}

static void begin(struct bridge_fiber *fiber, CallObject *call) {
  struct isolate *isolate = fiber->isolated->isolate;
  struct errand *errand = call->errand;
  Py_BEGIN_CRITICAL_SECTION(LOCK_OF(isolate));
  bridge_fiber_set_call(fiber, call);
  /* Relaxed: published by the next. */
  atomic_store_explicit(&errand->worker, fiber->isolated->index, memory_order_relaxed);
  atomic_store(&errand->isolate, isolate); /* seq_cst: see above */
  raise_due(isolate, errand);
  Py_END_CRITICAL_SECTION();
}

static void end(struct bridge_fiber *fiber, struct errand *errand) {
  Py_BEGIN_CRITICAL_SECTION(LOCK_OF(fiber->isolated->isolate));
  bridge_root_end(fiber);
  bridge_fiber_set_call(fiber, NULL);
  if (errand->raised > 0)
    bridge_take_back_exception(fiber->state);
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
static int call_function(struct bridge_fiber *fiber, struct errand *errand) {
  bridge_state *state = fiber->state;
  PyObject *function = NULL, *arguments = NULL, *value = NULL;
  int result = -1;
  if (set_variables(fiber->isolated->isolate, state, errand) < 0)
    return -1;
  function = bridge_function_load(state, errand->function);
  if (function == NULL)
    return -1;
  arguments = bridge_parcel_read(state, &errand->arguments);
  fiber->function = function;
  if (arguments != NULL)
    value = PyObject_Call(function, arguments, NULL);
  fiber->function = NULL;
  Py_CLEAR(arguments); /* before the outcome is known: who gets it finds them released */
  if (value != NULL && PyCoro_CheckExact(value))
    value = bridge_refuse_coroutine(function, value);
  if (value != NULL)
    result = bridge_parcel_move(state, &errand->outcome, value);
  Py_DECREF(function);
  return result;
}

static int call_in_context(struct bridge_fiber *fiber, struct errand *errand) {
  PyObject *context = PyContext_New();
  if (context == NULL)
    return -1;
  int result = -1;
  if (PyContext_Enter(context) == 0) {
    result = call_function(fiber, errand);
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

static void perform(struct bridge_fiber *fiber, CallObject *call, dromon_batch *batch) {
  struct errand *errand = call->errand;
  begin(fiber, call);
  dromon_batch_enter_task(batch, errand->has_name ? errand->name : NULL);
  int result = call_in_context(fiber, errand);
  dromon_batch_leave_task(batch);
  end(fiber, errand);
  if (result < 0)
    write_error(fiber->state, errand);
  errand->has_outcome = true;
}

/* Ends a call that has its outcome. Attached to the isolate, or to nothing. */
static void finish(struct bridge_fiber *fiber, CallObject *call, dromon_batch *batch) {
  dromon_task *task = &call->native.task;
  task->interrupted = call->errand->interrupted;
  dromon_task_finish(task); /* abandoned or not: its outcome goes with the call */
  if (dromon_batch_post(batch, call->port->port, task) == 0)
    return;
  if (bridge_current_fiber() == fiber) /* the port is closed: its event loop is gone */
    drop_from_isolate(fiber, call);
  else
    at_home(fiber->isolated, drop_call, call);
}

/* A call that was withdrawn: its submitter lets go of it. */
static void post_withdrawn(struct bridge_fiber *fiber, CallObject *call) {
  dromon_port *port = call->port->port;
  dromon_port_ref(port);
  if (dromon_port_post(port, &call->native.task) == 0)
    dromon_port_notify(port);
  else
    drop_from_isolate(fiber, call);
  dromon_port_unref(port);
}

/* ---- Running a batch ------------------------------------------------------------------------ */

/* A call that has no interpreter to run in. */
static void fail(struct bridge_fiber *fiber, CallObject *call, dromon_batch *batch,
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
  finish(fiber, call, batch);
}

struct home_call {
  dromon_batch *batch;
  CallObject *call;
};

/* The call that closes the pool: it is one of the main interpreter. */
static void run_home_call(struct isolated_worker *worker, void *arg) {
  struct home_call *home_call = arg;
  bridge_run_call(&worker->home, home_call->batch, home_call->call);
}

/* A task that cannot run, as there is no isolate for it. */
static void refuse(struct bridge_fiber *fiber, dromon_batch *batch, CallObject *call,
                   struct parcel *failure, const char *text) {
  if (dromon_task_is_withdrawn(&call->native.task)) {
    at_home(fiber->isolated, forget_failure, failure);
    at_home(fiber->isolated, drop_call, call);
  } else {
    fail(fiber, call, batch, failure, text);
  }
}

/* A child of a call, which is an object of the isolate's. */
static bool is_child(const struct bridge_fiber *fiber, dromon_task *task) {
  const struct isolated_worker *worker = fiber->isolated;
  return worker->isolate != NULL &&
         Py_TYPE(bridge_task_owner(task)) == bridge_isolate_state(worker->isolate)->task_type;
}

static void refuse_in_isolate(struct isolate *isolate, void *task) {
  bridge_task_refuse(bridge_isolate_state(isolate), task);
}

/* The same of a child. */
static void refuse_child(struct bridge_fiber *fiber, dromon_batch *batch, dromon_task *task) {
  dromon_batch_enter_task(batch, NULL);
  bridge_isolate_visit(fiber->isolated->isolate, refuse_in_isolate, bridge_task_owner(task));
  dromon_batch_leave_task(batch);
  dromon_batch_end(batch, task);
}

/* Before the first task of a batch. Whether the batch goes on in the isolate. */
static bool begin_batch(struct bridge_fiber *fiber, dromon_batch *batch, dromon_task *task) {
  struct isolated_worker *worker = fiber->isolated;
  struct parcel failure = {0};
  const char *text;
  CallObject *call = bridge_call_of(task);
  bool runs_here = is_child(fiber, task) || call->errand != NULL;
  if (!runs_here) {
    at_home(worker, run_home_call, &(struct home_call){batch, call});
  } else if (be_ready(fiber, &failure, &text)) {
    bridge_fiber_attach(fiber);
    return true;
  } else if (is_child(fiber, task)) {
    at_home(worker, forget_failure, &failure);
    refuse_child(fiber, batch, task);
  } else {
    refuse(fiber, batch, call, &failure, text);
  }
  return false;
}

/* Whether it is time for another interpreter. */
static bool has_had_its_tasks(const struct isolated_worker *worker) {
  return worker->tasks_most > 0 && worker->tasks >= worker->tasks_most;
}

/* Runs one; false: the batch has to end. */
static bool run_task(struct bridge_fiber *fiber, dromon_batch *batch, dromon_task *task) {
  struct isolated_worker *worker = fiber->isolated;
  CallObject *call = bridge_call_of(task);
  if (is_child(fiber, task)) {
    bridge_task_run(fiber->state, (TaskObject *)bridge_task_owner(task), batch);
    return !bridge_gil_is_wanted();
  }
  if (dromon_task_is_withdrawn(task)) {
    post_withdrawn(fiber, call);
    return true;
  }
  perform(fiber, call, batch);
  finish(fiber, call, batch);
  worker->tasks++;
  return !has_had_its_tasks(worker) && !bridge_gil_is_wanted();
}

static void isolated_run(void *state, dromon_batch *batch) {
  struct bridge_fiber *fiber = state;
  struct isolated_worker *worker = fiber->isolated;
  dromon_task *task = dromon_batch_next(batch);
  if (!begin_batch(fiber, batch, task))
    return;
  while (task != NULL && run_task(fiber, batch, task))
    task = dromon_batch_next(batch);
  /* Not while a task is parked, nor with a child that was left behind and is still in the queue. */
  bool is_worn = has_had_its_tasks(worker) && !bridge_has_tasks(fiber->state);
  bridge_fiber_detach(fiber);
  if (is_worn)
    close_isolate(fiber); /* the next batch has an empty one */
}

/* ---- Fibers --------------------------------------------------------------------------------- */

static int isolated_enter_fiber(void *state, void **fiber_state) {
  const struct bridge_fiber *own = state;
  struct bridge_fiber *fiber = PyMem_RawCalloc(1, sizeof *fiber);
  if (fiber == NULL)
    return -ENOMEM;
  *fiber = (struct bridge_fiber){.ident = own->ident, .isolated = own->isolated};
  fiber->next = own->isolated->own.next; /* its thread state is made when it first has a task */
  fiber->isolated->own.next = fiber;
  *fiber_state = fiber;
  return 0;
}

static void isolated_leave_fiber(void *fiber_state) {
  struct bridge_fiber *fiber = fiber_state;
  struct bridge_fiber **link = &fiber->isolated->own.next;
  while (*link != fiber)
    link = &(*link)->next;
  *link = fiber->next;
  if (fiber->thread_state != NULL)
    bridge_isolate_thread_state_delete(fiber->isolated->isolate, fiber->thread_state);
  PyMem_RawFree(fiber);
}

/* ---- A worker's life ------------------------------------------------------------------------ */

static int enter_home(struct isolated_worker *worker) {
  struct bridge_fiber *home = &worker->home;
  if (!bridge_fiber_make_own(home, worker->isolation->interpreter))
    return -ENOMEM;
  int result = bridge_worker_call_enter(worker->isolation->enter, home->worker, worker->index);
  if (result < 0)
    bridge_fiber_end_own(home);
  else
    bridge_fiber_detach(home);
  return result;
}

static void leave_home(struct isolated_worker *worker) {
  bridge_fiber_attach(&worker->home);
  bridge_fiber_end_own(&worker->home);
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
  if (worker->isolation->initializer == NULL || open_isolate(&worker->own, &failure, &text))
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
  worker->own = (struct bridge_fiber){.ident = PyThread_get_thread_ident(), .isolated = worker};
  int result = enter_home(worker);
  if (result == 0) {
    result = enter_isolate(worker);
    if (result < 0)
      leave_home(worker);
  }
  if (result < 0)
    PyMem_RawFree(worker);
  else
    *state = &worker->own;
  return result;
}

static void isolated_prepare(void *state) {
  struct bridge_fiber *fiber = state;
  struct parcel failure = {0};
  const char *text;
  /* If it fails the first call tries again, and tells. */
  if (fiber->isolated->isolate == NULL && !open_isolate(fiber, &failure, &text))
    at_home(fiber->isolated, forget_failure, &failure);
}

static void isolated_drop(void *state, dromon_task *task) {
  at_home(((struct bridge_fiber *)state)->isolated, drop_call, bridge_call_of(task));
}

static void isolated_leave(void *state) {
  struct bridge_fiber *fiber = state;
  struct isolated_worker *worker = fiber->isolated;
  if (worker->isolate != NULL) {
    if (fiber->thread_state == NULL)
      fiber->thread_state = bridge_isolate_thread_state_new(worker->isolate);
    close_isolate(fiber);
  }
  leave_home(worker);
  PyMem_RawFree(worker);
}

const dromon_ops bridge_isolated_ops = {
    .enter = isolated_enter,
    .prepare = isolated_prepare,
    .run = isolated_run,
    .drop = isolated_drop,
    .leave = isolated_leave,
    .enter_fiber = isolated_enter_fiber,
    .leave_fiber = isolated_leave_fiber,
};

/* ---- Interrupts and retirement -------------------------------------------------------------- */

/* Ends what a call with a task does, and its children. */
static void end_task(struct errand *errand, TaskObject *task) {
  uint32_t asked = atomic_load(&errand->interrupts); /* seq_cst: see above */
  bool interrupt = asked != errand->raised;
  /* seq_cst, pairs with bridge_errand_note_cancel */
  bool cancel = atomic_load(&errand->cancel_asked) && !errand->cancel_taken;
  if (!interrupt && !cancel)
    return;
  if (errand->visitor == task) { /* its submitter tells it, or it is raised afterwards */
    bridge_task_cancel_children(task, interrupt);
    return;
  }
  errand->cancel_taken |= cancel;
  errand->raised = asked;
  bridge_task_cancel(task, interrupt);
}

static void raise_in_call(struct isolate *isolate, void *arg) {
  const CallObject *call = arg;
  Py_BEGIN_CRITICAL_SECTION(LOCK_OF(isolate));
  TaskObject *task = atomic_load(&call->errand->task); /* seq_cst, as the next functions */
  if (task != NULL)
    end_task(call->errand, task);
  else if (bridge_isolate_call(isolate) == call)
    raise_due(isolate, call->errand);
  Py_END_CRITICAL_SECTION();
}

/* A cancellation and the making of a task: each writes its own word before it reads the other's, all seq_cst. */
bool bridge_errand_note_cancel(struct errand *errand) {
  atomic_store(&errand->cancel_asked, true);
  return atomic_load(&errand->task) != NULL;
}

void bridge_errand_set_task(struct errand *errand, TaskObject *task) {
  atomic_store(&errand->task, task);
  if (task == NULL)
    return;
  Py_BEGIN_CRITICAL_SECTION(task->lock);
  task->interruptible = errand->on_abort == BRIDGE_INTERRUPT;
  if (atomic_load(&errand->cancel_asked) && !errand->cancel_taken) {
    errand->cancel_taken = true;
    task->is_due = true;
  }
  Py_END_CRITICAL_SECTION();
}

void bridge_errand_note_interrupt(struct errand *errand) {
  atomic_fetch_add(&errand->interrupts, 1); /* seq_cst: see above */
}

void bridge_errand_interrupt(CallObject *call) {
  struct isolate *isolate = atomic_load(&call->errand->isolate); /* seq_cst: see above */
  if (isolate == NULL ||
      (bridge_isolate_call(isolate) != call && atomic_load(&call->errand->task) == NULL))
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

static bool was_cancelled(const CallObject *call) {
  /* Relaxed: a flag, which orders nothing. */
  return atomic_load_explicit(&call->errand->cancelled, memory_order_relaxed);
}

/* The call that the calling thread runs, or a child of it; NULL with an exception if none of a trio task. */
static CallObject *asking_call(void) {
  const struct bridge_fiber *fiber = bridge_current_fiber();
  CallObject *call = NULL;
  if (fiber != NULL && fiber->isolated != NULL)
    call = fiber->task == NULL ? fiber->call : fiber->task->root->call;
  if (call != NULL && call->errand->has_run)
    return call;
  PyErr_SetString(PyExc_RuntimeError, "this thread runs no call of a trio task");
  return NULL;
}

bool bridge_is_unwanted(void) {
  const struct bridge_fiber *fiber = bridge_current_fiber();
  return fiber != NULL && fiber->isolated != NULL && was_cancelled(fiber->call);
}

PyObject *bridge_is_cancelled(void) {
  CallObject *call = asking_call();
  if (call == NULL)
    return NULL;
  return PyBool_FromLong(was_cancelled(call));
}

/* Raises an interrupt that is due, in the place of asking. */
static int refuse_interrupted(struct isolate *isolate, struct errand *errand) {
  bool is_due;
  Py_BEGIN_CRITICAL_SECTION(LOCK_OF(isolate));
  bool is_set = PyThreadState_Get()->async_exc != NULL;
  bridge_take_back_exception(bridge_isolate_state(isolate));
  uint32_t asked = atomic_load(&errand->interrupts); /* seq_cst: see above */
  is_due = is_set || asked != errand->raised;
  errand->raised = asked;
  Py_END_CRITICAL_SECTION();
  if (!is_due)
    return 0;
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

/* Waits for the answer, which the submitter is sure to give. Detached. */
static void await_answer(struct errand *errand) {
  while (dromon_park_wait(&errand->answered, -1) == -EINTR) {
  }
}

/* Posts the call itself to its port, as one that asks, and waits for the answer. */
static void post_question(struct bridge_fiber *fiber, CallObject *call) {
  struct errand *errand = call->errand;
  dromon_port *port = call->port->port;
  bool may_park = bridge_parkable(fiber->state) == PARKABLE;
  bridge_fiber_detach(fiber);
  int forbidden = may_park ? 0 : dromon_park_forbid(1);
  dromon_port_ref(port); /* the call, and its port, are the submitter's once it is posted */
  dromon_park_init(&errand->answered);
  atomic_store_explicit(&errand->asks, true, memory_order_relaxed); /* published by the post */
  if (dromon_port_post(port, &call->native.task) == 0) {
    dromon_port_notify(port);
    await_answer(errand);
  } else {
    atomic_store_explicit(&errand->asks, false, memory_order_relaxed);
    errand->answered_by = ANSWER_RUN_OVER;
  }
  dromon_port_unref(port);
  if (!may_park)
    dromon_park_forbid(forbidden);
  bridge_fiber_attach(fiber);
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

/* What came of the submitter's cancellation in a visit: the answer tells it, or the task's next wait. */
static void hear_cancellation(struct errand *errand, TaskObject *task) {
  Py_BEGIN_CRITICAL_SECTION(task->lock);
  if (errand->answered_by == ANSWER_CANCELLED) {
    errand->cancel_taken |= task->root == task;
    task->is_due &= task->due_scope != NULL;
  } else if (task->root == task && atomic_load(&errand->cancel_asked) && !errand->cancel_taken) {
    errand->cancel_taken = true; /* seq_cst, pairs with bridge_errand_note_cancel */
    bridge_task_cancel_self(task, NULL, false);
  }
  Py_END_CRITICAL_SECTION();
}

/* Waits until no other task of the same call asks. */
static int take_question_turn(struct errand *errand, TaskObject *root) {
  while (errand->visitor != NULL) {
    struct waiter waiter; /* added without a lock: only tasks of this thread are in the list */
    bridge_waiter_add(&root->questions, &waiter);
    if (bridge_wait(&waiter, (PyObject *)root, "from_thread", -1, WAIT_ORDINARY) != WAIT_WOKEN)
      return -1;
  }
  return 0;
}

static void set_visitor(struct errand *errand, TaskObject *task) {
  Py_BEGIN_CRITICAL_SECTION(task->lock);
  errand->visitor = task;
  bridge_task_pause(task, "from_thread", NULL);
  Py_END_CRITICAL_SECTION();
}

static void end_visit(struct errand *errand, TaskObject *task) {
  Py_BEGIN_CRITICAL_SECTION(task->lock);
  errand->visitor = NULL;
  bridge_task_go_on(task);
  Py_END_CRITICAL_SECTION();
}

PyObject *bridge_ask(PyObject *function, PyObject *arguments, bool is_async) {
  CallObject *call = asking_call();
  if (call == NULL)
    return NULL;
  struct errand *errand = call->errand;
  struct bridge_fiber *fiber = bridge_current_fiber();
  TaskObject *task = bridge_current_task(fiber->state);
  if (task == NULL || bridge_task_deliver(fiber->state, task) < 0)
    return NULL;
  struct parcel question = {0}; /* what is pickled into it may ask, too */
  if (write_question(fiber->state, &question, function, arguments) < 0)
    return NULL;
  if (take_question_turn(errand, task->root) < 0 ||
      (task == task->root && refuse_interrupted(fiber->isolated->isolate, errand) < 0)) {
    bridge_parcel_clear(&question);
    return NULL;
  }
  errand->question = question;
  errand->is_async = is_async;
  set_visitor(errand, task);
  post_question(fiber, call);
  end_visit(errand, task);
  bridge_parcel_clear(&errand->question);
  hear_cancellation(errand, task);
  PyObject *result = take_answer(fiber->state, errand);
  bridge_wake_one(&task->root->questions, NULL);
  if (task == task->root) {
    Py_BEGIN_CRITICAL_SECTION(task->lock);
    raise_due(fiber->isolated->isolate, errand);
    Py_END_CRITICAL_SECTION();
  }
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

bool bridge_errand_note_cancel(struct errand *errand) {
  (void)errand;
  return false;
}

void bridge_errand_set_task(struct errand *errand, TaskObject *task) {
  (void)errand, (void)task;
}

void bridge_isolated_attach(struct bridge_fiber *fiber) {
  (void)fiber;
}

void bridge_isolated_detach(struct bridge_fiber *fiber) {
  (void)fiber;
}

void bridge_isolated_set_call(struct bridge_fiber *fiber, CallObject *call) {
  (void)fiber, (void)call;
}

PyObject *bridge_ask(PyObject *function, PyObject *arguments, bool is_async) {
  (void)function, (void)arguments, (void)is_async;
  return bridge_is_cancelled();
}

bool bridge_is_unwanted(void) {
  return false;
}

PyObject *bridge_is_cancelled(void) {
  PyErr_SetString(PyExc_RuntimeError, "this thread runs no call of a trio task");
  return NULL;
}

#endif
