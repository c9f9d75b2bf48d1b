/* interrupt.pml - interrupts of calls, as at the top of native/bridge/interrupt.c: an exception that is set
 * for a thread from outside is raised in the call that it was meant for, and nowhere else.
 *
 * Workers take calls, one after the other. A call executes bytecode, where an exception that is set is
 * raised, may visit its submitter (its `Host`), and ends by itself, or only when an interrupt was raised in
 * it (`endless`): so an interrupt that is lost is a deadlock, and not only a delay. When one was raised in
 * it, it unwinds, or goes on for a while, with more visits. Interrupters aim at one call each, at any
 * moment: before it begins, while it visits, when it has ended, twice. Every call may be given up
 * (Abandon) once it runs. Hosts, deliveries and Abandon share one thread, that of the event loop.
 *
 * Checked: what is raised was aimed at the call that runs; nothing is set when a call begins, nor after it
 * has ended; no call ends or is interrupted between Visit and the answer, which it gets; a host is
 * rescheduled only when it waits, once; all calls end, and so do all hosts (Spin's invalid end states). With
 * LIVENESS: also a call that visits for ever ends, under weak fairness, once it was interrupted.
 *
 * Left out:
 *  - the lock of the call, or the GIL: what is done under it is one step here.
 *  - withdrawal of calls that no worker has taken, and the end of the run. The queue and the port are
 *    flags; port.pml and close.pml are about them.
 *  - C functions, which only let the time pass until the next bytecode.
 *
 * Mutants, each of which must be found wrong:
 *   END_WITHOUT_CLEARING       what the call did not raise is left for the next
 *   END_CLEARS_FIRST           and then, in a second step, forgets the worker
 *   INTERRUPT_WITHOUT_LOOK     goes to the worker that took the call, even if it has ended
 *   INTERRUPT_IN_TWO_STEPS     looks at the worker first, and sets the exception later
 *   INTERRUPT_DURING_VISIT     sets it at once
 *   INTERRUPT_TOO_EARLY        is dropped if the call has not begun
 *   BEGIN_IN_TWO_STEPS         looks whether one is deferred first, and notes the worker later
 *   VISIT_IGNORES_SET          leaves the exception that is set to be raised during the visit
 *   VISIT_IGNORES_DEFERRED     visits on and on before Leave (LIVENESS)
 *   VISIT_IGNORES_ABANDON      asks a host that has gone
 *   LEAVE_FORGETS_DEFERRED     the interrupt that came during the visit is lost
 *   LEAVE_WITHOUT_LOOK         Leave sets it though the call has ended
 *   ABANDON_DURING_VISIT       the host goes, with a message under way to it
 *
 * Macros: WORKERS, CALLS, INTERRUPTERS and VISITS, all together or none; LIVENESS (visits without end).
 */
#ifndef WORKERS
#define WORKERS 1
#define CALLS 2
#define INTERRUPTERS 3
#define VISITS 2
#endif

#define NOBODY 255

mtype = { queued, running, done, abandoned };
mtype = { message, outcome, cancelled };

/* Of a thread state: the call that the exception in it was aimed at, or 0. */
byte set[WORKERS];

/* Of a call; numbers begin with 1. */
byte worker[CALLS + 1] = NOBODY;
byte taken_by[CALLS + 1] = NOBODY;
mtype state[CALLS + 1] = queued;
byte visiting[CALLS + 1];
bool interrupted[CALLS + 1], deferred[CALLS + 1];
bool asks[CALLS + 1], answered[CALLS + 1]; /* between Visit and the answer; it is there */
bool sent[CALLS + 1], posted[CALLS + 1];   /* to the event loop */
byte next_call = 1, ended;

/* Of a host. */
bool waits[CALLS + 1] = true;
mtype got[CALLS + 1];

bool loop_is_busy;

/* ---- The protocol ---------------------------------------------------------------------------- */

inline Begin(me, call) {
  atomic {
    assert(set[me] == 0);
    taken_by[call] = me;
#ifdef MUTANT_BEGIN_IN_TWO_STEPS
    if
    :: deferred[call] -> set[me] = call; deferred[call] = false
    :: else
    fi
  }
  worker[call] = me
#else
    worker[call] = me;
    if
    :: deferred[call] -> set[me] = call; deferred[call] = false
    :: else
    fi
  }
#endif
}

inline Interrupt(call) {
  atomic {
    interrupted[call] = true;
#ifdef MUTANT_INTERRUPT_WITHOUT_LOOK
    target = taken_by[call];
#else
    target = worker[call];
#endif
#ifndef MUTANT_INTERRUPT_DURING_VISIT
    if
    :: visiting[call] > 0 -> target = NOBODY
    :: else
    fi;
#endif
#ifdef MUTANT_INTERRUPT_IN_TWO_STEPS
  }
  atomic {
#endif
    if
    :: target != NOBODY -> set[target] = call
#ifdef MUTANT_INTERRUPT_TOO_EARLY
    :: target == NOBODY -> deferred[call] = (visiting[call] > 0)
#else
    :: target == NOBODY -> deferred[call] = true
#endif
    fi;
    target = NOBODY
  }
}

inline End(me, call) {
  assert(!asks[call]);
  atomic {
#ifdef MUTANT_END_CLEARS_FIRST
    if
    :: interrupted[call] -> set[me] = 0
    :: else
    fi
  }
  worker[call] = NOBODY
#else
    worker[call] = NOBODY;
#ifndef MUTANT_END_WITHOUT_CLEARING
    if
    :: interrupted[call] -> set[me] = 0
    :: else
    fi
#endif
  }
#endif
}

/* Sets `raises`, or `visits` if there is a host. */
inline Visit(me, call) {
  atomic {
    if
#ifndef MUTANT_VISIT_IGNORES_SET
    :: set[me] != 0 -> assert(set[me] == call); set[me] = 0; raises = true
#endif
#ifndef MUTANT_VISIT_IGNORES_DEFERRED
    :: deferred[call] -> assert(visiting[call] > 0); deferred[call] = false; raises = true
#endif
#ifndef MUTANT_VISIT_IGNORES_ABANDON
    :: state[call] == abandoned && set[me] == 0 && !deferred[call]
#endif
    :: else -> visiting[call]++; asks[call] = true; answered[call] = false; visits = true
    fi
  }
}

inline Leave(call) {
  atomic {
    assert(visiting[call] > 0);
    visiting[call]--;
#ifdef MUTANT_LEAVE_WITHOUT_LOOK
    if
    :: deferred[call] && visiting[call] == 0 -> set[taken_by[call]] = call; deferred[call] = false
    :: else
    fi
#elif !defined(MUTANT_LEAVE_FORGETS_DEFERRED)
    if
    :: deferred[call] && visiting[call] == 0 && worker[call] != NOBODY ->
       set[worker[call]] = call;
       deferred[call] = false
    :: else
    fi
#endif
  }
}

/* ---- Workers --------------------------------------------------------------------------------- */

/* Where an exception that is set is raised. */
inline Bytecode(me, call) {
  atomic {
    if
    :: set[me] != 0 ->
       assert(set[me] == call);
       assert(!asks[call]);
       set[me] = 0;
       raises = true
    :: else
    fi
  }
}

/* from_thread.run. The next visit may come before Leave. */
inline AskHost(me, call) {
  Visit(me, call);
  if
  :: visits ->
     visits = false;
     Bytecode(me, call);
     sent[call] = true;
     Bytecode(me, call);
     if
     :: raises /* Leave was quick, and the answer remains in its queue */
     :: !raises -> answered[call]
     fi
  :: else
  fi
}

proctype Worker(byte me) {
  byte call, visits_left;
  bool endless, raises, visits;
  do
  :: atomic {
       next_call <= CALLS ->
       call = next_call;
       next_call++;
       state[call] = running;
#ifdef LIVENESS
       endless = true
#else
       visits_left = VISITS;
       if
       :: endless = true
       :: endless = false
       fi
#endif
     }
     Begin(me, call);
     do
#ifdef LIVENESS
     :: !raises && endless -> AskHost(me, call)
#else
     :: !raises && visits_left > 0 -> visits_left--; AskHost(me, call)
#endif
     :: !raises && !endless -> break /* returns */
     :: set[me] != 0 -> Bytecode(me, call)
     :: raises ->
        raises = false;
        endless = false;
        if
        :: break /* unwinds */
        :: skip  /* catches it */
        fi
     od;
     End(me, call);
     assert(set[me] == 0); /* whatever bytecode it executes until the next call */
     atomic {
       if
       :: state[call] == running -> state[call] = done
       :: else
       fi;
       posted[call] = true;
       ended++;
       raises = false;
       endless = false;
       visits_left = 0;
       call = 0
     }
  :: atomic { next_call > CALLS -> break }
  od;
  assert(set[me] == 0)
}

proctype Interrupter(byte call) {
  byte target = NOBODY;
  Interrupt(call)
}

/* ---- The event loop -------------------------------------------------------------------------- */

inline Reschedule(call, what) {
  assert(waits[call]);
  waits[call] = false;
  got[call] = what
}

inline Resume() {
  atomic { !loop_is_busy -> loop_is_busy = true }
}

inline Suspend() {
  loop_is_busy = false
}

proctype Host(byte call) {
  do
  :: atomic { !waits[call] && !loop_is_busy -> loop_is_busy = true };
     if
     :: got[call] == message ->
        if
        :: Suspend(); Resume() /* it is an async function */
        :: skip
        fi;
        atomic { assert(asks[call]); asks[call] = false; answered[call] = true };
        Leave(call);
        waits[call] = true;
        Suspend()
     :: else -> Suspend(); break
     fi
  od
}

/* One of a call's callbacks in the loop: for each a process, so that they come in any order. */
proctype Deliver(byte call) {
end_no_more_messages:
  do
  :: atomic {
       sent[call] && !loop_is_busy ->
       sent[call] = false;
       Reschedule(call, message)
     }
  :: atomic {
       posted[call] && !loop_is_busy ->
       posted[call] = false;
       if
       :: state[call] == done -> Reschedule(call, outcome)
       :: else -> assert(!waits[call])
       fi;
       break
     }
  od
}

/* Once, at any moment when it may be; or never. */
proctype GiveUp(byte call) {
  if
  :: atomic {
#ifdef MUTANT_ABANDON_DURING_VISIT
       state[call] == running && !loop_is_busy ->
#else
       state[call] == running && visiting[call] == 0 && !loop_is_busy ->
#endif
       state[call] = abandoned;
       Reschedule(call, cancelled)
     }
  :: skip
  fi
}

init {
  byte i;
  atomic {
    do
    :: i < WORKERS -> run Worker(i); i++
    :: else -> i = 1; break
    od;
    do
    :: i <= CALLS -> run Host(i); run Deliver(i); run GiveUp(i); i++
    :: else -> i = 0; break
    od;
    do /* one for each call at least, and the first ones get two */
    :: i < INTERRUPTERS -> run Interrupter(1 + i % CALLS); i++
    :: else -> i = 0; break
    od
  }
}

#ifdef LIVENESS
ltl all_end { <> (ended == CALLS) }
#endif
