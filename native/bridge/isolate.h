/* isolate.h - interpreters with a GIL of their own, in which isolated workers run calls.
 *
 * An interpreter outlives its worker: CPython loses a megabyte and more with each one that ends, and takes
 * ten milliseconds to make one. So a worker that leaves empties its interpreter (no module of a user's
 * stays, nor anything that hangs on one) and leaves it to the next worker, of any pool.
 */
#ifndef DROMON_BRIDGE_ISOLATE_H
#define DROMON_BRIDGE_ISOLATE_H

#include "parcel.h"

struct share;

/* One interpreter; its record is never freed, so that who has a pointer to it may always look. */
struct isolate;

/* ---- For the worker ---- */

/* An interpreter for the calling worker, empty, set up by dromon._isolated.enter(settings, name), and
 * attached. NULL without an attached thread state, and why in `error`; and in `failure` the exception, if
 * there was one. */
struct isolate *bridge_isolate_open(const char *settings, size_t size, const char *name,
                                    struct parcel *failure, const char **error);

/* Ends the worker's time in it. Detached before and after. Unless `keep`, nobody gets it. */
void bridge_isolate_close(struct isolate *isolate, bool keep);

/* Around what a worker does in it. Blocks while another thread has it for a moment. */
void bridge_isolate_attach(struct isolate *isolate);
void bridge_isolate_detach(struct isolate *isolate);

bridge_state *bridge_isolate_state(struct isolate *isolate);

/* The tuple of context variables that the settings named; borrowed. */
PyObject *bridge_isolate_variables(struct isolate *isolate);

/* The call that it runs: set and read with it attached; others may compare. */
void bridge_isolate_set_call(struct isolate *isolate, const CallObject *call);
const CallObject *bridge_isolate_call(const struct isolate *isolate);

/* That it is not to be kept. From anywhere. */
void bridge_isolate_spoil(struct isolate *isolate);

/* The same without giving up the turn: while the worker is at home for a moment. */
void bridge_isolate_leave_for_home(struct isolate *isolate);
void bridge_isolate_come_back(struct isolate *isolate);

/* What the calling thread, an isolated worker, is attached to; else NULL. */
struct isolate *bridge_isolate_current(void);

/* ---- From anywhere ---- */

/* Runs visit(arg) in the interpreter by a thread state of its own, whatever its worker does, once that lets
 * its GIL go; in vain, if it is gone. The caller has no thread state attached. */
void bridge_isolate_visit(struct isolate *isolate, void (*visit)(struct isolate *, void *),
                          void *arg);

/* Raises `exception` in what the worker runs; NULL takes it back. Attached to the interpreter. */
void bridge_isolate_set_exception(struct isolate *isolate, PyObject *exception);

/* It has lent a buffer, and gets it back. */
void bridge_isolate_lend(struct isolate *isolate);
void bridge_isolate_return(struct isolate *isolate, struct share *share);

/* Releases a buffer of the main interpreter's. */
void bridge_release_in_main(struct share *share);

/* For the end of the process, from the main interpreter's thread, attached: ends all interpreters whose
 * workers do nothing, and stops for ever what the others run. */
void bridge_isolates_end(void);

/* In the child of a fork: there are none. */
void bridge_isolates_forget(void);

/* ---- unlink.c ---- */

/* Takes an interpreter in which something runs that cannot be ended out of the runtime's list, so that the
 * end of the process does not wait for it, nor abort (up to 3.12, and from 3.14). */
void bridge_unlink_interpreter(PyInterpreterState *interpreter);

/* ---- share.c ---- */

void bridge_share_release_all(struct share *share);
struct share **bridge_share_link(struct share *share);

#endif
