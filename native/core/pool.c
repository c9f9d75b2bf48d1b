/* pool.c - see pool.h, whose event names the comments here use. */
#include "pool.h"

#include "os.h"
#include "task.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>

#define GATE_CLOSED ((uint64_t)1 << 63)

static void count_one(uint64_t *counter) {
  /* One writer: no read-modify-write needed. Release, for dromon_pool_read_statistics. */
  store_release(counter, *counter + 1);
}

static void set_phase(struct worker *worker, enum worker_phase phase) {
  /* Release, pairs with the acquire in await_phase_after. */
  store_release(&worker->phase, phase);
}

/* ---- Batches -------------------------------------------------------------------------------- */

static void notify_posted(dromon_batch *batch) {
  if (batch->unnotified != NULL) {
    dromon_port_notify(batch->unnotified);
    dromon_port_unref(batch->unnotified);
    batch->unnotified = NULL;
  }
}

/* The next task, within the batch's bounds. */
static dromon_task *take_next(dromon_batch *batch) {
  dromon_task *task = batch->first;
  if (task != NULL) {
    batch->first = NULL;
    return task;
  }
  struct worker *worker = batch->worker;
  if (batch->tasks_left == 0 || os_now_ns() >= batch->deadline_ns ||
      load_relaxed(&worker->pool->abandoned))
    return NULL;
  return injection_pop(&worker->pool->injection);
}

dromon_task *dromon_batch_next(dromon_batch *batch) {
  dromon_task *task = take_next(batch);
  if (task == NULL)
    return NULL; /* run_batch notifies, once `run` has let go of its runtime's locks */
  /* The next task may take long: nobody shall wait that long for the last one's result. */
  notify_posted(batch);
  batch->tasks_left--;
  count_one(task_start(task) ? &batch->worker->started : &batch->worker->withdrawn);
  return task;
}

int dromon_batch_post(dromon_batch *batch, dromon_port *port, dromon_task *task) {
  /* Before the post: who has got the result finds it counted. */
  count_one(&batch->worker->completed);
  /* Once posted the task is the consumer's, and the port may go with it: hence a reference first. */
  dromon_port_ref(port);
  int result = dromon_port_post(port, task);
  if (result < 0) {
    dromon_port_unref(port);
    return result;
  }
  batch->unnotified = port; /* there was none: dromon_batch_next has notified it */
  return 0;
}

static void run_batch(struct worker *worker, void *state, dromon_task *first) {
  dromon_pool *pool = worker->pool;
  dromon_batch batch = {
      .worker = worker,
      .first = first,
      .tasks_left = pool->batch_tasks,
      .deadline_ns = os_now_ns() + pool->batch_ns,
  };
  set_phase(worker, WORKER_BUSY);
  count_one(&worker->batches);
  pool->ops.run(state, &batch);
  notify_posted(&batch);
  set_phase(worker, WORKER_IDLE);
}

/* ---- Workers -------------------------------------------------------------------------------- */

/* Drained, if a pop after this finds nothing. */
static bool is_closed(const dromon_pool *pool) {
  /* Acquire, pairs with Exit: what submitters published is visible to that pop. */
  return load_acquire(&pool->gate) == GATE_CLOSED || load_relaxed(&pool->abandoned);
}

static dromon_task *pop(dromon_pool *pool) {
  return load_relaxed(&pool->abandoned) ? NULL : injection_pop(&pool->injection);
}

/* Waits for a task; NULL when it is time to leave. */
static dromon_task *await_task(struct worker *worker) {
  dromon_pool *pool = worker->pool;
  struct eventcount *eventcount = &pool->eventcount;
  dromon_task *task = pop(pool);
  bool searching = false;
  while (task == NULL) {
    eventcount_announce(eventcount, searching);
    bool closed = is_closed(pool);
    task = pop(pool); /* Recheck */
    if (task != NULL || closed) {
      eventcount_retract(eventcount);
    } else {
      count_one(&worker->parks);
      eventcount_sleep(eventcount);
      closed = is_closed(pool);
      task = pop(pool);
    }
    searching = true;
    if (closed)
      break;
  }
  if (searching && eventcount_found(eventcount) && injection_count(&pool->injection) > 0)
    eventcount_notify(eventcount);
  return task;
}

static void work(struct worker *worker, void *state) {
  dromon_task *task;
  while ((task = await_task(worker)) != NULL)
    run_batch(worker, state, task);
}

/* The last worker runs the closing task before it leaves itself. */
static void finish(struct worker *worker, void *state) {
  dromon_pool *pool = worker->pool;
  /* acq_rel: the last one sees all that the others did. */
  if (fetch_sub_acq_rel(&pool->alive, 1) == 1 && pool->last != NULL &&
      !load_relaxed(&pool->abandoned)) {
    run_batch(worker, state, pool->last);
    /* The pool's own: no task of its users'. */
    store_release(&worker->completed, worker->completed - 1);
    store_release(&worker->started, worker->started - 1);
  }
}

static void worker_main(void *argument) {
  struct worker *worker = argument;
  dromon_pool *pool = worker->pool;
  void *state = NULL;
  if (worker->thread.spawn == DROMON_SPAWN_CLONE3 && worker->thread.spawn_error < 0)
    worker->enter_result = worker->thread.spawn_error;
  else
    worker->enter_result = pool->ops.enter(pool->ops_arg, worker->index, &state);

  if (worker->enter_result == 0) {
    set_phase(worker, WORKER_IDLE);
    os_futex_wake(&worker->phase, INT_MAX);
    work(worker, state);
    finish(worker, state);
    pool->ops.leave(state);
  }
  set_phase(worker, WORKER_LEFT);
  os_futex_wake(&worker->phase, INT_MAX);
}

/* ---- Open ----------------------------------------------------------------------------------- */

static int check(const dromon_pool_config *config) {
  const dromon_ops *ops = config->ops;
  if (config->workers < 1 || config->workers > DROMON_WORKERS_MAX)
    return -EINVAL;
  if (ops == NULL || ops->enter == NULL || ops->run == NULL || ops->leave == NULL)
    return -EINVAL;
  return 0;
}

static uint64_t or_default(uint64_t value, uint64_t standard) {
  return value != 0 ? value : standard;
}

static int make_pool(const dromon_pool_config *config, dromon_pool **out) {
  size_t size = sizeof(dromon_pool) + config->workers * sizeof(struct worker);
  dromon_pool *pool = aligned_alloc(_Alignof(dromon_pool), size);
  if (pool == NULL)
    return -ENOMEM;
  *pool = (dromon_pool){
      .references = 1,
      .ops = *config->ops,
      .ops_arg = config->ops_arg,
      .batch_tasks = (uint32_t)or_default(config->batch_tasks, 64),
      .batch_ns = (uint32_t)or_default(config->batch_ns, 500000),
      .worker_count = config->workers,
      .alive = config->workers,
  };
  for (uint32_t i = 0; i < config->workers; i++)
    pool->workers[i] = (struct worker){.pool = pool, .index = i};
  eventcount_init(&pool->eventcount);
  int result = injection_init(&pool->injection,
                              or_default(config->queue_capacity, DROMON_QUEUE_CAPACITY_DEFAULT));
  if (result < 0)
    free(pool);
  else
    *out = pool;
  return result;
}

static int start_worker(struct worker *worker, const dromon_pool_config *config) {
  char name[16];
  snprintf(name, sizeof name, "dromon-%u", worker->index);
  return thread_start(&worker->thread, or_default(config->stack_size, DROMON_STACK_SIZE_DEFAULT),
                      or_default(config->guard_size, DROMON_GUARD_SIZE_DEFAULT), name, worker_main,
                      worker);
}

static void await_phase_after(const struct worker *worker, enum worker_phase phase) {
  while (load_acquire(&worker->phase) == phase)
    os_futex_wait(&worker->phase, phase, NULL);
}

/* Starts all workers or none: ends those that were started when one fails. */
static int start_workers(dromon_pool *pool, const dromon_pool_config *config) {
  int result = 0;
  uint32_t started = 0;
  while (started < pool->worker_count) {
    result = start_worker(&pool->workers[started], config);
    if (result < 0)
      break;
    started++;
  }
  for (uint32_t i = 0; i < started; i++) {
    await_phase_after(&pool->workers[i], WORKER_STARTING);
    if (result == 0)
      result = pool->workers[i].enter_result;
  }
  if (result < 0) {
    dromon_pool_close(pool, NULL);
    for (uint32_t i = 0; i < started; i++)
      thread_join(&pool->workers[i].thread);
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
  if (fetch_sub_acq_rel(&pool->references, 1) == 1) {
    injection_destroy(&pool->injection);
    free(pool);
  }
}

/* ---- Submit and close ----------------------------------------------------------------------- */

static void gate_exit(dromon_pool *pool) {
  /* Exit. acq_rel, pairs with is_closed. */
  if (fetch_sub_acq_rel(&pool->gate, 1) & GATE_CLOSED)
    eventcount_notify_all(&pool->eventcount);
}

int dromon_pool_submit(dromon_pool *pool, dromon_task *task) {
  /* Enter. acq_rel, pairs with Close. */
  if (fetch_add_acq_rel(&pool->gate, 1) & GATE_CLOSED) {
    gate_exit(pool);
    return -ESHUTDOWN;
  }
  injection_push(&pool->injection, task); /* Publish */
  eventcount_notify(&pool->eventcount);
  gate_exit(pool);
  return 0;
}

int dromon_pool_close(dromon_pool *pool, dromon_task *last) {
  if (exchange_acq_rel(&pool->closing, 1) == 1)
    return -EALREADY;
  pool->last = last;
  fetch_or_acq_rel(&pool->gate, GATE_CLOSED); /* Close. acq_rel: who sees it sees `last` */
  eventcount_notify_all(&pool->eventcount);
  return 0;
}

int dromon_pool_join(dromon_pool *pool) {
  if (load_relaxed(&pool->closing) == 0)
    return -EBUSY;
  for (uint32_t i = 0; i < pool->worker_count; i++)
    thread_join(&pool->workers[i].thread);
  return 0;
}

/* Waits until a worker has left, is inside a task, or the time is up. True if it has left. */
static bool await_left(const struct worker *worker, uint64_t deadline_ns) {
  /* In slices, because going from IDLE to BUSY wakes nobody. */
  static const struct timespec slice = {.tv_nsec = 2000000};
  uint32_t phase;
  while ((phase = load_acquire(&worker->phase)) == WORKER_IDLE && os_now_ns() < deadline_ns)
    os_futex_wait(&worker->phase, phase, &slice);
  return phase == WORKER_LEFT;
}

int dromon_pool_abandon(dromon_pool *pool, uint64_t timeout_ns) {
  store_release(&pool->abandoned, 1); /* pairs with the wake-up's acquire in eventcount_sleep */
  fetch_or_acq_rel(&pool->gate, GATE_CLOSED);
  eventcount_notify_all(&pool->eventcount);
  uint64_t deadline_ns = os_now_ns() + timeout_ns;
  int left = 0;
  for (uint32_t i = 0; i < pool->worker_count; i++)
    left += !await_left(&pool->workers[i], deadline_ns);
  if (left > 0)
    dromon_pool_ref(pool); /* theirs, for as long as the process lasts */
  return left;
}

/* ---- Reading -------------------------------------------------------------------------------- */

void dromon_pool_read_statistics(dromon_pool *pool, dromon_pool_statistics *statistics) {
  *statistics = (dromon_pool_statistics){
      .parked = eventcount_sleepers(&pool->eventcount),
      .queued = injection_count(&pool->injection),
      .wakes = eventcount_wakes(&pool->eventcount),
  };
  for (uint32_t i = 0; i < pool->worker_count; i++) {
    const struct worker *worker = &pool->workers[i];
    /* In this order, so that their difference does not go below zero. */
    uint64_t completed = load_acquire(&worker->completed);
    uint64_t started = load_relaxed(&worker->started);
    statistics->workers += load_relaxed(&worker->phase) != WORKER_LEFT;
    statistics->running += started - completed;
    statistics->completed += completed;
    statistics->withdrawn += load_relaxed(&worker->withdrawn);
    statistics->batches += load_relaxed(&worker->batches);
    statistics->parks += load_relaxed(&worker->parks);
  }
}

int dromon_pool_read_worker(dromon_pool *pool, uint32_t index, dromon_worker *out) {
  if (index >= pool->worker_count)
    return -EINVAL;
  const struct thread *thread = &pool->workers[index].thread;
  *out = (dromon_worker){
      .tid = thread->tid,
      .spawn = thread->spawn,
      .spawn_error = thread->spawn_error,
      .stack_low = (uintptr_t)thread->stack.low,
      .stack_size = thread->stack.size,
      .guard_size = thread->stack.guard,
  };
  return 0;
}
