/* retire.c - replacing a worker that is stuck in a task; see pool.md, whose event names the comments here
 * use.
 *
 * A retired worker ends on its own, at a time that nobody knows, and touches its memory and that of the
 * pool until then. Thieves and who counts go through the list of all workers at any moment. So the memory of
 * a worker is never freed before the pool's, for which each thread has a reference. It is used again: when
 * its thread has ended it is spare, and becomes that of the next worker that is made, with what is in its
 * deque and its counters. A pool has no more of it than it had threads at the same time.
 */
#include "pool.h"

#include <errno.h>
#include <stdlib.h>

/* ---- The memory of a worker ----------------------------------------------------------------- */

static struct worker *find_spare(dromon_pool *pool) {
  for (struct worker *worker = pool->workers; worker != NULL; worker = worker_next(worker)) {
    /* Acquire, pairs with set_phase: its last thread is done with it. */
    if (load_acquire(&worker->phase) == WORKER_SPARE)
      return worker;
  }
  return NULL;
}

static void append(dromon_pool *pool, struct worker *worker) {
  struct worker *last = pool->workers;
  for (struct worker *next; (next = worker_next(last)) != NULL;)
    last = next;
  store_release(&last->next, worker); /* pairs with worker_next */
}

static struct worker *make_another(dromon_pool *pool, uint32_t index) {
  struct worker *worker = aligned_alloc(_Alignof(struct worker), sizeof *worker);
  if (worker == NULL)
    return NULL;
  *worker = (struct worker){.phase = WORKER_SPARE};
  if (worker_make(worker, pool, index) < 0) {
    free(worker);
    return NULL;
  }
  append(pool, worker);
  return worker;
}

/* ---- Replacing ------------------------------------------------------------------------------ */

/* Whether `worker` has lost its place, if the task that began then has not ended. */
static bool retire(struct worker *worker, uint64_t began_ns) {
  /* Take place. acq_rel, with End: one of the two. */
  return cas_acq_rel(&worker->began_ns, &began_ns, began_ns | RETIRED);
}

int worker_take_place(struct worker *worker) {
  dromon_pool *pool = worker->pool;
  if (worker->replaced == NULL)
    return 0;
  pthread_mutex_lock(&pool->places_mutex);
  bool is_taken = retire(worker->replaced, worker->replaced_began_ns);
  if (is_taken) {
    store_release(&pool->places[worker->index], worker); /* pairs with pool_place */
    store_relaxed(&pool->retired, pool->retired + 1);    /* relaxed: a count, under the mutex */
  }
  pthread_mutex_unlock(&pool->places_mutex);
  eventcount_observe(&pool->eventcount); /* Observe */
  return is_taken ? 0 : -EALREADY;
}

/* Starts `worker` for the place of `stuck`, and waits until it has that or has ended. */
static int start_in_place_of(struct worker *worker, struct worker *stuck, uint64_t began_ns) {
  worker->index = stuck->index;
  worker->replaced = stuck;
  worker->replaced_began_ns = began_ns;
  store_relaxed(&worker->began_ns, 0);            /* relaxed, both: the thread is yet to come, */
  store_relaxed(&worker->phase, WORKER_STARTING); /* and nobody else makes one of it */
  int result = worker_start(worker);
  if (result == 0) {
    result = worker_await_start(worker);
    if (result < 0) {
      thread_join(worker->thread);
      free(worker->thread);
      worker->thread = NULL;
    }
  }
  if (result < 0)
    store_relaxed(&worker->phase, WORKER_SPARE); /* relaxed: for who holds the mutex next */
  return result;
}

static int replace(dromon_pool *pool, uint32_t index, uint64_t began_ns) {
  struct worker *stuck = pool_place(pool, index); /* until we let go of the mutex */
  if (load_acquire(&pool->alive) == 0)            /* pairs with finish: its threads may be gone */
    return -ESHUTDOWN;
  if (began_ns == 0 || worker_began(stuck) != began_ns)
    return -EALREADY;
  struct worker *worker = find_spare(pool) ?: make_another(pool, index);
  return worker == NULL ? -ENOMEM : start_in_place_of(worker, stuck, began_ns);
}

int dromon_pool_replace(dromon_pool *pool, uint32_t index, uint64_t began_ns) {
  if (index >= pool->worker_count)
    return -EINVAL;
  if (pool->forgotten)
    return -ESHUTDOWN;
  pthread_mutex_lock(&pool->replacing);
  int result = replace(pool, index, began_ns);
  pthread_mutex_unlock(&pool->replacing);
  return result;
}
