/* isolated.h - calls that run in interpreters of their own; see isolated.c. */
#ifndef DROMON_BRIDGE_ISOLATED_H
#define DROMON_BRIDGE_ISOLATED_H

#include "isolate.h"
#include "parcel.h"

#include <stdatomic.h>

/* How the answer to a question of a call is to be taken. */
enum answer {
  ANSWER_VALUE,
  ANSWER_ERROR,
  ANSWER_CANCELLED,
  ANSWER_RUN_OVER, /* nobody is there to answer */
};

/* What an isolated worker needs of a call, and what it leaves there: raw memory, since the call itself is
 * an object of the main interpreter. As there, it is the submitter's until the task is queued, then the
 * worker's until it posts it, and then whose the call is. Those that are atomic are everybody's. */
struct errand {
  struct function *function;
  struct parcel arguments; /* a tuple */
  struct parcel variables; /* a tuple of context variables' numbers and values; or empty */
  struct parcel outcome;
  const char *failure; /* why there is no outcome; NULL: there is one */
  bool has_outcome;
  bool is_error;
  bool interrupted;

  bool has_run;  /* a trio run, which can be asked */
  bool has_name; /* for its thread */
  char name[16];

  /* A question to the submitter: from the post until the answer it is the submitter's. */
  _Atomic bool asks;
  bool is_async;
  struct parcel question; /* a tuple: the function, and its arguments */
  struct parcel answer;
  enum answer answered_by;
  dromon_park answered;

  _Atomic(struct isolate *) isolate; /* runs it; NULL: not yet */
  _Atomic uint32_t worker;           /* its index, once it runs */
  _Atomic uint32_t interrupts;       /* asked for */
  uint32_t raised;                   /* of those; with the isolate attached, as the next */
  TaskObject *visitor;               /* waits for an answer: not to be interrupted; or NULL */
  _Atomic bool cancelled;            /* its submitter was */
  _Atomic bool retired;              /* its worker lost its place */
  enum bridge_on_abort on_abort;
  _Atomic(TaskObject *) task; /* of what runs, of its interpreter; see task.h */
  _Atomic bool cancel_asked;  /* where it waits */
  bool cancel_taken;          /* of that; with the isolate attached */
};

extern const dromon_ops bridge_isolated_ops;

/* A capsule for bridge_isolated_ops' `ops_arg`, which has to live as long as the pool. `initializer` is a
 * Function or None. */
PyObject *bridge_isolation_new(PyObject *enter, PyObject *name, PyObject *settings,
                               PyObject *initializer, unsigned long long tasks_most);

/* ---- For the submitter ---- */

/* What the call will be in another interpreter; NULL with an exception. */
struct errand *bridge_errand_new(bridge_state *state, CallObject *call);
void bridge_errand_free(struct errand *errand);

/* Lets go of what it needed to run. */
void bridge_errand_clear_inputs(struct errand *errand);

/* What its function is for another interpreter: a new Function. */
PyObject *bridge_portable(bridge_state *state, PyObject *function);

/* Its question, once: a message for dromon._from_thread. */
PyObject *bridge_errand_question(bridge_state *state, CallObject *call);

/* Its outcome as a value or, with NULL, an error. */
PyObject *bridge_errand_outcome(bridge_state *state, struct errand *errand, PyObject **error);

/* Answers its question; -1 with an exception: not yet. */
int bridge_errand_answer(bridge_state *state, struct errand *errand, enum answer by,
                         PyObject *object);

/* Notes that it is to be cancelled where it waits. True if it may be waiting: then bridge_errand_interrupt sees
 * to it. */
bool bridge_errand_note_cancel(struct errand *errand);

/* Notes an interrupt. It is raised by bridge_errand_interrupt, in a thread that may wait for it. */
void bridge_errand_note_interrupt(struct errand *errand);
void bridge_errand_interrupt(CallObject *call);

/* Has another worker take the place of the one that runs it: 0, or a negative errno. */
int bridge_errand_retire(CallObject *call);

/* ---- For the call itself, in its interpreter ---- */

/* It has a task, or none any more (NULL). */
void bridge_errand_set_task(struct errand *errand, TaskObject *task);

PyObject *bridge_ask(PyObject *function, PyObject *arguments, bool is_async);
PyObject *bridge_is_cancelled(void);

/* Whether the calling thread runs a call of an isolated worker whose submitter was cancelled. */
bool bridge_is_unwanted(void);

#endif
