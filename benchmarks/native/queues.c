/* queues.c - what push, pop and steal cost where nobody else is at the queue, and what a steal costs
 * where the owner is busy. */
#include "deque.h"
#include "measure.h"
#include "ring.h"

#include <pthread.h>

enum { CAPACITY = 256, LAPS = 4000 };

/* Of each lap, for each of the things done in it. The median is not disturbed by the few laps in which
 * somebody else had the processor. */
static double times[LAPS];

static void report_laps(const char *name) {
  report(name, median(times, LAPS));
}

static double since(uint64_t start) {
  return (double)(os_now_ns() - start) / CAPACITY;
}

/* What no queue of this sort can do without. */
static void measure_write(void) {
  static uint64_t word;
  for (unsigned lap = 0; lap < LAPS; lap++) {
    uint64_t start = os_now_ns();
    for (unsigned i = 0; i < CAPACITY; i++)
      fetch_add_acq_rel(&word, 1);
    times[lap] = since(start);
  }
  report_laps("one read-modify-write");
}

static void measure_ring(void) {
  struct ring ring;
  MUST(ring_init(&ring, CAPACITY) == 0);
  for (unsigned lap = 0; lap < LAPS; lap++) {
    uint64_t start = os_now_ns();
    for (unsigned i = 0; i < CAPACITY; i++) {
      MUST(ring_push(&ring, &ring));
      MUST(ring_pop(&ring) != NULL);
    }
    times[lap] = since(start);
  }
  report_laps("ring push + pop");
  ring_destroy(&ring);
}

static void fill(struct deque *deque) {
  for (unsigned i = 0; i < CAPACITY; i++)
    MUST(deque_push(deque, deque));
}

static void measure_deque(void) {
  struct deque deque;
  MUST(deque_init(&deque, CAPACITY) == 0);
  for (unsigned lap = 0; lap < LAPS; lap++) {
    uint64_t start = os_now_ns();
    fill(&deque);
    for (unsigned i = 0; i < CAPACITY; i++)
      MUST(deque_pop(&deque) != NULL);
    times[lap] = since(start);
  }
  report_laps("deque push + pop");

  for (unsigned lap = 0; lap < LAPS; lap++) {
    fill(&deque);
    uint64_t start = os_now_ns();
    for (unsigned i = 0; i < CAPACITY; i++)
      MUST(deque_steal(&deque) != NULL);
    times[lap] = since(start);
  }
  report_laps("steal");
  deque_destroy(&deque);
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
  MUST(deque_init(&contest.deque, CAPACITY) == 0);
  MUST(pthread_create(&thread, NULL, other, &contest) == 0);
  for (unsigned lap = 0; lap < LAPS; lap++)
    times[lap] = lap_of(&contest);
  report_laps(name);
  store_relaxed(&contest.over, 1);
  pthread_join(thread, NULL);
  deque_destroy(&contest.deque);
}

int main(int argc, char **argv) {
  unsigned rounds = begin(argc, argv);
  run_on(0);
  for (unsigned round = 0; round < rounds; round++) {
    measure_write();
    measure_ring();
    measure_deque();
    if (has_two_cpus()) {
      measure_beside("a word to another CPU", send_back, send_few);
      measure_beside("steal beside a busy owner", own, steal_few);
    }
  }
  return 0;
}
