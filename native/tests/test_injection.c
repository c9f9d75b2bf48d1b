/* test_injection.c - tests of the queue of injection.h: a ring with a waiting room behind it. */
#include "injection.h"
#include "testing.h"

#include <errno.h>
#include <signal.h>

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

/* ---- Not waiting in line -------------------------------------------------------------------- */

static void push_nowait_refuses_what_does_not_fit_and_does_not_queue_it(void) {
  struct job *jobs = jobs_make(6);
  struct injection *injection = injection_make(4);
  for (unsigned i = 0; i < 4; i++)
    CHECK(injection_push_nowait(injection, &jobs[i].task));
  CHECK(!injection_push_nowait(injection, &jobs[4].task));
  CHECK_EQ(injection_count(injection), 4);
  check_pop(injection, 0);
  CHECK(injection_push_nowait(injection, &jobs[5].task));
  for (unsigned i = 1; i < 4; i++)
    check_pop(injection, i);
  check_pop(injection, 5);
  CHECK(pop(injection) == NULL);
  injection_destroy(injection);
  free(jobs);
}

static void push_nowait_does_not_overtake_what_waits_in_line(void) {
  struct job *jobs = jobs_make(4);
  struct injection *injection = injection_make(2);
  for (unsigned i = 0; i < 3; i++)
    CHECK_EQ(injection_push(injection, &jobs[i].task), i < 2);
  CHECK(ring_pop(&injection->ring) == &jobs[0].task); /* room, and nobody has moved up yet */
  CHECK(!injection_push_nowait(injection, &jobs[3].task));
  check_pop(injection, 1);
  CHECK(injection_push_nowait(injection, &jobs[3].task));
  check_pop(injection, 2);
  check_pop(injection, 3);
  injection_destroy(injection);
  free(jobs);
}

/* ---- Taking back ---------------------------------------------------------------------------- */

static void remove_takes_a_task_out_of_the_line_wherever_it_stands(void) {
  enum { CAPACITY = 2, WAITING = 3, COUNT = CAPACITY + WAITING };
  struct job *jobs = jobs_make(COUNT);
  for (unsigned removed = CAPACITY; removed < COUNT;
       removed++) { /* the first, a middle, the last */
    struct injection *injection = injection_make(CAPACITY);
    for (unsigned i = 0; i < COUNT; i++)
      injection_push(injection, &jobs[i].task);
    CHECK(injection_remove(injection, &jobs[removed].task));
    CHECK(!injection_remove(injection, &jobs[removed].task));
    CHECK_EQ(injection_count(injection), COUNT - 1);
    for (unsigned i = 0; i < COUNT; i++) {
      if (i != removed)
        check_pop(injection, i);
    }
    CHECK(pop(injection) == NULL);
    CHECK_EQ(injection_count(injection), 0);
    injection_destroy(injection);
  }
  free(jobs);
}

static void remove_leaves_alone_what_is_in_the_ring_or_gone(void) {
  struct job *jobs = jobs_make(3);
  struct injection *injection = injection_make(2);
  for (unsigned i = 0; i < 3; i++)
    injection_push(injection, &jobs[i].task);
  CHECK(!injection_remove(injection, &jobs[0].task)); /* never waited */
  check_pop(injection, 0);
  CHECK(!injection_remove(injection, &jobs[2].task)); /* has moved into the ring */
  check_pop(injection, 1);
  check_pop(injection, 2);
  CHECK(!injection_remove(injection, &jobs[2].task));
  injection_destroy(injection);
  free(jobs);
}

static void a_line_that_was_emptied_by_removal_is_gone(void) {
  struct job *jobs = jobs_make(4);
  struct injection *injection = injection_make(2);
  for (unsigned i = 0; i < 4; i++)
    injection_push(injection, &jobs[i].task);
  CHECK(injection_remove(injection, &jobs[3].task));
  CHECK(injection_remove(injection, &jobs[2].task));
  CHECK(injection->first == NULL);
  CHECK(injection->last == NULL);
  check_pop(injection, 0);
  CHECK(injection_push_nowait(injection, &jobs[2].task)); /* one that was removed may come again */
  check_pop(injection, 1);
  check_pop(injection, 2);
  injection_destroy(injection);
  free(jobs);
}

/* ---- Waiting for room ----------------------------------------------------------------------- */

static void who_need_not_wait_for_room_does_not_sleep(void) {
  struct job *jobs = jobs_make(3);
  struct injection *injection = injection_make(2);
  for (unsigned i = 0; i < 3; i++)
    injection_push(injection, &jobs[i].task);
  CHECK_EQ(injection_await_room(injection, &jobs[0].task, -1), 0);
  check_pop(injection, 0); /* moves the last one */
  CHECK_EQ(injection_await_room(injection, &jobs[2].task, -1), 0);
  CHECK_EQ(injection_count(injection), 2);
  injection_destroy(injection);
  free(jobs);
}

static void a_task_whose_time_is_up_has_left_the_queue(void) {
  struct job *jobs = jobs_make(4);
  struct injection *injection = injection_make(2);
  for (unsigned i = 0; i < 4; i++)
    injection_push(injection, &jobs[i].task);
  CHECK_EQ(injection_await_room(injection, &jobs[2].task, 0), -ETIMEDOUT);
  CHECK_EQ(injection_count(injection), 3);
  check_pop(injection, 0);
  check_pop(injection, 1);
  check_pop(injection, 3);
  CHECK(pop(injection) == NULL);
  injection_destroy(injection);
  free(jobs);
}

/* A thread that waits for room, and how that ended. */
struct sleeper {
  struct injection *injection;
  dromon_task *task;
  int result;
  uint32_t awake; /* 1: it is back */
};

static void sleep_for_room(void *arg, unsigned index) {
  struct sleeper *sleeper = arg;
  (void)index;
  sleeper->result = injection_await_room(sleeper->injection, sleeper->task, -1);
  raise_count(&sleeper->awake, 1);
}

/* Until `task` is marked as one whose submitter sleeps. */
static void await_sleep(const dromon_task *task) {
  enum { SLEEPS = 2 };
  for (unsigned step = 0; load_acquire(&task->waiting) != SLEEPS;)
    relax(&step);
}

/* Fills a ring of 2, and lets a thread wait until there is room for a third task. */
static void start_sleeper(struct threads *threads, struct sleeper *sleeper, struct job *jobs) {
  *sleeper = (struct sleeper){.injection = injection_make(2), .task = &jobs[2].task};
  for (unsigned i = 0; i < 3; i++)
    injection_push(sleeper->injection, &jobs[i].task);
  threads_start(threads, 1, sleep_for_room, sleeper);
  await_sleep(sleeper->task);
}

static void who_waits_for_room_is_woken_when_its_task_moves_up(void) {
  struct job *jobs = jobs_make(3);
  struct sleeper sleeper;
  struct threads threads;
  start_sleeper(&threads, &sleeper, jobs);
  check_pop(sleeper.injection, 0);
  threads_join(&threads);
  CHECK_EQ(sleeper.result, 0);
  check_pop(sleeper.injection, 1);
  check_pop(sleeper.injection, 2);
  injection_destroy(sleeper.injection);
  free(jobs);
}

static void who_waits_for_room_is_woken_when_its_task_is_taken_from_the_line(void) {
  struct job *jobs = jobs_make(3);
  struct sleeper sleeper;
  struct threads threads;
  start_sleeper(&threads, &sleeper, jobs);
  for (unsigned i = 0; i < 2; i++)
    CHECK(ring_pop(&sleeper.injection->ring) == &jobs[i].task);
  check_pop(sleeper.injection, 2);
  threads_join(&threads);
  CHECK_EQ(sleeper.result, 0);
  CHECK_EQ(injection_count(sleeper.injection), 0);
  injection_destroy(sleeper.injection);
  free(jobs);
}

static void who_waits_for_room_is_woken_when_its_task_is_removed(void) {
  struct job *jobs = jobs_make(3);
  struct sleeper sleeper;
  struct threads threads;
  start_sleeper(&threads, &sleeper, jobs);
  CHECK(injection_remove(sleeper.injection, sleeper.task));
  threads_join(&threads);
  CHECK_EQ(sleeper.result, 0);
  CHECK_EQ(injection_count(sleeper.injection), 2);
  injection_destroy(sleeper.injection);
  free(jobs);
}

static void handle_nothing(int signal) {
  (void)signal;
}

static void who_waits_for_room_gives_up_at_a_signal(void) {
  struct job *jobs = jobs_make(3);
  struct sleeper sleeper;
  struct threads threads;
  sigaction(SIGUSR1, &(struct sigaction){.sa_handler = handle_nothing}, NULL);
  start_sleeper(&threads, &sleeper, jobs);
  /* Again and again: one that comes before the system call is of no use. */
  for (unsigned step = 0; load_acquire(&sleeper.awake) == 0; relax(&step))
    CHECK_EQ(pthread_kill(threads.ids[0], SIGUSR1), 0);
  threads_join(&threads);
  CHECK_EQ(sleeper.result, -EINTR);
  CHECK_EQ(injection_count(sleeper.injection), 2);
  injection_destroy(sleeper.injection);
  free(jobs);
}

/* A pop tries to move the first of the line into a ring that others have filled meanwhile, again and
 * again: this is what move_first does to it then. */
struct crowd {
  struct injection *injection;
  struct job *job;
  uint32_t is_over;
};

static void try_to_move(struct injection *injection, dromon_task *task) {
  pthread_mutex_lock(&injection->mutex);
  if (injection->first == task) {
    uint32_t waiting = exchange_acq_rel(&task->waiting, 0);
    CHECK(!ring_push(&injection->ring, task));
    store_relaxed(&task->waiting, waiting);
  }
  pthread_mutex_unlock(&injection->mutex);
}

static void wait_in_the_crowd(struct crowd *crowd) {
  dromon_task *task = &crowd->job->task;
  for (unsigned i = rounds(200000); i > 0; i--) {
    injection_push(crowd->injection, task);
    int result = injection_await_room(crowd->injection, task, 0);
    CHECK(result == 0 || result == -ETIMEDOUT);
    CHECK_EQ(injection_remove(crowd->injection, task), result == 0);
  }
  store_release(&crowd->is_over, 1);
}

static void crowd_thread(void *arg, unsigned index) {
  struct crowd *crowd = arg;
  if (index == 0)
    wait_in_the_crowd(crowd);
  while (load_acquire(&crowd->is_over) == 0)
    try_to_move(crowd->injection, &crowd->job->task);
}

static void a_task_that_finds_no_room_when_its_turn_comes_stays_in_line(void) {
  struct job *jobs = jobs_make(3);
  struct crowd crowd = {.injection = injection_make(2), .job = &jobs[2]};
  for (unsigned i = 0; i < 2; i++)
    injection_push(crowd.injection, &jobs[i].task);
  struct threads threads;
  threads_start(&threads, 2, crowd_thread, &crowd);
  threads_join(&threads);
  CHECK_EQ(injection_count(crowd.injection), 2);
  injection_destroy(crowd.injection);
  free(jobs);
}

/* ---- Stress --------------------------------------------------------------------------------- */

struct stress {
  struct injection *injection;
  struct job *jobs;
  unsigned producers;
  unsigned per_producer;
  unsigned total;
  unsigned received; /* or taken back by its producer */
  unsigned taken_back;
  bool check_order;
  void (*push)(struct stress *stress, struct job *job, unsigned seed);
};

static void push(struct stress *stress, struct job *job, unsigned seed) {
  (void)seed;
  injection_push(stress->injection, &job->task);
}

/* The job's producer has got it back, and it must not be received. */
static void take_back(struct stress *stress, struct job *job) {
  fetch_add_relaxed(&job->item.times_received, 1);
  fetch_add_relaxed(&stress->taken_back, 1);
  fetch_add_relaxed(&stress->received, 1);
}

static void push_and_wait(struct stress *stress, struct job *job, unsigned seed) {
  static const int64_t timeouts[] = {-1, -1, 10000, 0};
  injection_push(stress->injection, &job->task);
  int result = injection_await_room(stress->injection, &job->task, timeouts[seed >> 16 & 3]);
  if (result == -ETIMEDOUT)
    take_back(stress, job);
  else
    CHECK_EQ(result, 0);
}

static void push_and_take_back(struct stress *stress, struct job *job, unsigned seed) {
  injection_push(stress->injection, &job->task);
  dither(&seed);
  if (injection_remove(stress->injection, &job->task))
    take_back(stress, job);
}

static void push_without_waiting(struct stress *stress, struct job *job, unsigned seed) {
  (void)seed;
  for (unsigned step = 0; !injection_push_nowait(stress->injection, &job->task);)
    relax(&step);
}

static void produce(struct stress *stress, unsigned producer) {
  unsigned seed = producer;
  for (unsigned number = 0; number < stress->per_producer; number++) {
    struct job *job = &stress->jobs[producer * stress->per_producer + number];
    job->item.producer = producer;
    job->item.number = number;
    stress->push(stress, job, seed);
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

/* Returns how many jobs their producers took back. */
static unsigned stress_pushing_by(void (*push)(struct stress *, struct job *, unsigned),
                                  uint64_t capacity, unsigned producers, unsigned consumers,
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
      .push = push,
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
  return stress.taken_back;
}

static void stress_injection(uint64_t capacity, unsigned producers, unsigned consumers,
                             unsigned total) {
  CHECK_EQ(stress_pushing_by(push, capacity, producers, consumers, total), 0);
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

static void each_task_of_producers_that_wait_is_received_or_timed_out(void) {
  stress_pushing_by(push_and_wait, 2, 1, 1, 50000);
  stress_pushing_by(push_and_wait, 2, 4, 2, 50000);
}

static void each_task_is_received_or_taken_back(void) {
  stress_pushing_by(push_and_take_back, 2, 1, 1, 200000);
  stress_pushing_by(push_and_take_back, 2, 4, 2, 200000);
}

static void producers_that_do_not_wait_lose_nothing_either(void) {
  CHECK_EQ(stress_pushing_by(push_without_waiting, 2, 1, 1, 200000), 0);
  CHECK_EQ(stress_pushing_by(push_without_waiting, 4, 4, 2, 200000), 0);
}

int main(void) {
  RUN(an_empty_queue_gives_nothing);
  RUN(a_bad_capacity_is_refused);
  RUN(what_waits_for_the_ring_keeps_its_order);
  RUN(a_push_while_others_wait_queues_behind_them);
  RUN(an_emptied_waiting_room_gives_the_ring_back);
  RUN(push_nowait_refuses_what_does_not_fit_and_does_not_queue_it);
  RUN(push_nowait_does_not_overtake_what_waits_in_line);
  RUN(remove_takes_a_task_out_of_the_line_wherever_it_stands);
  RUN(remove_leaves_alone_what_is_in_the_ring_or_gone);
  RUN(a_line_that_was_emptied_by_removal_is_gone);
  RUN(who_need_not_wait_for_room_does_not_sleep);
  RUN(a_task_whose_time_is_up_has_left_the_queue);
  RUN_THREADED(who_waits_for_room_is_woken_when_its_task_moves_up);
  RUN_THREADED(who_waits_for_room_is_woken_when_its_task_is_taken_from_the_line);
  RUN_THREADED(who_waits_for_room_is_woken_when_its_task_is_removed);
  RUN_THREADED(who_waits_for_room_gives_up_at_a_signal);
  RUN_THREADED(a_task_that_finds_no_room_when_its_turn_comes_stays_in_line);
  RUN_THREADED(one_producer_keeps_its_order_through_the_waiting_room);
  RUN_THREADED(a_tiny_ring_loses_nothing);
  RUN_THREADED(a_larger_ring_loses_nothing);
  RUN_THREADED(each_task_of_producers_that_wait_is_received_or_timed_out);
  RUN_THREADED(each_task_is_received_or_taken_back);
  RUN_THREADED(producers_that_do_not_wait_lose_nothing_either);
  return 0;
}
