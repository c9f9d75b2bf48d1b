/* room.pml - the waiting room of the injection queue, as in native/core/injection.md: who sleeps until
 * its task has moved into the ring sleeps neither too long nor in vain.
 *
 * One task stands in line behind a full ring. Its submitter sleeps until it has moved, and gives up at
 * some moment, or never (a time-out or a signal). Workers pop: each takes the task out of the line,
 * moves it into the ring, or finds no room for it and lets it stay. Somebody may take it back meanwhile
 * (a withdrawal).
 *
 * Checked: a submitter that is told "accepted" has a task that is in line, in the ring, in a worker's
 * hands or was withdrawn; one that is told otherwise has it back, and it is nowhere else; nobody sleeps
 * for ever (Spin's invalid end states).
 *
 * Left out:
 *  - memory orders. In the code the word `waiting` is only changed by read-modify-writes (acq_rel), or
 *    under the mutex, which carries the list.
 *  - the list itself and the ring: of both only whether the task is in it. Whether there is room is
 *    anybody's guess, three times at most.
 *  - the futex's spurious wake-ups: they lead to the same look as a compare that fails.
 *
 * Mutants, each of which must be found wrong:
 *   LOOK_TWICE             after having seen it OUTSIDE the submitter looks again, and takes its task
 *                          back when a worker had to let it stay in line
 *   SLEEP_WITHOUT_COMPARE  WAITS becomes SLEEPS by a store
 *   MOVE_WITHOUT_WAKE      the submitter is not told
 *   REMOVE_WITHOUT_WAKE    nor when the task is withdrawn
 *   GIVE_UP_WITHOUT_ASKING the submitter takes its task for its own though it has moved
 */
#define NO_ROOM_AT_MOST 3
#define POPS 2 /* workers that pop at the same time */

mtype = { OUTSIDE, WAITS, SLEEPS };
mtype = { nothing, accepted, refused };

mtype waiting = WAITS;
mtype told = nothing;
bool in_line = true, in_ring, in_hands, withdrawn;
bool mutex, asleep;
byte no_room;
bool patient; /* a submitter that never gives up */

inline Lock() {
  atomic { !mutex -> mutex = true }
}

inline Unlock() {
  mutex = false
}

/* os_futex_wake, on the address alone. */
inline Wake(was) {
  if
  :: was == SLEEPS -> asleep = false
  :: else
  fi
}

inline Exchange(was) {
  d_step { was = waiting; waiting = OUTSIDE }
}

/* injection_remove. Sets `got_it`. */
inline Remove(was, by_withdrawer) {
  Lock();
#ifdef MUTANT_GIVE_UP_WITHOUT_ASKING
  got_it = true;
#else
  got_it = (waiting != OUTSIDE);
#endif
  if
  :: got_it ->
     d_step { in_line = false; withdrawn = by_withdrawer };
     Exchange(was);
#ifndef MUTANT_REMOVE_WITHOUT_WAKE
     Wake(was)
#endif
  :: else
  fi;
  Unlock()
}

proctype Submitter() {
  mtype was;
  bool got_it;
#ifdef MUTANT_SLEEP_WITHOUT_COMPARE
  waiting = SLEEPS;
#else
  if
  :: d_step { waiting == WAITS -> waiting = SLEEPS }
  :: d_step { waiting != WAITS -> told = accepted } goto done
  fi;
#endif
  do
  :: d_step { waiting != SLEEPS -> skip };
#ifdef MUTANT_LOOK_TWICE
     if
     :: waiting == OUTSIDE
     :: waiting != OUTSIDE -> Remove(was, false)
     fi;
#endif
     told = accepted;
     break
  :: d_step { waiting == SLEEPS -> asleep = true }; /* the kernel compares under its own lock */
     if
     :: !asleep /* woken */
     :: !patient -> /* its time is up */
        asleep = false;
        Remove(was, false);
        told = (got_it -> refused : accepted);
        break
     fi
  od;
done:
  assert(told != accepted || in_line || in_ring || in_hands || withdrawn);
  assert(told != refused || !(in_line || in_ring || in_hands))
}

/* pop_and_move. */
proctype Worker() {
  mtype was;
  do
  :: Lock();
     if
     :: !in_line -> Unlock(); break
     :: in_line -> /* take_first */
        d_step { in_line = false; in_hands = true };
        Exchange(was);
        Wake(was)
     :: in_line -> /* move_first */
        Exchange(was);
        if
        :: no_room < NO_ROOM_AT_MOST -> no_room++; waiting = was
        :: true ->
           d_step { in_ring = true; in_line = false };
#ifndef MUTANT_MOVE_WITHOUT_WAKE
           Wake(was)
#endif
        fi
     fi;
     Unlock()
  od
}

proctype Withdrawer() {
  mtype was;
  bool got_it;
  if
  :: true -> Remove(was, true)
  :: true
  fi
}

init {
  byte i;
  atomic {
    if
    :: patient = true
    :: patient = false
    fi;
    run Submitter();
    run Withdrawer();
    do
    :: i < POPS -> run Worker(); i++
    :: else -> break
    od
  }
}
