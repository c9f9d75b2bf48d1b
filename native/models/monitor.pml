/* monitor.pml - when the monitor of a pool looks, as in native/core/monitor.h: no task waits unseen.
 *
 * Outside producers submit a task each. Workers take tasks, search, sleep and are woken as in
 * native/core/eventcount.md. A task ends, or is stuck for ever; so all workers may get stuck while
 * tasks are queued and nobody submits any more. The monitor looks while it is armed, and goes to sleep
 * when nothing is queued.
 *
 * Checked: when nothing can happen any more, the monitor is armed or nothing is queued; and what is
 * queued waits because every worker is stuck.
 *
 * Left out:
 *  - memory orders. Here all steps are seen in one order. In the code Notify and Observe are acq_rel
 *    read-modify-writes of the eventcount's word, which is what lets Arm read `state` relaxed; see 1 in
 *    native/core/monitor.h.
 *  - what the monitor concludes from its looks, stalls, and the end of the pool.
 *  - that a queue may look empty, and several queues: these are for park.pml.
 *
 * Mutants, each of which must be found wrong:
 *   NO_RECHECK               the monitor sleeps right after Disarm
 *   RECHECK_BEFORE_DISARM    it looks whether something is queued, and then Disarms
 *   ARM_BEFORE_PUBLISH       who submits looks at the monitor first
 *   ARM_BY_PRODUCERS_ALONE   the last searcher, which found a task and sees one left, does not Arm
 */
#define WORKERS 2
#define PRODUCERS 3
#define SEARCHERS_MOST ((WORKERS + 1) / 2)
#define SPURIOUS_WAKES 0
#define ASLEEP end_asleep /* a valid end state: see eventcount.pml */

#include "eventcount.pml"

byte queued;
byte stuck; /* workers */
bool armed; /* `state`: ARMED or ASLEEP */

inline Arm() {
  armed = true /* if it was not: a compare-and-swap, and a wake */
}

/* As in eventcount.pml, with its answer. */
inline NotifyAndArm(by_worker) {
  if
  :: d_step {
       searchers == 0 && sleepers > 0 -> /* grant */
       sleepers--;
       permits++;
       searchers++;
       CheckWord();
     }
     FutexWake()
  :: searchers > 0 && sleepers > 0
#ifdef MUTANT_ARM_BY_PRODUCERS_ALONE
  :: by_worker && sleepers == 0
  :: !by_worker && sleepers == 0 -> Arm()
#elif defined(MUTANT_ARM_BEFORE_PUBLISH)
  :: sleepers == 0
#else
  :: sleepers == 0 -> Arm()
#endif
  fi
}

inline Find(has_task) {
  d_step {
    if
    :: queued > 0 -> queued--; has_task = true
    :: else
    fi
  }
}

inline AwaitTask(me, has_task) {
  Search(searching);
  if
  :: searching && !has_task -> Find(has_task)
  :: else
  fi;
  do
  :: !has_task ->
     Announce(searching);
     Find(has_task); /* Recheck */
     if
     :: has_task -> Retract(searching)
     :: else ->
        Sleep(me, searching);
        Find(has_task)
     fi
  :: else -> break
  od;
  if
  :: searching ->
     Found(searching, was_last);
     if
     :: was_last && queued > 0 -> NotifyAndArm(true)
     :: else
     fi;
     was_last = false
  :: else
  fi
}

proctype Worker(byte me) {
  bool has_task, searching, by_retract, was_last;
  do
  :: Find(has_task);
     if
     :: !has_task -> AwaitTask(me, has_task)
     :: else
     fi;
     if
     :: has_task = false /* the task ends */
     :: stuck++;
end_stuck:
        false
     fi
  od
}

proctype Producer() {
#ifdef MUTANT_ARM_BEFORE_PUBLISH
  if
  :: sleepers == 0 -> Arm()
  :: else
  fi;
#endif
  queued++; /* Publish */
  NotifyAndArm(false)
}

proctype Monitor() {
end_asleep_or_armed:
  do
  :: armed && queued == 0 -> /* Look: to look again while something is queued changes nothing */
#ifndef MUTANT_RECHECK_BEFORE_DISARM
     armed = false; /* Disarm; then Observe, and Recheck */
#ifndef MUTANT_NO_RECHECK
     if
     :: queued > 0 -> armed = true
     :: else
     fi
#endif
#else
     if
     :: queued == 0 -> armed = false
     :: else
     fi
#endif
  od
}

init {
  byte i;
  atomic {
    do
    :: i < WORKERS -> run Worker(i); i++
    :: else -> i = 0; break
    od;
    do
    :: i < PRODUCERS -> run Producer(); i++
    :: else -> break
    od;
    run Monitor()
  }
  timeout -> /* nothing else can happen */
  assert(queued == 0 || stuck == WORKERS);
  assert(queued == 0 || armed)
}
