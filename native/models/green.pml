/* green.pml - how a green thread waits, as in the core's park node: it goes on once, and not too early.
 *
 * A worker's thread is in its loop or in one of its fibers. A fiber waits in ROUNDS, for each with a new
 * node in the same memory on its own stack. It lists the node under a lock for who may set or cancel it,
 * tries EMPTY -> PARKED, and lets the loop have the thread. Whoever changes PARKED to something else
 * has won: it pushes the fiber onto its worker's stack `called`; the worker's own timer makes it ready.
 * The worker takes the whole stack, and gives each of these fibers the thread. A fiber that goes on drops
 * its timer and, under the lock, takes its node off the list.
 *
 * Checked: a fiber that is pushed is parked, and is on no list already; only one that has let go of the
 * thread is given it; nobody touches a node that is not in use; the answer is that of the one who was
 * told that it ended the wait, and there is exactly one; a timer ends no wait but its own; everybody comes
 * to an end, so no wake-up is lost (Spin's invalid end states).
 *
 * Left out:
 *  - memory orders. In the code the node's state is changed by acq_rel compare-and-swaps, and `called` as
 *    in eventcount.md.
 *  - how a worker sleeps: it waits until something is called or a timer goes off. park.pml has that.
 *  - a waiter that is no worker, whose futex is the state itself.
 *  - time: a timer goes off at any moment of the wait, or never.
 *
 * Mutants, each of which must be found wrong:
 *   PARK_WITHOUT_COMPARE   a store of PARKED hides that it was set
 *   SET_WITHOUT_COMPARE    who sets looks at the state and stores it, in two steps
 *   TIMER_WITHOUT_COMPARE  the timer makes the fiber ready, set or not
 *   FIBER_AFTER_PARKED     who sees PARKED does not yet see whose it is
 *   LOSER_PUSHES           also if another one has ended the wait
 *   LEAVE_WITHOUT_LOCK     the waiter goes on while somebody has its node
 *   TIMER_IS_KEPT          it outlives its wait
 *
 * Macros: FIBERS, ROUNDS, both or none.
 */
#ifndef FIBERS
#define FIBERS 2
#define ROUNDS 1
#endif
#define LOOP FIBERS /* who has the thread, if no fiber */
#define NOBODY 255

mtype = { EMPTY, PARKED, SET, CANCELLED };
mtype = { waits, set, cancelled, timed_out };

typedef Fiber {
  /* The node. */
  mtype state;
  byte owner = NOBODY; /* whom to push */
  bool in_use;         /* the memory is a node */

  bool mutex, listed;
  byte round;          /* of the proof: how often it has waited */
  byte timer = NOBODY; /* the round that it was set for */
  bool timer_won;
  bool called, ready;  /* on that list of the worker */
  bool parked;         /* has let go of the thread */
  mtype told;          /* of the proof: who was told that it ended this wait */
}
Fiber fiber[FIBERS];

byte running = LOOP;
byte ended;

inline Lock(f) {
  atomic { !fiber[f].mutex -> fiber[f].mutex = true }
}

inline Unlock(f) {
  fiber[f].mutex = false
}

/* Who was told that it ended the wait is the only one. */
inline Tell(f, who) {
  assert(fiber[f].told == waits);
  fiber[f].told = who
}

inline PushFiber(f) {
  d_step {
    assert(f != NOBODY);
    assert(!fiber[f].called && !fiber[f].ready);
    assert(fiber[f].state != EMPTY);
    fiber[f].called = true;
  }
}

/* dromon_park_set and dromon_park_cancel: under the lock. */
inline End(f, to, who) {
  d_step { assert(fiber[f].in_use); was = fiber[f].state; whom = fiber[f].owner };
#ifdef MUTANT_SET_WITHOUT_COMPARE
  if
  :: was == EMPTY || was == PARKED -> d_step { fiber[f].state = to; Tell(f, who) }
  :: else
  fi;
#else
  do
  :: atomic {
       was == fiber[f].state ->
       if
       :: was == EMPTY || was == PARKED -> fiber[f].state = to; Tell(f, who)
       :: else
       fi
     }
     break
#ifdef MUTANT_LOSER_PUSHES
  :: was != fiber[f].state -> break
#else
  :: d_step { was != fiber[f].state -> was = fiber[f].state; whom = fiber[f].owner } /* once more */
#endif
  od;
#endif
  if
  :: was == PARKED -> PushFiber(whom)
  :: else
  fi;
  d_step { was = EMPTY; whom = NOBODY }
}

/* Cancels now and then, or never. */
proctype Canceller(byte f) {
  byte left = ROUNDS, whom = NOBODY;
  mtype was = EMPTY;
  do
  :: left > 0 ->
     left--;
     Lock(f);
     if
     :: fiber[f].listed -> End(f, CANCELLED, cancelled)
     :: else
     fi;
     Unlock(f)
  :: break
  od
}

/* Sets each wait at last, unless something else ends it. */
proctype Setter(byte f) {
  byte whom = NOBODY;
  mtype was = EMPTY;
  do
  :: atomic { fiber[f].listed && fiber[f].told == waits && !fiber[f].mutex -> fiber[f].mutex = true }
     if
     :: fiber[f].listed -> End(f, SET, set)
     :: else
     fi;
     Unlock(f)
  :: ended == FIBERS -> break
  od
}

proctype Green(byte f) {
  mtype answer;
  running == f;
  do
  :: fiber[f].round < ROUNDS ->
     atomic {
       fiber[f].state = EMPTY;
       fiber[f].in_use = true;
       fiber[f].told = waits;
       fiber[f].round++;
#ifndef MUTANT_FIBER_AFTER_PARKED
       fiber[f].owner = f;
#endif
     }
     Lock(f);
     fiber[f].listed = true;
     Unlock(f);
     if
     :: fiber[f].timer = fiber[f].round
     :: skip
     fi;
#ifdef MUTANT_PARK_WITHOUT_COMPARE
     if
     :: fiber[f].state == EMPTY -> fiber[f].state = PARKED;
#else
     if
     :: d_step { fiber[f].state == EMPTY -> fiber[f].state = PARKED };
#endif
#ifdef MUTANT_FIBER_AFTER_PARKED
        fiber[f].owner = f;
#endif
        d_step { fiber[f].parked = true; running = LOOP };
        running == f
     :: fiber[f].state != EMPTY
     fi;
     atomic {
       assert(fiber[f].state == SET || fiber[f].state == CANCELLED);
       answer = (fiber[f].state == SET -> set : (fiber[f].timer_won -> timed_out : cancelled));
       assert(answer == fiber[f].told);
       answer = waits;
       fiber[f].timer_won = false;
#ifndef MUTANT_TIMER_IS_KEPT
       fiber[f].timer = NOBODY;
#endif
     }
#ifndef MUTANT_LEAVE_WITHOUT_LOCK
     Lock(f);
#endif
     d_step { fiber[f].listed = false; fiber[f].in_use = false; fiber[f].owner = NOBODY };
#ifndef MUTANT_LEAVE_WITHOUT_LOCK
     Unlock(f)
#endif
  :: else -> break
  od;
  atomic { ended++; running = LOOP }
}

/* A timer of the worker that goes off: it is in its loop. */
inline TimerGoesOff(f) {
  d_step {
    fiber[f].timer != NOBODY ->
    if
    :: fiber[f].state == PARKED ->
       assert(fiber[f].timer == fiber[f].round);
       fiber[f].state = CANCELLED;
       fiber[f].timer_won = true;
       Tell(f, timed_out);
       fiber[f].ready = true;
#ifdef MUTANT_TIMER_WITHOUT_COMPARE
    :: fiber[f].state != PARKED && fiber[f].parked -> fiber[f].ready = true;
#endif
    :: else
    fi;
    fiber[f].timer = NOBODY;
  }
}

inline Resume(f) {
  d_step {
    fiber[f].ready ->
    assert(fiber[f].parked);
    fiber[f].ready = false;
    fiber[f].parked = false;
    running = f;
  }
  running == LOOP
}

inline TakeCalled() {
  d_step {
    fiber[0].called || fiber[FIBERS - 1].called ->
    assert(!(fiber[0].called && fiber[0].ready));
    fiber[0].ready = fiber[0].ready || fiber[0].called;
    fiber[0].called = false;
#if FIBERS > 1
    assert(!(fiber[1].called && fiber[1].ready));
    fiber[1].ready = fiber[1].ready || fiber[1].called;
    fiber[1].called = false;
#endif
  }
}

proctype Worker() {
  do
  :: TakeCalled()
  :: TimerGoesOff(0)
  :: Resume(0)
#if FIBERS > 1
  :: TimerGoesOff(1)
  :: Resume(1)
#endif
  :: ended == FIBERS -> break
  od
}

init {
  byte i;
  atomic {
    do
    :: i < FIBERS ->
       fiber[i].state = EMPTY;
       fiber[i].told = waits;
       fiber[i].parked = true;
       fiber[i].ready = true; /* for the first time */
       run Green(i);
       run Setter(i);
       run Canceller(i);
       i++
    :: else -> break
    od;
    run Worker()
  }
}
