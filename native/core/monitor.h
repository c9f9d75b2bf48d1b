/* monitor.h - watches a pool for tasks that run too long, for workers that are stuck, and for tasks that wait
 * too long.
 *
 * One citizen thread for each pool that asks for any of it (a bare one would keep old rights after a
 * setuid). Workers and submitters do next to nothing for it, and never wait for it.
 *
 * Stalls. It reads when each worker's task began, which the worker has noted anyway, reports each that
 * has run longer than the limit once, and sleeps until the next one can be due. Of a retired worker it
 * knows nothing any more: it reads that of who has the place.
 *
 * Stuck workers. It looks LOOKS times in `stuck_ns` whether a worker runs a task while fibers of it can go
 * on. If it is the same task for so long it is reported, once.
 *
 * Saturation. A pool is saturated from one moment to another if no worker slept in between, and one and
 * the same task waited all the time to begin. (A queue that never runs empty, but moves on, is none of
 * its concern: nobody waits long in it, and so a batch program keeps its workers busy.) The monitor looks
 * LOOKS times in `saturated_ns`. At each Look it notes three numbers, in this order:
 *
 *      past     tasks that no longer wait: those that began, and those that were
 *               withdrawn; no children, see `waiting`
 *      parks    times that a worker went to sleep; and then how many sleep now
 *      waiting  tasks that are queued, less those of them that were withdrawn, and less the children that
 *               others may take: tasks queue their children on purpose, and run them while they wait
 *
 * From one Look to a later one the pool was saturated if
 *  1. none slept at the first, and `parks` is the same: then no worker slept in between;
 *  2. `waiting` of the first exceeds the growth of `past`: then one of those that waited at the first
 *     still waits at the second, in whatever order they are taken. (What leaves the queue between the
 *     readings of one Look is in both numbers: in doubt nothing is proven.)
 * Each Look is compared with the one of `saturated_ns` ago. If the pool was saturated from that one on it
 * is reported, and the monitor never looks again.
 *
 * When to look. Nobody looks while nothing is queued. `state` is one word, on which the monitor sleeps:
 *
 *                   Arm (submitter or worker)
 *      ASLEEP ------------------------------------> ARMED        OFF: there is no monitor, or it
 *             <------------------------------------                   has reported
 *              Disarm (monitor, nothing is queued)               STOPPED: the pool has ended
 *
 *      who has Published                          monitor
 *      Notify   a write of the eventcount's       Disarm   state = ASLEEP
 *               word; no worker sleeps            Observe  a write of the eventcount's word
 *      Arm      if state is ASLEEP: ARMED,        Recheck  something is queued: state = ARMED
 *               and wake the monitor
 *
 * No task waits unseen, though nobody may submit again (model: native/models/monitor.pml):
 *  1. Notify and Observe are read-modify-writes of one word. If Notify comes first, Recheck finds the
 *     task, or somebody has taken it. If Observe comes first, Notify reads from it, so Arm sees Disarm
 *     (a relaxed load will do) or what came after it.
 *  2. A Notify that saw a sleeper does not Arm. As long as its task is queued another Notify follows:
 *     that of the last searcher, which found a task and sees one left (eventcount.md). Each of them has
 *     woken one more, until one sees no sleeper.
 */
#ifndef DROMON_CORE_MONITOR_H
#define DROMON_CORE_MONITOR_H

#include "atomic.h"
#include "thread.h"

#include <dromon/dromon.h>

enum monitor_state {
  MONITOR_OFF, /* as regards saturation */
  MONITOR_ASLEEP,
  MONITOR_ARMED,
  MONITOR_STOPPED,
};

enum { LOOKS = 8 };

/* Of a worker whose task keeps fibers waiting that can go on. */
struct stuck {
  uint64_t began_ns; /* of that task; 0: there is none */
  uint64_t since_ns; /* when it was first seen */
  bool is_reported;
};

/* What a Look at the load of a pool has noted. */
struct look {
  uint64_t past;
  uint64_t parks;
  uint32_t sleepers;
  uint64_t waiting;
  uint64_t ns; /* when it was over */
};

struct monitor {
  struct thread thread;
  dromon_pool *pool;
  uint32_t state;    /* enum monitor_state; a futex */
  bool is_running;   /* whether there is a monitor */
  uint64_t stall_ns; /* 0: no task stalls */
  void (*on_stall)(void *arg, uint32_t worker, uint64_t began_ns, uint64_t running_ns);
  void *on_stall_arg;
  uint64_t *reported; /* for each worker: the began_ns of the task that was reported last */
  uint64_t stalls;    /* tasks reported */
  uint64_t stuck_ns;
  void (*on_stuck)(void *arg, uint32_t worker, uint64_t began_ns, uint64_t stuck_ns);
  void *on_stuck_arg;
  struct stuck *stuck; /* for each worker */
  uint64_t next_stuck_look_ns;
  uint64_t saturated_ns;
  void (*on_saturated)(void *arg, uint64_t waiting, uint64_t running, uint64_t saturated_ns);
  void *on_saturated_arg;
  struct look looks[LOOKS]; /* the latest, in turn */
  uint64_t look_count;      /* since it was armed */
  uint64_t next_look_ns;
};

/* Starts to watch `pool`, as `config` says; nothing if it asks for no monitor. A negative errno of
 * thread_start or -ENOMEM. */
int monitor_start(struct monitor *monitor, dromon_pool *pool, const dromon_pool_config *config);

/* Tells it to end: there is nothing to watch any more. */
void monitor_stop(struct monitor *monitor);

/* Waits until it has ended. Once, after monitor_stop. */
void monitor_join(struct monitor *monitor);

/* The rest of monitor_arm. */
void monitor_wake(struct monitor *monitor);

/* Arm. After a Notify that saw no sleeper. */
static inline void monitor_arm(struct monitor *monitor) {
  if (load_relaxed(&monitor->state) == MONITOR_ASLEEP) /* relaxed: see 1 above */
    monitor_wake(monitor);
}

#endif
