/* handoff.c - one task to a worker that sleeps, and back to a submitter that sleeps meanwhile, beside two
 * bare threads that wake each other, by futex and by eventfd.
 *
 * Once with both on one CPU, where a wake-up is a switch, and once on two, where it is an interrupt to
 * a processor that may have gone idle. Either way the submitter begins when the other one is about to
 * sleep, which is not measured: else it would often find it awake still, and have no need to wake it.
 */
#include "measure.h"

#include <dromon/dromon.h>
#include <pthread.h>
#include <sched.h>
#include <sys/eventfd.h>
#include <unistd.h>

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

/* A way to one of the two. */
struct bell {
  _Alignas(CACHE_LINES) uint32_t word;
  int fd;
};

/* How it is rung for the i-th time, and how that is waited for. */
struct bell_type {
  void (*ring)(struct bell *bell, uint32_t i);
  void (*await)(struct bell *bell, uint32_t i);
};

static void ring_futex(struct bell *bell, uint32_t i) {
  tell(&bell->word, i);
}

static void await_futex(struct bell *bell, uint32_t i) {
  await(&bell->word, i);
}

static void ring_eventfd(struct bell *bell, uint32_t i) {
  (void)i;
  MUST(eventfd_write(bell->fd, 1) == 0);
}

static void await_eventfd(struct bell *bell, uint32_t i) {
  (void)i;
  eventfd_t value;
  MUST(eventfd_read(bell->fd, &value) == 0);
}

static const struct bell_type futex = {ring_futex, await_futex};
static const struct bell_type eventfds = {ring_eventfd, await_eventfd};

struct pair {
  struct bell there;
  struct bell back;
  _Alignas(CACHE_LINES) uint32_t awaited; /* what the echo waits for */
  const struct bell_type *type;
  unsigned cpu;
};

static void *echo(void *argument) {
  struct pair *pair = argument;
  run_on(pair->cpu);
  for (uint32_t i = 1; i <= HANDOFFS; i++) {
    store_release(&pair->awaited, i);
    pair->type->await(&pair->there, i);
    pair->type->ring(&pair->back, i);
  }
  return NULL;
}

static void measure_pair(const char *name, unsigned cpu, const struct bell_type *type) {
  if (!is_asked(name) || !has_cpu(cpu))
    return;
  struct pair pair = {
      .there.fd = eventfd(0, 0), .back.fd = eventfd(0, 0), .type = type, .cpu = cpu};
  MUST(pair.there.fd >= 0 && pair.back.fd >= 0);
  pthread_t thread;
  MUST(pthread_create(&thread, NULL, echo, &pair) == 0);
  for (uint32_t i = 1; i <= HANDOFFS; i++) {
    while (load_acquire(&pair.awaited) != i)
      sched_yield();
    uint64_t start = os_now_ns();
    type->ring(&pair.there, i);
    type->await(&pair.back, i);
    times[i - 1] = (double)(os_now_ns() - start);
  }
  pthread_join(thread, NULL);
  close(pair.there.fd);
  close(pair.back.fd);
  report("ns", median(times, HANDOFFS));
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

static void measure_pool(const char *name, unsigned cpu, bool parked) {
  if (!is_asked(name) || !has_cpu(cpu))
    return;
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
  report("ns", median(times, HANDOFFS));

  dromon_pool_statistics statistics;
  dromon_pool_read_statistics(pool, &statistics);
  report("wakes", (double)statistics.wakes / HANDOFFS);
  let_all_come_back(port, HANDOFFS);
  MUST(dromon_pool_close(pool, NULL) == 0);
  MUST(dromon_pool_join(pool) == 0);
  dromon_pool_unref(pool);
  dromon_port_unref(port);
  free(calls);
}

int main(int argc, char **argv) {
  begin(argc, argv);
  run_on(0);
  measure_pair("futex ping-pong, one CPU", 0, &futex);
  measure_pair("eventfd ping-pong, one CPU", 0, &eventfds);
  measure_pool("handoff, one CPU", 0, true);
  measure_pair("futex ping-pong, two CPUs", 1, &futex);
  measure_pair("eventfd ping-pong, two CPUs", 1, &eventfds);
  measure_pool("handoff, two CPUs", 1, true);
  measure_pool("handoff with search, two CPUs", 1, false);
  return end();
}
