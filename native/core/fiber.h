/* fiber.h - the stacks that a worker's tasks run on, and how the worker goes from one to another.
 *
 *      the thread's own stack       stacks of the pool's slabs, made when a task first parks
 *      | loop | task A |            | loop | task B |     | loop |        | loop | task C |
 *                 parked                    runs             spare              ready
 *
 * Each fiber runs the worker's loop, and a task is run by that loop, on the same stack: so a task that never
 * parks costs nothing. When one parks, the worker goes on with the oldest ready fiber or, if there is none,
 * with a spare one, whose loop then looks for tasks, or with a new one. A loop that finds a fiber ready between
 * two tasks becomes spare, and the worker switches to that. So there are as many fibers as there are parked
 * tasks, and a few.
 *
 * A fiber is of one worker, and all of this happens on that worker's thread, but for fiber_call: who ends the
 * wait of a fiber from another thread pushes it on the worker's stack `called` and, if that was empty, Calls the
 * worker (eventcount.md), or wakes it, if it sleeps over that list alone (fibers_sleep). Nothing points at a
 * fiber that is called but that list.
 *
 * Nothing of a language runtime is attached at a switch: who parks has let go before.
 */
#ifndef DROMON_CORE_FIBER_H
#define DROMON_CORE_FIBER_H

#include "cxx.h"
#include "slabs.h"
#include "stack.h"
#include "timers.h"

#include <dromon/dromon.h>
#include <stdbool.h>

struct worker;

struct fiber {
  struct fiber *next;    /* in `called`, `ready` or `spare` */
  void *stack_pointer;   /* while it does not run */
  struct worker *worker; /* whose it is, for good */
  void *state;           /* what `run` of the pool's ops gets here */
  struct stack stack;
  bool is_spare;     /* its loop has nothing to do */
  dromon_park *park; /* that it waits for */
  struct timer timer;
  bool timed_out;
  struct cxx_state cxx;
  void *sanitizer; /* what the build's sanitizer keeps of it */
};

/* What a worker knows of its fibers; all its own; the monitor reads some. */
struct fibers {
  struct fiber *running; /* NULL: it enters or leaves, and nothing can park */
  struct fiber *spare;   /* newest first */
  struct fiber *ready_first, *ready_last;
  struct fiber *dead;  /* has left; its stack is free once another one runs */
  struct fiber *maker; /* goes on when a new one has entered, */
  int entered;         /* which answered this */
  struct timers timers;
  uint64_t deadline_ns; /* of the first of them */
  uint32_t spare_count;
  uint32_t turns;
  bool cannot_switch; /* this thread has a shadow stack */
  bool forbidden;     /* the running task must not park */
  bool new_first;     /* the next turn is for a task that has not begun */
  bool is_over;       /* all loops are to end */
  struct fiber own;   /* on the thread's own stack: there before all others, and after them */
};

/* For the worker's thread, with what `enter` has stored: from now on its tasks can park. */
void fibers_begin(struct worker *worker, void *state);

/* Ends all fibers, none of which has a task, and comes back on the thread's own stack. */
void fibers_end(struct worker *worker);

/* That runs on the calling thread; NULL if there is none. May be asked in a signal handler. */
const struct fiber *fiber_current(void);

/* Parks the running fiber until the node's wait is ended: 0, or -ETIMEDOUT. -ENOTSUP: it cannot park. */
int fiber_park(struct worker *worker, dromon_park *park, uint64_t deadline_ns);

/* From any thread, by who has ended its wait, once: it can go on. */
void fiber_call(struct fiber *fiber);

/* Whether a fiber can go on, for a loop between two tasks. Looks at the clock if one waits for a time. */
bool fibers_are_ready(struct worker *worker);

/* The same at a time that the caller has just read, without taking note of anything. From any thread, for which
 * it is a guess. */
bool fibers_are_due(const struct worker *worker, uint64_t now);

/* Whether this turn of a loop is for a task that has not begun, though fibers are ready. */
bool fibers_take_new_turn(struct worker *worker);

/* A loop gives its turn to a fiber that is ready: true when it goes on, false if it is to end. */
bool fibers_give_turn(struct worker *worker);

/* Sleeps until a fiber may go on, and perhaps for less: for a worker that waits for nothing else. */
void fibers_sleep(struct worker *worker);

/* When the first of those that wait for a time has to go on. */
uint64_t fibers_deadline(const struct worker *worker);

/* ---- park.c ---- */

/* True: the node was EMPTY and is PARKED. */
bool park_commit(dromon_park *park, struct fiber *fiber);

#endif
