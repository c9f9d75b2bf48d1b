/* fiber.h - the bridge's side of the core's fibers: a thread state for each.
 *
 * A green thread is a fiber of the core with a thread state of its own, so that whatever the interpreter keeps
 * of a thread (frames, the exception that is handled, thread-locals, the tracer, the recursion) is apart by
 * construction. It is detached whenever the core switches stacks, and between two batches.
 *
 * Without a GIL a worker has one more, its hub, which was there first and never parks. An object that the worker
 * owns and another thread lets go of last is queued to the first thread state that is found by the worker's
 * thread, and freed when that runs bytecode: were it one that parks, it would stay until then.
 *
 * By `thread_id`, which is a thread's ident, CPython finds a thread state: in PyThreadState_SetAsyncExc, in
 * sys._current_frames(). Of all thread states of a worker the one that is attached has the ident of the thread.
 * Each other one has its own address for an ident. It is changed with the GIL held (without one: by its own
 * thread).
 */
#ifndef DROMON_BRIDGE_FIBER_H
#define DROMON_BRIDGE_FIBER_H

#include "bridge.h"

#include "../core/search.h"

struct isolated_worker;

struct bridge_fiber {
  PyThreadState *thread_state;
  bridge_state *state;              /* of its interpreter */
  unsigned long ident;              /* of its thread */
  WorkerObject *worker;             /* or, if that runs calls in an interpreter of its own: */
  struct isolated_worker *isolated; /* this; else NULL */
  CallObject *call;                 /* that runs here, itself and no child of it; borrowed */
  PyObject *function;               /* of that call, in an isolate; borrowed */
  TaskObject *task;                 /* that runs here, once somebody has asked; borrowed */
  struct bridge_fiber *next;        /* of an isolated worker's */
  struct search gil_look;           /* before it is attached */
  unsigned depth;                   /* how many tasks run in place of their joins */
};

/* The one that runs on the calling thread, attached; NULL: it is no worker, or runs nothing. */
struct bridge_fiber *bridge_current_fiber(void);

/* For one that comes back from elsewhere, or that is about to end (NULL). */
void bridge_fiber_set_current(struct bridge_fiber *fiber);

/* What a worker has from its beginning: attached, with its Worker. False: there is no memory. And its end:
 * attached before, and not after. */
bool bridge_fiber_make_own(struct bridge_fiber *fiber, PyInterpreterState *interpreter);
void bridge_fiber_end_own(struct bridge_fiber *fiber);

/* Around all that it does in Python. */
void bridge_fiber_attach(struct bridge_fiber *fiber);
void bridge_fiber_detach(struct bridge_fiber *fiber);

/* What runs from now on is this call or, with NULL, a child or nothing; for the fiber that runs. */
void bridge_fiber_set_call(struct bridge_fiber *fiber, CallObject *call);

/* A new thread state of the interpreter for the calling thread, with the limits of the stack that it is on;
 * detached. NULL: there is no memory. */
PyThreadState *bridge_thread_state_new(PyInterpreterState *interpreter);

/* Ends the thread state that is attached. */
void bridge_thread_state_delete(PyThreadState *thread_state);

/* Makes the hub of a worker, detached, and ends it; where there is no GIL. Between two batches: lets it free what
 * was queued to it. */
PyThreadState *bridge_hub_new(PyInterpreterState *interpreter);
void bridge_hub_delete(PyThreadState *hub);
void bridge_hub_run(bridge_state *state, PyThreadState *hub);

/* dromon_ops for workers of the main interpreter. */
int bridge_enter_fiber(void *state, void **fiber_state);
void bridge_leave_fiber(void *fiber_state);

/* ---- isolated.c: the same for isolated workers ---- */

void bridge_isolated_attach(struct bridge_fiber *fiber);
void bridge_isolated_detach(struct bridge_fiber *fiber);
void bridge_isolated_set_call(struct bridge_fiber *fiber, CallObject *call);

#endif
