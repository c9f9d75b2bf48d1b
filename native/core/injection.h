/* injection.h - the queue through which work enters a pool: a ring, and behind it an overflow list.
 *
 * Pushing never fails and never waits for space: what does not fit into the ring is linked, in
 * order, into a list under a mutex, and moves into the ring as workers make room. The list needs no
 * memory of its own (tasks are linked by their own `next`), and as long as it is not empty new tasks
 * queue behind it, so that order is kept, but for tasks that are pushed at the same moment, or behind
 * a push that was preempted half-way.
 */
#ifndef DROMON_CORE_INJECTION_H
#define DROMON_CORE_INJECTION_H

#include "ring.h"

#include <dromon/dromon.h>
#include <pthread.h>

struct injection {
  struct ring ring;
  _Alignas(CACHE_LINES) uint64_t overflow_count; /* written under the mutex, read anywhere */
  pthread_mutex_t mutex;
  dromon_task *overflow_head; /* oldest; under the mutex, as the tail */
  dromon_task *overflow_tail;
};

int injection_init(struct injection *injection, uint64_t capacity);
void injection_destroy(struct injection *injection);

void injection_push(struct injection *injection, dromon_task *task);
dromon_task *injection_pop(struct injection *injection);

/* How many tasks are queued; 0 is what a worker may sleep on (see eventcount.h). */
uint64_t injection_count(const struct injection *injection);

#endif
