/* isolate.c - the life of interpreters that have a GIL of their own; see isolate.h.
 *
 * Who may attach to one:
 *
 *   the worker    between attach and detach, by its own thread state, with the `turn` held;
 *   a visitor     at any time, by a thread state made for the moment: to raise an exception in what runs
 *                 there;
 *   who returns   a lent buffer, if the turn is free, else leaves it on a list, which whoever has the turn
 *                 empties afterwards: so nothing stays on the list when nobody is in there.
 *
 * None ends before the process: so who has a pointer to one may always look, and visit.
 */
#include "isolate.h"

#include "fiber.h"
#include "thread_state.h"

#include <pthread.h>
#include <stdatomic.h>
#include <time.h>
#include <unistd.h>

#if PY_VERSION_HEX >= 0x030C0000

struct isolate {
  struct isolate *next;            /* of all */
  PyInterpreterState *interpreter; /* NULL: it is just being made, or the parent's of a fork */
  unsigned long ident;             /* the worker's */
  bridge_state *state;             /* of the bridge in there */
  PyObject *variables;             /* tuple, its own */
  pthread_mutex_t turn;
  _Atomic(const CallObject *) call;
  _Atomic(struct share *) returned; /* lent buffers that have come home */
  bool used;                        /* by a worker; with isolates_lock held */
};

static struct isolate *isolates;
static pthread_mutex_t isolates_lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_mutex_t making = PTHREAD_MUTEX_INITIALIZER;

/* That the calling thread, its worker, is attached to. Initial-exec: it fits into what libc keeps spare for
 * such words. */
static _Thread_local struct isolate *current __attribute__((tls_model("initial-exec")));

static _Atomic bool process_ends;

/* For worker threads: none begins anything in an interpreter once the process ends. */
static void pause_at_the_end(void) {
  /* Relaxed: bridge_isolates_end waits for who has not seen it. */
  while (atomic_load_explicit(&process_ends, memory_order_relaxed))
    pause();
}

struct isolate *bridge_isolate_current(void) {
  return current;
}

bridge_state *bridge_isolate_state(struct isolate *isolate) {
  return isolate->state;
}

PyObject *bridge_isolate_variables(struct isolate *isolate) {
  return isolate->variables;
}

void bridge_isolate_set_call(struct isolate *isolate, const CallObject *call) {
  /* Release: who finds the call here finds its worker running it. */
  atomic_store_explicit(&isolate->call, call, memory_order_release);
}

const CallObject *bridge_isolate_call(const struct isolate *isolate) {
  /* Acquire, pairs with bridge_isolate_set_call. */
  return atomic_load_explicit(&isolate->call, memory_order_acquire);
}

/* ---- Records -------------------------------------------------------------------------------- */

/* One that waits for a worker; NULL if none does. */
static struct isolate *take_kept(void) {
  pthread_mutex_lock(&isolates_lock);
  struct isolate *isolate = isolates;
  while (isolate != NULL && isolate->used)
    isolate = isolate->next;
  if (isolate != NULL)
    isolate->used = true;
  pthread_mutex_unlock(&isolates_lock);
  return isolate;
}

/* The record of one that is to be made. */
static struct isolate *add_record(void) {
  struct isolate *isolate = PyMem_RawCalloc(1, sizeof *isolate);
  if (isolate == NULL)
    return NULL;
  pthread_mutex_init(&isolate->turn, NULL);
  isolate->used = true;
  pthread_mutex_lock(&isolates_lock);
  isolate->next = isolates;
  isolates = isolate;
  pthread_mutex_unlock(&isolates_lock);
  return isolate;
}

static void keep(struct isolate *isolate) {
  pthread_mutex_lock(&isolates_lock);
  isolate->used = false;
  pthread_mutex_unlock(&isolates_lock);
}

static bool has_returned(struct isolate *isolate);
static void release_returned(struct isolate *isolate);
static void end_turn(struct isolate *isolate);

/* ---- A worker comes and leaves -------------------------------------------------------------------------- */

/* Begins an interpreter; false with `error`. Detached before and after. */
static bool begin_interpreter(struct isolate *isolate, const char **error) {
  PyInterpreterConfig config = {
      .use_main_obmalloc = 0,
      .allow_fork = 0,
      .allow_exec = 0,
      .allow_threads = 1,
      .allow_daemon_threads = 0,
      .check_multi_interp_extensions = 1,
      .gil = PyInterpreterConfig_OWN_GIL,
  };
  PyThreadState *first;
  pthread_mutex_lock(&making); /* CPython 3.12 does not claim to make two at once */
  if (atomic_load(&process_ends)) {
    pthread_mutex_unlock(&making);
    pause_at_the_end();
  }
  PyStatus status = Py_NewInterpreterFromConfig(&first, &config);
  bool begun = !PyStatus_Exception(status);
  if (begun)
    isolate->interpreter = PyThreadState_GetInterpreter(first);
  pthread_mutex_unlock(&making);
  if (begun)
    PyEval_SaveThread(); /* `first` remains: CPython 3.12 aborts if there is none for a time */
  else
    *error = status.err_msg != NULL ? status.err_msg : "for no reason that it tells";
  return begun;
}

static void delete_thread_state(PyThreadState *thread_state) {
  PyThreadState_Clear(thread_state);
  PyThreadState_DeleteCurrent();
}

/* The bridge and dromon._isolated in the interpreter that is attached. */
static int set_up(struct isolate *isolate, const char *settings, size_t size, const char *name) {
  PyObject *globals = PyDict_New();
  PyObject *data = PyBytes_FromStringAndSize(settings, (Py_ssize_t)size);
  int result = -1;
  if (globals == NULL || data == NULL || PyDict_SetItemString(globals, "settings", data) < 0 ||
      PyDict_SetItemString(globals, "__builtins__", PyEval_GetBuiltins()) < 0)
    goto done;
  /* The settings begin with the program that makes `dromon` known, see _isolation.py. */
  PyObject *ran = PyRun_String("import marshal\n"
                               "settings = marshal.loads(settings)\n"
                               "exec(settings['bootstrap'], {'settings': settings})\n",
                               Py_file_input, globals, globals);
  if (ran == NULL)
    goto done;
  Py_DECREF(ran);
  isolate->state = bridge_current_state();
  if (isolate->state == NULL)
    goto done;
  isolate->variables = bridge_call_python("dromon._isolated", "enter", "Os",
                                          PyDict_GetItemString(globals, "settings"), name);
  if (isolate->variables != NULL)
    result = 0;
done:
  Py_XDECREF(globals);
  Py_XDECREF(data);
  return result;
}

/* Writes the exception that was raised, for another interpreter. */
static void write_failure(struct isolate *isolate, struct parcel *failure) {
  PyObject *error = PyErr_GetRaisedException();
  if (isolate->state == NULL || bridge_parcel_write_error(isolate->state, failure, error) < 0) {
    PyErr_Clear();
    PyErr_DisplayException(error);
  }
  Py_DECREF(error);
}

/* A kept interpreter, or a new one. */
static struct isolate *take_interpreter(const char **error) {
  struct isolate *isolate = take_kept();
  if (isolate != NULL)
    return isolate;
  isolate = add_record();
  if (isolate != NULL && begin_interpreter(isolate, error))
    return isolate; /* else the record is lost */
  return NULL;
}

PyThreadState *bridge_isolate_thread_state_new(struct isolate *isolate) {
  return bridge_thread_state_new(isolate->interpreter);
}

void bridge_isolate_thread_state_delete(struct isolate *isolate, PyThreadState *thread_state) {
  bridge_isolate_attach(isolate, thread_state);
  current = NULL;
  delete_thread_state(thread_state);
  end_turn(isolate);
}

struct isolate *bridge_isolate_open(const char *settings, size_t size, const char *name,
                                    PyThreadState **thread_state, struct parcel *failure,
                                    const char **error) {
  pause_at_the_end();
  *error = "there is no memory";
  struct isolate *isolate = take_interpreter(error);
  if (isolate == NULL)
    return NULL;
  isolate->ident = PyThread_get_thread_ident();
  pthread_mutex_lock(&isolate->turn);
  *thread_state = bridge_isolate_thread_state_new(isolate);
  bridge_isolate_come_back(isolate, *thread_state);
  (*thread_state)->thread_id = isolate->ident;
  if (set_up(isolate, settings, size, name) == 0)
    return isolate;
  *error = "its set-up has failed";
  write_failure(isolate, failure);
  bridge_isolate_detach(isolate);
  bridge_isolate_close(isolate, *thread_state);
  return NULL;
}

/* Lets go of all that came with its calls; attached. False: something in there does not. */
static bool empty(struct isolate *isolate) {
  Py_CLEAR(isolate->variables);
  PyDict_Clear(isolate->state->loaded);
  PyObject *emptied = bridge_call_python("dromon._isolated", "leave", NULL);
  bool result = emptied == Py_True;
  if (emptied == NULL)
    PyErr_WriteUnraisable(NULL);
  Py_XDECREF(emptied);
  return result;
}

void bridge_isolate_close(struct isolate *isolate, PyThreadState *thread_state) {
  bridge_isolate_attach(isolate, thread_state);
  bool is_empty = isolate->state != NULL && empty(isolate);
  if (has_returned(isolate))
    release_returned(isolate);
  current = NULL;
  delete_thread_state(thread_state);
  end_turn(isolate);
  if (is_empty) /* else no other worker gets it */
    keep(isolate);
}

/* ---- Turns, and buffers that come home ------------------------------------------------------ */

static bool has_returned(struct isolate *isolate) {
  /* seq_cst, pairs with the push of bridge_isolate_return: it or this sees the other. */
  return atomic_load_explicit(&isolate->returned, memory_order_seq_cst) != NULL;
}

/* Releases what has come home; attached. */
static void release_returned(struct isolate *isolate) {
  /* Acquire, pairs with the push. */
  bridge_share_release_all(
      atomic_exchange_explicit(&isolate->returned, NULL, memory_order_acquire));
}

/* A thread state for a short visit. It may come from the stack of a green thread, and with the limits of
 * another stack CPython would put off deallocations there, for ever. */
static PyThreadState *new_visitor(PyInterpreterState *interpreter) {
  PyThreadState *thread_state = PyThreadState_New(interpreter);
  if (thread_state != NULL)
    bridge_set_stack_limits(thread_state);
  return thread_state;
}

/* The same with the turn, in an interpreter that nobody is in. */
static void receive(struct isolate *isolate) {
  PyThreadState *thread_state = new_visitor(isolate->interpreter);
  struct isolate *own = current;
  PyEval_RestoreThread(thread_state);
  current = isolate;
  release_returned(isolate);
  current = own;
  delete_thread_state(thread_state);
}

/* Lets others in, and sees that nothing is left that has come home meanwhile. */
static void end_turn(struct isolate *isolate) {
  pthread_mutex_unlock(&isolate->turn);
  while (has_returned(isolate) && pthread_mutex_trylock(&isolate->turn) == 0) {
    receive(isolate);
    pthread_mutex_unlock(&isolate->turn);
  }
}

void bridge_isolate_attach(struct isolate *isolate, PyThreadState *thread_state) {
  pause_at_the_end();
  pthread_mutex_lock(&isolate->turn);
  bridge_isolate_come_back(isolate, thread_state);
}

void bridge_isolate_detach(struct isolate *isolate) {
  if (has_returned(isolate))
    release_returned(isolate);
  bridge_isolate_leave_for_home(isolate);
  end_turn(isolate);
}

void bridge_isolate_leave_for_home(struct isolate *isolate) {
  (void)isolate;
  PyEval_SaveThread();
  current = NULL;
}

void bridge_isolate_come_back(struct isolate *isolate, PyThreadState *thread_state) {
  PyEval_RestoreThread(thread_state);
  current = isolate;
}

void bridge_isolate_return(struct isolate *isolate, struct share *share) {
  if (isolate->interpreter == NULL)
    return;
  if (current == isolate) {
    *bridge_share_link(share) = NULL;
    bridge_share_release_all(share);
    return;
  }
  struct share *first = atomic_load_explicit(&isolate->returned, memory_order_relaxed);
  do {
    *bridge_share_link(share) = first;
    /* seq_cst: see has_returned; and release, for release_returned. */
  } while (!atomic_compare_exchange_weak_explicit(&isolate->returned, &first, share,
                                                  memory_order_seq_cst, memory_order_relaxed));
  if (pthread_mutex_trylock(&isolate->turn) != 0)
    return; /* who has the turn sees to it */
  PyThreadState *own = PyEval_SaveThread();
  if (has_returned(isolate))
    receive(isolate);
  end_turn(isolate);
  PyEval_RestoreThread(own);
}

void bridge_release_in_main(struct share *share) {
  *bridge_share_link(share) = NULL;
  if (PyInterpreterState_Get() == PyInterpreterState_Main()) {
    bridge_share_release_all(share);
    return;
  }
  struct isolate *here = current;
  PyThreadState *own = PyEval_SaveThread();
  PyThreadState *visiting = new_visitor(PyInterpreterState_Main());
  PyEval_RestoreThread(visiting);
  current = NULL; /* what goes with the buffer may be one of the isolate's */
  bridge_share_release_all(share);
  current = here;
  delete_thread_state(visiting);
  PyEval_RestoreThread(own);
}

/* ---- Visits --------------------------------------------------------------------------------- */

void bridge_isolate_visit(struct isolate *isolate, void (*visit)(struct isolate *, void *),
                          void *arg) {
  if (isolate->interpreter == NULL)
    return;
  PyThreadState *visiting = new_visitor(isolate->interpreter);
  PyEval_RestoreThread(visiting);
  visit(isolate, arg);
  delete_thread_state(visiting);
}

void bridge_isolate_set_exception(struct isolate *isolate, PyObject *exception) {
  PyThreadState_SetAsyncExc(isolate->ident, exception);
}

/* ---- The end of the process ----------------------------------------------------------------- */

enum {
  GRACE_MS = 500, /* for what runs to end, once interrupted */
  STOP_MS = 50,   /* to stop it then */
};

static void wait_a_millisecond(void) {
  nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
}

/* Within `*milliseconds`, of which it takes what it needs. */
static bool take_turn(struct isolate *isolate, int *milliseconds) {
  bool taken = pthread_mutex_trylock(&isolate->turn) == 0;
  for (; *milliseconds > 0 && !taken; --*milliseconds) {
    wait_a_millisecond();
    taken = pthread_mutex_trylock(&isolate->turn) == 0;
  }
  return taken;
}

static void interrupt(struct isolate *isolate, void *arg) {
  (void)arg;
  if (bridge_isolate_call(isolate) != NULL)
    bridge_isolate_set_exception(isolate, isolate->state->interrupted);
}

static void *interrupt_thread(void *isolate) {
  bridge_isolate_visit(isolate, interrupt, NULL);
  return NULL;
}

static _Atomic unsigned stopped;

/* Keeps the GIL for good: no bytecode runs in there any more. */
static void stop(struct isolate *isolate, void *arg) {
  (void)isolate, (void)arg;
  atomic_fetch_add(&stopped, 1);
  for (;;)
    pause();
}

static void *stop_thread(void *isolate) {
  bridge_isolate_visit(isolate, stop, NULL);
  return NULL;
}

static void start_thread(void *(*run)(void *), struct isolate *isolate) {
  pthread_t thread;
  if (pthread_create(&thread, NULL, run, isolate) == 0)
    pthread_detach(thread);
}

/* Lets it do what is to be done at the end of an interpreter. */
static void finish(struct isolate *isolate, void *arg) {
  (void)isolate, (void)arg;
  PyObject *finished = bridge_call_python("dromon._isolated", "finish", NULL);
  if (finished == NULL)
    PyErr_WriteUnraisable(NULL);
  Py_XDECREF(finished);
}

/* Has what runs in there end. */
static void begin_end(struct isolate *isolate) {
  if (pthread_mutex_trylock(&isolate->turn) == 0)
    pthread_mutex_unlock(&isolate->turn);
  else
    start_thread(interrupt_thread, isolate);
}

/* Nothing happens in there any more after this; and the runtime's end does not look at it. */
static void end(struct isolate *isolate, int *grace_ms) {
  bool is_idle = take_turn(isolate, grace_ms);
  if (isolate->interpreter == NULL)
    return;
  if (is_idle && isolate->state != NULL)
    bridge_isolate_visit(isolate, finish, NULL);
  unsigned before = atomic_load(&stopped);
  start_thread(stop_thread, isolate);
  for (int i = 0; i < STOP_MS && atomic_load(&stopped) == before; i++)
    wait_a_millisecond();
  bridge_unlink_interpreter(isolate->interpreter);
}

void bridge_isolates_end(void) {
  PyThreadState *own = PyEval_SaveThread();
  atomic_store(&process_ends, true);
  pthread_mutex_lock(&making); /* who is about to make one has made it, or will not */
  pthread_mutex_unlock(&making);
  pthread_mutex_lock(&isolates_lock);
  struct isolate *first = isolates; /* later ones will have no interpreter */
  pthread_mutex_unlock(&isolates_lock);
  for (struct isolate *isolate = first; isolate != NULL; isolate = isolate->next)
    begin_end(isolate);
  int grace_ms = GRACE_MS; /* of all together */
  for (struct isolate *isolate = first; isolate != NULL; isolate = isolate->next)
    end(isolate, &grace_ms);
  if (first != NULL)
    bridge_forget_parsers();
  PyEval_RestoreThread(own);
}

/* ---- Forks ---------------------------------------------------------------------------------- */

void bridge_isolates_hide(void) {
  PyThreadState *own = PyEval_SaveThread();
  pthread_mutex_lock(&making);
  pthread_mutex_lock(&isolates_lock);
  PyEval_RestoreThread(own);
  for (struct isolate *isolate = isolates; isolate != NULL; isolate = isolate->next)
    if (isolate->interpreter != NULL)
      bridge_unlink_interpreter(isolate->interpreter);
}

void bridge_isolates_show(void) {
  for (struct isolate *isolate = isolates; isolate != NULL; isolate = isolate->next)
    if (isolate->interpreter != NULL)
      bridge_link_interpreter(isolate->interpreter);
  pthread_mutex_unlock(&isolates_lock);
  pthread_mutex_unlock(&making);
}

void bridge_isolates_forget(void) {
  if (isolates != NULL)
    bridge_forget_parsers();
  /* What the parent's threads held is held for ever: the records are lost with it. */
  for (struct isolate *isolate = isolates; isolate != NULL; isolate = isolate->next)
    isolate->interpreter = NULL; /* for who has a buffer of it, or a call that ran */
  isolates = NULL;
  current = NULL;
  isolates_lock = making = (pthread_mutex_t)PTHREAD_MUTEX_INITIALIZER;
}

#else /* no interpreter has a GIL of its own */

struct isolate *bridge_isolate_current(void) {
  return NULL;
}

void bridge_isolate_return(struct isolate *isolate, struct share *share) {
  (void)isolate, (void)share;
}

void bridge_release_in_main(struct share *share) {
  *bridge_share_link(share) = NULL;
  bridge_share_release_all(share);
}

void bridge_isolates_end(void) {}

void bridge_isolates_hide(void) {}

void bridge_isolates_show(void) {}

void bridge_isolates_forget(void) {}

#endif
