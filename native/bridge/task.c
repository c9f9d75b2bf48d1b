/* task.c - see task.h. */
#include "task.h"

#include "fiber.h"
#include "isolated.h"
#include "thread_state.h"

#include <stddef.h>

enum { DEPTH_MOST = 32 }; /* of tasks that run in place of their joins, on one stack */

PyObject *bridge_task_owner(dromon_task *task) {
  _Static_assert(offsetof(TaskObject, task) == offsetof(CallObject, native),
                 "what a core task is embedded in is known by its type");
  return (PyObject *)(void *)((char *)task - offsetof(TaskObject, task));
}

/* ---- The list of all ------------------------------------------------------------------------ */

/* The lock of the list, where there is no GIL. */
#define LIST_LOCK(state) ((PyObject *)(state)->task_type)

static void list_add(bridge_state *state, TaskObject *task) {
  Py_BEGIN_CRITICAL_SECTION(LIST_LOCK(state));
  task->previous = NULL;
  task->next = state->tasks;
  if (task->next != NULL)
    task->next->previous = task;
  state->tasks = task;
  task->is_listed = true;
  Py_END_CRITICAL_SECTION();
}

/* Before somebody lets go of the last reference: who reads the list takes a new one. */
static void list_remove(bridge_state *state, TaskObject *task) {
  Py_BEGIN_CRITICAL_SECTION(LIST_LOCK(state));
  if (task->is_listed) {
    *(task->previous == NULL ? &state->tasks : &task->previous->next) = task->next;
    if (task->next != NULL)
      task->next->previous = task->previous;
    task->is_listed = false;
  }
  Py_END_CRITICAL_SECTION();
}

PyObject *bridge_task_list(bridge_state *state) {
  PyObject *list = PyList_New(0);
  if (list == NULL)
    return NULL;
  Py_BEGIN_CRITICAL_SECTION(LIST_LOCK(state));
  for (TaskObject *task = state->tasks; task != NULL; task = task->next) {
    if (task->state != TASK_DONE && PyList_Append(list, (PyObject *)task) < 0) {
      Py_CLEAR(list);
      break;
    }
  }
  Py_END_CRITICAL_SECTION();
  return list;
}

bool bridge_has_tasks(bridge_state *state) {
  const TaskObject *task;
  Py_BEGIN_CRITICAL_SECTION(LIST_LOCK(state));
  task = state->tasks;
  while (task != NULL && task->state == TASK_DONE)
    task = task->next;
  Py_END_CRITICAL_SECTION();
  return task != NULL;
}

/* In the tree that has this lock. */
static TaskObject *new_task(bridge_state *state, PyObject *lock) {
  TaskObject *task = PyObject_GC_New(TaskObject, state->task_type);
  if (task == NULL)
    return NULL;
  /* All after the head: it has a part before it that the collector needs. */
  memset((char *)task + sizeof(PyObject), 0, sizeof *task - sizeof(PyObject));
  dromon_task_init(&task->task);
  task->lock = task->joins.lock = task->questions.lock = Py_NewRef(lock);
  list_add(state, task);
  return task;
}

/* Leaves an exception for the thread state that the task runs on. By an ident that is of no other one: see
 * fiber.h. */
static void set_exception(const TaskObject *task, PyObject *exception) {
  PyThreadState_SetAsyncExc(task->thread_state->thread_id, exception);
}

/* It runs there no more: nothing may hit what comes, as after End in interrupt.c. */
static void leave_thread_state(bridge_state *state, TaskObject *task) {
  task->thread_state = NULL; /* from here on none is set */
  if (task->interrupted)     /* and perhaps not yet raised */
    bridge_take_back_exception(state);
}

static void clear_inputs(TaskObject *task) {
  PyObject *function, *arguments, *context;
  Py_BEGIN_CRITICAL_SECTION(task->lock);
  function = task->function;
  arguments = task->arguments;
  context = task->context;
  task->function = task->arguments = task->context = NULL;
  Py_END_CRITICAL_SECTION();
  Py_XDECREF(function);
  Py_XDECREF(arguments);
  Py_XDECREF(context);
}

/* ---- Roots ---------------------------------------------------------------------------------- */

static TaskObject *make_root(bridge_state *state, struct bridge_fiber *fiber) {
  CallObject *call = fiber->call;
  TaskObject *task = new_task(state, fiber->isolated == NULL ? (PyObject *)call : state->loaded);
  if (task == NULL)
    return NULL;
  if (fiber->task !=
      NULL) { /* up to 3.11 to make one may collect garbage, and run what asks, too */
    Py_DECREF(task);
    return fiber->task;
  }
  task->root = task;
  task->call = call;
  task->state = TASK_RUNNING;
  task->thread_state = fiber->thread_state;
  task->function = Py_XNewRef(fiber->function);
  if (fiber->isolated == NULL) {
    task->interruptible = call->on_abort == BRIDGE_INTERRUPT;
    bridge_call_set_task(call, task);
  } else {
    bridge_errand_set_task(call->errand, task);
  }
  fiber->task = task; /* with the reference */
  PyObject_GC_Track(task);
  return task;
}

TaskObject *bridge_current_task(bridge_state *state) {
  struct bridge_fiber *fiber = bridge_current_fiber();
  if (fiber == NULL || fiber->task != NULL)
    return fiber == NULL ? NULL : fiber->task;
  return fiber->call == NULL ? NULL : make_root(state, fiber);
}

void bridge_root_end(struct bridge_fiber *fiber) {
  TaskObject *task = fiber->task;
  if (task == NULL)
    return;
  if (fiber->isolated == NULL)
    task->call->task = NULL;
  else
    bridge_errand_set_task(task->call->errand, NULL);
  fiber->task = NULL;
  task->call = NULL;
  task->is_due = false;
  leave_thread_state(fiber->state, task);
  task->state = TASK_DONE;
  bridge_scope_close_all(task);
  bridge_wake_all(&task->joins);
  Py_CLEAR(task->function); /* this and what follows is no matter of the tree any more */
  list_remove(fiber->state, task);
  Py_DECREF(task);
}

/* Whether its call was interrupted in its life. */
static bool is_interrupted_root(const TaskObject *task) {
  const CallObject *call = task->call;
  return call->errand == NULL ? call->interrupts > 0 : call->errand->raised > 0;
}

/* ---- Cancellation --------------------------------------------------------------------------- */

/* Whether `inner` is in `outer`, of the open scopes of one task. */
static bool is_inside(const ScopeObject *inner, const ScopeObject *outer) {
  while (inner != NULL && inner != outer)
    inner = inner->outer;
  return inner != NULL;
}

static void make_due(TaskObject *task, ScopeObject *scope) {
  if (!task->is_due)
    task->due_scope = scope;
  else if (scope == NULL || (task->due_scope != NULL && is_inside(task->due_scope, scope)))
    task->due_scope = scope; /* the outermost one, or the task as a whole */
  task->is_due = true;
}

/* Whether an exception that was left for it is of our making. */
static bool has_exception(const TaskObject *task) {
  bool is_ours = task->interrupted || (task->root == task && is_interrupted_root(task));
  return is_ours && task->thread_state != NULL && task->thread_state->async_exc != NULL;
}

/* What an interrupt is for the task. */
static PyObject *interruption(const TaskObject *task) {
  const bridge_state *state = bridge_state_of(Py_TYPE(task));
  return task->root == task ? state->interrupted : state->cancelled;
}

static void interrupt_now(TaskObject *task) {
  bool is_of_call = task->root == task && task->call->errand == NULL;
  if (is_of_call && bridge_call_defers_interrupt(task->call))
    return;
  task->interrupted = true;
  task->deferred = task->doing != NULL || task->thread_state == NULL;
  if (!task->deferred)
    set_exception(task, interruption(task));
}

bool bridge_task_is_due(const TaskObject *task) {
  return task->is_due || has_exception(task);
}

void bridge_task_pause(TaskObject *task, const char *doing, PyObject *waits_for) {
  task->doing = doing;
  task->waits_for = waits_for;
}

void bridge_task_go_on(TaskObject *task) {
  task->doing = NULL;
  task->waits_for = NULL;
  if (task->deferred)
    interrupt_now(task);
}

void bridge_task_cancel_self(TaskObject *task, ScopeObject *scope, bool interrupt) {
  bool is_interrupt = interrupt && scope == NULL && task->thread_state != NULL;
  if (task->state == TASK_DONE)
    return;
  if (task->waiter == NULL && is_interrupt) {
    interrupt_now(task);
  } else if (task->waiter == NULL || task->mode == WAIT_SHIELDED) {
    make_due(task, scope);
  } else if (dromon_park_cancel(&task->waiter->park) || !is_interrupt) {
    make_due(task, scope); /* it sees that once it is attached */
  } else {
    interrupt_now(task); /* it was woken before, and goes on */
  }
}

/* The first child of the host of `scope`, there or further out; and all these scopes are cancelled. */
static TaskObject *first_child(ScopeObject *scope) {
  for (; scope != NULL; scope = scope->outer) {
    scope->is_cancelled = true;
    if (scope->youngest != NULL)
      return scope->youngest;
  }
  return NULL;
}

/* The next one of the tree below and including `top`. A loop, since trees may be deeper than a stack. */
static TaskObject *next_in_tree(TaskObject *task, const TaskObject *top) {
  TaskObject *next = first_child(task->scopes);
  while (next == NULL && task != top) {
    next = task->older == NULL ? first_child(task->scope->outer) : task->older;
    task = task->scope->host;
  }
  return next;
}

void bridge_task_cancel(TaskObject *task, bool interrupt) {
  for (TaskObject *each = task; each != NULL; each = next_in_tree(each, task))
    bridge_task_cancel_self(each, NULL, interrupt);
}

void bridge_scope_cancel_children(ScopeObject *scope, bool interrupt) {
  scope->is_cancelled = true;
  for (TaskObject *child = scope->youngest; child != NULL; child = child->older)
    bridge_task_cancel(child, interrupt);
}

void bridge_task_cancel_children(TaskObject *task, bool interrupt) {
  for (ScopeObject *scope = task->scopes; scope != NULL; scope = scope->outer)
    bridge_scope_cancel_children(scope, interrupt);
}

int bridge_task_raise(bridge_state *state, TaskObject *task) {
  PyObject *error = PyObject_CallFunction(state->cancelled, "s", "the task was cancelled");
  if (error == NULL)
    return -1;
  if (task != NULL) {
    PyObject *before = NULL;
    Py_BEGIN_CRITICAL_SECTION(task->lock);
    if (task->due_scope != NULL) {
      before = task->due_scope->own;
      task->due_scope->own = Py_NewRef(error);
    }
    task->is_due = false;
    task->due_scope = NULL;
    Py_END_CRITICAL_SECTION();
    Py_XDECREF(before);
  }
  PyErr_SetObject(state->cancelled, error);
  Py_DECREF(error);
  return -1;
}

int bridge_task_deliver(bridge_state *state, TaskObject *task) {
  bool has_come, is_due;
  Py_BEGIN_CRITICAL_SECTION(task->lock);
  has_come = has_exception(task);
  is_due = task->is_due;
  if (has_come)
    bridge_take_back_exception(state);
  Py_END_CRITICAL_SECTION();
  if (has_come) {
    PyErr_SetNone(interruption(task));
    return -1;
  }
  return is_due ? bridge_task_raise(state, task) : 0;
}

/* ---- Children ------------------------------------------------------------------------------- */

TaskObject *bridge_child_new(bridge_state *state, ScopeObject *scope, PyObject *function,
                             PyObject *arguments) {
  PyObject *context = PyContext_CopyCurrent();
  TaskObject *task = context == NULL ? NULL : new_task(state, scope->host->lock);
  if (task == NULL) {
    Py_XDECREF(context);
    return NULL;
  }
  task->function = Py_NewRef(function);
  task->arguments = Py_NewRef(arguments);
  task->context = context;
  task->root = (TaskObject *)Py_NewRef((PyObject *)scope->host->root);
  task->scope = (ScopeObject *)Py_NewRef((PyObject *)scope);
  PyObject_GC_Track(task);
  return task;
}

void bridge_child_discard(bridge_state *state, TaskObject *child) {
  list_remove(state, child);
  Py_DECREF(child);
}

/* What a dump of later calls it, as long as it costs next to nothing. */
static void keep_name(TaskObject *task) {
  Py_BEGIN_CRITICAL_SECTION(task->lock);
  if (task->name == NULL && PyFunction_Check(task->function))
    task->name = Py_NewRef(((PyFunctionObject *)task->function)->func_qualname);
  Py_END_CRITICAL_SECTION();
}

/* Takes the outcome, and lets go of all else: of what may run a user's code. */
static void settle(bridge_state *state, TaskObject *task, PyObject *value, PyObject *error) {
  keep_name(task);
  clear_inputs(task);
  Py_BEGIN_CRITICAL_SECTION(task->lock);
  task->was_cancelled =
      error == NULL ? value == NULL : PyErr_GivenExceptionMatches(error, state->interrupted);
  task->value = value;
  task->error = task->was_cancelled ? NULL : error;
  Py_END_CRITICAL_SECTION();
  if (task->was_cancelled)
    Py_XDECREF(error);
}

static void end_child(bridge_state *state, TaskObject *task) {
  ScopeObject *scope;
  Py_BEGIN_CRITICAL_SECTION(task->lock);
  task->state = TASK_DONE;
  bridge_scope_close_all(task);
  bridge_wake_all(&task->joins);
  scope = task->scope;
  task->scope = NULL;
  bridge_scope_child_ended(scope, task);
  Py_END_CRITICAL_SECTION();
  list_remove(state, task);
  Py_DECREF(scope);
}

static PyObject *call_child(TaskObject *task) {
  if (PyContext_Enter(task->context) < 0)
    return NULL;
  PyObject *value = PyObject_Call(task->function, task->arguments, NULL);
  if (value != NULL && PyCoro_CheckExact(value))
    value = bridge_refuse_coroutine(task->function, value);
  PyContext_Exit(task->context); /* cannot fail: it is the one that we entered */
  return value;
}

/* Whether it is to run, on this thread state. */
static bool begin_child(TaskObject *task, PyThreadState *thread_state) {
  bool begins;
  Py_BEGIN_CRITICAL_SECTION(task->lock);
  begins = !task->is_due;
  if (begins) {
    task->state = TASK_RUNNING;
    task->thread_state = thread_state;
  }
  Py_END_CRITICAL_SECTION();
  return begins;
}

/* Runs a child on this fiber, whatever else that runs meanwhile. */
static void run_child(bridge_state *state, struct bridge_fiber *fiber, TaskObject *task) {
  if (!begin_child(task, fiber->thread_state)) { /* it was cancelled before */
    settle(state, task, NULL, NULL);
    end_child(state, task);
    return;
  }
  TaskObject *outer_task = fiber->task;
  CallObject *outer_call = fiber->call;
  fiber->task = task;
  bridge_fiber_set_call(fiber, NULL);
  PyObject *value = call_child(task);
  Py_BEGIN_CRITICAL_SECTION(task->lock);
  leave_thread_state(state, task);
  Py_END_CRITICAL_SECTION();
  PyObject *error = value == NULL ? bridge_take_raised_exception() : NULL;
  settle(state, task, value, error);
  fiber->task = outer_task;
  bridge_fiber_set_call(fiber, outer_call);
  end_child(state, task);
}

void bridge_task_run(bridge_state *state, TaskObject *task, dromon_batch *batch) {
  if (!dromon_task_is_withdrawn(&task->task)) { /* else it runs, or has run, in place of a join */
    dromon_batch_enter_task(batch, NULL);
    run_child(state, bridge_current_fiber(), task);
    dromon_batch_leave_task(batch);
    dromon_task_finish(&task->task);
    dromon_batch_end(batch, &task->task);
  }
  Py_DECREF(task); /* the queue's */
}

void bridge_task_refuse(bridge_state *state, TaskObject *task) {
  if (!dromon_task_is_withdrawn(&task->task)) {
    PyErr_SetString(PyExc_MemoryError, "there is no thread state for a green thread");
    settle(state, task, NULL, bridge_take_raised_exception());
    end_child(state, task);
    dromon_task_finish(&task->task);
  }
  Py_DECREF(task);
}

/* ---- Joins ---------------------------------------------------------------------------------- */

/* Between these two the thread state of `task` is another task's, which nothing must hit that is meant for
 * `task`. */
static void lend_thread_state(TaskObject *task, TaskObject *child, const char *doing) {
  Py_BEGIN_CRITICAL_SECTION(task->lock);
  if (has_exception(task)) {
    bridge_take_back_exception(bridge_state_of(Py_TYPE(task)));
    task->deferred = true;
  }
  bridge_task_pause(task, doing, (PyObject *)child);
  Py_END_CRITICAL_SECTION();
}

static void get_thread_state_back(TaskObject *task) {
  Py_BEGIN_CRITICAL_SECTION(task->lock);
  bridge_task_go_on(task);
  Py_END_CRITICAL_SECTION();
}

bool bridge_task_run_here(bridge_state *state, TaskObject *task, const char *doing) {
  struct bridge_fiber *fiber = bridge_current_fiber();
  if (fiber == NULL || fiber->task == NULL || task->state != TASK_QUEUED ||
      fiber->depth >= DEPTH_MOST)
    return false;
  int taken = dromon_take_back_child(&task->task);
  if (taken < 0)
    return false;
  TaskObject *host = fiber->task;
  Py_INCREF(task);
  lend_thread_state(host, task, doing);
  fiber->depth++;
  run_child(state, fiber, task);
  fiber->depth--;
  get_thread_state_back(host);
  Py_DECREF(task);
  if (taken == 1)
    Py_DECREF(task); /* the queue's */
  return true;
}

static bool has_ended(TaskObject *task) {
  bool ended;
  Py_BEGIN_CRITICAL_SECTION(task->lock);
  ended = task->state == TASK_DONE;
  Py_END_CRITICAL_SECTION();
  return ended;
}

/* Waits until it has ended: 0, or -1 with an exception. */
static int join(bridge_state *state, TaskObject *task, int64_t timeout_ns) {
  if (has_ended(task))
    return 0;
  if (bridge_check_wait("trio.Nursery") < 0)
    return -1;
  if (bridge_current_task(state) == task) {
    PyErr_SetString(PyExc_RuntimeError, "a task cannot wait for itself");
    return -1;
  }
  if (timeout_ns < 0 && bridge_task_run_here(state, task, "Task.result"))
    return 0;
  struct waiter waiter;
  bool waits;
  Py_BEGIN_CRITICAL_SECTION(task->lock);
  waits = task->state != TASK_DONE;
  if (waits)
    bridge_waiter_add(&task->joins, &waiter);
  Py_END_CRITICAL_SECTION();
  if (!waits)
    return 0;
  enum wait_result result =
      bridge_wait(&waiter, (PyObject *)task, "Task.result", timeout_ns, WAIT_ORDINARY);
  if (result == WAIT_TIMED_OUT)
    PyErr_SetString(PyExc_TimeoutError, "the task has not ended in time");
  return result == WAIT_WOKEN ? 0 : -1;
}

static int join_by_arguments(TaskObject *self, PyTypeObject *defining_class, PyObject *const *args,
                             Py_ssize_t nargs, PyObject *keywords) {
  int64_t timeout_ns;
  PyObject *timeout = NULL;
  Py_ssize_t given = nargs + (keywords == NULL ? 0 : PyTuple_GET_SIZE(keywords));
  if (given > 1 || (given == 1 && nargs == 0 &&
                    PyUnicode_CompareWithASCIIString(PyTuple_GET_ITEM(keywords, 0), "timeout"))) {
    PyErr_SetString(PyExc_TypeError, "takes one argument: timeout");
    return -1;
  }
  if (given == 1)
    timeout = args[0];
  if (!bridge_timeout("timeout", timeout, &timeout_ns))
    return -1;
  return join(bridge_state_of(defining_class), self, timeout_ns);
}

/* Of a task that was cancelled; in one that is cancelled, too (for the same reason, often): that. */
static PyObject *raise_cancelled_error(bridge_state *state) {
  TaskObject *current = bridge_current_task(state);
  if (current != NULL && bridge_task_deliver(state, current) < 0)
    return NULL;
  PyObject *module = PyImport_ImportModule("concurrent.futures");
  PyObject *type = module == NULL ? NULL : PyObject_GetAttrString(module, "CancelledError");
  if (type != NULL)
    PyErr_SetString(type, "the task was cancelled");
  Py_XDECREF(type);
  Py_XDECREF(module);
  return NULL;
}

/* ---- The type ------------------------------------------------------------------------------- */

PyDoc_STRVAR(result_doc,
             "result($self, timeout=None)\n--\n\n"
             "Wait for the task to end, and return what its function returned.\n\n"
             "Raises what the function raised; `concurrent.futures.CancelledError` if it was\n"
             "cancelled; `TimeoutError` after ``timeout`` seconds. A task that has not begun\n"
             "runs here and now, unless there is a timeout.\n\n"
             "**Cancellation**: of the waiting task ends the wait, not the awaited one.");

static PyObject *task_result(TaskObject *self, PyTypeObject *defining_class, PyObject *const *args,
                             Py_ssize_t nargs, PyObject *keywords) {
  if (join_by_arguments(self, defining_class, args, nargs, keywords) < 0)
    return NULL;
  if (self->was_cancelled)
    return raise_cancelled_error(bridge_state_of(defining_class));
  if (self->error == NULL)
    return self->value == NULL ? Py_NewRef(Py_None) : Py_NewRef(self->value);
  bridge_raise_again(Py_NewRef(self->error));
  return NULL;
}

PyDoc_STRVAR(exception_doc, "exception($self, timeout=None)\n--\n\n"
                            "Wait as `result` does, and return what the function raised, or None.");

static PyObject *task_exception(TaskObject *self, PyTypeObject *defining_class,
                                PyObject *const *args, Py_ssize_t nargs, PyObject *keywords) {
  if (join_by_arguments(self, defining_class, args, nargs, keywords) < 0)
    return NULL;
  if (self->was_cancelled)
    return raise_cancelled_error(bridge_state_of(defining_class));
  return Py_NewRef(self->error == NULL ? Py_None : self->error);
}

PyDoc_STRVAR(cancel_doc,
             "cancel($self, /)\n--\n\n"
             "Ask the task, and all that it has spawned, to end.\n\n"
             "One that has not begun never does. One that waits gets `Cancelled` there; one\n"
             "that runs, at its next wait. Once for each request.");

static PyObject *task_cancel(TaskObject *self, PyObject *Py_UNUSED(ignored)) {
  Py_BEGIN_CRITICAL_SECTION(self->lock);
  bridge_task_cancel(self, self->root != NULL && self->root->interruptible);
  Py_END_CRITICAL_SECTION();
  Py_RETURN_NONE;
}

PyDoc_STRVAR(done_doc, "done($self, /)\n--\n\nReturn whether the task has ended.");

static PyObject *task_done(TaskObject *self, PyObject *Py_UNUSED(ignored)) {
  return PyBool_FromLong(has_ended(self));
}

PyDoc_STRVAR(cancelled_doc,
             "cancelled($self, /)\n--\n\nReturn whether the task was ended by its cancellation.");

static PyObject *task_cancelled(TaskObject *self, PyObject *Py_UNUSED(ignored)) {
  return PyBool_FromLong(has_ended(self) && self->was_cancelled);
}

static PyObject *task_get_state(TaskObject *self, void *Py_UNUSED(closure)) {
  static const char *const words[] = {"queued", "running", "done"};
  const char *word;
  Py_BEGIN_CRITICAL_SECTION(self->lock);
  word = words[self->state];
  if (self->waiter != NULL)
    word = dromon_park_is_over(&self->waiter->park) ? "ready" : "waiting";
  else if (self->doing != NULL) /* it has yielded, or waits for what runs in place of its wait */
    word = self->waits_for == NULL ? "ready" : "waiting";
  Py_END_CRITICAL_SECTION();
  return PyUnicode_FromString(word);
}

static PyObject *task_get_blocks(TaskObject *self, void *Py_UNUSED(closure)) {
  bool blocks;
  Py_BEGIN_CRITICAL_SECTION(self->lock);
  const struct waiter *waiter = self->waiter;
  blocks = waiter != NULL && waiter->park.state == DROMON_PARK_PARKED && waiter->park.fiber == NULL;
  Py_END_CRITICAL_SECTION();
  return PyBool_FromLong(blocks);
}

static PyObject *task_get_doing(TaskObject *self, void *Py_UNUSED(closure)) {
  const char *doing = self->doing;
  if (doing == NULL)
    Py_RETURN_NONE;
  return PyUnicode_FromString(doing);
}

static PyObject *task_get_waits_for(TaskObject *self, void *Py_UNUSED(closure)) {
  PyObject *waits_for;
  Py_BEGIN_CRITICAL_SECTION(self->lock);
  waits_for = Py_NewRef(self->waits_for == NULL ? Py_None : self->waits_for);
  Py_END_CRITICAL_SECTION();
  return waits_for;
}

static PyObject *task_get_scope(TaskObject *self, void *Py_UNUSED(closure)) {
  PyObject *scope;
  Py_BEGIN_CRITICAL_SECTION(self->lock);
  scope = Py_NewRef(self->scope == NULL ? Py_None : (PyObject *)self->scope);
  Py_END_CRITICAL_SECTION();
  return scope;
}

static PyObject *task_get_parent(TaskObject *self, void *Py_UNUSED(closure)) {
  PyObject *parent;
  Py_BEGIN_CRITICAL_SECTION(self->lock);
  parent = Py_NewRef(self->scope == NULL ? Py_None : (PyObject *)self->scope->host);
  Py_END_CRITICAL_SECTION();
  return parent;
}

/* A number of its thread state, which is none while it has none. */
static PyObject *get_number(TaskObject *self, unsigned long (*read)(const PyThreadState *)) {
  unsigned long number = 0;
  Py_BEGIN_CRITICAL_SECTION(self->lock);
  if (self->thread_state != NULL)
    number = read(self->thread_state);
  Py_END_CRITICAL_SECTION();
  return number == 0 ? Py_NewRef(Py_None) : PyLong_FromUnsignedLong(number);
}

static unsigned long native_id_of(const PyThreadState *thread_state) {
  return thread_state->native_thread_id;
}

static unsigned long ident_of(const PyThreadState *thread_state) {
  return thread_state->thread_id;
}

static PyObject *task_get_native_id(TaskObject *self, void *Py_UNUSED(closure)) {
  return get_number(self, native_id_of);
}

static PyObject *task_get_frame(TaskObject *self, void *Py_UNUSED(closure)) {
  PyObject *frame;
  Py_BEGIN_CRITICAL_SECTION(self->lock);
  frame = self->thread_state == NULL ? NULL : bridge_frame_of(self->thread_state);
  Py_END_CRITICAL_SECTION();
  if (frame == NULL && PyErr_Occurred())
    return NULL;
  return frame == NULL ? Py_NewRef(Py_None) : frame;
}

static PyObject *task_get_ident(TaskObject *self, void *Py_UNUSED(closure)) {
  return get_number(self, ident_of);
}

/* What it is called: as it was named, or after its function. */
static PyObject *task_get_name(TaskObject *self, void *Py_UNUSED(closure)) {
  PyObject *name, *function, *arguments = NULL;
  Py_BEGIN_CRITICAL_SECTION(self->lock);
  const CallObject *call = self->call;
  name = Py_XNewRef(self->name);
  function = Py_XNewRef(self->function);
  if (call != NULL && call->errand == NULL && call->arguments != NULL) {
    function = Py_NewRef(call->function);
    arguments = Py_NewRef(call->arguments);
  }
  Py_END_CRITICAL_SECTION();
  if (name == NULL && arguments != NULL)
    name = bridge_call_python("dromon._call", "name_of_call", "OO", function, arguments);
  else if (name == NULL && function != NULL)
    name = bridge_call_python("dromon._callables", "name_of", "O", function);
  else if (name == NULL)
    name = PyUnicode_FromString(self->root == self ? "call" : "task");
  Py_XDECREF(function);
  Py_XDECREF(arguments);
  return name;
}

static PyObject *task_repr(TaskObject *self) {
  PyObject *name = task_get_name(self, NULL);
  PyObject *state = task_get_state(self, NULL);
  PyObject *text = name == NULL || state == NULL
                       ? NULL
                       : PyUnicode_FromFormat("<dromon.green.Task %U, %U>", name, state);
  Py_XDECREF(state);
  Py_XDECREF(name);
  return text;
}

static int task_traverse(TaskObject *self, visitproc visit, void *arg) {
  Py_VISIT(Py_TYPE(self));
  Py_VISIT(self->function);
  Py_VISIT(self->arguments);
  Py_VISIT(self->context);
  Py_VISIT(self->value);
  Py_VISIT(self->error);
  if (self->root != self)
    Py_VISIT(self->root);
  Py_VISIT(self->scope);
  Py_VISIT(self->lock);
  return 0;
}

static int task_clear(TaskObject *self) {
  clear_inputs(self);
  Py_CLEAR(self->value);
  Py_CLEAR(self->error);
  if (self->root != self)
    Py_CLEAR(self->root);
  return 0; /* its scope is there while it lives, and it lives until it has ended */
}

static void task_dealloc(TaskObject *self) {
  PyTypeObject *type = Py_TYPE(self);
  PyObject_GC_UnTrack(self);
  list_remove(bridge_state_of(type), self);
  task_clear(self);
  Py_CLEAR(self->scope);
  Py_CLEAR(self->name);
  Py_CLEAR(self->lock);
  type->tp_free((PyObject *)self);
  Py_DECREF(type);
}

#define WITH_CLASS METH_METHOD | METH_FASTCALL | METH_KEYWORDS

static PyMethodDef task_methods[] = {
    {"result", (PyCFunction)(void (*)(void))task_result, WITH_CLASS, result_doc},
    {"exception", (PyCFunction)(void (*)(void))task_exception, WITH_CLASS, exception_doc},
    {"cancel", (PyCFunction)task_cancel, METH_NOARGS, cancel_doc},
    {"done", (PyCFunction)task_done, METH_NOARGS, done_doc},
    {"cancelled", (PyCFunction)task_cancelled, METH_NOARGS, cancelled_doc},
    {"__class_getitem__", Py_GenericAlias, METH_O | METH_CLASS, NULL},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef task_properties[] = {
    {"name", (getter)task_get_name, NULL, "What it is called in dumps, a str.", NULL},
    {"state", (getter)task_get_state, NULL,
     "\"queued\", \"running\", \"waiting\", \"ready\" (to go on) or \"done\".", NULL},
    {"blocks", (getter)task_get_blocks, NULL,
     "Whether it waits and its OS thread with it, since it cannot park.", NULL},
    {"doing", (getter)task_get_doing, NULL, "What it waits in, for people to read; or None.", NULL},
    {"waits_for", (getter)task_get_waits_for, NULL, "What it waits for; or None.", NULL},
    {"parent", (getter)task_get_parent, NULL, "The task whose scope it lives in; or None.", NULL},
    {"scope", (getter)task_get_scope, NULL, "The scope that it lives in; or None.", NULL},
    {"native_id", (getter)task_get_native_id, NULL,
     "The kernel's id of the thread that it runs or waits on; or None.", NULL},
    {"frame", (getter)task_get_frame, NULL,
     "Where it is, while it runs or waits: its innermost frame; or None.", NULL},
    {"ident", (getter)task_get_ident, NULL,
     "Under which `sys._current_frames` has its frame, while it runs or waits; or None.", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot task_slots[] = {
    {Py_tp_doc, "A function that runs, or will run, on a green thread. Made by `Scope.spawn`."},
    {Py_tp_methods, task_methods},
    {Py_tp_getset, task_properties},
    {Py_tp_repr, task_repr},
    {Py_tp_traverse, task_traverse},
    {Py_tp_clear, task_clear},
    {Py_tp_dealloc, task_dealloc},
    {0, NULL},
};

PyType_Spec bridge_task_spec = {
    .name = "dromon.green.Task",
    .basicsize = sizeof(TaskObject),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_DISALLOW_INSTANTIATION |
             Py_TPFLAGS_IMMUTABLETYPE,
    .slots = task_slots,
};
