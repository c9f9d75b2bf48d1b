/* bridge.h - `dromon._bridge`: runs Python callables on the core's workers.
 *
 * The hot path of the runtime, in C because a cffi call gives the GIL away: a submit that did so
 * would let a CPU-bound worker keep it for a whole switch interval, and the event loop with it.
 *
 * The module has no global state: types live in its module state, so it loads in any number of
 * interpreters, also those with a GIL of their own, and it does not need a GIL at all.
 */
#ifndef DROMON_BRIDGE_H
#define DROMON_BRIDGE_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <dromon/dromon.h>
#include <stdbool.h>

typedef struct {
  PyTypeObject *call_type;
  PyTypeObject *port_type;
  PyTypeObject *pool_type;
} bridge_state;

bridge_state *bridge_state_of(PyTypeObject *defining_class);

extern PyType_Spec bridge_call_spec;
extern PyType_Spec bridge_port_spec;
extern PyType_Spec bridge_pool_spec;

/* A completion port, and the two words by which its event loop hears how an abort went. */
typedef struct {
  PyObject_HEAD
  dromon_port *port;  /* counted */
  dromon_task *taken; /* taken from the port and not yet given out, each with a reference */
  Py_ssize_t waiting; /* submitted calls that somebody waits for, and that were not given out */
  PyObject *abort_succeeded;
  PyObject *abort_failed;
} PortObject;

/* A counted reference to a core pool. */
typedef struct {
  PyObject_HEAD
  dromon_pool *pool;
} PoolObject;

/* One submitted call: the Python object around a core task.
 *
 * Who may touch what: the submitter until the task is queued; then the worker that started it,
 * until it posts it; then whoever took it from the port. `waiter` and `after_abandoned` are the
 * submitter's all the time. The queue, and then the port, own one reference.
 *
 * The call of a native task has no `function` and no `context`; `arguments` is what is kept alive until
 * it has ended, and its outcome is in the task. */
typedef struct {
  PyObject_HEAD
  dromon_native_task native; /* of a Python call only its `task` is used */
  PoolObject *pool;
  PortObject *port;   /* NULL: nobody waits for it */
  PyObject *function; /* these three are NULL once the call has run or was withdrawn */
  PyObject *arguments;
  PyObject *context;
  PyObject *value; /* one of these two is set when it is done, until unwrap() has moved it out */
  PyObject *error;
  PyObject *waiter;
  PyObject *after_abandoned;
  bool abandon_on_abort;
  bool abandoned; /* or withdrawn: nobody waits; the submitter's, like `waiter` */
} CallObject;

CallObject *bridge_call_of(dromon_task *task);

/* A new call, not yet queued: of function(*arguments) in a copy of the current context. */
CallObject *bridge_call_new(bridge_state *state, PoolObject *pool, PortObject *port,
                            PyObject *waiter, PyObject *function, PyObject *arguments,
                            bool abandon_on_abort);

/* The same, of the C function `fn`. */
CallObject *bridge_native_call_new(bridge_state *state, PoolObject *pool, PortObject *port,
                                   PyObject *waiter, int (*fn)(void *), void *arg,
                                   PyObject *kept_alive, bool abandon_on_abort);

/* The same, of nothing: `waiter` is all there is to it, and nobody waits. */
CallObject *bridge_message_new(bridge_state *state, PortObject *port, PyObject *waiter);

/* Lets go of what the call needed to run. */
void bridge_call_clear_inputs(CallObject *call);

/* Runs it on the calling thread and lets go of everything but its outcome. */
void bridge_call_run(CallObject *call);

/* Tells of an exception that nobody will get. */
void bridge_call_report(CallObject *call);

/* Lets go of its outcome. */
void bridge_call_discard(CallObject *call);

/* How the core's workers run calls in the interpreter that is passed as the pool's `ops_arg`. */
extern const dromon_ops bridge_worker_ops;

/* Whether another thread has asked the one that holds the GIL, which the caller does, to let it go. */
bool bridge_gil_is_wanted(void);

/* For dromon_pool_config's `on_stall`; the argument is a Python callable of the main interpreter. */
void bridge_on_stall(void *callback, uint32_t worker, uint64_t began_ns, uint64_t running_ns);

#endif
