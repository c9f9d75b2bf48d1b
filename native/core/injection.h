/* injection.h - the queue through which work enters a pool: a ring, and a waiting room behind it.
 *
 * The ring is what is bounded. A task that does not fit waits in line, in a list under a mutex, and
 * moves into the ring as workers make room; so to push never fails. Who does not want to wait in line
 * pushes only if there is room, and who must not return before there was some sleeps until its task has
 * moved. The list needs no memory of its own (tasks are linked by their own fields), a task in it can
 * be taken out again, and as long as it is not empty new tasks queue behind it: order is kept, but for
 * tasks that are pushed at the same moment, or behind a push that was preempted half-way.
 *
 * Who sleeps for room, how it is woken, and why not in vain, is in injection.md.
 */
#ifndef DROMON_CORE_INJECTION_H
#define DROMON_CORE_INJECTION_H

#include "ring.h"

#include <dromon/dromon.h>
#include <pthread.h>

struct injection {
  struct ring ring;
  _Alignas(CACHE_LINES) uint64_t waiting_count; /* written under the mutex, read anywhere */
  pthread_mutex_t mutex;
  dromon_task *first; /* the oldest that waits; under the mutex, as what follows */
  dromon_task *last;
};

int injection_init(struct injection *injection, uint64_t capacity);
void injection_destroy(struct injection *injection);

/* False: it waits in line. */
bool injection_push(struct injection *injection, dromon_task *task);

/* False: there was no room, and `task` is not in the queue. */
bool injection_push_nowait(struct injection *injection, dromon_task *task);

/* Sleeps until `task`, which waits in line, has moved into the ring or was removed: 0. Or -ETIMEDOUT or -EINTR, and
 * then it is no longer in the queue. */
int injection_await_room(struct injection *injection, dromon_task *task, int64_t timeout_ns);

/* Takes `task` out of the waiting room. False if it is not there, or no longer. */
bool injection_remove(struct injection *injection, dromon_task *task);

dromon_task *injection_pop(struct injection *injection);

/* How many tasks are queued; 0 is what a worker may sleep on (see eventcount.md). */
uint64_t injection_count(const struct injection *injection);

#endif
