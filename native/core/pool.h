/* pool.h - a fixed set of workers over one injection queue (its functions are public, in dromon.h).
 *
 * A worker's life: enter; then pop, run a batch, and park when there is nothing (eventcount.h has
 * that protocol); leave when the pool is closed and empty.
 *
 * Close against a late submit. `gate` holds a CLOSED bit and the number of submitters inside:
 *
 *      submitter                                closer
 *      Enter   gate + 1; if it was CLOSED:      Close   gate |= CLOSED, then wake all workers
 *              gate - 1 and refuse
 *      Publish, Notify
 *      Exit    gate - 1; if it was CLOSED:      worker
 *              wake all workers                 Drained  gate is CLOSED with nobody inside, and
 *                                                        *then* a pop finds nothing: leave
 *
 * No accepted task is left behind: Enter and Close are read-modify-writes of one word. If Enter came
 * first, no worker sees Drained before this submitter's Exit, and after that (acquire of the same
 * word) it sees what was published. If Close came first the submitter refuses. Nobody sleeps through
 * the end: a worker that saw somebody inside is woken by that submitter's Exit.
 */
#ifndef DROMON_CORE_POOL_H
#define DROMON_CORE_POOL_H

#include "atomic.h"
#include "eventcount.h"
#include "injection.h"
#include "thread.h"

#include <dromon/dromon.h>

struct worker {
  _Alignas(CACHE_LINES) dromon_pool *pool;
  uint32_t index;
  uint32_t phase;   /* enum worker_phase; a futex for dromon_pool_open */
  int enter_result; /* before phase ENTERED or LEFT */
  struct thread thread;

  /* Written by the worker alone, read by statistics. */
  _Alignas(CACHE_LINES) uint64_t started;
  uint64_t completed;
  uint64_t withdrawn;
  uint64_t batches;
  uint64_t parks;
};

enum worker_phase {
  WORKER_STARTING,
  WORKER_ENTERED,
  WORKER_LEFT, /* or could not enter */
};

struct dromon_batch {
  struct worker *worker;
  dromon_task *first;      /* popped before the batch began */
  uint32_t tasks_left;     /* how many more may begin */
  uint64_t deadline_ns;    /* none begins later */
  dromon_port *unnotified; /* a port that was posted to, with a reference; NULL if none */
};

struct dromon_pool {
  struct injection injection;
  struct eventcount eventcount;
  _Alignas(CACHE_LINES) uint64_t gate;
  _Alignas(CACHE_LINES) uint32_t references;
  uint32_t alive;    /* workers that have not begun to leave */
  uint32_t closing;  /* 1: dromon_pool_close was called */
  dromon_task *last; /* run by the last worker, and in no count */
  dromon_ops ops;
  void *ops_arg;
  uint32_t batch_tasks;
  uint32_t batch_ns;
  uint32_t worker_count;
  struct worker workers[];
};

#endif
