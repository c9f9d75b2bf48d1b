/* handoff.c - one task to a worker that sleeps, and back to a submitter that sleeps meanwhile, beside two
 * bare threads that wake each other by futex.
 *
 * Once with both on one CPU, where a wake-up is a switch, and once on two, where it is an interrupt to
 * a processor that may have gone idle. Either way the submitter begins when the other one is about to
 * sleep, which is not measured: else it would often find it awake still, and have no need to wake it.
 */
#include "measure.h"

#include <dromon/dromon.h>
#include <pthread.h>
#include <sched.h>

enum { HANDOFFS = 5000 };

static void await(uint32_t *word, uint32_t value) {
  while (load_acquire(word) != value)
    os_futex_wait(word, value - 1);
}

static void tell(uint32_t *word, uint32_t value) {
  store_release(word, value);
  os_futex_wake(word, 1);
}

static double times[HANDOFFS];

/* ---- Two bare threads ----------------------------------------------------------------------- */

struct pair {
  _Alignas(CACHE_LINES) uint32_t there;
  _Alignas(CACHE_LINES) uint32_t back;
  _Alignas(CACHE_LINES) uint32_t awaited; /* what the echo waits for */
  unsigned cpu;
};

static void *echo(void *argument) {
  struct pair *pair = argument;
  run_on(pair->cpu);
  for (uint32_t i = 1; i <= HANDOFFS; i++) {
    store_release(&pair->awaited, i);
    await(&pair->there, i);
    tell(&pair->back, i);
  }
  return NULL;
}

static void measure_pair(const char *name, unsigned cpu) {
  struct pair pair = {.cpu = cpu};
  pthread_t thread;
  MUST(pthread_create(&thread, NULL, echo, &pair) == 0);
  for (uint32_t i = 1; i <= HANDOFFS; i++) {
    while (load_acquire(&pair.awaited) != i)
      sched_yield();
    uint64_t start = os_now_ns();
    tell(&pair.there, i);
    await(&pair.back, i);
    times[i - 1] = (double)(os_now_ns() - start);
  }
  pthread_join(thread, NULL);
  report(name, median(times, HANDOFFS));
}

/* ---- A worker ------------------------------------------------------------------------------- */

struct call {
  dromon_native_task native;
  uint32_t done;
};

static int tell_submitter(void *arg) {
  struct call *call = arg;
  tell(&call->done, 1);
  return 0;
}

static dromon_pool *open_pool(unsigned cpu, uint32_t search_ns) {
  uint64_t cpus[CPU_WORDS];
  choose_cpu(cpu, cpus);
  dromon_placement placement = {.cpus = cpus, .cpu_words = CPU_WORDS};
  dromon_pool_config config = {.workers = 1, .search_ns = search_ns, .placement = &placement};
  dromon_pool *pool;
  MUST(dromon_pool_open(&config, &pool) == 0);
  return pool;
}

static void await_park(dromon_pool *pool) {
  dromon_pool_statistics statistics;
  dromon_pool_read_statistics(pool, &statistics);
  while (statistics.parked == 0) {
    sched_yield();
    dromon_pool_read_statistics(pool, &statistics);
  }
}

static void let_all_come_back(dromon_port *port, unsigned count) {
  while (count > 0) {
    MUST(dromon_port_wait(port, -1) == 0);
    for (dromon_task *task = dromon_port_take(port); task != NULL; task = task->next)
      count--;
  }
}

static void measure_pool(const char *name, const char *wakes, unsigned cpu, bool parked) {
  dromon_pool *pool = open_pool(cpu, parked ? DROMON_SEARCH_NEVER : 0);
  dromon_port *port;
  MUST(dromon_port_open(&port) == 0);
  struct call *calls = calloc(HANDOFFS, sizeof *calls);
  MUST(calls != NULL);
  for (unsigned i = 0; i < HANDOFFS; i++)
    dromon_native_task_init(&calls[i].native, tell_submitter, &calls[i], port);

  for (unsigned i = 0; i < HANDOFFS; i++) {
    if (parked)
      await_park(pool);
    uint64_t start = os_now_ns();
    MUST(dromon_pool_submit(pool, &calls[i].native.task) == 0);
    await(&calls[i].done, 1);
    times[i] = (double)(os_now_ns() - start);
  }
  report(name, median(times, HANDOFFS));

  dromon_pool_statistics statistics;
  dromon_pool_read_statistics(pool, &statistics);
  report(wakes, (double)statistics.wakes / HANDOFFS);
  let_all_come_back(port, HANDOFFS);
  MUST(dromon_pool_close(pool, NULL) == 0);
  MUST(dromon_pool_join(pool) == 0);
  dromon_pool_unref(pool);
  dromon_port_unref(port);
  free(calls);
}

int main(int argc, char **argv) {
  unsigned rounds = begin(argc, argv);
  run_on(0);
  for (unsigned round = 0; round < rounds; round++) {
    measure_pair("ping-pong, one CPU", 0);
    measure_pool("handoff, one CPU", "wakes a handoff, one CPU", 0, true);
    if (has_two_cpus()) {
      measure_pair("ping-pong, two CPUs", 1);
      measure_pool("handoff, two CPUs", "wakes a handoff, two CPUs", 1, true);
      measure_pool("handoff with search, two CPUs", "wakes a handoff with search, two CPUs", 1,
                   false);
    }
  }
  return 0;
}
