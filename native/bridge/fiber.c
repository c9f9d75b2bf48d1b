/* fiber.c - see fiber.h. */
#include "fiber.h"

#include "task.h"
#include "thread_state.h"

#include <errno.h>

/* Initial-exec: it fits into what libc keeps spare for such words. */
static _Thread_local struct bridge_fiber *current __attribute__((tls_model("initial-exec")));

struct bridge_fiber *bridge_current_fiber(void) {
  return current;
}

void bridge_fiber_set_current(struct bridge_fiber *fiber) {
  current = fiber;
}

/* The ident of what is not attached. */
static unsigned long own_ident(const PyThreadState *thread_state) {
  return (unsigned long)(uintptr_t)thread_state;
}

void bridge_fiber_set_call(struct bridge_fiber *fiber, CallObject *call) {
  fiber->call = call;
  if (fiber->isolated != NULL)
    bridge_isolated_set_call(fiber, call);
  else
    fiber->worker->call = call;
}

void bridge_fiber_attach(struct bridge_fiber *fiber) {
  if (fiber->isolated != NULL) {
    bridge_isolated_attach(fiber);
  } else {
    bridge_note_for_gil_state(fiber->thread_state);
    bridge_gil_look(&fiber->gil_look, fiber->thread_state->interp);
    PyEval_RestoreThread(fiber->thread_state);
  }
  fiber->thread_state->thread_id = fiber->ident;
  current = fiber;
  bridge_fiber_set_call(fiber, fiber->call);
}

void bridge_fiber_detach(struct bridge_fiber *fiber) {
  CallObject *call = fiber->call;
  bridge_fiber_set_call(fiber, NULL);
  fiber->call = call;
  current = NULL;
  fiber->thread_state->thread_id = own_ident(fiber->thread_state);
  if (fiber->isolated != NULL)
    bridge_isolated_detach(fiber);
  else
    PyEval_SaveThread();
}

PyThreadState *bridge_thread_state_new(PyInterpreterState *interpreter) {
  PyThreadState *thread_state = PyThreadState_New(interpreter);
  if (thread_state != NULL) {
    thread_state->thread_id = own_ident(thread_state);
    bridge_set_stack_limits(thread_state);
  }
  return thread_state;
}

/* ---- The hub -------------------------------------------------------------------------------- */

#ifdef Py_GIL_DISABLED

PyThreadState *bridge_hub_new(PyInterpreterState *interpreter) {
  PyThreadState *hub = PyThreadState_New(interpreter);
  if (hub != NULL) {
    PyEval_RestoreThread(hub); /* from now on it is that of the calling thread */
    hub->thread_id = own_ident(hub);
    PyEval_SaveThread();
  }
  return hub;
}

void bridge_hub_delete(PyThreadState *hub) {
  if (hub == NULL)
    return;
  PyEval_RestoreThread(hub);
  bridge_thread_state_delete(hub);
}

void bridge_hub_run(bridge_state *state, PyThreadState *hub) {
  enum { EVENTS = 0xff }; /* the other bits of the word are no requests to it */
  if (hub == NULL || !(__atomic_load_n(&hub->eval_breaker, __ATOMIC_RELAXED) & EVENTS))
    return;
  PyEval_RestoreThread(hub);
  if (bridge_run_nothing(state) < 0)
    PyErr_WriteUnraisable(NULL);
  PyEval_SaveThread();
}

#else

PyThreadState *bridge_hub_new(PyInterpreterState *interpreter) {
  (void)interpreter;
  return NULL;
}

void bridge_hub_delete(PyThreadState *hub) {
  (void)hub;
}

void bridge_hub_run(bridge_state *state, PyThreadState *hub) {
  (void)state, (void)hub;
}

#endif

/* ---- Fibers of workers of the main interpreter ---------------------------------------------- */

static int begin_in_python(void) {
  PyObject *begun = bridge_call_python("dromon._worker", "begin_green_thread", NULL);
  if (begun == NULL)
    PyErr_WriteUnraisable(NULL);
  Py_XDECREF(begun);
  return begun == NULL ? -ECANCELED : 0;
}

int bridge_enter_fiber(void *state, void **fiber_state) {
  const struct bridge_fiber *own = state;
  struct bridge_fiber *fiber = PyMem_RawCalloc(1, sizeof *fiber);
  if (fiber == NULL)
    return -ENOMEM;
  *fiber = (struct bridge_fiber){
      .thread_state = bridge_thread_state_new(own->thread_state->interp),
      .state = own->state,
      .ident = own->ident,
      .worker = own->worker,
  };
  if (fiber->thread_state == NULL) {
    PyMem_RawFree(fiber);
    return -ENOMEM;
  }
  bridge_gil_look_init(&fiber->gil_look);
  bridge_fiber_attach(fiber);
  int result = begin_in_python();
  bridge_fiber_detach(fiber);
  if (result < 0)
    bridge_leave_fiber(fiber);
  else
    *fiber_state = fiber;
  return result;
}

void bridge_thread_state_delete(PyThreadState *thread_state) {
  /* Not under the hooks of a tracer or profiler, which may raise. */
  PyEval_SetTrace(NULL, NULL);
  PyEval_SetProfile(NULL, NULL);
  PyThreadState_Clear(thread_state);
  PyThreadState_DeleteCurrent();
}

void bridge_leave_fiber(void *fiber_state) {
  struct bridge_fiber *fiber = fiber_state;
  bridge_fiber_attach(fiber);
  current = NULL;
  bridge_thread_state_delete(fiber->thread_state);
  PyMem_RawFree(fiber);
}
