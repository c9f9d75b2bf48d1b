/* interrupt.c - raising `Interrupted` inside the call that a worker runs, and nowhere else.
 *
 * CPython has an asynchronous exception for each thread state: PyThreadState_SetAsyncExc leaves it there,
 * from any thread, and the thread raises it between two of its next bytecodes, whatever code that is. What
 * is to be shown is that this is code of the very call that was to be interrupted.
 *
 * The protocol. Four steps, each taken with the call locked (by the GIL; without one, by the call's own
 * lock), so that they come in some order and never overlap:
 *
 *   Begin      the worker, before it calls the function: call->thread_state = its own; sets the exception
 *              if one is `deferred`.
 *   Interrupt  anybody: sets the exception if call->thread_state is set and the call does not visit; else
 *              notes it as `deferred`.
 *   End        the worker, when the function has returned or raised: call->thread_state = NULL; clears the
 *              exception, if any was set.
 *   Visit      the worker, in the function: counts in `visiting`, and from here on no interrupt is set.
 *              Raises the one that is set already, or deferred. Leave ends it, by the submitter, and sets
 *              the exception if one is deferred. (The next Visit may come before Leave. It has the answer
 *              of the last one: that is why it can raise what was deferred. Else a call that visits its
 *              submitter without end could be quicker than Leave each time.)
 *
 * Between Begin and End the thread state executes bytecode of this call alone (or of a child that runs in place of
 * a join): one thread state runs one call at a time, and bridge_call_run, which takes both steps, calls
 * nothing else in Python between them. Now an exception is set only by Begin, Interrupt and Leave, and then
 * after Begin and before End (after End call->thread_state is NULL). If the thread raises it before End, it is in
 * this call. If it does not, End clears it before the thread executes any more bytecode: before the
 * arguments are let go of, before the next call, before the worker leaves. Hence it is raised in this call
 * or not at all.
 *
 * Visit is for what must not come apart: the function asks its submitter for something, and waits for the
 * answer. Were it interrupted between the two, the answer, or the call itself, would reach a submitter who
 * expects the other.
 *
 * A worker may have several thread states: one for each green thread (fiber.h). PyThreadState_SetAsyncExc finds
 * one by its ident in the current interpreter, and idents differ: the attached one has that of the thread, each
 * parked one its own address.
 *
 * A call that waits on a green thread is not interrupted in the middle of the wait, which would last all the same:
 * the wait is ended by Cancelled, and so are those of its children (task.c).
 *
 * The model native/models/interrupt.pml checks this, and that each step is needed.
 */
#include "fiber.h"
#include "isolated.h"
#include "task.h"
#include "thread_state.h"

/* Leaves the exception for the call's thread state. */
static void set_exception(const CallObject *call, PyObject *exception) {
  PyThreadState_SetAsyncExc(call->thread_state->thread_id, exception);
}

static PyObject *interrupted(CallObject *call) {
  return bridge_state_of(Py_TYPE(call))->interrupted;
}

void bridge_call_begin(CallObject *call, struct bridge_fiber *fiber) {
  Py_BEGIN_CRITICAL_SECTION2(fiber->worker, call);
  bridge_fiber_set_call(fiber, call);
  call->thread_state = fiber->thread_state; /* Begin */
  if (call->deferred)
    set_exception(call, interrupted(call));
  call->deferred = false;
  Py_END_CRITICAL_SECTION2();
}

void bridge_call_end(CallObject *call, struct bridge_fiber *fiber) {
  Py_BEGIN_CRITICAL_SECTION2(fiber->worker, call);
  call->thread_state = NULL; /* End: from here on none is set */
  bridge_root_end(fiber);
  bridge_fiber_set_call(fiber, NULL);
  if (call->interrupts > 0)
    bridge_take_back_exception(fiber->state);
  Py_END_CRITICAL_SECTION2();
}

/* Leaves it in the call, which runs and does not visit: where it waits it is ended otherwise. */
static void interrupt_now(CallObject *call) {
  if (call->task != NULL)
    bridge_task_cancel_self(call->task, NULL, true);
  else
    set_exception(call, interrupted(call));
}

void bridge_call_interrupt(CallObject *call) {
  Py_BEGIN_CRITICAL_SECTION(call);
  call->interrupts++;
  if (call->task != NULL)
    bridge_task_cancel_children(call->task, true);
  if (call->thread_state != NULL && call->visiting == 0)
    interrupt_now(call); /* Interrupt */
  else
    call->deferred = true;
  Py_END_CRITICAL_SECTION();
}

bool bridge_call_defers_interrupt(CallObject *call) {
  call->interrupts++;
  call->deferred |= call->visiting > 0;
  return call->visiting > 0;
}

static void cancel_here(CallObject *call) {
  Py_BEGIN_CRITICAL_SECTION(call);
  call->interrupts++; /* it may end by it */
  bool is_now = call->task != NULL && call->visiting == 0 && !call->cancel_told;
  if (is_now)
    bridge_task_cancel(call->task, false);
  else if (call->task != NULL)
    bridge_task_cancel_children(call->task, false);
  /* In a visit the submitter is cancelled in what it does for the call, which may tell that, or not. */
  call->cancel_due = !is_now && !call->cancel_told;
  Py_END_CRITICAL_SECTION();
}

void bridge_call_tell_cancelled(CallObject *call) {
  Py_BEGIN_CRITICAL_SECTION(call);
  call->cancel_told = true;
  call->cancel_due = false;
  Py_END_CRITICAL_SECTION();
}

/* Delivers what no visit has told. */
static void cancel_if_due(CallObject *call) {
  if (!call->cancel_due || call->visiting > 0 || call->task == NULL)
    return;
  call->cancel_due = false;
  bridge_task_cancel_self(call->task, NULL, false);
}

void bridge_call_set_task(CallObject *call, TaskObject *task) {
  Py_BEGIN_CRITICAL_SECTION(call);
  call->task = task;
  cancel_if_due(call);
  Py_END_CRITICAL_SECTION();
}

int bridge_call_cancel(CallObject *call) {
  if (call->errand == NULL) {
    cancel_here(call);
    return 0;
  }
  if (!bridge_errand_note_cancel(call->errand))
    return 0;
  PyObject *started = bridge_call_python("dromon._interruption", "raise_soon", "O", call);
  Py_XDECREF(started);
  return started == NULL ? -1 : 0;
}

/* Whether an interrupt is due, for the call's own thread to ask. */
static bool is_due(const CallObject *call) {
  return call->thread_state != NULL && call->interrupts > 0 &&
         (call->deferred || call->thread_state->async_exc != NULL);
}

/* The submitter was cancelled before: it may tell that, in what it does for the call. */
static void take_back_cancellation(CallObject *call) {
  TaskObject *task = call->task;
  if (task == NULL || !task->is_due || task->due_scope != NULL || call->raise_cancel == NULL)
    return;
  task->is_due = false;
  call->cancel_due = true;
}

int bridge_call_visit(CallObject *call) {
  int result = 1;
  Py_BEGIN_CRITICAL_SECTION(call);
  if (is_due(call)) {
    bridge_take_back_exception(bridge_state_of(Py_TYPE(call)));
    call->deferred = false;
    PyErr_SetNone(interrupted(call));
    result = -1;
  } else if (call->waiter == NULL || call->abandoned || call->on_abort == BRIDGE_ABANDON) {
    result = 0;
  } else {
    call->visiting++; /* Visit */
    take_back_cancellation(call);
  }
  Py_END_CRITICAL_SECTION();
  return result;
}

void bridge_call_serve(CallObject *call) {
  Py_BEGIN_CRITICAL_SECTION(call);
  call->visiting++;
  Py_END_CRITICAL_SECTION();
}

void bridge_call_leave(CallObject *call) {
  Py_BEGIN_CRITICAL_SECTION(call);
  call->visiting--; /* Leave */
  if (call->deferred && call->visiting == 0 && call->thread_state != NULL) {
    interrupt_now(call);
    call->deferred = false;
  }
  cancel_if_due(call);
  Py_END_CRITICAL_SECTION();
}

bool bridge_call_abandon(CallObject *call) {
  bool abandoned;
  Py_BEGIN_CRITICAL_SECTION(call);
  abandoned = call->visiting == 0 && dromon_task_abandon(&call->native.task) == 0;
  if (abandoned) {
    call->abandoned = true;
    call->port->waiting--;
  }
  Py_END_CRITICAL_SECTION();
  return abandoned;
}

bool bridge_call_was_interrupted(CallObject *call, PyObject *error) {
  return call->interrupts > 0 && PyErr_GivenExceptionMatches(error, interrupted(call));
}
