/* task.h - green tasks: what runs on a green thread, as its user sees it; and scopes, in which they live.
 *
 * A *root* is a call of the pool. It has a task only once somebody asks for it: so a call that never waits pays
 * nothing. A *child* was spawned in a scope. It goes to the queue of the worker that spawned it, and runs there, on
 * a worker that steals it (not in an interpreter of its own), or in place of the wait of the first that joins it.
 *
 * Cancellation. A request is delivered once: as Cancelled, at the wait that the task is in, or at its next one. A
 * child that has not begun never begins. A request to a task is one to all that it has spawned.
 *
 * Who may touch what: all of it with the GIL held. Without one: with the tree locked, which is in the critical
 * section of `lock`. What is done in there never waits for another lock, and runs no code of users, so that nobody
 * comes between.
 */
#ifndef DROMON_BRIDGE_TASK_H
#define DROMON_BRIDGE_TASK_H

#include "bridge.h"
#include "wait.h"

typedef struct ScopeObject ScopeObject;

enum task_state {
  TASK_QUEUED,
  TASK_RUNNING,
  TASK_DONE,
};

struct TaskObject {
  PyObject_HEAD
  dromon_task task;    /* of a child; where a CallObject has its own: see bridge_task_of */
  PyObject *function;  /* of a child, or a root in an isolate, until it has run */
  PyObject *arguments; /* a tuple */
  PyObject *context;
  PyObject *value; /* one of the two when it is done; a cancelled one has none */
  PyObject *error;
  PyObject *name;   /* what it is called in dumps; NULL: made when somebody asks */
  TaskObject *root; /* whose tree it is in: a reference, or itself without one */
  CallObject *call; /* of a root: its call, borrowed, until that has ended */
  PyObject
      *lock; /* of the tree: its root's call or, in an isolate, an object of that; a reference */
  ScopeObject *scope;   /* of a child: where it lives, a reference */
  ScopeObject *scopes;  /* that it has open, innermost first; borrowed, linked by `outer` */
  TaskObject *younger;  /* the next one in its scope */
  TaskObject *older;    /* and the one before */
  struct waiters joins; /* who waits for its end */
  struct waiters
      questions; /* of a root in an isolate: who waits for his turn to ask its submitter */
  enum task_state state;
  bool interruptible; /* of a root: what runs in its tree is interrupted when it is cancelled */
  bool was_cancelled; /* how it ended */

  /* While it runs. */
  PyThreadState *thread_state; /* NULL once its function has returned: nothing interrupts it now */
  struct waiter *waiter;       /* that it waits by; NULL: it does not wait */
  enum wait_mode mode;
  const char *doing;      /* what it waits in: "Event.wait" */
  PyObject *waits_for;    /* whose waiter that is, borrowed; or NULL */
  bool is_due;            /* a cancellation is to be delivered at its next wait, */
  ScopeObject *due_scope; /* of this open scope of its own alone (borrowed), or NULL */
  bool interrupted;       /* an exception was set that may not have been raised yet */
  bool deferred;          /* the exception is to be set when the task goes on */

  bool is_listed; /* in the list of all tasks of the interpreter that have not ended: */
  TaskObject *next, *previous;
};

struct ScopeObject {
  PyObject_HEAD
  TaskObject *host;     /* that has opened it: a reference, while it is open */
  ScopeObject *outer;   /* the next one that the host has open; borrowed */
  TaskObject *youngest; /* of those that live; borrowed */
  Py_ssize_t living;
  PyObject *errors; /* a list of what children raised; or NULL */
  PyObject *own;    /* the Cancelled that was raised in the host for this scope alone; or NULL */
  struct waiters leaving; /* the host, when it waits for the last child */
  bool is_open;
  bool is_leaving; /* the host waits for its children and for nothing else */
  bool is_cancelled;
};

/* The task or call that a core task is embedded in. */
PyObject *bridge_task_owner(dromon_task *task);

/* The task of what runs on this thread; borrowed. NULL: without an exception on any other thread, with one if
 * there is no memory. */
TaskObject *bridge_current_task(bridge_state *state);

/* A new list of those of the interpreter that have not ended. */
PyObject *bridge_task_list(bridge_state *state);

/* Whether there are such. */
bool bridge_has_tasks(bridge_state *state);

/* A worker runs a child that it was handed, and lets go of it. */
void bridge_task_run(bridge_state *state, TaskObject *task, dromon_batch *batch);

/* In place of that: there is no thread state for it. */
void bridge_task_refuse(bridge_state *state, TaskObject *task);

/* The call that runs here has ended, and with it its task, if it had one. */
struct bridge_fiber;
void bridge_root_end(struct bridge_fiber *fiber);

/* A cancellation or an interrupt waits to be delivered. With the tree locked, as those that follow. */
bool bridge_task_is_due(const TaskObject *task);

/* Between these two the thread state is not the task's: it waits, yields, or lends it to one that runs in place of
 * a join. What interrupts it meanwhile hits when it goes on. */
void bridge_task_pause(TaskObject *task, const char *doing, PyObject *waits_for);
void bridge_task_go_on(TaskObject *task);

/* Asks a task, and all that it has spawned, to end. `interrupt`: also in the middle of what runs. */
void bridge_task_cancel(TaskObject *task, bool interrupt);
void bridge_task_cancel_children(TaskObject *task, bool interrupt);

/* All that lives in a scope, and all that comes. */
void bridge_scope_cancel_children(ScopeObject *scope, bool interrupt);

/* The task alone; with a scope, which is one that it has open: until it has left that. */
void bridge_task_cancel_self(TaskObject *task, ScopeObject *scope, bool interrupt);

/* Delivers what is due to the current task: -1 with an exception; else 0. This and those that follow lock the tree
 * themselves. */
int bridge_task_deliver(bridge_state *state, TaskObject *task);

/* Raises Cancelled, for what was due to `task`, or to no task (NULL); returns -1. */
int bridge_task_raise(bridge_state *state, TaskObject *task);

/* A child of `scope`, not yet queued; and what becomes of it if it will never be. */
TaskObject *bridge_child_new(bridge_state *state, ScopeObject *scope, PyObject *function,
                             PyObject *arguments);
void bridge_child_discard(bridge_state *state, TaskObject *child);

/* Runs it here and now, in place of waiting for it (which is called `doing`), if no worker has begun it. False: wait. */
bool bridge_task_run_here(bridge_state *state, TaskObject *task, const char *doing);

/* ---- scope.c; with the tree locked ---- */

/* The task has ended, and leaves open scopes behind: a generator that it has not exhausted, say. */
void bridge_scope_close_all(TaskObject *host);

/* A child has ended, and is no longer in it. */
void bridge_scope_child_ended(ScopeObject *scope, TaskObject *child);

#endif
