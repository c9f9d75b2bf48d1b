/* isolate.h - interpreters with a GIL of their own, in which isolated workers run calls.
 *
 * CPython loses a megabyte and more with each interpreter that ends (seen with 3.12.1 and 3.13.0), and takes
 * ten milliseconds to make one. So none ends: a worker that leaves empties its interpreter (no module of a
 * user's stays, nor anything that hangs on one) and leaves it to the next worker, of any pool.
 */
#ifndef DROMON_BRIDGE_ISOLATE_H
#define DROMON_BRIDGE_ISOLATE_H

#include "parcel.h"

/* One interpreter. */
struct isolate;

/* ---- For the worker ---- */

/* An interpreter for the calling worker, empty, set up by dromon._isolated.enter(settings, name), and
 * attached by `*thread_state`. NULL without an attached thread state, and why in `error`; and in `failure` the
 * exception, if there was one. */
struct isolate *bridge_isolate_open(const char *settings, size_t size, const char *name,
                                    PyThreadState **thread_state, struct parcel *failure,
                                    const char **error);

/* Empties it for the next worker, by its last thread state. Detached before and after. */
void bridge_isolate_close(struct isolate *isolate, PyThreadState *thread_state);

/* Around what a worker does in it, by one of its thread states. Blocks while another thread has it for a
 * moment. */
void bridge_isolate_attach(struct isolate *isolate, PyThreadState *thread_state);
void bridge_isolate_detach(struct isolate *isolate);

/* The same without giving up the turn: while the worker is at home for a moment. */
void bridge_isolate_leave_for_home(struct isolate *isolate);
void bridge_isolate_come_back(struct isolate *isolate, PyThreadState *thread_state);

/* Another thread state for the worker, detached; NULL: there is no memory. And its end. */
PyThreadState *bridge_isolate_thread_state_new(struct isolate *isolate);
void bridge_isolate_thread_state_delete(struct isolate *isolate, PyThreadState *thread_state);

bridge_state *bridge_isolate_state(struct isolate *isolate);

/* The tuple of context variables that the settings named; borrowed. */
PyObject *bridge_isolate_variables(struct isolate *isolate);

/* The call that it runs: set and read with it attached; others may compare. */
void bridge_isolate_set_call(struct isolate *isolate, const CallObject *call);
const CallObject *bridge_isolate_call(const struct isolate *isolate);

/* What the calling thread, an isolated worker, is attached to; else NULL. */
struct isolate *bridge_isolate_current(void);

/* ---- From anywhere ---- */

/* Runs visit(arg) in the interpreter by a thread state of its own, whatever its worker does, once that lets
 * its GIL go. The caller has no thread state attached. */
void bridge_isolate_visit(struct isolate *isolate, void (*visit)(struct isolate *, void *),
                          void *arg);

/* Raises `exception` in what the worker runs. Attached to the interpreter. */
void bridge_isolate_set_exception(struct isolate *isolate, PyObject *exception);

/* It gets a buffer back that it has lent. */
void bridge_isolate_return(struct isolate *isolate, struct share *share);

/* Releases a buffer of the main interpreter's. */
void bridge_release_in_main(struct share *share);

/* For the end of the process, attached to the main interpreter: interrupts what runs, and stops all that
 * does not end then. */
void bridge_isolates_end(void);

/* Around a fork, attached to the main interpreter: the runtime does not see them. */
void bridge_isolates_hide(void);
void bridge_isolates_show(void);

/* In the child of a fork: there are none. */
void bridge_isolates_forget(void);

/* ---- unlink.c ---- */

/* Takes an interpreter out of the runtime's list, and puts it there again. */
void bridge_unlink_interpreter(PyInterpreterState *interpreter);
void bridge_link_interpreter(PyInterpreterState *interpreter);

/* Has nothing freed that isolates may have made for functions of extension modules. */
void bridge_forget_parsers(void);

/* ---- share.c ---- */

void bridge_share_release_all(struct share *share);
struct share **bridge_share_link(struct share *share);

#endif
