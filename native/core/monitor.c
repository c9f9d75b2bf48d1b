/* monitor.c - see monitor.h, whose event names the comments here use. */
#include "monitor.h"

#include "os.h"
#include "pool.h"

#include <errno.h>
#include <limits.h>
#include <stdlib.h>

enum { DEFAULT_SATURATED_NS = 1000000000, DEFAULT_STUCK_NS = 1000000000 };

static uint64_t earlier(uint64_t one, uint64_t other) {
  return one < other ? one : other;
}

/* ---- Stalls --------------------------------------------------------------------------------- */

/* When the task that `worker` runs is, or was, due for a report. */
static uint64_t due_ns(const struct monitor *monitor, uint32_t index, uint64_t began,
                       uint64_t now) {
  if (began == 0 || began == monitor->reported[index])
    return now + monitor->stall_ns; /* none that begins from now on is due sooner */
  return began + monitor->stall_ns;
}

static void report_stall(struct monitor *monitor, uint32_t index, uint64_t began, uint64_t now) {
  monitor->reported[index] = began;
  store_relaxed(&monitor->stalls, monitor->stalls + 1); /* relaxed: a count, of one writer */
  if (monitor->on_stall != NULL)
    monitor->on_stall(monitor->on_stall_arg, index, began, now - began);
}

/* Reports what is due, and returns when to look again. */
static uint64_t look_for_stalls(struct monitor *monitor) {
  if (monitor->stall_ns == 0)
    return OS_NO_DEADLINE;
  uint64_t now = os_now_ns();
  uint64_t next = now + monitor->stall_ns;
  for (uint32_t i = 0; i < monitor->pool->worker_count; i++) {
    uint64_t began = worker_began(pool_place(monitor->pool, i));
    uint64_t due = due_ns(monitor, i, began, now);
    if (due <= now)
      report_stall(monitor, i, began, now);
    else if (due < next)
      next = due;
  }
  return next;
}

/* ---- Stuck workers -------------------------------------------------------------------------- */

static void look_whether_stuck(struct monitor *monitor, uint32_t index, uint64_t now) {
  const struct worker *worker = pool_place(monitor->pool, index);
  struct stuck *stuck = &monitor->stuck[index];
  /* Acquire, pairs with begin: the worker's fibers are there. */
  uint64_t began = load_acquire(&worker->began_ns);
  if ((began & RETIRED) || began == 0 || !fibers_are_due(worker, now))
    began = 0;
  if (began == 0 || began != stuck->began_ns) {
    *stuck = (struct stuck){.began_ns = began, .since_ns = now};
  } else if (!stuck->is_reported && now - stuck->since_ns >= monitor->stuck_ns) {
    stuck->is_reported = true;
    monitor->on_stuck(monitor->on_stuck_arg, index, began, now - stuck->since_ns);
  }
}

/* Reports those that have been stuck for long enough, and returns when to look again. */
static uint64_t look_for_stuck(struct monitor *monitor) {
  if (monitor->on_stuck == NULL)
    return OS_NO_DEADLINE;
  uint64_t now = os_now_ns();
  if (now < monitor->next_stuck_look_ns)
    return monitor->next_stuck_look_ns; /* something else was due in between */
  for (uint32_t i = 0; i < monitor->pool->worker_count; i++)
    look_whether_stuck(monitor, i, now);
  monitor->next_stuck_look_ns = now + monitor->stuck_ns / LOOKS + 1;
  return monitor->next_stuck_look_ns;
}

/* ---- Saturation ----------------------------------------------------------------------------- */

void monitor_wake(struct monitor *monitor) {
  uint32_t state = MONITOR_ASLEEP;
  /* acq_rel, as every change of it: of several one goes on. */
  if (cas_acq_rel(&monitor->state, &state, MONITOR_ARMED))
    os_futex_wake(&monitor->state, 1);
}

/* Children that have been in deques. */
static uint64_t children(const dromon_pool *pool) {
  uint64_t all = 0;
  for (const struct worker *worker = pool->workers; worker != NULL; worker = worker_next(worker))
    all += load_acquire(&worker->children);
  return all;
}

/* Those of them that have left. */
static uint64_t children_gone(const struct worker *worker) {
  return load_acquire(&worker->children_started) + load_acquire(&worker->taken_back) +
         load_acquire(&worker->children_left);
}

/* Look. Acquire, pairs with the release with which workers count: the numbers are read in order. */
static struct look look_at(dromon_pool *pool) {
  uint64_t gone = 0, stale = load_acquire(&pool->withdrawn_in_queue);
  struct look look = {.past = stale + load_acquire(&pool->withdrawn)};
  for (const struct worker *worker = pool->workers; worker != NULL; worker = worker_next(worker)) {
    look.past += load_acquire(&worker->started);
    look.parks += load_acquire(&worker->parks);
    stale -= load_acquire(&worker->withdrawn);
    gone += children_gone(worker);
  }
  look.sleepers = eventcount_observe(&pool->eventcount);
  uint64_t queued = pool_queued(pool);
  /* Compared as a difference: a worker may have counted one before its submitter did. */
  int64_t waiting = (int64_t)(queued - stale - (children(pool) - gone));
  look.waiting = waiting > 0 ? (uint64_t)waiting : 0;
  look.ns = os_now_ns();
  return look;
}

static bool was_saturated(const struct look *first, const struct look *second) {
  return first->sleepers == 0 && second->parks == first->parks &&
         first->waiting > second->past - first->past;
}

static uint64_t running(const dromon_pool *pool) {
  uint64_t running = 0;
  for (const struct worker *worker = pool->workers; worker != NULL; worker = worker_next(worker)) {
    uint64_t completed = load_acquire(&worker->completed); /* first, as for statistics */
    running += worker_started(worker) - completed;
  }
  return running;
}

/* Disarm, unless something is queued. */
static void disarm(struct monitor *monitor) {
  uint32_t state = MONITOR_ARMED;
  if (!cas_acq_rel(&monitor->state, &state, MONITOR_ASLEEP))
    return;                                       /* it is to stop */
  eventcount_observe(&monitor->pool->eventcount); /* Observe */
  state = MONITOR_ASLEEP;
  if (pool_queued(monitor->pool) > 0) /* Recheck */
    cas_acq_rel(&monitor->state, &state, MONITOR_ARMED);
}

static void report_saturation(struct monitor *monitor, const struct look *look, uint64_t ns) {
  uint32_t state = MONITOR_ARMED;
  cas_acq_rel(&monitor->state, &state, MONITOR_OFF); /* unless it is to stop */
  monitor->on_saturated(monitor->on_saturated_arg, look->waiting, running(monitor->pool), ns);
}

/* Looks at a pool in which something may be queued, if it is time, and returns when to look again. */
static uint64_t look_for_saturation(struct monitor *monitor) {
  if (os_now_ns() < monitor->next_look_ns)
    return monitor->next_look_ns; /* a stall was due in between */
  struct look look = look_at(monitor->pool);
  struct look *oldest = &monitor->looks[monitor->look_count % LOOKS];
  if (monitor->look_count >= LOOKS && was_saturated(oldest, &look)) {
    report_saturation(monitor, &look, look.ns - oldest->ns);
  } else if (pool_queued(monitor->pool) == 0) {
    monitor->look_count = 0;
    disarm(monitor);
  } else {
    *oldest = look;
    monitor->look_count++;
  }
  monitor->next_look_ns = look.ns + monitor->saturated_ns / LOOKS + 1; /* rounded up */
  return monitor->next_look_ns;
}

/* ---- The thread ----------------------------------------------------------------------------- */

static void monitor_main(void *argument) {
  struct monitor *monitor = argument;
  uint32_t state;
  /* Acquire, pairs with Arm and monitor_stop: for the sake of order, there is nothing to see. */
  while ((state = load_acquire(&monitor->state)) != MONITOR_STOPPED) {
    uint64_t next = earlier(look_for_stalls(monitor), look_for_stuck(monitor));
    if (state == MONITOR_ARMED)
      next = earlier(next, look_for_saturation(monitor));
    /* Not at all, if the state has changed since it was read. */
    os_futex_wait_until(&monitor->state, state, next);
  }
  dromon_pool_unref(monitor->pool);
}

/* So that no sum with a time overflows. */
static uint64_t bounded(uint64_t ns) {
  return ns < INT64_MAX ? ns : INT64_MAX;
}

static void free_notes(struct monitor *monitor) {
  free(monitor->reported);
  free(monitor->stuck);
}

int monitor_start(struct monitor *monitor, dromon_pool *pool, const dromon_pool_config *config) {
  bool watches_load = config->on_saturated != NULL;
  *monitor = (struct monitor){
      .pool = pool,
      .state = watches_load ? MONITOR_ASLEEP : MONITOR_OFF,
      .is_running = watches_load || config->stall_ns > 0 || config->on_stuck != NULL,
      .stall_ns = bounded(config->stall_ns),
      .on_stall = config->on_stall,
      .on_stall_arg = config->on_stall_arg,
      .stuck_ns = bounded(config->stuck_ns ?: DEFAULT_STUCK_NS),
      .on_stuck = config->on_stuck,
      .on_stuck_arg = config->on_stuck_arg,
      .saturated_ns = bounded(config->saturated_ns ?: DEFAULT_SATURATED_NS),
      .on_saturated = config->on_saturated,
      .on_saturated_arg = config->on_saturated_arg,
  };
  if (!monitor->is_running)
    return 0;
  monitor->reported = calloc(pool->worker_count, sizeof *monitor->reported);
  monitor->stuck = calloc(pool->worker_count, sizeof *monitor->stuck);
  if (monitor->reported == NULL || monitor->stuck == NULL) {
    free_notes(monitor);
    return -ENOMEM;
  }
  char name[16];
  thread_name(name, config->name ?: DROMON_NAME_DEFAULT, "monitor");
  struct thread_options options = {
      .stack_size = DROMON_STACK_SIZE_DEFAULT,
      .guard_size = DROMON_GUARD_SIZE_DEFAULT,
      .name = name,
      .spawn = (enum dromon_spawn)config->spawn,
  };
  dromon_pool_ref(pool); /* the monitor's, which drops it at its end */
  int result = thread_start(&monitor->thread, &options, monitor_main, monitor);
  if (result < 0) {
    dromon_pool_unref(pool);
    free_notes(monitor);
  }
  return result;
}

void monitor_stop(struct monitor *monitor) {
  exchange_acq_rel(&monitor->state, MONITOR_STOPPED);
  os_futex_wake(&monitor->state, INT_MAX);
}

void monitor_join(struct monitor *monitor) {
  if (!monitor->is_running)
    return;
  thread_join(&monitor->thread);
  free_notes(monitor);
}
