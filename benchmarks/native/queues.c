/* queues.c - what push, pop, steal and take cost where nobody else is at the queue, and what a steal
 * costs where the owner is busy. */
#include "deque.h"
#include "measure.h"
#include "ring.h"

#include <dromon/dromon.h>
#include <pthread.h>

enum { CAPACITY = 256, LAPS = 4000 };

/* Of each lap, for each of the things done in it. */
static double times[LAPS];

static double since(uint64_t start) {
  return (double)(os_now_ns() - start) / CAPACITY;
}

/* What no queue of this sort can do without. */
static void measure_write(const char *name) {
  static uint64_t word;
  if (!is_asked(name))
    return;
  for (unsigned lap = 0; lap < LAPS; lap++) {
    uint64_t start = os_now_ns();
    for (unsigned i = 0; i < CAPACITY; i++)
      fetch_add_acq_rel(&word, 1);
    times[lap] = since(start);
  }
  report("ns", median(times, LAPS));
}

static void measure_ring(const char *name) {
  struct ring ring;
  if (!is_asked(name))
    return;
  MUST(ring_init(&ring, CAPACITY) == 0);
  for (unsigned lap = 0; lap < LAPS; lap++) {
    uint64_t start = os_now_ns();
    for (unsigned i = 0; i < CAPACITY; i++) {
      MUST(ring_push(&ring, &ring));
      MUST(ring_pop(&ring) != NULL);
    }
    times[lap] = since(start);
  }
  report("ns", median(times, LAPS));
  ring_destroy(&ring);
}

static void fill(struct deque *deque) {
  for (unsigned i = 0; i < CAPACITY; i++)
    MUST(deque_push(deque, deque));
}

static void measure_deque(const char *name) {
  struct deque deque;
  if (!is_asked(name))
    return;
  MUST(deque_init(&deque, CAPACITY) == 0);
  for (unsigned lap = 0; lap < LAPS; lap++) {
    uint64_t start = os_now_ns();
    fill(&deque);
    for (unsigned i = 0; i < CAPACITY; i++)
      MUST(deque_pop(&deque) != NULL);
    times[lap] = since(start);
  }
  report("ns", median(times, LAPS));
  deque_destroy(&deque);
}

static void measure_steal(const char *name) {
  struct deque deque;
  if (!is_asked(name))
    return;
  MUST(deque_init(&deque, CAPACITY) == 0);
  for (unsigned lap = 0; lap < LAPS; lap++) {
    fill(&deque);
    uint64_t start = os_now_ns();
    for (unsigned i = 0; i < CAPACITY; i++)
      MUST(deque_steal(&deque) != NULL);
    times[lap] = since(start);
  }
  report("ns", median(times, LAPS));
  deque_destroy(&deque);
}

static void measure_take(const char *name) {
  dromon_port *port;
  if (!is_asked(name))
    return;
  MUST(dromon_port_open(&port) == 0);
  for (unsigned lap = 0; lap < LAPS; lap++) {
    uint64_t start = os_now_ns();
    for (unsigned i = 0; i < CAPACITY; i++)
      MUST(dromon_port_take(port) == NULL);
    times[lap] = since(start);
  }
  report("ns", median(times, LAPS));
  dromon_port_unref(port);
}

/* ---- Beside a thread on another CPU --------------------------------------------------------- */

enum { FEW = 16 };

struct contest {
  struct deque deque;
  _Alignas(CACHE_LINES) uint64_t word;
  _Alignas(CACHE_LINES) uint32_t over;
};

/* Makes each odd number even. */
static void *send_back(void *argument) {
  struct contest *contest = argument;
  run_on(1);
  while (load_relaxed(&contest->over) == 0) {
    uint64_t number = load_acquire(&contest->word);
    if (number % 2 == 1)
      store_release(&contest->word, number + 1);
  }
  return NULL;
}

/* How long what one CPU wrote takes to another: half of there and back. */
static double send_few(struct contest *contest) {
  uint64_t start = os_now_ns();
  for (unsigned i = 0; i < FEW; i++) {
    uint64_t odd = load_relaxed(&contest->word) + 1;
    store_release(&contest->word, odd);
    while (load_acquire(&contest->word) == odd)
      continue;
  }
  return (double)(os_now_ns() - start) / (2 * FEW);
}

/* Keeps the deque full, and takes one of four back. */
static void *own(void *argument) {
  struct contest *contest = argument;
  run_on(1);
  for (unsigned i = 0; load_relaxed(&contest->over) == 0; i++) {
    (void)deque_push(&contest->deque, contest);
    if (i % 4 == 0)
      (void)deque_pop(&contest->deque);
  }
  return NULL;
}

/* Steals while there is much, so that no time goes by with waiting for an owner that lost its
 * processor. */
static double steal_few(struct contest *contest) {
  while (deque_count(&contest->deque) < CAPACITY / 2)
    continue;
  uint64_t start = os_now_ns();
  for (unsigned stolen = 0; stolen < FEW;)
    stolen += deque_steal(&contest->deque) != NULL;
  return (double)(os_now_ns() - start) / FEW;
}

static void measure_beside(const char *name, void *(*other)(void *),
                           double (*lap_of)(struct contest *)) {
  struct contest contest = {.over = 0};
  pthread_t thread;
  if (!is_asked(name) || !has_cpu(1))
    return;
  MUST(deque_init(&contest.deque, CAPACITY) == 0);
  MUST(pthread_create(&thread, NULL, other, &contest) == 0);
  for (unsigned lap = 0; lap < LAPS; lap++)
    times[lap] = lap_of(&contest);
  report("ns", median(times, LAPS));
  store_relaxed(&contest.over, 1);
  pthread_join(thread, NULL);
  deque_destroy(&contest.deque);
}

int main(int argc, char **argv) {
  begin(argc, argv);
  run_on(0);
  measure_write("one read-modify-write");
  measure_ring("ring push + pop");
  measure_deque("deque push + pop");
  measure_steal("steal");
  measure_take("take of an empty port");
  measure_beside("a word to another CPU", send_back, send_few);
  measure_beside("steal beside a busy owner", own, steal_few);
  return end();
}
