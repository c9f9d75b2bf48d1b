/* thread_state.h - what fibers need of CPython that its public functions do not have in all versions. */
#ifndef DROMON_BRIDGE_THREAD_STATE_H
#define DROMON_BRIDGE_THREAD_STATE_H

#include "bridge.h"

/* Tells CPython the limits of the stack that the calling thread is on, if that is a fiber's. */
void bridge_set_stack_limits(PyThreadState *thread_state);

/* Takes back what PyThreadState_SetAsyncExc has left for the calling thread's thread state, if it was not raised
 * yet. The exception that is raised, if one is, stays. Up to 3.12 this runs bytecode. */
void bridge_take_back_exception(bridge_state *state);

/* Runs a Python function that does nothing: what CPython has put off is done meanwhile. -1 with an exception, if
 * that has raised one. */
int bridge_run_nothing(bridge_state *state);
int bridge_nothing_init(bridge_state *state);

/* PyGILState_Ensure finds this thread state on the calling thread, to which it is about to be attached. */
void bridge_note_for_gil_state(PyThreadState *thread_state);

/* The innermost frame of a thread state of this interpreter, or of the one that has this ident: a new reference.
 * NULL without an exception: there is none. sys._current_frames() would make frames of all interpreters, which
 * is not safe where each has a GIL of its own. */
PyObject *bridge_frame_of(PyThreadState *thread_state);
PyObject *bridge_frame_of_ident(unsigned long ident);

#endif
