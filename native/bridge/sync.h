/* sync.h - what the objects have in common that one thread waits for and another one sets, releases or
 * sends: those of event.c, lock.c, semaphore.c, promise.c and channel.c.
 *
 * The state of each, and its list of waiters, is touched with the object locked: with the GIL held or, where
 * there is none, in its critical section. An operation that may wait looks in one such step whether it has to,
 * and if so appends its waiter: it misses nothing that happens after. What is handed to a waiter (a lock, a
 * permit, a value) is its own from the moment it is woken. A wait that ends otherwise has got nothing, so nothing
 * is lost. They are handed to waiters oldest first, and nobody who comes later gets in between.
 *
 * Such an object is not freed while somebody waits for it: who waits has a reference to it.
 */
#ifndef DROMON_BRIDGE_SYNC_H
#define DROMON_BRIDGE_SYNC_H

#include "wait.h"

extern PyType_Spec bridge_event_spec;
extern PyType_Spec bridge_lock_spec;
extern PyType_Spec bridge_rlock_spec;
extern PyType_Spec bridge_semaphore_spec;
extern PyType_Spec bridge_promise_spec;
extern PyType_Spec bridge_channel_spec;
extern PyType_Spec bridge_send_channel_spec;
extern PyType_Spec bridge_receive_channel_spec;

/* Makes the exceptions that these raise, and adds them to the module. */
int bridge_sync_init(PyObject *module, bridge_state *state);

/* The two ends of a new channel, a tuple; `size` is how many values it keeps. NULL with an exception. */
PyObject *bridge_open_channel(bridge_state *state, PyObject *size);

/* Reads the arguments of `function` ("Event.wait"), which takes none but a timeout; in nanoseconds, as
 * bridge_timeout. False with an exception. */
bool bridge_timeout_argument(const char *function, PyObject *const *args, Py_ssize_t nargs,
                             PyObject *keywords, int64_t *timeout_ns);

/* As bridge_wait: true if it was woken, else false with an exception, which is TimeoutError if it is late. */
bool bridge_wait_on(PyObject *owner, struct waiter *waiter, const char *doing, int64_t timeout_ns);

#endif
