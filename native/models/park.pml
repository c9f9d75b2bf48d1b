/* park.pml - how workers sleep and are woken, as in native/core/eventcount.md: no wake-up is lost.
 *
 * Outside producers submit a task each to the injection queue. The first task, when it runs, submits
 * children into the deque of its worker, from which the others steal. A task ends only when as many
 * tasks have begun as there are workers (or tasks, if these are fewer): so a worker that sleeps while a
 * task waits is a deadlock, and not only a delay.
 *
 * With CALLERS: each Pushes something for any one worker, and Calls it, and with DEADLINES the alarm of a
 * worker that sleeps may go off. That worker then has something to resume, which it does as if it were a
 * task.
 *
 * Checked: every task runs once; when nothing can happen any more, all have run and all workers sleep,
 * with a word that says so, and none was called in vain; after each event, sleepers + permits is the number of workers between
 * Announce and their return to work, and no count falls below 0; those who search without a task in
 * their hands are no more than may. With LIVENESS: under weak fairness all tasks begin at last, so no
 * worker looks for ever at what it does not take.
 *
 * Left out:
 *  - memory orders. Here all steps are seen in one order. In the code every event is an acq_rel
 *    read-modify-write of one word, which carries step 1 of the proof: also Notify that grants nothing,
 *    which here only looks. The deque's positions are seq_cst (native/core/deque.h).
 *  - the word's packing; the futex compares its lower half here and there.
 *  - the waiting room behind the ring, and that cells and slots are used again.
 *  - time: a search is any number of looks at all queues. A batch is one task.
 *
 * Mutants, each of which must be found wrong:
 *   NO_RECHECK                sleeps right after Announce
 *   NOTIFY_BEFORE_PUBLISH     tells of a task that is not there yet
 *   NOTIFY_ONLY_THE_FIRST     Notify only after the Publish that finds the ring unused: a producer
 *                             that is preempted inside its push hides the task behind its own
 *   FOUND_WITHOUT_LOOK        the last searcher does not look at the queues
 *   RETRACT_TAKES_A_SLEEPER   even if all were granted permits
 *   ANNOUNCE_IN_TWO_STEPS     a load and a store instead of a read-modify-write
 *   SLEEP_WITHOUT_COMPARE     the futex does not compare under the kernel's lock
 *   SEARCH_WITHOUT_BOUND      every worker may search
 *   LOST_RACE_IS_EMPTY        a thief that was not the first goes away
 *   CALL_WITHOUT_COUNT        the lower half of the word is as it was
 *   CALL_WAKES_ANY            as Notify does
 *   CALL_LOOKS_AT_SLEEPERS    takes those that have permits for awake
 *   CALL_BEFORE_PUSH          tells the worker of what is not there yet
 *   CALL_BEFORE_PERMIT        who is called and has a permit takes its announcement back
 *
 * Macros: WORKERS, PRODUCERS, CHILDREN and SPURIOUS_WAKES, all together or none; CALLERS and
 * DEADLINES, both or none; LIVENESS.
 */
#ifndef WORKERS
#define WORKERS 3
#define PRODUCERS 1
#define CHILDREN 2
#define SPURIOUS_WAKES 1
#endif
#define TASKS (PRODUCERS + CHILDREN)
#define PARENT 1 /* the task that submits; its children come after the producers' tasks */
#define BARRIER (TASKS < WORKERS -> TASKS : WORKERS)
#define SEARCHERS_MOST ((WORKERS + 1) / 2)
#define RESUMED (TASKS + 1) /* in place of a task: what the worker was called or had a deadline for */
#define ASLEEP end_asleep /* a valid end state: see eventcount.pml */

#include "eventcount.pml"
#include "queues.pml"

bool begun[TASKS + 1];
byte begun_count;

/* What there is for this worker alone, then as Find. */
inline FindAny(me, task) {
#if CALLERS
  d_step {
    if
    :: called[me] > 0 || is_due -> called[me] = 0; is_due = false; task = RESUMED;
    :: else
    fi
  }
  if
  :: task == 0 -> Find(me, task)
  :: else
  fi
#else
  Find(me, task)
#endif
}

/* A worker runs a task. */
inline Run(me, task) {
  d_step {
    assert(!begun[task]);
    begun[task] = true;
    begun_count++;
  }
  if
  :: task == PARENT ->
     child = PRODUCERS + 1;
     do
     :: child <= TASKS ->
#ifdef MUTANT_NOTIFY_BEFORE_PUBLISH
        Notify();
        DequePush(me, child);
#else
        DequePush(me, child); /* Publish */
        Notify();
#endif
        child++
     :: else -> child = 0; break
     od
  :: else
  fi;
  atomic { begun_count >= BARRIER -> task = 0 } /* the task has ended */
}

/* From running dry to the next task. */
inline AwaitTask(me, task) {
  Search(searching);
  if
  :: searching ->
     do
     :: task == 0 -> FindAny(me, task)
     :: break /* a search is bounded */
     od
  :: else
  fi;
  do
  :: task == 0 ->
     Announce(searching);
#ifndef MUTANT_NO_RECHECK
     FindAny(me, task); /* Recheck */
#endif
     if
     :: task != 0 -> Retract(searching)
     :: else ->
        Sleep(me, searching);
        FindAny(me, task)
     fi
  :: else -> break
  od;
  if
  :: searching ->
     Found(searching, was_last);
#ifndef MUTANT_FOUND_WITHOUT_LOOK
     if
     :: was_last ->
        LookAtQueues(visible);
        if
        :: visible -> visible = false; Notify()
        :: else
        fi
     :: else
     fi;
#endif
     was_last = false
  :: else
  fi
}

proctype Worker(byte me) {
  byte task, child, victim, aim, looked, offset;
  bool searching, by_retract, was_last, visible;
#ifdef MUTANT_ANNOUNCE_IN_TWO_STEPS
  byte was;
#endif
#if CALLERS
  byte seen;
  bool is_due;
#endif
  do
  :: FindAny(me, task);
     if
     :: task == 0 -> AwaitTask(me, task)
     :: else
     fi;
#if CALLERS
     if
     :: task == RESUMED -> task = 0
     :: else -> Run(me, task)
     fi
#else
     Run(me, task)
#endif
  od
}

proctype Producer(byte task) {
  byte position;
#if defined(MUTANT_NOTIFY_BEFORE_PUBLISH)
  Notify();
  Claim(position);
  Fill(position, task)
#elif defined(MUTANT_NOTIFY_ONLY_THE_FIRST)
  bool first;
  Claim(position);
  first = (position == 0);
  Fill(position, task);
  if
  :: first -> Notify()
  :: else
  fi
#else
  Claim(position);
  Fill(position, task); /* Publish */
  Notify()
#endif
}

#if CALLERS
proctype Caller() {
  byte whom;
  bool is_first, sees_announced;
  if
  :: whom = 0
  :: whom = 1
#if WORKERS > 2
  :: whom = 2
#endif
  fi;
#ifdef MUTANT_CALL_BEFORE_PUSH
  Call(whom);
  Push(whom, is_first)
#else
  Push(whom, is_first);
  if
  :: is_first -> Call(whom)
  :: else
  fi
#endif
}
#endif

init {
  byte i;
  atomic {
    do
    :: i < WORKERS -> run Worker(i); i++
    :: else -> i = 0; break
    od;
    do
    :: i < PRODUCERS -> i++; run Producer(i)
    :: else -> i = 0; break
    od;
#if CALLERS
    do
    :: i < CALLERS -> run Caller(); i++
    :: else -> i = 0; break
    od
#endif
  }
  timeout -> /* nothing else can happen */
  assert(begun_count == TASKS);
#if CALLERS
  do
  :: i < WORKERS -> assert(called[i] == 0); i++
  :: else -> break
  od;
#endif
  assert(sleepers == WORKERS && permits == 0 && searchers == 0)
}

#ifdef LIVENESS
ltl all_run { <> (begun_count == TASKS) }
#endif
