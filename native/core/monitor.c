/* monitor.c - see monitor.h. */
#include "monitor.h"

#include "os.h"
#include "pool.h"

#include <errno.h>
#include <limits.h>
#include <stdlib.h>

/* When the task that `worker` runs is, or was, due for a report. */
static uint64_t due_ns(const struct monitor *monitor, uint32_t index, uint64_t began,
                       uint64_t now) {
  if (began == 0 || began == monitor->reported[index])
    return now + monitor->stall_ns; /* none that begins from now on is due sooner */
  return began + monitor->stall_ns;
}

static void report(struct monitor *monitor, uint32_t index, uint64_t began, uint64_t now) {
  monitor->reported[index] = began;
  store_relaxed(&monitor->stalls, monitor->stalls + 1); /* relaxed: a count, of one writer */
  if (monitor->on_stall != NULL)
    monitor->on_stall(monitor->on_stall_arg, index, began, now - began);
}

/* Reports what is due, and returns when to look again. */
static uint64_t look(struct monitor *monitor) {
  uint64_t now = os_now_ns();
  uint64_t next = now + monitor->stall_ns;
  for (uint32_t i = 0; i < monitor->pool->worker_count; i++) {
    /* Relaxed: a time, which orders nothing. */
    uint64_t began = load_relaxed(&monitor->pool->workers[i].began_ns);
    uint64_t due = due_ns(monitor, i, began, now);
    if (due <= now)
      report(monitor, i, began, now);
    else if (due < next)
      next = due;
  }
  return next;
}

static void monitor_main(void *argument) {
  struct monitor *monitor = argument;
  /* Acquire, pairs with monitor_stop: for the sake of order, there is nothing to see. */
  while (load_acquire(&monitor->stop) == 0) {
    uint64_t next = look(monitor);
    os_futex_wait_until(&monitor->stop, 0, next);
  }
  dromon_pool_unref(monitor->pool);
}

int monitor_start(struct monitor *monitor, dromon_pool *pool, const dromon_pool_config *config) {
  *monitor = (struct monitor){
      .pool = pool,
      /* So that no sum with a time overflows. */
      .stall_ns = config->stall_ns < INT64_MAX ? config->stall_ns : INT64_MAX,
      .on_stall = config->on_stall,
      .on_stall_arg = config->on_stall_arg,
  };
  if (monitor->stall_ns == 0)
    return 0;
  monitor->reported = calloc(pool->worker_count, sizeof *monitor->reported);
  if (monitor->reported == NULL)
    return -ENOMEM;
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
    free(monitor->reported);
  }
  return result;
}

void monitor_stop(struct monitor *monitor) {
  store_release(&monitor->stop, 1);
  os_futex_wake(&monitor->stop, INT_MAX);
}

void monitor_join(struct monitor *monitor) {
  if (monitor->stall_ns == 0)
    return;
  thread_join(&monitor->thread);
  free(monitor->reported);
}
