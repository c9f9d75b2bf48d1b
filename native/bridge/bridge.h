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

#include "../core/search.h"

#include <dromon/dromon.h>
#include <stdbool.h>

#if PY_VERSION_HEX < 0x030D0000 /* with a GIL, holding it is enough */
#define Py_BEGIN_CRITICAL_SECTION(object) {
#define Py_END_CRITICAL_SECTION() }
#define Py_BEGIN_CRITICAL_SECTION2(object, other) {
#define Py_END_CRITICAL_SECTION2() }
#endif

enum { BRIDGE_KNOWN = 64 };

typedef struct TaskObject TaskObject;

typedef struct {
  PyTypeObject *call_type;
  PyTypeObject *port_type;
  PyTypeObject *pool_type;
  PyTypeObject *worker_type;
  PyTypeObject *future_type;
  PyTypeObject *function_type;
  PyTypeObject *shared_buffer_type;
  PyTypeObject *task_type;
  PyTypeObject *scope_type;
  PyTypeObject *answer_type;
  PyTypeObject *event_type;
  PyTypeObject *lock_type;
  PyTypeObject *rlock_type;
  PyTypeObject *semaphore_type;
  PyTypeObject *promise_type;
  PyTypeObject *channel_type;
  PyTypeObject *send_channel_type;
  PyTypeObject *receive_channel_type;
  PyObject *future_words[3]; /* by enum bridge_future_word */
  PyObject *interrupted;     /* the class dromon.Interrupted */
  PyObject *cancelled;       /* the class dromon.green.Cancelled */
  PyObject *nothing;         /* a Python function that does nothing */
  TaskObject *tasks;         /* all green tasks, see task.c */
  PyObject *loaded;          /* dict: the number of a function that travelled: the callable here */
  PyObject *module_locks;    /* dict: importlib's, of modules that are being imported */
  PyObject *greenlet_words[3]; /* see parkable.c */
  PyObject *name_words[2];     /* see pool.c */
  PyObject *would_block;       /* these four are classes of dromon.green: see sync.c */
  PyObject *closed_resource;
  PyObject *broken_resource;
  PyObject *end_of_channel;
  struct {
    PyObject *reference; /* a weak one */
    PyObject *portable;
  } known[BRIDGE_KNOWN]; /* callables that travel by reference, see errand.c */
} bridge_state;

bridge_state *bridge_state_of(PyTypeObject *defining_class);

/* Of the current interpreter; NULL with an exception. */
bridge_state *bridge_current_state(void);

/* module.name(...), with arguments as for Py_BuildValue; NULL with an exception. */
PyObject *bridge_call_python(const char *module, const char *name, const char *format, ...);

extern PyType_Spec bridge_call_spec;
extern PyType_Spec bridge_port_spec;
extern PyType_Spec bridge_pool_spec;
extern PyType_Spec bridge_worker_spec;
extern PyType_Spec bridge_future_spec;
extern PyType_Spec bridge_function_spec;
extern PyType_Spec bridge_shared_buffer_spec;
extern PyType_Spec bridge_task_spec;
extern PyType_Spec bridge_scope_spec;

/* A completion port, the two words by which its event loop hears how an abort went, and the loop's own
 * handle, for those who want to call into it. */
typedef struct {
  PyObject_HEAD
  dromon_port *port;      /* counted */
  dromon_task *taken;     /* taken from the port and not yet given out, each with a reference */
  Py_ssize_t waiting;     /* submitted calls that somebody waits for, and that were not given out */
  bool submitted;         /* there was a call since the last look */
  struct search gil_look; /* after a look, before the loop goes on */
  PyObject *abort_succeeded;
  PyObject *abort_failed;
  PyObject *token;
} PortObject;

typedef struct CallObject CallObject;
struct errand;

struct call_list {
  CallObject *oldest;
  CallObject *newest;
  Py_ssize_t count;
};

/* A counted reference to a core pool, and lists of its calls: see waiting.c. */
typedef struct {
  PyObject_HEAD
  dromon_pool *pool;
  struct call_list waiting;   /* for a worker */
  struct call_list abandoned; /* and running */
  PortObject *delivery; /* NULL, or: its workers are isolated, and this gets calls with a future */
  PyObject *variables;  /* and this tuple of context variables travels */
} PoolObject;

/* The state of a concurrent.futures.Future; see future.c. */
typedef struct {
  PyObject_HEAD
  PyObject *progress;                        /* a str, the standard library's word for it */
  PyObject *condition, *waiters, *callbacks; /* NULL until somebody asks */
  PyObject *result, *exception;              /* NULL: None */
  CallObject *call; /* that runs in another interpreter, until it has ended; or NULL */
} FutureObject;

typedef struct WorkerObject WorkerObject;
struct bridge_fiber;

/* What an event loop that no longer wants to wait for a running call does. */
enum bridge_on_abort {
  BRIDGE_WAIT,
  BRIDGE_ABANDON,
  BRIDGE_INTERRUPT, /* and wait */
};

/* What becomes of a call with a future if the pool's queue is full. */
enum bridge_if_full {
  BRIDGE_LINE_UP,
  BRIDGE_BLOCK, /* its submitter */
  BRIDGE_REFUSE,
};

/* One submitted call: the Python object around a core task.
 *
 * Who may touch what: the submitter until the task is queued; then the worker that started it,
 * until it posts it; then whoever took it from the port. The submitter's all the time are `waiter`,
 * `limiter`, `raise_cancel` (which the call itself may read) and `abandoned`. What belongs to
 * interrupts is touched with the call locked, and what belongs to waiting.c with the pool locked. The
 * queue, and then the port, own one reference.
 *
 * The call of a native task has no `function` and no `context`; `arguments` is what is kept alive until
 * it has ended, and its outcome is in the task. */
struct CallObject {
  PyObject_HEAD
  dromon_native_task native; /* of a Python call only its `task` is used */
  PoolObject *pool;
  PortObject *port;   /* NULL: it was not submitted yet, or nobody waits for it */
  PyObject *function; /* these three are NULL once the call has run or was withdrawn */
  PyObject *arguments;
  PyObject *context;
  PyObject *name;       /* of the thread while it runs: this, a str, and then, */
  PyObject *host_name;  /* unless NULL, " from " and this. `name` NULL: the worker's own */
  FutureObject *future; /* gets the outcome; or NULL */
  PyObject *value; /* one of these two is set when it is done, until unwrap() has moved it out */
  PyObject *error;
  PyObject *waiter;
  PyObject *limiter;      /* that it has a token of, for who delivers it when it was abandoned */
  PyObject *raise_cancel; /* raises what the submitter was cancelled with; NULL: it was not */
  enum bridge_on_abort on_abort;
  bool abandoned; /* or withdrawn: nobody waits */
  /* See interrupt.c. */
  PyThreadState *thread_state; /* runs it; NULL: not yet, or no more */
  TaskObject *task;            /* of what runs, once it has one: see task.h */
  bool cancel_due;     /* is to be delivered at its next wait: until it has a task, or visits */
  bool cancel_told;    /* its submitter has told it otherwise */
  unsigned interrupts; /* above 0: it was interrupted */
  unsigned visiting;   /* above 0: it waits for its submitter, which does something for it */
  bool deferred;       /* an interrupt is due when that is over, or when it begins */
  /* See waiting.c. */
  struct call_list *list; /* of its pool that it is in; or NULL */
  CallObject *newer;      /* the next one there */
  CallObject *older;
  PyObject *weak_references; /* to it, of limiters that keep their borrowers so */
  struct errand *errand;     /* if it runs in another interpreter: see isolated.h */
};

CallObject *bridge_call_of(dromon_task *task);

/* A new call, not yet queued: of function(*arguments) in a copy of the current context. */
CallObject *bridge_call_new(bridge_state *state, PoolObject *pool, PyObject *function,
                            PyObject *arguments, enum bridge_on_abort on_abort);

/* The same, of the C function `fn`. */
CallObject *bridge_native_call_new(bridge_state *state, PoolObject *pool, int (*fn)(void *),
                                   void *arg, PyObject *kept_alive, enum bridge_on_abort on_abort);

/* The same, of a function that will run in another interpreter, in a context of its own. */
CallObject *bridge_isolated_call_new(bridge_state *state, PoolObject *pool, PyObject *function,
                                     PyObject *arguments, enum bridge_on_abort on_abort);

/* The same, of nothing: `waiter` is all there is to it, and nobody waits. */
CallObject *bridge_message_new(bridge_state *state, PortObject *port, PyObject *waiter);

/* Lets a call that is not yet queued come out of `port` with `waiter`, which may be None. */
void bridge_call_deliver_to(CallObject *call, PortObject *port, PyObject *waiter);

/* -1 with an exception if it is no function that a call can be of: not callable, or asynchronous. */
int bridge_check_function(PyObject *function);

/* What its thread is called while it runs: a new reference, or NULL without an exception for the
 * worker's own name. */
PyObject *bridge_call_thread_name(CallObject *call);

/* The same as the system shows it, cut to 15 bytes. Returns whether it has one. */
bool bridge_call_short_name(CallObject *call, char name[16]);

/* Lets go of what the call needed to run. */
void bridge_call_clear_inputs(CallObject *call);

/* PyErr_GetRaisedException and PyErr_SetRaisedException, for all versions. */
PyObject *bridge_take_raised_exception(void);
void bridge_raise_again(PyObject *error);

/* Whether it was defined by `async def`; what else may give a coroutine shows only when it is called. */
bool bridge_is_coroutine_function(PyObject *function);

/* What a function returned that turns out to be asynchronous: closes it, and returns NULL with an
 * exception. Steals the reference to the coroutine. */
PyObject *bridge_refuse_coroutine(PyObject *function, PyObject *coroutine);

/* Runs it on the calling thread's fiber, within `batch`, and lets go of everything but its outcome. */
void bridge_call_run(CallObject *call, struct bridge_fiber *fiber, dromon_batch *batch);

/* Tells of an exception that nobody will get. */
void bridge_call_report(CallObject *call);

/* Takes the call back, if no worker has started it. */
bool bridge_call_withdraw(CallObject *call);

/* Lets go of its outcome. */
void bridge_call_discard(CallObject *call);

/* ---- pool.c ---- */

enum { BRIDGE_NAME_WORDS = 2 };
int bridge_name_words_init(bridge_state *state);

/* ---- waiting.c ---- */

/* `call`, of a Python function, is about to be submitted. */
void bridge_waiting_add(CallObject *call);

/* It was refused, withdrawn, or a worker has begun it; or has ended it, if it was abandoned. Nothing happens if
 * it is in no list. */
void bridge_waiting_remove(CallObject *call);

/* It runs, and nobody waits for it any longer. */
void bridge_waiting_abandon(CallObject *call);

/* Cancels what was abandoned, where it waits: the pool is closed. -1 with an exception. */
int bridge_waiting_end_abandoned(PoolObject *pool);

/* A new list of pairs: the function and the arguments of each call that waits, oldest first. */
PyObject *bridge_waiting_list(PoolObject *pool);

/* A new list of the futures of those that have one. */
PyObject *bridge_waiting_futures(PoolObject *pool);

/* ---- interrupt.c ---- */

/* The fiber begins to run the call's function, and has ended it. Between the two, and only there, it may
 * be interrupted. */
void bridge_call_begin(CallObject *call, struct bridge_fiber *fiber);
void bridge_call_end(CallObject *call, struct bridge_fiber *fiber);

/* Raises Interrupted in the call, if it runs or is about to; where it waits, and in its children, Cancelled. */
void bridge_call_interrupt(CallObject *call);

/* Its task is to be interrupted. True: not now, but once it does not visit. With the call locked. */
bool bridge_call_defers_interrupt(CallObject *call);

/* Raises Cancelled in the call at its next wait, or in that where it is, and in its children. -1 with an
 * exception. */
int bridge_call_cancel(CallObject *call);

/* What it asked its submitter for was ended by the cancellation, of which it is not to hear again. */
void bridge_call_tell_cancelled(CallObject *call);

/* What runs it has a task. */
void bridge_call_set_task(CallObject *call, TaskObject *task);

/* Whether an exception that came out of the call is an interrupt of it. */
bool bridge_call_was_interrupted(CallObject *call, PyObject *error);

/* The call's function wants its submitter to do something for it, and will wait for that: from now on it
 * is not interrupted. 1, or 0 if the submitter does not wait for the call; -1 with Interrupted raised, if
 * that was due. */
int bridge_call_visit(CallObject *call);

/* The same of a call in another interpreter, once its question is taken from the port: from now on it is
 * not abandoned. */
void bridge_call_serve(CallObject *call);

/* The submitter has done it. */
void bridge_call_leave(CallObject *call);

/* For the submitter: nobody waits for the running call any longer. False, if it has ended or visits. */
bool bridge_call_abandon(CallObject *call);

/* ---- future.c ---- */

enum bridge_future_word {
  BRIDGE_FUTURE_PENDING,
  BRIDGE_FUTURE_RUNNING,
  BRIDGE_FUTURE_FINISHED,
  BRIDGE_FUTURE_WORDS,
};

int bridge_future_words_init(bridge_state *state);

/* A future of the type, which is derived from FutureState. */
FutureObject *bridge_future_new(bridge_state *state, PyTypeObject *type);

/* Makes it run. False: it was cancelled. */
bool bridge_future_begin(bridge_state *state, FutureObject *future);

/* Gives it one of the two, of which the other is NULL, and lets go of its call. */
void bridge_future_finish(bridge_state *state, FutureObject *future, PyObject *value,
                          PyObject *error);

/* ---- Workers ---- */

/* One worker thread, as Python sees it. */
struct WorkerObject {
  PyObject_HEAD
  CallObject *call;   /* that it runs, borrowed; changed with the worker locked */
  PyThreadState *hub; /* see fiber.h; NULL where there is a GIL */
};

/* A Worker; NULL with an exception. */
WorkerObject *bridge_worker_new(void);

/* Lets it enter: 0, or a negative errno. */
int bridge_worker_call_enter(PyObject *enter, WorkerObject *worker, unsigned index);

/* Ends the thread state. */
void bridge_worker_leave(PyThreadState *thread_state);

/* Runs a call of the interpreter that is attached. */
void bridge_run_call(struct bridge_fiber *fiber, dromon_batch *batch, CallObject *call);

/* How the core's workers run calls. Their `ops_arg` is the pointer in what bridge_entrance_new gives. */
extern const dromon_ops bridge_worker_ops;

/* A capsule, which has to live until the pool is open: for workers that run calls in the current
 * interpreter. Each begins with enter(worker, index), and ends at once (-ECANCELED) unless that returns True. */
PyObject *bridge_entrance_new(PyObject *enter);

/* The call that the calling thread runs, borrowed, or NULL. */
CallObject *bridge_current_call(void);

/* Whether another thread has asked the one that holds the GIL, which the caller does, to let it go. */
bool bridge_gil_is_wanted(void);

/* Whether Python code, at its next call or loop, would do something first: let go of the GIL, raise what another
 * thread has set, collect garbage. */
bool bridge_evaluator_is_wanted(void);

/* Before a thread takes the GIL: waits a short while until nobody has it, and shorter, or not at all, while that does
 * not pay. Who has just queued a call, and is about to sleep, gives it up soon, and so does a worker whose calls are
 * short; to sleep until then costs more. */
void bridge_gil_look(struct search *look, const PyInterpreterState *interpreter);

/* For the first one. */
void bridge_gil_look_init(struct search *look);

/* ---- items.c ---- */

/* The function run_items of the module. */
PyObject *bridge_run_items(PyObject *module, PyObject *const *args, Py_ssize_t count);

/* For dromon_pool_config's `on_stall`; the argument is a Python callable of the main interpreter. */
void bridge_on_stall(void *callback, uint32_t worker, uint64_t began_ns, uint64_t running_ns);

/* The same, for `on_saturated`. */
void bridge_on_saturated(void *callback, uint64_t waiting, uint64_t running, uint64_t saturated_ns);

#endif
