/* eventcount.pml - the eventcount's word and its events, as in native/core/eventcount.md.
 *
 * Each event is one step, as it is one read-modify-write in the code; a compare-and-swap that fails
 * and is tried again changes nothing, so it needs no step. What Notify does after its grant, the futex
 * wake, is a step of its own. The word's fields are variables of their own: all steps are whole.
 *
 * With CALLERS, how many Calls there may be, a worker has `called`, which counts what hangs there, and may
 * have DEADLINES that pass while it sleeps, so many in all. Of several workers that share a bit of
 * the futex there are none: those that are woken for another one's sake are as those without a cause.
 *
 * The includer defines WORKERS; SEARCHERS_MOST, how many may search; SPURIOUS_WAKES, how many wake-ups
 * without a cause the kernel may give; ASLEEP, the label of the state in which a worker sleeps: Spin
 * accepts that everything ends there if it begins with "end". A worker has the locals `searching` and
 * `by_retract`; with CALLERS also `seen` and `is_due`, and a Caller has `sees_announced`.
 */
byte permits, sleepers, searchers;
bool in_futex[WORKERS];         /* waits in the kernel */
byte spurious = SPURIOUS_WAKES; /* still to come */

#if CALLERS
byte calls, called[WORKERS];
byte deadlines = DEADLINES; /* still to pass */
#endif

/* Of the proof, not of the code: how many workers are between Announce and their return to work, and
 * how many of the searchers are so by Retract, with a task in their hands. */
byte announced, retracted;

/* Holds after every event. */
inline CheckWord() {
  assert(sleepers + permits == announced);
  assert(permits <= searchers); /* who was granted a permit is a searcher */
  assert(searchers - retracted <= SEARCHERS_MOST);
}

/* The kernel may choose any waiter. */
inline FutexWake() {
  atomic {
    if
    :: in_futex[0] -> in_futex[0] = false
    :: in_futex[1] -> in_futex[1] = false
#if WORKERS > 2
    :: in_futex[2] -> in_futex[2] = false
#endif
    :: else
    fi
  }
}

inline FutexWakeAll() {
  d_step {
    in_futex[0] = false;
    in_futex[1] = false;
#if WORKERS > 2
    in_futex[2] = false;
#endif
  }
}

inline Notify() {
  if
  :: d_step {
       searchers == 0 && sleepers > 0 -> /* grant */
       sleepers--;
       permits++;
       searchers++;
       CheckWord();
     }
     FutexWake()
  :: else
  fi
}

inline NotifyAll() {
  if
  :: d_step {
       sleepers > 0 ->
       permits = permits + sleepers;
       searchers = searchers + sleepers;
       sleepers = 0;
       CheckWord();
     }
     FutexWakeAll()
  :: else
  fi
}

/* Refused if as many search as may. */
inline Search(searching) {
  d_step {
    if
#ifdef MUTANT_SEARCH_WITHOUT_BOUND
    :: true -> searchers++; searching = true;
#else
    :: searchers < SEARCHERS_MOST -> searchers++; searching = true;
#endif
    :: else
    fi;
    CheckWord();
  }
}

inline Announce(searching) {
#ifdef MUTANT_ANNOUNCE_IN_TWO_STEPS
  was = sleepers;
  d_step {
    sleepers = was + 1;
#else
  d_step {
    sleepers++;
#endif
    announced++;
    if
    :: searching -> searchers--;
    :: else
    fi;
    if
    :: by_retract -> retracted--; by_retract = false; /* by its deadline, with nothing in its hands */
    :: else
    fi;
    searching = false;
    CheckWord();
  }
}

/* After Retract and after Sleep the caller is a searcher. Who takes a permit was counted as one by
 * whoever granted it. */
inline Retract(searching) {
  d_step {
    if
#ifdef MUTANT_RETRACT_TAKES_A_SLEEPER
    :: true ->
#else
    :: sleepers > 0 ->
#endif
       assert(sleepers > 0);
       sleepers--;
       searchers++;
       retracted++;
       by_retract = true;
#ifndef MUTANT_RETRACT_TAKES_A_SLEEPER
    :: else ->
       assert(permits > 0);
       permits--;
#endif
    fi;
    announced--;
    searching = true;
    CheckWord();
  }
}

inline TakePermit(searching) {
  d_step {
    permits > 0 ->
    permits--;
    announced--;
    searching = true;
    CheckWord();
  }
}

inline Sleep(me, searching) {
  do
  :: TakePermit(searching); break
#if CALLERS
#ifdef MUTANT_CALL_BEFORE_PERMIT
  :: called[me] > 0 -> Retract(searching); break
#endif
  :: d_step { permits == 0 -> seen = calls + 1 } /* this is the lower half; 0: none was read */
     if
     :: called[me] > 0 || is_due -> seen = 0; Retract(searching); break
     :: else
     fi;
     if
     :: d_step { permits == 0 && calls + 1 == seen -> in_futex[me] = true; seen = 0 }
     :: else -> seen = 0
     fi;
#else
#ifdef MUTANT_SLEEP_WITHOUT_COMPARE
  :: permits == 0 -> /* ... and here somebody grants one */
     in_futex[me] = true;
#else
  :: d_step { permits == 0 -> in_futex[me] = true } /* compared under the kernel's lock */
#endif
#endif
ASLEEP:
     if
     :: !in_futex[me]
     :: d_step { in_futex[me] && spurious > 0 -> spurious--; in_futex[me] = false }
#if CALLERS
     :: d_step { in_futex[me] && deadlines > 0 -> deadlines--; in_futex[me] = false; is_due = true }
#endif
     fi
  od
}

#if CALLERS
/* Onto the stack of one worker. True in `is_first`: then Call. */
inline Push(whom, is_first) {
  d_step { is_first = (called[whom] == 0); called[whom]++ }
}

inline Call(whom) {
  d_step {
#ifndef MUTANT_CALL_WITHOUT_COUNT
    calls++;
#endif
#ifdef MUTANT_CALL_LOOKS_AT_SLEEPERS
    sees_announced = (sleepers > 0);
#else
    sees_announced = (sleepers + permits > 0);
#endif
  }
  if
#ifdef MUTANT_CALL_WAKES_ANY
  :: sees_announced -> FutexWake()
#else
  :: sees_announced -> in_futex[whom] = false
#endif
  :: else
  fi
}
#endif

/* True in `was_last` if no searcher is left. */
inline Found(searching, was_last) {
  d_step {
    assert(searchers > 0);
    searchers--;
    was_last = (searchers == 0);
    if
    :: by_retract -> retracted--; by_retract = false;
    :: else
    fi;
    searching = false;
    CheckWord();
  }
}
