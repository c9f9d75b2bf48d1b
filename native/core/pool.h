/* pool.h - a fixed set of workers over one injection queue (its functions are public, in dromon.h).
 *
 * A worker's life (worker.c): enter; then find a task, run it, and park when there is none
 * (eventcount.md); leave when the pool is closed and drained (pool.md).
 *
 * Where a worker finds a task: what it submitted itself lies in its own deque, newest first; then comes
 * the injection queue; then it steals the oldest from another worker, a random one first. Every so
 * often it begins elsewhere: so neither the injection queue, nor the oldest of its own tasks, nor what a
 * blocked worker has submitted waits for ever behind the others.
 */
#ifndef DROMON_CORE_POOL_H
#define DROMON_CORE_POOL_H

#include "atomic.h"
#include "deque.h"
#include "eventcount.h"
#include "injection.h"
#include "monitor.h"
#include "placement.h"
#include "search.h"
#include "thread.h"

#include <dromon/dromon.h>

struct worker {
  _Alignas(CACHE_LINES) dromon_pool *pool;
  uint32_t index;
  uint32_t phase;   /* enum worker_phase; a futex for dromon_pool_open */
  int enter_result; /* before phase ENTERED or LEFT */
  struct thread thread;
  struct own_state own_state;

  struct deque deque; /* what it submitted itself */

  /* The worker's alone. */
  _Alignas(CACHE_LINES)
      dromon_task *held; /* found inside a batch that could not run it; the next one */
  struct search search;
  uint32_t looks;  /* for a task, counted to look the other way round now and then */
  uint32_t random; /* for the choice of a victim */

  /* Written by the worker alone, read by statistics and the monitor. */
  uint64_t began_ns; /* when the task that it runs began; 0: it runs none */
  uint64_t started;
  uint64_t completed;
  uint64_t abandoned;
  uint64_t interrupted;
  uint64_t withdrawn;
  uint64_t batches;
  uint64_t steals;
  uint64_t parks;
  uint64_t queue_wait[DROMON_HISTOGRAM_BUCKETS];
  uint64_t run_time[DROMON_HISTOGRAM_BUCKETS];
};

enum worker_phase {
  WORKER_STARTING,
  WORKER_ENTERED,
  WORKER_LEFT, /* or could not enter */
};

struct dromon_batch {
  struct worker *worker;
  dromon_task *first;      /* found before the batch began */
  uint32_t tasks_left;     /* how many more may begin */
  uint64_t deadline_ns;    /* none begins later; 0: the first has not begun */
  uint64_t entered_ns;     /* when the foreign code of the last task began */
  uint64_t task_ns;        /* how long that took; UINT64_MAX: not known */
  dromon_port *unnotified; /* a port that was posted to, with a reference; NULL if none */
};

struct dromon_pool {
  struct injection injection;
  struct eventcount eventcount;
  _Alignas(CACHE_LINES) uint64_t gate; /* see pool.md */
  _Alignas(CACHE_LINES) uint32_t references;
  uint32_t alive;              /* workers that have not begun to leave */
  uint32_t closing;            /* 1: dromon_pool_close was called */
  bool forgotten;              /* by dromon_pool_forget, when this process had one thread */
  uint64_t withdrawn;          /* tasks that were withdrawn out of the waiting room */
  uint64_t withdrawn_in_queue; /* tasks that were withdrawn, and left for a worker to come across */
  dromon_task *last;           /* run by the last worker, and in no count */
  dromon_ops ops;
  void *ops_arg;
  bool native_only; /* opened without ops */
  uint32_t batch_tasks;
  uint32_t batch_ns;
  dromon_placement placement;
  struct monitor monitor;
  uint32_t worker_count;
  struct worker workers[];
};

#define GATE_CLOSED ((uint64_t)1 << 63)

/* What runs on a worker's thread; the argument is its struct worker. */
void worker_main(void *worker);

/* How many tasks are queued, withdrawn ones that no worker has come across included. */
uint64_t pool_queued(const dromon_pool *pool);

/* Notify, after each Publish (eventcount.md), and Arm (monitor.h). */
void pool_notify(dromon_pool *pool);

/* The worker that the calling thread is; NULL if it is none. */
struct worker *worker_current(void);

#endif
