/* monitor.h - watches a pool for tasks that run too long.
 *
 * One citizen thread for each pool that asks for it (a bare one would keep old rights after a setuid).
 * It reads when each worker's task began, reports each that has run longer than the limit once, and
 * sleeps until the next one can be due. Workers do nothing for it but note the time, which they have
 * read anyway, and never wait for it.
 */
#ifndef DROMON_CORE_MONITOR_H
#define DROMON_CORE_MONITOR_H

#include "thread.h"

#include <dromon/dromon.h>

struct monitor {
  struct thread thread;
  dromon_pool *pool;
  uint64_t stall_ns; /* 0: there is no monitor */
  void (*on_stall)(void *arg, uint32_t worker, uint64_t began_ns, uint64_t running_ns);
  void *on_stall_arg;
  uint64_t *reported; /* for each worker: the began_ns of the task that was reported last */
  uint32_t stop;      /* futex: 1 when it is to end */
  uint64_t stalls;    /* tasks reported */
};

/* Starts to watch `pool`, as `config` says; nothing if it asks for no monitor. A negative errno of
 * thread_start or -ENOMEM. */
int monitor_start(struct monitor *monitor, dromon_pool *pool, const dromon_pool_config *config);

/* Tells it to end: there is nothing to watch any more. */
void monitor_stop(struct monitor *monitor);

/* Waits until it has ended. Once, after monitor_stop. */
void monitor_join(struct monitor *monitor);

#endif
