/* close.pml - how a pool ends, as in native/core/pool.md: close against late submit and steal.
 *
 * Outside submitters submit a task each. The first one, when it runs, submits children from its worker:
 * into the worker's own deque, and what does not fit there as from outside. The other worker
 * steals. The closer may come at any moment of all that.
 *
 * Checked: what was accepted runs once, what was refused does not; the closing task runs once, by the
 * worker that leaves last, when all else has run; everybody comes to an end (Spin's invalid end
 * states), so nobody sleeps through it; the eventcount's invariants.
 *
 * Left out:
 *  - memory orders. Here all steps are seen in one order. In the code Enter, Exit and Close are acq_rel on
 *    one word, Closed acquires it, and the counter of those who leave is acq_rel; the eventcount's word
 *    and the deque's positions are as their pages say.
 *  - searching before Announce, and that workers have to be kept busy: park.pml. A task ends at once.
 *    A thief that takes a lost race for empty leaves early, which is no harm here; park.pml rejects it.
 *  - workers that are retired, and Take back.
 *  - the waiting room behind the ring, and a submitter that sleeps in it until there is room.
 *  - a third worker (too many states for an exhaustive search), and sizes: a deque holds one task.
 *
 * Mutants, each of which must be found wrong:
 *   CLOSED_WITH_SOMEBODY_INSIDE  the worker does not wait for submitters that are inside
 *   DRAINED_BEFORE_CLOSED        looks at the queues, then at the gate
 *   GATE_BEFORE_ANNOUNCE         reads the gate too early to be woken if it changes
 *   NO_WAKING_AT_EXIT            who saw somebody inside sleeps on
 *   WAKING_BEFORE_CLOSE          who is woken does not see why
 *   ENTER_IN_TWO_STEPS           looks at the bit, then counts itself
 *   EXIT_BEFORE_PUBLISH          is not inside when it publishes
 *   OWN_DEQUE_FORGOTTEN          a worker leaves that has not seen its own deque empty
 *   LEAVE_IN_TWO_STEPS           counts down with a load and a store
 *
 * Macros: WORKERS, SUBMITTERS, CHILDREN and SPURIOUS_WAKES, all together or none.
 */
#ifndef WORKERS
#define WORKERS 2
#define SUBMITTERS 1
#define CHILDREN 2
#define SPURIOUS_WAKES 1
#endif
#define ASLEEP asleep /* no valid end state: see eventcount.pml */
#define TASKS (SUBMITTERS + CHILDREN)
#define PARENT 1 /* the task that submits; its children come after the submitters' tasks */
#define DEQUE_CAPACITY 1
#define SEARCHERS_MOST WORKERS

#include "eventcount.pml"
#include "queues.pml"

/* The gate: one word. */
bool gate_closed;
byte gate_inside;

byte alive = WORKERS;
bool accepted[TASKS + 1], refused[TASKS + 1], ran[TASKS + 1];
bool last_ran;

inline CheckAllRan(task) {
  task = 1;
  do
  :: task <= TASKS ->
     assert(accepted[task] == ran[task]);
     assert(!(accepted[task] && refused[task]));
     task++;
  :: else -> break
  od;
  task = 0;
}

inline Enter(was_closed) {
#ifdef MUTANT_ENTER_IN_TWO_STEPS
  was_closed = gate_closed;
  gate_inside++
#else
  d_step { was_closed = gate_closed; gate_inside++ }
#endif
}

inline Exit(was_closed) {
  d_step { was_closed = gate_closed; gate_inside-- };
#ifndef MUTANT_NO_WAKING_AT_EXIT
  if
  :: was_closed -> NotifyAll()
  :: else
  fi
#endif
}

/* Closed: with nobody inside. */
inline ReadGate(closed) {
#ifdef MUTANT_CLOSED_WITH_SOMEBODY_INSIDE
  closed = gate_closed
#else
  closed = (gate_closed && gate_inside == 0)
#endif
}

inline PublishInjection(new_task) {
  Claim(position);
  accepted[new_task] = true;
  Fill(position, new_task)
}

inline PublishOwn(me, new_task) {
  if
  :: deque[me].bottom - deque[me].top < DEQUE_CAPACITY ->
     accepted[new_task] = true;
     DequePush(me, new_task);
     Notify()
  :: else ->
     Enter(was_closed);
     if
     :: was_closed -> refused[new_task] = true
     :: else ->
        PublishInjection(new_task);
        Notify()
     fi;
     Exit(was_closed);
     was_closed = false
  fi
}

/* A worker runs a task. */
inline Run(me, task) {
  assert(accepted[task] && !ran[task]);
  ran[task] = true;
  if
  :: task == PARENT ->
     child = SUBMITTERS + 1;
     do
     :: child <= TASKS ->
        if
        :: gate_closed -> refused[child] = true /* Look */
        :: else -> PublishOwn(me, child)
        fi;
        child++
     :: else -> child = 0; break
     od
  :: else
  fi;
  task = 0
}

/* From running dry to the next task; 0 if it is time to leave. */
inline AwaitTask(me, task) {
  do
  :: task == 0 && !closed ->
#if defined(MUTANT_GATE_BEFORE_ANNOUNCE)
     ReadGate(closed);
     Announce(searching);
     Find(me, task);
#elif defined(MUTANT_DRAINED_BEFORE_CLOSED)
     Announce(searching);
     Find(me, task);
     ReadGate(closed);
#else
     Announce(searching);
     ReadGate(closed);
     Find(me, task); /* Recheck; after Closed, Drained if it finds nothing */
#endif
     if
     :: task != 0 || closed -> Retract(searching)
     :: else ->
        Sleep(me, searching);
        ReadGate(closed);
        Find(me, task)
     fi
  :: else -> break
  od;
  if
  :: searching ->
     Found(searching, was_last);
     if
     :: was_last ->
        LookAtQueues(visible);
        if
        :: visible -> visible = false; Notify()
        :: else
        fi
     :: else
     fi;
     was_last = false
  :: else
  fi
}

/* The last one to leave runs the closing task. */
inline Leave() {
#ifdef MUTANT_LEAVE_IN_TWO_STEPS
  looked = alive - 1;
  alive = looked;
  was_last = (looked == 0);
#else
  d_step { alive--; was_last = (alive == 0) };
#endif
  if
  :: was_last -> d_step { assert(!last_ran); last_ran = true; CheckAllRan(task) }
  :: else
  fi
}

proctype Worker(byte me) {
  byte task, child, position, victim, aim, looked, offset;
  bool searching, by_retract, was_last, visible, closed, was_closed;
  do
  :: Find(me, task);
     closed = false;
     AwaitTask(me, task);
     if
     :: task != 0 -> Run(me, task)
     :: else -> break
     fi
  od;
  Leave()
}

proctype Submitter(byte task) {
  byte position;
  bool was_closed;
  Enter(was_closed);
  if
  :: was_closed -> refused[task] = true
  :: else ->
#ifdef MUTANT_EXIT_BEFORE_PUBLISH
     Exit(was_closed);
     PublishInjection(task);
     Notify();
     Enter(was_closed)
#else
     PublishInjection(task);
     Notify()
#endif
  fi;
  Exit(was_closed)
}

proctype Closer() {
#ifdef MUTANT_WAKING_BEFORE_CLOSE
  NotifyAll();
  gate_closed = true
#else
  gate_closed = true;
  NotifyAll()
#endif
}

init {
  byte i, task;
  atomic {
    do
    :: i < WORKERS -> run Worker(i); i++
    :: else -> i = 0; break
    od;
    do
    :: i < SUBMITTERS -> i++; run Submitter(i)
    :: else -> i = 0; break
    od;
    run Closer()
  }
  _nr_pr == 1; /* the others have ended */
  assert(last_ran);
  CheckAllRan(task); /* nothing was accepted after that */
  assert(announced == 0 && searchers == 0)
}
