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
  /* Release, pairs with the acquire in await_start. */
  store_release(&worker->phase, phase);
  os_futex_wake(&worker->phase, 1);
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
  if (batch->tasks_left == 0 || os_now_ns() >= batch->deadline_ns)
    return NULL;
  return injection_pop(&batch->worker->pool->injection);
}

/* Whether it is the closing task: the pool's own, and no task of its users'. */
static bool is_last(const dromon_pool *pool, const dromon_task *task) {
  /* Relaxed: the worker that runs it has seen it in `finish`, and for others any answer is no. */
  return task == load_relaxed(&pool->last);
}

dromon_task *dromon_batch_next(dromon_batch *batch) {
  dromon_task *task = take_next(batch);
  if (task == NULL)
    return NULL; /* run_batch notifies, once `run` has let go of its runtime's locks */
  /* The next task may take long: nobody shall wait that long for the last one's result. */
  notify_posted(batch);
  batch->tasks_left--;
  struct worker *worker = batch->worker;
  uint64_t *counter = task_start(task) ? &worker->started : &worker->withdrawn;
  if (!is_last(worker->pool, task))
    count_one(counter);
  return task;
}

int dromon_batch_post(dromon_batch *batch, dromon_port *port, dromon_task *task) {
  /* Before the post: who has got the result finds it counted. */
  if (!is_last(batch->worker->pool, task))
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
  count_one(&worker->batches);
  pool->ops.run(state, &batch);
  notify_posted(&batch);
}

/* ---- Workers -------------------------------------------------------------------------------- */

/* Drained, if a pop after this finds nothing. */
static bool is_closed(const dromon_pool *pool) {
  /* Acquire, pairs with Exit: what submitters published is visible to that pop. */
  return load_acquire(&pool->gate) == GATE_CLOSED;
}

/* Waits for a task; NULL when it is time to leave. */
static dromon_task *await_task(struct worker *worker) {
  dromon_pool *pool = worker->pool;
  struct eventcount *eventcount = &pool->eventcount;
  dromon_task *task = injection_pop(&pool->injection);
  bool searching = false;
  while (task == NULL) {
    eventcount_announce(eventcount, searching);
    bool closed = is_closed(pool);
    task = injection_pop(&pool->injection); /* Recheck */
    if (task != NULL || closed) {
      eventcount_retract(eventcount);
    } else {
      count_one(&worker->parks);
      eventcount_sleep(eventcount);
      closed = is_closed(pool);
      task = injection_pop(&pool->injection);
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
  /* acq_rel: the last one sees all that the others did. Relaxed: is_closed has acquired `last`. */
  if (fetch_sub_acq_rel(&pool->alive, 1) == 1 && load_relaxed(&pool->last) != NULL)
    run_batch(worker, state, load_relaxed(&pool->last));
}

static void worker_main(void *argument) {
  struct worker *worker = argument;
  dromon_pool *pool = worker->pool;
  void *state = NULL;
  worker->enter_result = pool->ops.enter(pool->ops_arg, worker->index, &state);
  if (worker->enter_result == 0) {
    set_phase(worker, WORKER_ENTERED);
    work(worker, state);
    finish(worker, state);
    pool->ops.leave(state);
  }
  set_phase(worker, WORKER_LEFT);
  dromon_pool_unref(pool);
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
  struct thread_options options = {
      .stack_size = or_default(config->stack_size, DROMON_STACK_SIZE_DEFAULT),
      .guard_size = or_default(config->guard_size, DROMON_GUARD_SIZE_DEFAULT),
      .name = name,
      .spawn = (enum dromon_spawn)config->spawn,
  };
  dromon_pool_ref(worker->pool); /* the worker's, which drops it at its end */
  int result = thread_start(&worker->thread, &options, worker_main, worker);
  if (result < 0)
    dromon_pool_unref(worker->pool);
  return result;
}

static void await_start(const struct worker *worker) {
  /* Acquire, pairs with the release in set_phase. */
  while (load_acquire(&worker->phase) == WORKER_STARTING)
    os_futex_wait(&worker->phase, WORKER_STARTING);
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
    await_start(&pool->workers[i]);
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
  /* acq_rel, with itself: of several closers one goes on. */
  if (exchange_acq_rel(&pool->closing, 1) == 1)
    return -EALREADY;
  store_relaxed(&pool->last, last);           /* published by Close */
  fetch_or_acq_rel(&pool->gate, GATE_CLOSED); /* Close. acq_rel: who sees it sees `last` */
  eventcount_notify_all(&pool->eventcount);
  return 0;
}

int dromon_pool_join(dromon_pool *pool) {
  if (load_relaxed(&pool->closing) == 0) /* relaxed: it was the caller who closed it */
    return -EBUSY;
  for (uint32_t i = 0; i < pool->worker_count; i++)
    thread_join(&pool->workers[i].thread);
  return 0;
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
    /* In this order, acquire pairing with count_one, so that the difference is not below zero. The
     * other loads are relaxed: they are counts, and order nothing. */
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
      .stack_used = stack_used(&thread->stack),
  };
  return 0;
}
