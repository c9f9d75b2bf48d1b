/* wait.h - how a green thread, or any other thread, waits for something of another one in Python.
 *
 * What can be waited for has a list of waiters, oldest first, which is touched with its owner locked (by the
 * GIL; without one, by the owner's critical section). A waiter is a variable of the function that waits. Who
 * wakes one takes it off the list first, and the waiter takes itself off before it returns, both with the owner
 * locked: so nobody finds one that is gone.
 */
#ifndef DROMON_BRIDGE_WAIT_H
#define DROMON_BRIDGE_WAIT_H

#include "bridge.h"

struct waiters {
  struct waiter *first, *last;
  PyObject *lock; /* that is locked, if it is not the owner; or NULL. Borrowed */
};

struct waiter {
  dromon_park park;
  struct waiter *next, *previous;
  struct waiters *waiters; /* NULL: it was taken off */
  PyObject *lock;          /* of the list */
  PyObject *value;         /* what who woke it has left here: a reference, or NULL */
  TaskObject *task;        /* that waits, borrowed; NULL: no task does */
};

enum wait_result {
  WAIT_FAILED =
      -1, /* with an exception: it was cancelled or interrupted, or a signal's handler raised */
  WAIT_WOKEN,
  WAIT_TIMED_OUT,
};

enum wait_mode {
  WAIT_ORDINARY,
  WAIT_SHIELDED, /* no cancellation ends it; nor a signal, though its handler is run */
};

/* Makes a waiter, and appends it. With the owner locked. */
void bridge_waiter_add(struct waiters *waiters, struct waiter *waiter);

/* -1 with an exception if the calling thread, which is about to wait, is one of an event loop, or if its task was
 * cancelled. `asynchronous` is what a trio task would use instead: "trio.Event", say. For each operation that can
 * wait, before it looks whether it has to. */
int bridge_check_wait(const char *asynchronous);

/* Waits, without a lock, for at most `timeout_ns` (below 0: no limit). The waiter is off its list after this.
 * `doing` is for people to read: "Event.wait", say. If the result is not WAIT_WOKEN nobody has woken the
 * waiter, and it has no value. */
enum wait_result bridge_wait(struct waiter *waiter, PyObject *owner, const char *doing,
                             int64_t timeout_ns, enum wait_mode mode);

/* Wakes one that is in a list, which it is taken off in any case, and leaves it `value` (a new reference is taken;
 * may be NULL). False: it does not wait any more. With the owner locked. */
bool bridge_wake(struct waiter *waiter, PyObject *value);

/* Wakes the oldest that still waits, and leaves it `value` (a new reference is taken; may be NULL). False: there
 * is none. With the owner locked. */
bool bridge_wake_one(struct waiters *waiters, PyObject *value);

/* Wakes all. With the owner locked. */
void bridge_wake_all(struct waiters *waiters);

/* What the argument `name` says, in nanoseconds; None, and NULL: -1. False with an exception: ValueError or
 * TypeError. */
bool bridge_timeout(const char *name, PyObject *timeout, int64_t *timeout_ns);

#endif
