/* eventcount.h - how workers sleep when there is no work, how a producer wakes just one, and how a
 * particular one is called.
 *
 * One 64-bit word holds the whole state; every transition is one read-modify-write of it:
 *
 *      bits  0..10  permits    wake-ups granted and not yet consumed
 *      bits 11..31  calls      a count of Call, which comes round; the futex sleeps on this half
 *      bits 32..47  sleepers   workers that have announced sleep and were not granted a permit
 *      bits 48..63  searchers  workers that are awake, have no task, and are looking for one
 *
 * The protocol, by its events, and why no wake-up is lost are in eventcount.md.
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

/* Notify. Call after every Publish. False: no worker slept. */
bool eventcount_notify(struct eventcount *eventcount);

/* Grants a permit to every sleeper. */
void eventcount_notify_all(struct eventcount *eventcount);

/* Search: counts the caller as a searcher, unless there are `most` already. */
bool eventcount_search(struct eventcount *eventcount, uint32_t most);

/* Announce. `searching`: whether the caller counts as a searcher now. Then Recheck. */
void eventcount_announce(struct eventcount *eventcount, bool searching);

/* Retract, or Sleep. After either the caller counts as a searcher. It sleeps until it has a permit, or
 * `*called` is not NULL, or os_now_ns() is past `deadline_ns` (OS_NO_DEADLINE: never), and does not say
 * which: the caller looks. `index` is its own. */
void eventcount_retract(struct eventcount *eventcount);
void eventcount_sleep(struct eventcount *eventcount, uint32_t index, void *const *called,
                      uint64_t deadline_ns);

/* Call. After the caller made the `*called` of the worker with this index another one than NULL. */
void eventcount_call(struct eventcount *eventcount, uint32_t index);

/* Found, by a searcher. True if it was the last one: then look at the queue, and Notify. */
bool eventcount_found(struct eventcount *eventcount);

/* How many sleepers there are, by a write: for who has written another word and then looks at the queues,
 * against who Publishes, Notifies and then reads that word (see monitor.h). */
uint32_t eventcount_observe(struct eventcount *eventcount);

uint32_t eventcount_sleepers(const struct eventcount *eventcount);
uint64_t eventcount_wakes(const struct eventcount *eventcount);

#endif
