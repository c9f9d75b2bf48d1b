/* test_injection.c - tests of the queue of injection.h: a ring with a waiting room behind it. */
#include "injection.h"
#include "testing.h"

#include <errno.h>

struct job {
  dromon_task task; /* first, so that a task is its job */
  struct item item;
};

static struct injection *injection_make(uint64_t capacity) {
  static struct injection injection;
  CHECK_EQ(injection_init(&injection, capacity), 0);
  return &injection;
}

static struct job *jobs_make(unsigned count) {
  struct job *jobs = calloc(count, sizeof *jobs);
  CHECK(jobs != NULL);
  for (unsigned i = 0; i < count; i++) {
    dromon_task_init(&jobs[i].task);
    jobs[i].item.number = i;
  }
  return jobs;
}

static struct job *pop(struct injection *injection) {
  return (struct job *)injection_pop(injection);
}

static void check_pop(struct injection *injection, unsigned number) {
  struct job *job = pop(injection);
  CHECK(job != NULL);
  CHECK_EQ(job->item.number, number);
}

static void an_empty_queue_gives_nothing(void) {
  struct injection *injection = injection_make(2);
  CHECK(pop(injection) == NULL);
  CHECK_EQ(injection_count(injection), 0);
  injection_destroy(injection);
}

static void a_bad_capacity_is_refused(void) {
  static const uint64_t bad[] = {0, 1, 3};
  struct injection injection;
  for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
    CHECK_EQ(injection_init(&injection, bad[i]), -EINVAL);
}

/* Fills a queue far beyond its ring, and empties it. */
static void fill_and_empty(struct injection *injection, struct job *jobs, unsigned count) {
  for (unsigned i = 0; i < count; i++) {
    injection_push(injection, &jobs[i].task);
    CHECK_EQ(injection_count(injection), i + 1);
  }
  for (unsigned i = 0; i < count; i++) {
    check_pop(injection, i);
    CHECK_EQ(injection_count(injection), count - i - 1);
  }
  CHECK(pop(injection) == NULL);
}

static void what_waits_for_the_ring_keeps_its_order(void) {
  enum { COUNT = 1000 };
  struct job *jobs = jobs_make(COUNT);
  for (uint64_t capacity = 2; capacity <= 512; capacity *= 2) {
    struct injection *injection = injection_make(capacity);
    fill_and_empty(injection, jobs, COUNT);
    fill_and_empty(injection, jobs, COUNT);
    injection_destroy(injection);
  }
  free(jobs);
}

/* While some tasks wait behind the ring, new ones must not overtake them by the room in it. */
static void a_push_while_others_wait_queues_behind_them(void) {
  enum { COUNT = 3000 };
  struct job *jobs = jobs_make(COUNT);
  struct injection *injection = injection_make(4);
  unsigned pushed = 0, popped = 0;
  while (pushed < COUNT) {
    for (int i = 0; i < 3; i++)
      injection_push(injection, &jobs[pushed++].task);
    for (int i = 0; i < 2; i++)
      check_pop(injection, popped++);
    CHECK_EQ(injection_count(injection), pushed - popped);
  }
  while (popped < COUNT)
    check_pop(injection, popped++);
  CHECK(pop(injection) == NULL);
  injection_destroy(injection);
  free(jobs);
}

static void an_emptied_waiting_room_gives_the_ring_back(void) {
  struct job *jobs = jobs_make(8);
  struct injection *injection = injection_make(4);
  fill_and_empty(injection, jobs, 8);
  CHECK_EQ(injection->waiting_count, 0);
  fill_and_empty(injection, jobs, 4);
  CHECK_EQ(injection->waiting_count, 0);
  CHECK(injection->first == NULL);
  injection_destroy(injection);
  free(jobs);
}

/* ---- Stress --------------------------------------------------------------------------------- */

struct stress {
  struct injection *injection;
  struct job *jobs;
  unsigned producers;
  unsigned per_producer;
  unsigned total;
  unsigned received;
  bool check_order;
};

static void produce(struct stress *stress, unsigned producer) {
  unsigned seed = producer;
  for (unsigned number = 0; number < stress->per_producer; number++) {
    struct job *job = &stress->jobs[producer * stress->per_producer + number];
    job->item.producer = producer;
    job->item.number = number;
    injection_push(stress->injection, &job->task);
    dither(&seed);
  }
}

static void consume(struct stress *stress) {
  struct order order = {0};
  unsigned step = 0;
  while (load_relaxed(&stress->received) < stress->total) {
    struct job *job = pop(stress->injection);
    if (job == NULL) {
      relax(&step);
      continue;
    }
    step = 0;
    if (stress->check_order)
      order_check(&order, &job->item);
    job->task.next = NULL; /* the taker's to write */
    fetch_add_relaxed(&job->item.times_received, 1);
    fetch_add_relaxed(&stress->received, 1);
  }
}

static void stress_thread(void *arg, unsigned index) {
  struct stress *stress = arg;
  if (index < stress->producers)
    produce(stress, index);
  else
    consume(stress);
}

static void stress_injection(uint64_t capacity, unsigned producers, unsigned consumers,
                             unsigned total) {
  unsigned per_producer = rounds(total / producers);
  struct stress stress = {
      .injection = injection_make(capacity),
      .jobs = jobs_make(per_producer * producers),
      .producers = producers,
      .per_producer = per_producer,
      .total = per_producer * producers,
      /* Among several producers, one that is stalled in the ring holds back what others have there,
       * but not what they have behind it. */
      .check_order = producers == 1,
  };
  struct threads threads;
  threads_start(&threads, producers + consumers, stress_thread, &stress);
  threads_join(&threads);
  for (unsigned i = 0; i < stress.total; i++)
    CHECK_EQ(stress.jobs[i].item.times_received, 1);
  CHECK(pop(stress.injection) == NULL);
  CHECK_EQ(injection_count(stress.injection), 0);
  injection_destroy(stress.injection);
  free(stress.jobs);
}

static void one_producer_keeps_its_order_through_the_waiting_room(void) {
  stress_injection(2, 1, 1, 1000000);
  stress_injection(2, 1, 3, 1000000);
  stress_injection(64, 1, 1, 1000000);
}

static void a_tiny_ring_loses_nothing(void) {
  stress_injection(2, 4, 1, 1000000);
  stress_injection(2, 4, 4, 1000000);
  stress_injection(2, 2, 6, 1000000);
}

static void a_larger_ring_loses_nothing(void) {
  stress_injection(32, 4, 4, 2000000);
  stress_injection(1024, 4, 2, 2000000);
}

int main(void) {
  RUN(an_empty_queue_gives_nothing);
  RUN(a_bad_capacity_is_refused);
  RUN(what_waits_for_the_ring_keeps_its_order);
  RUN(a_push_while_others_wait_queues_behind_them);
  RUN(an_emptied_waiting_room_gives_the_ring_back);
  RUN_THREADED(one_producer_keeps_its_order_through_the_waiting_room);
  RUN_THREADED(a_tiny_ring_loses_nothing);
  RUN_THREADED(a_larger_ring_loses_nothing);
  return 0;
}
