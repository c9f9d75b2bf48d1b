/* port.pml - the completion port, as in native/core/port.md: no completion is left behind.
 *
 * Two producers Push two tasks each, and Signal after each Push or once for both. The consumer sleeps
 * on the eventfd, comes round now and then without having been told, and may close the port at any
 * moment, or never.
 *
 * Checked: every task is taken exactly once, or was refused and is never taken; a port that is not
 * closed refuses nothing; nobody waits for ever (Spin's invalid end states: the consumer has to come to
 * its end, though it stops waiting only with all tasks in its hands).
 *
 * Left out:
 *  - memory orders. Here all steps are seen in one order. In the code Push (release) and Take (acquire)
 *    carry the task's contents, Signal and Clear (acq_rel, one word) carry step 1 of the proof, and the
 *    eventfd is the kernel's.
 *  - lifetimes: the port's references, and that a task's record may be posted again.
 *  - the order in which tasks are taken, and the eventfd's maximum, at which it is readable anyway.
 *
 * Mutants, each of which must be found wrong:
 *   TAKE_BEFORE_CLEAR     what is pushed between the two is told to nobody
 *   CLEAR_BEFORE_READ     Read swallows the write of a Signal that came after Clear
 *   SIGNAL_BEFORE_PUSH    the consumer has come round before there was something to take
 *   PUSH_IN_TWO_STEPS     a load and a store instead of a compare-and-swap
 *   PUSH_WHEN_CLOSED      the task is accepted, and nobody will take it
 */
#define PRODUCERS 2
#define TASKS_EACH 2
#define TASKS (PRODUCERS * TASKS_EACH)
#define CLOSED (TASKS + 1)

byte head; /* the newest task, numbered from 1; 0: none */
byte next[TASKS + 1];
bit pending;
byte eventfd;

bool accepted[TASKS + 1], refused[TASKS + 1], taken[TASKS + 1];
byte taken_count;
bool closes; /* whether the consumer will close the port */

inline Push(task) {
  do
  :: old = head;
     if
#ifndef MUTANT_PUSH_WHEN_CLOSED
     :: old == CLOSED -> refused[task] = true; break
#endif
     :: else ->
        next[task] = old;
        if
#ifdef MUTANT_PUSH_IN_TWO_STEPS
        :: d_step { true -> head = task; accepted[task] = true }
#else
        :: d_step { head == old -> head = task; accepted[task] = true }
#endif
           break
        :: else /* somebody was faster: again */
        fi
     fi
  od;
  old = 0
}

inline Signal() {
  d_step { told = pending; pending = 1 };
  if
  :: !told -> eventfd++
  :: else -> told = 0
  fi;
  unsignalled = false
}

inline Read() {
  eventfd = 0
}

inline Clear() {
  pending = 0
}

/* The walk through what was taken is the consumer's own business, hence one step with the exchange. */
inline Take(replacement) {
  d_step {
    task = head;
    head = replacement;
    do
    :: task != 0 && task != CLOSED ->
       assert(accepted[task] && !taken[task]);
       taken[task] = true;
       taken_count++;
       task = next[task];
    :: else -> break
    od;
    task = 0;
  }
}

inline ComeRound() {
#if defined(MUTANT_TAKE_BEFORE_CLEAR)
  Read();
  Take(0);
  Clear()
#elif defined(MUTANT_CLEAR_BEFORE_READ)
  Clear();
  Read();
  Take(0)
#else
  Read();
  Clear();
  Take(0)
#endif
}

proctype Producer(byte task; byte last_task) {
  byte old;
  bit told;
  bool unsignalled;
  do
  :: task <= last_task ->
#ifdef MUTANT_SIGNAL_BEFORE_PUSH
     Signal();
     Push(task);
#else
     Push(task);
     unsignalled = accepted[task] || unsignalled;
     if
     :: unsignalled -> Signal()
     :: true /* the next Signal is for this one, too */
     fi;
#endif
     task++
  :: else -> break
  od;
  if
  :: unsignalled -> Signal()
  :: else
  fi
}

proctype Consumer() {
  byte task;
  bool polled;
  if
  :: closes = true
  :: true
  fi;
  do
  :: taken_count == TASKS -> break
  :: eventfd > 0 -> ComeRound()
  :: !polled -> polled = true; ComeRound()
  :: closes -> Take(CLOSED); break
  od
}

init {
  atomic {
    run Producer(1, TASKS_EACH);
    run Producer(TASKS_EACH + 1, TASKS);
    run Consumer()
  }
  _nr_pr == 1; /* the others have ended */
  byte task = 1;
  do
  :: task <= TASKS ->
     assert(accepted[task] == taken[task]);
     assert(refused[task] == !taken[task]);
     assert(!refused[task] || closes);
     task++
  :: else -> break
  od
}
