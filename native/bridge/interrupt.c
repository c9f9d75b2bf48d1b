/* interrupt.c - raising `Interrupted` inside the call that a worker runs, and nowhere else.
 *
 * CPython has an asynchronous exception for each thread state: PyThreadState_SetAsyncExc leaves it there,
 * from any thread, and the thread raises it between two of its next bytecodes, whatever code that is. What
 * is to be shown is that this is code of the very call that was to be interrupted.
 *
 * The protocol. Four steps, each taken with the call locked (by the GIL; without one, by the call's own
 * lock), so that they come in some order and never overlap:
 *
 *   Begin      the worker, before it calls the function: call->worker = itself; sets the exception if one
 *              is `deferred`.
 *   Interrupt  anybody: sets the exception if call->worker is set and the call does not visit; else
 *              notes it as `deferred`.
 *   End        the worker, when the function has returned or raised: call->worker = NULL; clears the
 *              exception, if any was set.
 *   Visit      the worker, in the function: counts in `visiting`, and from here on no interrupt is set.
 *              Raises the one that is set already, or deferred. Leave ends it, by the submitter, and sets
 *              the exception if one is deferred. (The next Visit may come before Leave. It has the answer
 *              of the last one: that is why it can raise what was deferred. Else a call that visits its
 *              submitter without end could be quicker than Leave each time.)
 *
 * Between Begin and End the worker executes bytecode of this call alone: the thread state is the worker's
 * for life, one thread state runs one call at a time, and bridge_call_run, which takes both steps, calls
 * nothing else in Python between them. Now an exception is set only by Begin, Interrupt and Leave, and then
 * after Begin and before End (after End call->worker is NULL). If the thread raises it before End, it is in
 * this call. If it does not, End clears it before the thread executes any more bytecode: before the
 * arguments are let go of, before the next call, before the worker leaves. Hence it is raised in this call
 * or not at all.
 *
 * Visit is for what must not come apart: the function asks its submitter for something, and waits for the
 * answer. Were it interrupted between the two, the answer, or the call itself, would reach a submitter who
 * expects the other.
 *
 * PyThreadState_SetAsyncExc finds a thread state by the ident of its thread, in the current interpreter: the
 * first one, so a worker must have one only, which is so.
 *
 * The model native/models/interrupt.pml checks this, and that each step is needed.
 */
#include "bridge.h"

/* Leaves the exception for the worker's thread; NULL: takes it back. */
static void set_exception(const WorkerObject *worker, PyObject *exception) {
  PyThreadState_SetAsyncExc(worker->ident, exception);
}

static PyObject *interrupted(CallObject *call) {
  return bridge_state_of(Py_TYPE(call))->interrupted;
}

void bridge_call_begin(CallObject *call, WorkerObject *worker) {
  Py_BEGIN_CRITICAL_SECTION2(worker, call);
  worker->call = call;
  call->worker = worker; /* Begin */
  if (call->deferred)
    set_exception(worker, interrupted(call));
  call->deferred = false;
  Py_END_CRITICAL_SECTION2();
}

void bridge_call_end(CallObject *call, WorkerObject *worker) {
  Py_BEGIN_CRITICAL_SECTION2(worker, call);
  worker->call = NULL;
  call->worker = NULL; /* End */
  if (call->interrupts > 0)
    set_exception(worker, NULL);
  Py_END_CRITICAL_SECTION2();
}

void bridge_call_interrupt(CallObject *call) {
  Py_BEGIN_CRITICAL_SECTION(call);
  call->interrupts++;
  if (call->worker != NULL && call->visiting == 0)
    set_exception(call->worker, interrupted(call)); /* Interrupt */
  else
    call->deferred = true;
  Py_END_CRITICAL_SECTION();
}

/* Whether an interrupt is due, for the call's own thread to ask. */
static bool is_due(const CallObject *call) {
  return call->worker != NULL && call->interrupts > 0 &&
         (call->deferred || call->worker->thread_state->async_exc != NULL);
}

int bridge_call_visit(CallObject *call) {
  int result = 1;
  Py_BEGIN_CRITICAL_SECTION(call);
  if (is_due(call)) {
    set_exception(call->worker, NULL);
    call->deferred = false;
    PyErr_SetNone(interrupted(call));
    result = -1;
  } else if (call->waiter == NULL || call->abandoned || call->on_abort == BRIDGE_ABANDON) {
    result = 0;
  } else {
    call->visiting++; /* Visit */
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
  if (call->deferred && call->visiting == 0 && call->worker != NULL) {
    set_exception(call->worker, interrupted(call));
    call->deferred = false;
  }
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
