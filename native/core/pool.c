/* pool.c - opening, submitting to, closing and looking at a pool; see pool.h, and pool.md, whose event
 * names the comments here use.
 */
#include "pool.h"

#include "os.h"
#include "task.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>

enum {
  LONGEST_SEARCH_NS = 50000
}; /* to be woken across idle virtual processors costs 30 to 50 us */

uint32_t dromon_longest_search_ns(void) {
  uint64_t cpus[PLACEMENT_CPU_WORDS] = {0};
  unsigned count = 0;
  os_get_affinity(cpus, sizeof cpus);
  for (size_t i = 0; i < PLACEMENT_CPU_WORDS; i++)
    count += (unsigned)__builtin_popcountll(cpus[i]);
  return count > 1 ? LONGEST_SEARCH_NS : 0; /* with one, who searches keeps the other from it */
}

/* ---- Open ----------------------------------------------------------------------------------- */

/* Of a pool that runs native tasks alone. */
static int enter_nothing(void *arg, uint32_t worker, void **state) {
  (void)arg, (void)worker, (void)state;
  return 0;
}

static void run_nothing(void *state, dromon_batch *batch) {
  (void)state, (void)batch; /* never called: other tasks are refused */
}

static void drop_nothing(void *state, dromon_task *task) {
  (void)state, (void)task; /* its record is the submitter's */
}

static void leave_nothing(void *state) {
  (void)state;
}

static int enter_no_fiber(void *state, void **fiber_state) {
  (void)state, (void)fiber_state;
  return 0;
}

static const dromon_ops native_ops = {
    .enter = enter_nothing,
    .run = run_nothing,
    .drop = drop_nothing,
    .leave = leave_nothing,
    .enter_fiber = enter_no_fiber,
    .leave_fiber = leave_nothing,
};

static int check(const dromon_pool_config *config) {
  const dromon_ops *ops = config->ops;
  if (config->workers < 1 || config->workers > DROMON_WORKERS_MAX)
    return -EINVAL;
  if (ops != NULL &&
      (ops->enter == NULL || ops->run == NULL || ops->drop == NULL || ops->leave == NULL ||
       (ops->enter_fiber == NULL) != (ops->leave_fiber == NULL)))
    return -EINVAL;
  return 0;
}

static uint32_t longest_search_ns(const dromon_pool_config *config) {
  if (config->search_ns == 0)
    return dromon_longest_search_ns();
  return config->search_ns == DROMON_SEARCH_NEVER ? 0 : config->search_ns;
}

static void free_workers(dromon_pool *pool) {
  struct worker *made_later = worker_next(&pool->workers[pool->worker_count - 1]);
  for (uint32_t i = 0; i < pool->worker_count; i++)
    worker_free(&pool->workers[i]);
  for (struct worker *worker = made_later, *next; worker != NULL; worker = next) {
    next = worker_next(worker);
    worker_free(worker);
    free(worker);
  }
  free(pool->places);
}

static void free_pool(dromon_pool *pool) {
  free_workers(pool);
  slabs_destroy(&pool->slabs);
  placement_free(&pool->placement);
  injection_destroy(&pool->injection);
  pthread_mutex_destroy(&pool->places_mutex);
  pthread_mutex_destroy(&pool->replacing);
  free(pool);
}

static int make_workers(dromon_pool *pool) {
  int result = 0;
  pool->places = calloc(pool->worker_count, sizeof(struct worker *));
  if (pool->places == NULL)
    result = -ENOMEM;
  for (uint32_t i = 0; i < pool->worker_count; i++) {
    struct worker *worker = &pool->workers[i];
    *worker = (struct worker){.next = i + 1 < pool->worker_count ? worker + 1 : NULL};
    if (result == 0) /* else it is only to be as deque_destroy needs it */
      result = worker_make(worker, pool, i);
    if (result == 0)
      pool->places[i] = worker;
  }
  return result;
}

static int make_pool(const dromon_pool_config *config, dromon_pool **out) {
  size_t size = sizeof(dromon_pool) + config->workers * sizeof(struct worker);
  dromon_pool *pool = aligned_alloc(_Alignof(dromon_pool), size);
  if (pool == NULL)
    return -ENOMEM;
  *pool = (dromon_pool){
      .references = 1,
      .ops = config->ops != NULL ? *config->ops : native_ops,
      .ops_arg = config->ops_arg,
      .native_only = config->ops == NULL,
      .placement = {.policy = -1},
      .batch_tasks = config->batch_tasks ?: 256,
      .batch_ns = config->batch_ns ?: 500000,
      .stack_size = config->stack_size ?: DROMON_STACK_SIZE_DEFAULT,
      .guard_size = config->guard_size ?: DROMON_GUARD_SIZE_DEFAULT,
      .spawn = (enum dromon_spawn)config->spawn,
      .search_ns = longest_search_ns(config),
      .worker_count = config->workers,
      .alive = config->workers,
  };
  snprintf(pool->name, sizeof pool->name, "%s", config->name ?: DROMON_NAME_DEFAULT);
  pthread_mutex_init(&pool->replacing, NULL);
  pthread_mutex_init(&pool->places_mutex, NULL);
  eventcount_init(&pool->eventcount);
  int result =
      injection_init(&pool->injection, config->queue_capacity ?: DROMON_QUEUE_CAPACITY_DEFAULT);
  if (result == 0) {
    result = slabs_init(&pool->slabs, pool->stack_size, pool->guard_size);
    if (result < 0)
      injection_destroy(&pool->injection);
  }
  if (result < 0) {
    free(pool);
    return result;
  }
  result = make_workers(pool);
  if (result == 0 && config->placement != NULL)
    result = placement_copy(config->placement, config->workers, &pool->placement);
  if (result < 0)
    free_pool(pool);
  else
    *out = pool;
  return result;
}

/* Starts all workers and the monitor, or none: ends those that were started when one fails. */
static int start_workers(dromon_pool *pool, const dromon_pool_config *config) {
  int result = 0;
  uint32_t started = 0;
  while (started < pool->worker_count) {
    result = worker_start(&pool->workers[started]);
    if (result < 0)
      break;
    started++;
  }
  for (uint32_t i = 0; i < started; i++) {
    int entered = worker_await_start(&pool->workers[i]);
    if (result == 0)
      result = entered;
  }
  if (result == 0)
    result = monitor_start(&pool->monitor, pool, config);
  if (result < 0) {
    dromon_pool_close(pool, NULL);
    for (uint32_t i = 0; i < started; i++)
      thread_join(pool->workers[i].thread);
  }
  return result;
}

int dromon_pool_open(const dromon_pool_config *config, dromon_pool **out) {
  int result = check(config);
  if (result < 0)
    return result;
  dromon_pool *pool;
  result = make_pool(config, &pool);
  if (result < 0)
    return result;
  result = start_workers(pool, config);
  if (result < 0)
    dromon_pool_unref(pool);
  else
    *out = pool;
  return result;
}

void dromon_pool_ref(dromon_pool *pool) {
  /* Relaxed: the caller already holds a reference. */
  fetch_add_relaxed(&pool->references, 1);
}

void dromon_pool_unref(dromon_pool *pool) {
  /* acq_rel: the last one sees all that the others did before they let go. */
  if (fetch_sub_acq_rel(&pool->references, 1) == 1)
    free_pool(pool);
}

/* ---- Submit and close ----------------------------------------------------------------------- */

uint64_t pool_queued(const dromon_pool *pool) {
  uint64_t count = injection_count(&pool->injection);
  for (const struct worker *worker = pool->workers; worker != NULL; worker = worker_next(worker))
    count += deque_count(&worker->deque);
  return count;
}

void pool_notify(dromon_pool *pool) {
  if (!eventcount_notify(&pool->eventcount))
    monitor_arm(&pool->monitor);
}

static void gate_exit(dromon_pool *pool) {
  /* Exit. acq_rel, pairs with is_closed. */
  if (fetch_sub_acq_rel(&pool->gate, 1) & GATE_CLOSED)
    eventcount_notify_all(&pool->eventcount);
}

static int gate_enter(dromon_pool *pool) {
  /* Enter. acq_rel, pairs with Close. */
  if (fetch_add_acq_rel(&pool->gate, 1) & GATE_CLOSED) {
    gate_exit(pool);
    return -ESHUTDOWN;
  }
  return 0;
}

/* The worker that submits to its own pool; NULL if the caller is none. */
static struct worker *submitting_worker(const dromon_pool *pool) {
  struct worker *worker = worker_current();
  return worker != NULL && worker->pool == pool ? worker : NULL;
}

/* Into the worker's own deque. False: that is full, or the worker is retired. */
static bool push_on_worker(struct worker *worker, dromon_task *task) {
  if (worker_is_retired(worker) || !deque_push(&worker->deque, task)) /* Publish */
    return false;
  pool_notify(worker->pool);
  /* Look again, and Take back: its newest is that task, unless a thief has it. */
  return !worker_is_retired(worker) || deque_pop(&worker->deque) == NULL;
}

/* -EAGAIN: it has to go where the tasks of others go. */
static int submit_on_worker(struct worker *worker, dromon_task *task) {
  dromon_pool *pool = worker->pool;
  /* Look. Acquire, pairs with Close, though nothing rests on it: see pool.md. */
  if (load_acquire(&pool->gate) & GATE_CLOSED)
    return -ESHUTDOWN;
  return push_on_worker(worker, task) ? 0 : -EAGAIN;
}

static bool can_run(const dromon_pool *pool, const dromon_task *task) {
  return task->native || !pool->native_only;
}

/* What the three ways to submit share. `*has_room`: whether the queue had; if not, the task waits in line
 * or, unless `may_wait`, was not accepted. */
static int submit(dromon_pool *pool, dromon_task *task, bool may_wait, bool *has_room) {
  *has_room = true;
  if (!can_run(pool, task))
    return -EINVAL;
  task->submitted_ns = os_now_ns();
  struct worker *worker = submitting_worker(pool);
  int result = worker != NULL ? submit_on_worker(worker, task) : -EAGAIN;
  if (result != -EAGAIN)
    return result;
  result = gate_enter(pool);
  if (result < 0)
    return result;
  if (worker != NULL)
    injection_push(&pool->injection, task); /* Publish, as below: in any case, and without a wait */
  else
    *has_room = may_wait ? injection_push(&pool->injection, task)
                         : injection_push_nowait(&pool->injection, task);
  pool_notify(pool);
  gate_exit(pool);
  return 0;
}

int dromon_pool_submit(dromon_pool *pool, dromon_task *task) {
  bool has_room;
  return submit(pool, task, true, &has_room);
}

int dromon_pool_submit_nowait(dromon_pool *pool, dromon_task *task) {
  bool has_room;
  int result = submit(pool, task, false, &has_room);
  return result < 0 || has_room ? result : -EAGAIN;
}

int dromon_pool_submit_wait(dromon_pool *pool, dromon_task *task, int64_t timeout_ns) {
  bool has_room;
  int result = submit(pool, task, true, &has_room);
  return result < 0 || has_room ? result : injection_await_room(&pool->injection, task, timeout_ns);
}

int dromon_pool_withdraw(dromon_pool *pool, dromon_task *task) {
  if (!task_withdraw(task))
    return -EBUSY;
  bool removed = injection_remove(&pool->injection, task);
  /* Relaxed: a count. */
  fetch_add_relaxed(removed ? &pool->withdrawn : &pool->withdrawn_in_queue, 1);
  return removed;
}

dromon_pool *dromon_current_pool(void) {
  struct worker *worker = worker_current();
  return worker == NULL ? NULL : worker->pool;
}

/* Counted before, so that the monitor never takes it for a call that waits. */
static bool push_child(struct worker *worker, dromon_task *task) {
  store_release(&worker->children, worker->children + 1); /* pairs with Look */
  if (push_on_worker(worker, task))
    return true;
  store_release(&worker->children, worker->children - 1);
  task->child = 0;
  return false;
}

int dromon_submit_child(dromon_task *task, int pinned) {
  struct worker *worker = worker_current();
  if (worker == NULL)
    return -EPERM;
  task->submitted_ns = os_now_ns();
  /* Not past the gate: the worker has a task that waits for this one, and does not leave before. */
  task->child = !pinned;
  if (pinned || !push_child(worker, task))
    pinned_push(&worker->pinned, task, worker);
  return 0;
}

/* Out of the worker's list or, if it is the newest one there, its deque. */
static bool remove_child(struct worker *worker, dromon_task *task, const void *home) {
  if (home == NULL)
    return deque_newest(&worker->deque) == task && deque_pop(&worker->deque) != NULL;
  pinned_remove(&worker->pinned, task);
  return true;
}

int dromon_take_back_child(dromon_task *task) {
  struct worker *worker = worker_current();
  /* Relaxed: it changes on the worker's own thread alone, for which it is exact. */
  const void *home = load_relaxed(&task->home);
  if (worker == NULL || (home != NULL && home != worker) || !task_take_back(task))
    return -EBUSY;
  if (!remove_child(worker, task, home)) {
    fetch_add_relaxed(&worker->pool->withdrawn_in_queue, 1); /* relaxed: a count */
    return 0;
  }
  if (task->child)
    store_release(&worker->taken_back, worker->taken_back + 1); /* pairs with Look */
  return 1;
}

int dromon_pool_close(dromon_pool *pool, dromon_task *last) {
  if (last != NULL && !can_run(pool, last))
    return -EINVAL;
  /* acq_rel, with itself: of several closers one goes on. */
  if (exchange_acq_rel(&pool->closing, 1) == 1)
    return -EALREADY;
  store_relaxed(&pool->last, last);           /* published by Close */
  fetch_or_acq_rel(&pool->gate, GATE_CLOSED); /* Close. acq_rel: who sees it sees `last` */
  eventcount_notify_all(&pool->eventcount);
  return 0;
}

int dromon_pool_is_closed(const dromon_pool *pool) {
  /* Relaxed: it may be closed right after. */
  return (load_relaxed(&pool->gate) & GATE_CLOSED) != 0;
}

void dromon_pool_forget(dromon_pool *pool) {
  /* Relaxed: there is no other thread. Those that were inside the gate, of which none will exit, are
   * not counted. */
  store_relaxed(&pool->closing, 1);
  store_relaxed(&pool->gate, GATE_CLOSED);
  pool->last = NULL;
  pool->forgotten = true;
  pthread_mutex_init(&pool->places_mutex, NULL); /* another thread may have held it */
}

int dromon_pool_join(dromon_pool *pool) {
  if (load_relaxed(&pool->closing) == 0) /* relaxed: it was the caller who closed it */
    return -EBUSY;
  uint32_t alive;
  while ((alive = load_acquire(&pool->alive)) >
         0) /* pairs with finish: no place changes any more */
    os_futex_wait(&pool->alive, alive);
  pthread_mutex_lock(&pool->replacing); /* who comes too late to replace one has let go of it */
  for (uint32_t i = 0; i < pool->worker_count; i++)
    thread_join(pool_place(pool, i)->thread);
  pthread_mutex_unlock(&pool->replacing);
  monitor_join(&pool->monitor);
  thread_join_ended();
  return 0;
}

/* ---- Reading -------------------------------------------------------------------------------- */

void dromon_pool_read_statistics(dromon_pool *pool, dromon_pool_statistics *statistics) {
  *statistics = (dromon_pool_statistics){
      .parked = eventcount_sleepers(&pool->eventcount),
      .queued = pool_queued(pool),
      .fiber_bytes = slabs_reserved(&pool->slabs),
      .withdrawn = load_relaxed(&pool->withdrawn),
      .stalls = load_relaxed(&pool->monitor.stalls),
      .wakes = eventcount_wakes(&pool->eventcount),
      .retired = load_relaxed(&pool->retired), /* relaxed: a count */
  };
  for (uint32_t i = 0; i < pool->worker_count; i++)
    statistics->workers += load_relaxed(&pool_place(pool, i)->phase) != WORKER_LEFT;
  for (const struct worker *worker = pool->workers; worker != NULL; worker = worker_next(worker)) {
    /* In this order, acquire pairing with count_one, so that a part does not exceed its whole. The
     * other loads are relaxed: they are counts, and order nothing. */
    statistics->abandoned += load_acquire(&worker->abandoned);
    statistics->interrupted += load_acquire(&worker->interrupted);
    uint64_t completed = load_acquire(&worker->completed);
    uint64_t started = worker_started(worker);
    statistics->running += started - completed;
    statistics->completed += completed;
    uint64_t left = load_acquire(&worker->children_left);
    statistics->withdrawn += load_relaxed(&worker->withdrawn) - left;
    statistics->batches += load_relaxed(&worker->batches);
    statistics->steals += load_relaxed(&worker->steals);
    statistics->parks += load_relaxed(&worker->parks);
    statistics->fibers += load_relaxed(&worker->fiber_count);
    statistics->fibers_parked += load_relaxed(&worker->fibers_parked);
    statistics->fiber_parks += load_relaxed(&worker->fiber_parks);
    statistics->fiber_switches += load_relaxed(&worker->fiber_switches);
    statistics->fiber_blocks += load_relaxed(&worker->fiber_blocks);
    for (int bucket = 0; bucket < DROMON_HISTOGRAM_BUCKETS; bucket++) {
      statistics->queue_wait[bucket] += load_relaxed(&worker->queue_wait[bucket]);
      statistics->run_time[bucket] += load_relaxed(&worker->run_time[bucket]);
    }
  }
}

uint64_t dromon_pool_read_began(dromon_pool *pool, uint32_t index) {
  return index < pool->worker_count ? worker_began(pool_place(pool, index)) : 0;
}

int dromon_pool_read_worker(dromon_pool *pool, uint32_t index, dromon_worker *out) {
  if (index >= pool->worker_count)
    return -EINVAL;
  pthread_mutex_lock(&pool->places_mutex); /* who has the place keeps it, and so the thread stays */
  const struct thread *thread = pool_place(pool, index)->thread;
  *out = (dromon_worker){
      .tid = thread->tid,
      .spawn = thread->spawn,
      .spawn_error = thread->spawn_error,
      .stack_low = (uintptr_t)thread->stack.low,
      .stack_size = thread->stack.size,
      .guard_size = thread->stack.guard,
      .stack_used = stack_used(&thread->stack),
  };
  pthread_mutex_unlock(&pool->places_mutex);
  return 0;
}
