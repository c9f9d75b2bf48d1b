/* testing.h - what the C tests share: checks, a watchdog, and threads that start together.
 *
 * A test is a function without arguments; main() calls each through RUN. A failed check ends the
 * process. A test that hangs (a lost wake-up does that) is ended by SIGALRM: nothing in the tests
 * depends on how long anything takes, so the limit only has to be far away.
 */
#ifndef DROMON_TESTS_TESTING_H
#define DROMON_TESTS_TESTING_H

#include "atomic.h"
#include "os.h"
#include "sanitizers.h"

#include <limits.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

/* What the sanitizers are told, unless TSAN_OPTIONS and ASAN_OPTIONS tell otherwise: out of memory
 * malloc answers NULL, as libc's; a fault ends the process by its signal, as without a sanitizer, since
 * some tests provoke one; and thousands of reports of one race help nobody. */
#define SANITIZER_OPTIONS "allocator_may_return_null=1:handle_segv=0:handle_sigbus=0"
#if UNDER_TSAN
const char *__tsan_default_options(void);
const char *__tsan_default_options(void) {
  return SANITIZER_OPTIONS ":halt_on_error=1";
}
#endif
#if UNDER_ASAN
const char *__asan_default_options(void);
const char *__asan_default_options(void) {
  return SANITIZER_OPTIONS;
}
#endif

enum {
  HANGS_AFTER_SECONDS = 120,
  HANGS_AFTER_MS = 100000, /* for a single wait: sooner, so that it tells what did not come */
};

/* ---- Checks --------------------------------------------------------------------------------- */

/* _exit: a failed check may come from any thread, while others still run. */
#define CHECK(condition)                                                                           \
  do {                                                                                             \
    if (!(condition)) {                                                                            \
      fprintf(stderr, "%s:%d: not true: %s\n", __FILE__, __LINE__, #condition);                    \
      _exit(1);                                                                                    \
    }                                                                                              \
  } while (0)

/* Compares two integers (or addresses). */
#define CHECK_THAT(left, relation, right)                                                          \
  do {                                                                                             \
    long long left_ = (long long)(left), right_ = (long long)(right);                              \
    if (!(left_ relation right_)) {                                                                \
      fprintf(stderr, "%s:%d: not true: %s %s %s, with %lld and %lld\n", __FILE__, __LINE__,       \
              #left, #relation, #right, left_, right_);                                            \
      _exit(1);                                                                                    \
    }                                                                                              \
  } while (0)

#define CHECK_EQ(actual, expected) CHECK_THAT(actual, ==, expected)

/* ---- Running -------------------------------------------------------------------------------- */

#define RUN(test)                                                                                  \
  do {                                                                                             \
    setvbuf(stdout, NULL, _IONBF, 0); /* so that the name of a test that hangs is seen */          \
    printf("%s\n", #test);                                                                         \
    alarm(HANGS_AFTER_SECONDS);                                                                    \
    test();                                                                                        \
  } while (0)

#define RUN_UNLESS(condition, reason, test)                                                        \
  do {                                                                                             \
    if (condition)                                                                                 \
      printf("%s: skipped, %s\n", #test, reason);                                                  \
    else                                                                                           \
      RUN(test);                                                                                   \
  } while (0)

/* A test with several threads, for which valgrind has no use: it runs one at a time. */
#define RUN_THREADED(test)                                                                         \
  RUN_UNLESS(getenv("DROMON_TESTS_SINGLE_THREADED") != NULL, "since it has several threads", test)

/* How often a stress test goes round: `count` times if DROMON_TESTS_LONG is set, else fewer. Under
 * ThreadSanitizer each round takes several times as long. */
static inline unsigned rounds(unsigned count) {
  if (getenv("DROMON_TESTS_LONG") != NULL)
    return count;
  return UNDER_TSAN ? count / 10 : count / 4;
}

/* ---- Threads -------------------------------------------------------------------------------- */

enum { THREADS_MAX = 16 };

/* Plain pthreads that are let go at once. */
struct threads {
  unsigned count;
  unsigned next_index;
  pthread_barrier_t all_started;
  pthread_t ids[THREADS_MAX];
  void (*fn)(void *arg, unsigned index);
  void *arg;
};

static inline void *threads_main(void *argument) {
  struct threads *threads = argument;
  unsigned index = fetch_add_relaxed(&threads->next_index, 1);
  pthread_barrier_wait(&threads->all_started);
  threads->fn(threads->arg, index);
  return NULL;
}

/* Starts `count` threads, each of which runs fn(arg, its index). Join afterwards. */
static inline void threads_start(struct threads *threads, unsigned count,
                                 void (*fn)(void *arg, unsigned index), void *arg) {
  CHECK_THAT(count, <=, THREADS_MAX);
  threads->count = count;
  threads->next_index = 0;
  threads->fn = fn;
  threads->arg = arg;
  CHECK_EQ(pthread_barrier_init(&threads->all_started, NULL, count), 0);
  for (unsigned i = 0; i < count; i++)
    CHECK_EQ(pthread_create(&threads->ids[i], NULL, threads_main, threads), 0);
}

static inline void threads_join(struct threads *threads) {
  for (unsigned i = 0; i < threads->count; i++)
    CHECK_EQ(pthread_join(threads->ids[i], NULL), 0);
  pthread_barrier_destroy(&threads->all_started);
}

/* One step of waiting for another thread, of which `step` counts how many went before. Spins at
 * first, so that both run at the same time where there are two processors, which is what the stress
 * tests are after; then sleeps, since the other may be waiting for a processor. (Who yields instead
 * may on a loaded machine wait for a whole turn of somebody else's.) */
static inline void relax(unsigned *step) {
  if (++*step < 1000)
    __asm__ volatile("" ::: "memory");
  else
    nanosleep(&(struct timespec){.tv_nsec = 10000}, NULL);
}

/* Waits until another thread has raised `*count` to `least`: awake at first, as in relax, then
 * asleep, since on a loaded machine a look now and then would come late each time. */
static inline void await_count(const uint32_t *count, uint32_t least) {
  uint32_t now;
  for (unsigned step = 0; (now = load_acquire(count)) < least; step++) {
    if (step < 2000)
      __asm__ volatile("" ::: "memory");
    else
      os_futex_wait(count, now);
  }
}

static inline void raise_count(uint32_t *count, uint32_t by) {
  fetch_add_acq_rel(count, by);
  os_futex_wake(count, INT_MAX);
}

/* Lets a pseudo-random while pass, from nothing to about a microsecond and mostly short, so that
 * two threads that go round in step meet at ever different points. */
static inline void dither(unsigned *seed) {
  *seed = *seed * 1664525u + 1013904223u;
  unsigned bits = *seed >> 28; /* 0 to 15 */
  for (unsigned i = (*seed >> 16 & 0xfff) >> (bits < 12 ? 12 - bits : 0); i > 0; i--)
    __asm__ volatile("" ::: "memory");
}

/* ---- Items ---------------------------------------------------------------------------------- */

/* What stress tests send through a queue. The first two are plain on purpose: whether the queue
 * makes the sender's writes visible to the receiver is for ThreadSanitizer to see. */
struct item {
  unsigned producer;
  unsigned number; /* counts from 0 for each producer */
  uint32_t times_received;
};

static inline struct item *items_make(unsigned count) {
  struct item *items = calloc(count, sizeof *items);
  CHECK(items != NULL);
  return items;
}

static inline void items_check_each_received_once(const struct item *items, unsigned count) {
  for (unsigned i = 0; i < count; i++)
    CHECK_EQ(items[i].times_received, 1);
}

/* One receiver's view of the order of each producer. */
struct order {
  unsigned next[THREADS_MAX]; /* the least number that may come, per producer */
};

static inline void order_check(struct order *order, const struct item *item) {
  CHECK_THAT(item->number, >=, order->next[item->producer]);
  order->next[item->producer] = item->number + 1;
}

/* ---- Flows ---------------------------------------------------------------------------------- */

/* A stress test of a queue: producers send items through it, and consumers take them until each was
 * received by somebody. */
struct flow {
  void *queue;
  bool (*push)(void *queue, void *item); /* false: full */
  void *(*take)(void *queue);            /* NULL: looks empty */
  void (*produce)(struct flow *flow, unsigned producer);
  unsigned producers;
  unsigned per_producer;
  struct item *items; /* `per_producer` for each */
  unsigned total;
  unsigned received;
};

static inline struct item *flow_item(const struct flow *flow, unsigned producer, unsigned number) {
  struct item *item = &flow->items[producer * flow->per_producer + number];
  item->producer = producer;
  item->number = number;
  return item;
}

/* The ordinary `produce`. */
static inline void flow_push_all(struct flow *flow, unsigned producer) {
  for (unsigned number = 0; number < flow->per_producer; number++) {
    struct item *item = flow_item(flow, producer, number);
    for (unsigned step = 0; !flow->push(flow->queue, item);)
      relax(&step);
  }
}

static inline void flow_receive(struct flow *flow, struct item *item) {
  fetch_add_relaxed(&item->times_received, 1);
  fetch_add_relaxed(&flow->received, 1);
}

static inline void flow_consume(struct flow *flow) {
  struct order order = {0};
  unsigned step = 0;
  while (load_relaxed(&flow->received) < flow->total) {
    struct item *item = flow->take(flow->queue);
    if (item == NULL) {
      relax(&step);
      continue;
    }
    step = 0;
    order_check(&order, item);
    flow_receive(flow, item);
  }
}

static inline void flow_thread(void *arg, unsigned index) {
  struct flow *flow = arg;
  if (index < flow->producers)
    flow->produce(flow, index);
  else
    flow_consume(flow);
}

/* Lets `total` items go through, or as many as rounds() says. */
static inline void flow_run(struct flow *flow, unsigned consumers, unsigned total) {
  flow->per_producer = rounds(total / flow->producers);
  flow->total = flow->per_producer * flow->producers;
  flow->items = items_make(flow->total);
  struct threads threads;
  threads_start(&threads, flow->producers + consumers, flow_thread, flow);
  threads_join(&threads);
  items_check_each_received_once(flow->items, flow->total);
  CHECK_EQ(flow->received, flow->total);
  CHECK(flow->take(flow->queue) == NULL);
  free(flow->items);
}

#endif
