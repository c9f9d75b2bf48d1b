/* isolate.c - the life of interpreters that have a GIL of their own; see isolate.h.
 *
 * Who may attach to one:
 *
 *   the worker    between attach and detach, by its own thread state;
 *   a visitor     at any time, by a thread state made for the moment: to raise an exception in what runs
 *                 there. It holds `alive` meanwhile, and the interpreter ends only with that held;
 *   who returns   a lent buffer, if nobody is in it (`turn` is free), else leaves it on a list, which
 *                 whoever is in it empties when it has left: so the list is empty when nobody is in it.
 *
 * Locks are taken in this order: turn, alive, and the GIL last; `alive` never with a GIL that its holder
 * waits for. That of the process (`isolates_lock`) is held for list operations, and while an interpreter
 * begins or ends: CPython 3.12 and 3.13 do not claim to do two of these at once.
 */
#include "isolate.h"

#include <pthread.h>
#include <stdatomic.h>
#include <time.h>
#include <unistd.h>

#if PY_VERSION_HEX >= 0x030C0000

enum { KEPT_MOST = 16 }; /* interpreters that wait for a worker */

struct isolate {
  struct isolate *next;            /* of all records */
  PyInterpreterState *interpreter; /* NULL: the record is free. Changed with turn and alive held */
  PyThreadState *thread_state;     /* the worker's; NULL: it has none */
  unsigned long ident;             /* the worker's */
  bridge_state *state;             /* of the bridge in there */
  PyObject *variables;             /* tuple, its own */
  pthread_mutex_t turn;
  pthread_mutex_t alive;
  _Atomic(const CallObject *) call;
  _Atomic(struct share *) returned; /* lent buffers on their way home */
  _Atomic uint64_t lent;            /* buffers that are not home */
  _Atomic bool spoilt;
  bool used;   /* by a worker; with isolates_lock held, as are the next */
  bool ending; /* ends when all that it lent is home */
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

void bridge_isolate_spoil(struct isolate *isolate) {
  /* Relaxed: whoever does it has the worker leave afterwards. */
  atomic_store_explicit(&isolate->spoilt, true, memory_order_relaxed);
}

/* ---- Records -------------------------------------------------------------------------------- */

/* One that nobody uses: with an interpreter, if `with_interpreter`, else without one, made if need be. */
static struct isolate *take_record(bool with_interpreter) {
  pthread_mutex_lock(&isolates_lock);
  struct isolate *isolate = isolates;
  while (isolate != NULL &&
         (isolate->used || isolate->ending || (isolate->interpreter != NULL) != with_interpreter))
    isolate = isolate->next;
  if (isolate == NULL && !with_interpreter) {
    isolate = PyMem_RawCalloc(1, sizeof *isolate);
    if (isolate != NULL) {
      pthread_mutex_init(&isolate->turn, NULL);
      pthread_mutex_init(&isolate->alive, NULL);
      isolate->next = isolates;
      isolates = isolate;
    }
  }
  if (isolate != NULL)
    isolate->used = true;
  pthread_mutex_unlock(&isolates_lock);
  return isolate;
}

static void put_record(struct isolate *isolate) {
  pthread_mutex_lock(&isolates_lock);
  isolate->used = false;
  pthread_mutex_unlock(&isolates_lock);
}

static unsigned count_kept(void) {
  unsigned count = 0;
  pthread_mutex_lock(&isolates_lock);
  for (struct isolate *isolate = isolates; isolate != NULL; isolate = isolate->next)
    count += isolate->interpreter != NULL && !isolate->used && !isolate->ending;
  pthread_mutex_unlock(&isolates_lock);
  return count;
}

static void end_turn(struct isolate *isolate);

/* ---- Begin and end -------------------------------------------------------------------------- */

/* Begins an interpreter, which is attached then; false with `error`, without a thread state. */
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
  pthread_mutex_lock(&making);
  PyStatus status = Py_NewInterpreterFromConfig(&isolate->thread_state, &config);
  bool begun = !PyStatus_Exception(status);
  if (begun)
    isolate->interpreter = PyThreadState_GetInterpreter(isolate->thread_state);
  pthread_mutex_unlock(&making);
  if (!begun)
    *error = status.err_msg != NULL ? status.err_msg : "for no reason that it tells";
  return begun;
}

/* Ends the interpreter. With turn held, and detached: by `thread_state`, its only one. */
static void end_interpreter(struct isolate *isolate, PyThreadState *thread_state) {
  pthread_mutex_lock(&isolate->alive);
  pthread_mutex_lock(&making);
  PyEval_RestoreThread(thread_state);
  Py_CLEAR(isolate->variables);
  Py_EndInterpreter(thread_state);
  pthread_mutex_unlock(&making);
  isolate->state = NULL;
  isolate->interpreter = NULL;
  isolate->thread_state = NULL;
  pthread_mutex_unlock(&isolate->alive);
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

/* A kept interpreter, or a new one; attached by a thread state of the calling thread. */
static struct isolate *take_interpreter(const char **error) {
  pause_at_the_end();
  struct isolate *isolate = take_record(true);
  if (isolate != NULL) {
    pthread_mutex_lock(&isolate->turn);
    isolate->thread_state = PyThreadState_New(isolate->interpreter);
    PyEval_RestoreThread(isolate->thread_state);
    return isolate;
  }
  isolate = take_record(false);
  if (isolate == NULL) {
    *error = "there is no memory";
    return NULL;
  }
  pthread_mutex_lock(&isolate->turn);
  if (begin_interpreter(isolate, error))
    return isolate;
  pthread_mutex_unlock(&isolate->turn);
  put_record(isolate);
  return NULL;
}

struct isolate *bridge_isolate_open(const char *settings, size_t size, const char *name,
                                    struct parcel *failure, const char **error) {
  struct isolate *isolate = take_interpreter(error);
  if (isolate == NULL)
    return NULL;
  current = isolate;
  isolate->ident = PyThread_get_thread_ident();
  atomic_store_explicit(&isolate->spoilt, false, memory_order_relaxed); /* nobody else looks */
  if (set_up(isolate, settings, size, name) == 0)
    return isolate;
  *error = "its set-up has failed";
  write_failure(isolate, failure);
  bridge_isolate_detach(isolate);
  bridge_isolate_close(isolate, false);
  return NULL;
}

/* Empties it, attached. False: something in there does not let go. */
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

void bridge_isolate_close(struct isolate *isolate, bool keep) {
  bridge_isolate_attach(isolate);
  /* Relaxed: see bridge_isolate_spoil. */
  bool spoilt = atomic_load_explicit(&isolate->spoilt, memory_order_relaxed);
  bool is_empty = isolate->state != NULL && empty(isolate);
  keep = keep && is_empty && !spoilt && count_kept() < KEPT_MOST;
  PyThreadState *thread_state = isolate->thread_state;
  /* Relaxed: what it lent it lent by this thread. */
  if (!keep && atomic_load_explicit(&isolate->lent, memory_order_relaxed) == 0) {
    PyEval_SaveThread();
    end_interpreter(isolate, thread_state);
  } else {
    isolate->thread_state = NULL;
    delete_thread_state(thread_state);
    pthread_mutex_lock(&isolates_lock);
    isolate->ending = !keep;
    pthread_mutex_unlock(&isolates_lock);
  }
  current = NULL;
  put_record(isolate);
  end_turn(isolate);
}

/* ---- Turns, and buffers that come home ------------------------------------------------------ */

static bool has_returned(struct isolate *isolate) {
  /* seq_cst, pairs with the push of bridge_isolate_return: it or this sees the other. */
  return atomic_load_explicit(&isolate->returned, memory_order_seq_cst) != NULL;
}

/* Releases what has come home; attached. */
static void release_returned(struct isolate *isolate) {
  /* Acquire, pairs with the push. */
  struct share *share = atomic_exchange_explicit(&isolate->returned, NULL, memory_order_acquire);
  uint64_t count = 0;
  for (struct share *each = share; each != NULL; each = *bridge_share_link(each))
    count++;
  bridge_share_release_all(share);
  atomic_fetch_sub_explicit(&isolate->lent, count, memory_order_relaxed); /* a count */
}

/* In an interpreter that nobody is in, turn held: releases what has come home, and ends it, if it was
 * waiting for the last of it. */
static void receive(struct isolate *isolate) {
  PyThreadState *thread_state = PyThreadState_New(isolate->interpreter);
  PyEval_RestoreThread(thread_state);
  release_returned(isolate);
  pthread_mutex_lock(&isolates_lock);
  bool ends = isolate->ending && atomic_load_explicit(&isolate->lent, memory_order_relaxed) == 0;
  if (ends)
    isolate->used = true;
  pthread_mutex_unlock(&isolates_lock);
  if (!ends) {
    delete_thread_state(thread_state);
    return;
  }
  PyEval_SaveThread();
  end_interpreter(isolate, thread_state);
  pthread_mutex_lock(&isolates_lock);
  isolate->used = isolate->ending = false;
  pthread_mutex_unlock(&isolates_lock);
}

/* Lets others in, and sees that nothing is left that has come home meanwhile. */
static void end_turn(struct isolate *isolate) {
  pthread_mutex_unlock(&isolate->turn);
  while (has_returned(isolate) && pthread_mutex_trylock(&isolate->turn) == 0) {
    if (isolate->interpreter != NULL)
      receive(isolate);
    pthread_mutex_unlock(&isolate->turn);
  }
}

void bridge_isolate_attach(struct isolate *isolate) {
  pause_at_the_end();
  pthread_mutex_lock(&isolate->turn);
  bridge_isolate_come_back(isolate);
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

void bridge_isolate_come_back(struct isolate *isolate) {
  PyEval_RestoreThread(isolate->thread_state);
  current = isolate;
}

void bridge_isolate_lend(struct isolate *isolate) {
  atomic_fetch_add_explicit(&isolate->lent, 1, memory_order_relaxed); /* a count */
}

void bridge_isolate_return(struct isolate *isolate, struct share *share) {
  if (current == isolate) {
    *bridge_share_link(share) = NULL;
    bridge_share_release_all(share);
    atomic_fetch_sub_explicit(&isolate->lent, 1, memory_order_relaxed);
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
  if (isolate->interpreter != NULL && has_returned(isolate))
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
  PyThreadState *own = PyEval_SaveThread();
  PyThreadState *visiting = PyThreadState_New(PyInterpreterState_Main());
  PyEval_RestoreThread(visiting);
  bridge_share_release_all(share);
  delete_thread_state(visiting);
  PyEval_RestoreThread(own);
}

/* ---- Visits --------------------------------------------------------------------------------- */

void bridge_isolate_visit(struct isolate *isolate, void (*visit)(struct isolate *, void *),
                          void *arg) {
  pthread_mutex_lock(&isolate->alive);
  if (isolate->interpreter != NULL) {
    PyThreadState *visiting = PyThreadState_New(isolate->interpreter);
    PyEval_RestoreThread(visiting);
    visit(isolate, arg);
    delete_thread_state(visiting);
  }
  pthread_mutex_unlock(&isolate->alive);
}

void bridge_isolate_set_exception(struct isolate *isolate, PyObject *exception) {
  PyThreadState_SetAsyncExc(isolate->ident, exception);
}

/* ---- The end of the process ----------------------------------------------------------------- */

enum {
  GRACE_MS = 500, /* for what runs to end, once interrupted */
  STOP_MS = 50,   /* to stop it then */
};

static bool take_turn(struct isolate *isolate, int milliseconds) {
  for (int i = 0; i < milliseconds; i++) {
    if (pthread_mutex_trylock(&isolate->turn) == 0)
      return true;
    nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
  }
  return false;
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

/* Keeps the GIL for good: no bytecode runs in there any more. */
static void stop(struct isolate *isolate, void *stopped) {
  (void)isolate;
  atomic_store((_Atomic bool *)stopped, true);
  for (;;)
    pause();
}

static _Atomic bool stopped;

static void *stop_thread(void *isolate) {
  bridge_isolate_visit(isolate, stop, &stopped);
  return NULL;
}

static void start_thread(void *(*run)(void *), struct isolate *isolate) {
  pthread_t thread;
  if (pthread_create(&thread, NULL, run, isolate) == 0)
    pthread_detach(thread);
}

/* Nobody is in it, and the turn is the caller's for good. */
static void end_idle(struct isolate *isolate) {
  PyThreadState *thread_state = PyThreadState_New(isolate->interpreter);
  PyEval_RestoreThread(thread_state);
  if (isolate->thread_state != NULL) {
    PyThreadState_Clear(isolate->thread_state);
    PyThreadState_Delete(isolate->thread_state);
  }
  release_returned(isolate);
  PyEval_SaveThread();
  end_interpreter(isolate, thread_state);
}

static void end_or_stop(struct isolate *isolate) {
  if (take_turn(isolate, 1) ||
      (start_thread(interrupt_thread, isolate), take_turn(isolate, GRACE_MS))) {
    if (isolate->interpreter != NULL)
      end_idle(isolate);
    return;
  }
  atomic_store(&stopped, false);
  start_thread(stop_thread, isolate);
  for (int i = 0; i < STOP_MS && !atomic_load(&stopped); i++)
    nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
  if (isolate->interpreter != NULL)
    bridge_unlink_interpreter(isolate->interpreter);
}

void bridge_isolates_end(void) {
  PyThreadState *own = PyEval_SaveThread();
  atomic_store(&process_ends, true);
  pthread_mutex_lock(&making); /* who is about to make one has made it, or will not */
  pthread_mutex_unlock(&making);
  pthread_mutex_lock(&isolates_lock);
  struct isolate *first = isolates; /* others are only added before it, and without interpreter */
  pthread_mutex_unlock(&isolates_lock);
  for (struct isolate *isolate = first; isolate != NULL; isolate = isolate->next)
    end_or_stop(isolate);
  PyEval_RestoreThread(own);
}

void bridge_isolates_forget(void) {
  /* What the parent's threads held is held for ever: the records are lost with it. */
  isolates = NULL;
  current = NULL;
  isolates_lock = making = (pthread_mutex_t)PTHREAD_MUTEX_INITIALIZER;
}

#else /* no interpreter has a GIL of its own */

struct isolate *bridge_isolate_current(void) {
  return NULL;
}

void bridge_isolate_lend(struct isolate *isolate) {
  (void)isolate;
}

void bridge_isolate_return(struct isolate *isolate, struct share *share) {
  (void)isolate, (void)share;
}

void bridge_release_in_main(struct share *share) {
  *bridge_share_link(share) = NULL;
  bridge_share_release_all(share);
}

void bridge_isolates_end(void) {}

void bridge_isolates_forget(void) {}

#endif
