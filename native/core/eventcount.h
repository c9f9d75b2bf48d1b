/* eventcount.h - how workers sleep when there is no work, and how a producer wakes just one.
 *
 * One 64-bit word holds the whole state; every transition is one read-modify-write of it:
 *
 *      bits  0..31  permits    wake-ups granted and not yet consumed; the futex sleeps on this half
 *      bits 32..47  sleepers   workers that have announced sleep and were not granted a permit
 *      bits 48..63  searchers  workers that are awake, have no task, and are looking for one
 *
 * The protocol, by its events:
 *
 *      producer                              worker
 *      Publish  put a task in the queue      Announce  sleepers + 1 (searchers - 1 if it was one)
 *      Notify   look at the word, and if     Recheck   look at the queue again:
 *               nobody searches and one                a task: Retract the announcement
 *               sleeps: sleepers - 1,                  none: Sleep until a permit is there, take it
 *               permits + 1, searchers + 1,  Found     searchers - 1; who was the last searcher looks
 *               and one futex wake                     at the queue and Notifies if it is not empty
 *
 * No wake-up is lost. Notify and Announce are read-modify-writes of one word, so one comes first.
 *  1. Notify first: the worker's Announce reads from it (or from a later write of the same release
 *     sequence), so Publish happens before Recheck, which finds the task (or somebody took it).
 *  2. Announce first, nobody searching: Notify sees a sleeper and grants a permit. A permit stays
 *     until a sleeper takes it, and the kernel compares `permits == 0` under its own lock, so a
 *     worker that is about to sleep does not.
 *  3. Announce first, somebody searching: Notify leaves the task to the searcher S. S will either
 *     Announce or report Found, each a write of the word after Notify, and looks at the queue after
 *     that write if it was the last searcher; by 1 it sees the task.
 *  4. A task that only *looks* absent, because an earlier producer was preempted inside its push,
 *     is covered by that producer's own Notify, which is still to come.
 *
 * Permits have no owner: a worker that finds a task at Recheck takes back a sleepers count or, if
 * there is none, a permit. sleepers + permits is always the number of workers between Announce and
 * their return to work, so nobody is left asleep without a count.
 */
#ifndef DROMON_CORE_EVENTCOUNT_H
#define DROMON_CORE_EVENTCOUNT_H

#include "atomic.h"

#include <stdint.h>

struct eventcount {
  _Alignas(CACHE_LINES) uint64_t word;
  uint64_t wakes; /* futex wake syscalls, for statistics */
};

/* All workers begin as neither searchers nor sleepers. */
void eventcount_init(struct eventcount *eventcount);

/* Notify. Call after every Publish. */
void eventcount_notify(struct eventcount *eventcount);

/* Grants a permit to every sleeper. */
void eventcount_notify_all(struct eventcount *eventcount);

/* Announce. `searching`: whether the caller counts as a searcher now. Then Recheck. */
void eventcount_announce(struct eventcount *eventcount, bool searching);

/* Retract, or Sleep. After either the caller counts as a searcher. */
void eventcount_retract(struct eventcount *eventcount);
void eventcount_sleep(struct eventcount *eventcount);

/* Found, by a searcher. True if it was the last one: then look at the queue, and Notify. */
bool eventcount_found(struct eventcount *eventcount);

uint32_t eventcount_sleepers(const struct eventcount *eventcount);
uint64_t eventcount_wakes(const struct eventcount *eventcount);

#endif
