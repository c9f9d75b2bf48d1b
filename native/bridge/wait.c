/* wait.c - see wait.h.
 *
 * What cannot park blocks its OS thread instead, with all green threads of the worker, and is woken all the same:
 *
 *   in a user's greenlet, in a `__del__` that the garbage collector calls, during an import of its own: parkable.c
 *     tells;
 *   in an initializer, or in what a green thread lets go of at its end: the core forbids it (fiber.c);
 *   without memory for one more stack, or past the most that the process may have of them (slabs.h); and if the
 *     initializer fails for a new green thread: the core says so, and waits as any thread;
 *   in the child of a fork, on the worker that forked: the core knows the pool as forgotten.
 */
#include "wait.h"

#include "fiber.h"
#include "parkable.h"
#include "task.h"

#include <errno.h>
#include <math.h>
#include <time.h>

void bridge_waiter_add(struct waiters *waiters, struct waiter *waiter) {
  *waiter = (struct waiter){.previous = waiters->last, .waiters = waiters, .lock = waiters->lock};
  dromon_park_init(&waiter->park);
  *(waiters->last == NULL ? &waiters->first : &waiters->last->next) = waiter;
  waiters->last = waiter;
}

static void take_off(struct waiters *waiters, struct waiter *waiter) {
  *(waiter->previous == NULL ? &waiters->first : &waiter->previous->next) = waiter->next;
  *(waiter->next == NULL ? &waiters->last : &waiter->next->previous) = waiter->previous;
  waiter->waiters = NULL;
}

bool bridge_wake(struct waiter *waiter, PyObject *value) {
  take_off(waiter->waiters, waiter);
  waiter->value = Py_XNewRef(value); /* first: once it is set it may be gone */
  if (dromon_park_set(&waiter->park))
    return true;
  Py_CLEAR(waiter->value); /* it was cancelled, and will find itself taken off */
  return false;
}

bool bridge_wake_one(struct waiters *waiters, PyObject *value) {
  while (waiters->first != NULL) {
    if (bridge_wake(waiters->first, value))
      return true;
  }
  return false;
}

void bridge_wake_all(struct waiters *waiters) {
  while (bridge_wake_one(waiters, NULL)) {
  }
}

bool bridge_timeout(const char *name, PyObject *timeout, int64_t *timeout_ns) {
  *timeout_ns = -1;
  if (timeout == NULL || timeout == Py_None)
    return true;
  double seconds = PyBool_Check(timeout) ? -1 : PyFloat_AsDouble(timeout);
  if (seconds == -1 && (PyBool_Check(timeout) || PyErr_Occurred())) {
    PyErr_Clear();
    PyErr_Format(PyExc_TypeError, "%s must be a number of seconds, not %R", name, timeout);
    return false;
  }
  if (isnan(seconds) || seconds < 0) {
    PyErr_Format(PyExc_ValueError, "%s must be 0 or more seconds, not %R", name, timeout);
    return false;
  }
  if (seconds < 9e9) /* else it is as good as none */
    *timeout_ns = (int64_t)(seconds * 1e9);
  return true;
}

int bridge_check_wait(const char *asynchronous) {
  const struct bridge_fiber *fiber = bridge_current_fiber();
  if (fiber != NULL) {
    TaskObject *task = bridge_current_task(fiber->state);
    if (task != NULL)
      return bridge_task_deliver(fiber->state, task);
    return PyErr_Occurred() ? -1 : 0;
  }
  PyObject *checked = bridge_call_python("dromon._waiting", "refuse_event_loop", "s", asynchronous);
  Py_XDECREF(checked);
  return checked == NULL ? -1 : 0;
}

/* Blocks, or parks if it is a worker that may. */
static int wait_detached(struct bridge_fiber *fiber, struct waiter *waiter, int64_t timeout_ns) {
  if (fiber == NULL) {
    PyThreadState *own = PyEval_SaveThread();
    int result = dromon_park_wait(&waiter->park, timeout_ns);
    PyEval_RestoreThread(own);
    return result;
  }
  bridge_fiber_detach(fiber);
  int result = dromon_park_wait(&waiter->park, timeout_ns);
  bridge_fiber_attach(fiber);
  return result;
}

/* What belongs to no task does not park: an initializer, a callback of a future, a `__del__` of what a call or a
 * task that has ended leaves behind. The worker is in the middle of something then, and its locks would be those
 * of whatever else runs on its thread. */
static bool may_park(const struct bridge_fiber *fiber) {
  return fiber != NULL && fiber->task != NULL && bridge_parkable(fiber->state) == PARKABLE;
}

/* The same with the thread's own stack, in the place of parking, where that must not be. */
static int wait_as_may_be(struct bridge_fiber *fiber, struct waiter *waiter, int64_t timeout_ns) {
  if (may_park(fiber))
    return wait_detached(fiber, waiter, timeout_ns);
  int before = dromon_park_forbid(1);
  int result = wait_detached(fiber, waiter, timeout_ns);
  dromon_park_forbid(before);
  return result;
}

static int raise_again(void *error) {
  bridge_raise_again(error);
  return -1;
}

/* What a signal's handler has to say to a waiting main thread. Whether the wait is to go on. */
static bool go_on_after_signal(struct waiter *waiter, enum wait_mode mode) {
  if (PyErr_CheckSignals() == 0)
    return true;
  if (mode == WAIT_ORDINARY && dromon_park_cancel(&waiter->park))
    return false;
  /* It is woken already, or nothing may end the wait: the exception comes right after it. */
  PyObject *error = bridge_take_raised_exception();
  if (Py_AddPendingCall(raise_again, error) < 0) {
    bridge_raise_again(error);
    PyErr_WriteUnraisable(NULL);
  }
  return true;
}

static int64_t now_ns(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return now.tv_sec * INT64_C(1000000000) + now.tv_nsec;
}

/* As wait_as_may_be, across signals: whether one of their handlers has raised, in `*failed`. */
static int wait_across_signals(struct bridge_fiber *fiber, struct waiter *waiter,
                               int64_t timeout_ns, enum wait_mode mode, bool *failed) {
  if (fiber != NULL) /* a worker's: it has none to handle */
    return wait_as_may_be(fiber, waiter, timeout_ns);
  int64_t end_ns = timeout_ns < 0 ? 0 : now_ns() + timeout_ns;
  int result = wait_as_may_be(NULL, waiter, timeout_ns);
  while (result == -EINTR && !(*failed = !go_on_after_signal(waiter, mode))) {
    if (timeout_ns >= 0)
      timeout_ns = end_ns > now_ns() ? end_ns - now_ns() : 0;
    result = wait_as_may_be(NULL, waiter, timeout_ns);
  }
  return result;
}

/* Where there is no GIL a cancellation may have come since bridge_check_wait: then the wait is over already. */
static void note_begin(TaskObject *task, struct waiter *waiter, PyObject *owner, const char *doing,
                       enum wait_mode mode) {
  waiter->task = task;
  if (task == NULL)
    return;
  Py_BEGIN_CRITICAL_SECTION(task->lock);
  bridge_task_pause(task, doing, owner);
  task->waiter = waiter;
  task->mode = mode;
  if (mode == WAIT_ORDINARY && bridge_task_is_due(task))
    dromon_park_cancel(&waiter->park);
  Py_END_CRITICAL_SECTION();
}

static void note_end(TaskObject *task) {
  if (task == NULL)
    return;
  Py_BEGIN_CRITICAL_SECTION(task->lock);
  task->waiter = NULL;
  bridge_task_go_on(task);
  Py_END_CRITICAL_SECTION();
}

/* Raises what has ended the wait of a task, or of no task. */
static enum wait_result raise_due(bridge_state *state, TaskObject *task) {
  if (task == NULL || bridge_task_deliver(state, task) == 0)
    bridge_task_raise(state, task);
  return WAIT_FAILED;
}

enum wait_result bridge_wait(struct waiter *waiter, PyObject *owner, const char *doing,
                             int64_t timeout_ns, enum wait_mode mode) {
  struct bridge_fiber *fiber = bridge_current_fiber();
  TaskObject *task = fiber == NULL ? NULL : fiber->task;
  PyObject *lock = waiter->lock != NULL ? waiter->lock : owner;
  bool failed = false;
  note_begin(task, waiter, owner, doing, mode);
  int result = wait_across_signals(fiber, waiter, timeout_ns, mode, &failed);
  note_end(task);
  if (lock != NULL) {
    Py_BEGIN_CRITICAL_SECTION(lock);
    if (waiter->waiters != NULL)
      take_off(waiter->waiters, waiter);
    Py_END_CRITICAL_SECTION();
  }
  if (failed || result == 0)
    return failed ? WAIT_FAILED : WAIT_WOKEN;
  if (result == -ETIMEDOUT)
    return WAIT_TIMED_OUT;
  return raise_due(fiber->state, task);
}
