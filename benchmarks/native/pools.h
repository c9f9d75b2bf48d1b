/* pools.h - what the benchmarks of whole pools share: to open one, to wait for tasks, to end it. */
#ifndef DROMON_BENCHMARKS_POOLS_H
#define DROMON_BENCHMARKS_POOLS_H

#include "measure.h"

#include <dromon/dromon.h>

static inline dromon_pool *open_pool(unsigned workers) {
  dromon_pool *pool;
  dromon_pool_config config = {.workers = workers};
  MUST(dromon_pool_open(&config, &pool) == 0);
  return pool;
}

static inline void end_pool(dromon_pool *pool) {
  MUST(dromon_pool_close(pool, NULL) == 0);
  MUST(dromon_pool_join(pool) == 0);
  dromon_pool_unref(pool);
}

static inline dromon_port *open_port(void) {
  dromon_port *port;
  MUST(dromon_port_open(&port) == 0);
  return port;
}

static inline uint64_t count_of(const dromon_task *tasks) {
  uint64_t count = 0;
  for (; tasks != NULL; tasks = tasks->next)
    count++;
  return count;
}

/* Waits until so many tasks have come back. */
static inline void drain(dromon_port *port, uint64_t count) {
  while (count > 0) {
    uint64_t taken = count_of(dromon_port_take(port));
    if (taken == 0)
      MUST(dromon_port_wait(port, -1) == 0);
    count -= taken;
  }
}

static inline void submit(dromon_pool *pool, dromon_port *port, dromon_native_task *native,
                          int (*fn)(void *arg), void *arg) {
  dromon_native_task_init(native, fn, arg, port);
  MUST(dromon_pool_submit(pool, &native->task) == 0);
}

static inline dromon_native_task *make_tasks(uint64_t count) {
  dromon_native_task *tasks = calloc(count, sizeof *tasks);
  MUST(tasks != NULL);
  return tasks;
}

static inline dromon_pool_statistics statistics_of(dromon_pool *pool) {
  dromon_pool_statistics statistics;
  dromon_pool_read_statistics(pool, &statistics);
  return statistics;
}

/* Pages of this process that are in memory. */
static inline uint64_t resident_pages(void) {
  unsigned long size, resident;
  FILE *file = fopen("/proc/self/statm", "r");
  MUST(file != NULL && fscanf(file, "%lu %lu", &size, &resident) == 2);
  fclose(file);
  return resident;
}

#endif
