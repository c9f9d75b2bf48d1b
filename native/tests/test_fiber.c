/* test_fiber.c - tests of parking: of nodes, of fibers, and of the tasks that a task submits as its children. */
#include "fiber.h"
#include "os.h"
#include "pool.h"
#include "process.h"

#include <dromon/dromon.h>
#include <semaphore.h>
#include <signal.h>
#include <string.h>

/* ---- Pools and jobs of a test --------------------------------------------------------------- */

/* ThreadSanitizer's own thread-locals, at the top of each thread's stack, take about a MiB. */
enum { STACK_SIZE = UNDER_TSAN ? 4 << 20 : DROMON_STACK_SIZE_MIN };

/* How many stacks a test may ask for: the sanitizer keeps much of each. */
enum { MANY = UNDER_TSAN ? 100 : 1000 };

static dromon_pool *pool; /* of the current test, as its port */
static dromon_port *port;
static unsigned threads_without_pools;

static void open_configured(dromon_pool_config config) {
  CHECK_EQ(dromon_port_open(&port), 0);
  CHECK_EQ(dromon_pool_open(&config, &pool), 0);
}

static dromon_pool_config config_of(unsigned workers) {
  return (dromon_pool_config){.workers = workers, .stack_size = STACK_SIZE};
}

static void open_pool(unsigned workers) {
  open_configured(config_of(workers));
}

static void close_pool(void) {
  CHECK_EQ(dromon_pool_close(pool, NULL), 0);
  CHECK_EQ(dromon_pool_join(pool), 0);
  dromon_pool_unref(pool);
  dromon_port_unref(port);
}

static dromon_pool_statistics statistics(void) {
  dromon_pool_statistics statistics;
  dromon_pool_read_statistics(pool, &statistics);
  return statistics;
}

struct job {
  dromon_native_task native; /* first, so that a task is its job */
  void (*fn)(struct job *);
  unsigned runs;
  dromon_park park; /* that it waits for, once */
  int64_t timeout_ns;
  int result; /* of that wait */
  struct worker *worker;
  struct job *parent;
  uint32_t pending; /* children that have not ended */
  dromon_park children_ended;
};

static int run_job(void *arg) {
  struct job *job = arg;
  fetch_add_relaxed(&job->runs, 1);
  job->worker = worker_current();
  job->fn(job);
  if (job->parent != NULL && fetch_sub_acq_rel(&job->parent->pending, 1) == 1)
    CHECK_EQ(dromon_park_set(&job->parent->children_ended), 1);
  return 0;
}

static struct job *jobs_make(unsigned count, void (*fn)(struct job *)) {
  struct job *jobs = calloc(count, sizeof *jobs);
  CHECK(jobs != NULL);
  for (unsigned i = 0; i < count; i++) {
    dromon_native_task_init(&jobs[i].native, run_job, &jobs[i], port);
    dromon_park_init(&jobs[i].park);
    dromon_park_init(&jobs[i].children_ended);
    jobs[i].fn = fn;
    jobs[i].timeout_ns = -1;
    jobs[i].result = 1;
  }
  return jobs;
}

static void submit(struct job *job) {
  CHECK_EQ(dromon_pool_submit(pool, &job->native.task), 0);
}

static void submit_all(struct job *jobs, unsigned count) {
  for (unsigned i = 0; i < count; i++)
    submit(&jobs[i]);
}

/* Takes what has come back, waiting for so many. */
static void await_back(unsigned count) {
  while (count > 0) {
    CHECK_EQ(dromon_port_wait(port, HANGS_AFTER_MS * INT64_C(1000000)), 0);
    for (dromon_task *task = dromon_port_take(port); task != NULL; task = task->next)
      count--;
  }
}

static void await_parked(unsigned count) {
  while (statistics().fibers_parked != count)
    sleep_a_moment();
}

static void await_blocked(unsigned count) {
  while (statistics().fiber_blocks != count)
    sleep_a_moment();
}

static void await_asleep(unsigned workers) {
  while (statistics().parked != workers)
    sleep_a_moment();
}

static void check_each_ran_once(const struct job *jobs, unsigned count) {
  for (unsigned i = 0; i < count; i++)
    CHECK_EQ(jobs[i].runs, 1);
}

static void set_all(struct job *jobs, unsigned count) {
  for (unsigned i = 0; i < count; i++)
    CHECK_EQ(dromon_park_set(&jobs[i].park), 1);
}

static void do_nothing(struct job *job) {
  (void)job;
}

static void wait_for_park(struct job *job) {
  store_relaxed(&job->result, dromon_park_wait(&job->park, job->timeout_ns));
}

/* So many parked ones. */
static struct job *park_jobs(unsigned count) {
  struct job *jobs = jobs_make(count, wait_for_park);
  submit_all(jobs, count);
  await_parked(count);
  return jobs;
}

/* The order in which things happen on one worker. */
static char log_text[256];
static unsigned log_length;

static void log_add(char what) {
  CHECK_THAT(log_length, <, sizeof log_text);
  log_text[log_length++] = what;
}

static void log_check(const char *expected) {
  CHECK_EQ(strncmp(log_text, expected, sizeof log_text), 0);
  memset(log_text, 0, sizeof log_text);
  log_length = 0;
}

/* A job that keeps its worker busy until the test lets it go on. */
static sem_t has_begun, may_go_on;

static void await(sem_t *semaphore) {
  while (sem_wait(semaphore) < 0)
    CHECK_EQ(errno, EINTR);
}

static void keep_busy(struct job *job) {
  (void)job;
  sem_post(&has_begun);
  await(&may_go_on);
}

static struct job *occupy(void) {
  struct job *job = jobs_make(1, keep_busy);
  submit(job);
  await(&has_begun);
  return job;
}

/* ---- Nodes ---------------------------------------------------------------------------------- */

static void a_node_ends_in_one_way(void) {
  dromon_park park;
  dromon_park_init(&park);
  CHECK_EQ(dromon_park_set(&park), 1);
  CHECK_EQ(dromon_park_set(&park), 0);
  CHECK_EQ(dromon_park_cancel(&park), 0);
  CHECK_EQ(dromon_park_wait(&park, -1), 0);
  dromon_park_init(&park);
  CHECK_EQ(dromon_park_cancel(&park), 1);
  CHECK_EQ(dromon_park_set(&park), 0);
  CHECK_EQ(dromon_park_wait(&park, -1), -ECANCELED);
}

struct waiting {
  dromon_park park;
  int result;
  uint32_t signals; /* that have ended a wait of it */
};

static void wait_in_thread(void *arg, unsigned index) {
  (void)index;
  struct waiting *waiting = arg;
  while ((waiting->result = dromon_park_wait(&waiting->park, -1)) == -EINTR)
    raise_count(&waiting->signals, 1);
}

static void an_ordinary_thread_waits_too(void) {
  for (int round = 0; round < 2; round++) {
    struct waiting waiting = {.result = 1};
    struct threads threads;
    dromon_park_init(&waiting.park);
    threads_start(&threads, 1, wait_in_thread, &waiting);
    while (load_acquire(&waiting.park.state) != DROMON_PARK_PARKED)
      sleep_a_moment();
    CHECK_EQ(round == 0 ? dromon_park_set(&waiting.park) : dromon_park_cancel(&waiting.park), 1);
    threads_join(&threads);
    CHECK_EQ(waiting.result, round == 0 ? 0 : -ECANCELED);
  }
}

static void an_ordinary_thread_does_not_wait_longer_than_it_said(void) {
  dromon_park park;
  dromon_park_init(&park);
  CHECK_EQ(dromon_park_wait(&park, 1000000), -ETIMEDOUT);
  CHECK_EQ(dromon_park_set(&park), 0);
}

static void handle(int signal) {
  (void)signal;
}

static void a_wait_that_a_signal_has_ended_can_be_begun_again(void) {
  struct waiting waiting = {.result = 1};
  struct threads threads;
  struct sigaction action = {.sa_handler = handle}, before;
  CHECK_EQ(sigaction(SIGUSR1, &action, &before), 0);
  dromon_park_init(&waiting.park);
  threads_start(&threads, 1, wait_in_thread, &waiting);
  while (load_acquire(&waiting.signals) < 3) {
    CHECK_EQ(pthread_kill(threads.ids[0], SIGUSR1), 0);
    sleep_a_moment();
  }
  CHECK_EQ(dromon_park_set(&waiting.park), 1);
  threads_join(&threads);
  CHECK_EQ(waiting.result, 0);
  CHECK_EQ(sigaction(SIGUSR1, &before, NULL), 0);
}

/* ---- Parking -------------------------------------------------------------------------------- */

static void a_parked_task_goes_on_when_it_is_set(void) {
  static const unsigned workers[] = {1, 2, 8};
  for (unsigned i = 0; i < 3; i++) {
    open_pool(workers[i]);
    struct job *jobs = park_jobs(20);
    for (unsigned j = 0; j < 20; j++)
      CHECK_EQ(jobs[j].result, 1);
    set_all(jobs, 20);
    await_back(20);
    for (unsigned j = 0; j < 20; j++)
      CHECK_EQ(jobs[j].result, 0);
    check_each_ran_once(jobs, 20);
    CHECK_EQ(statistics().fiber_parks, 20);
    CHECK_EQ(statistics().fibers_parked, 0);
    CHECK_EQ(statistics().fiber_blocks, 0);
    close_pool();
    free(jobs);
  }
}

static void a_parked_task_gives_its_worker_back(void) {
  open_pool(1);
  struct job *parked = park_jobs(1);
  struct job *other = jobs_make(1, do_nothing);
  submit(other);
  await_back(1);
  CHECK_EQ(other->runs, 1);
  CHECK_EQ(parked->result, 1);
  set_all(parked, 1);
  await_back(1);
  close_pool();
  free(parked);
  free(other);
}

static void shuffle(unsigned *numbers, unsigned count) {
  unsigned seed = 1;
  for (unsigned i = 0; i < count; i++)
    numbers[i] = i;
  for (unsigned i = count - 1; i > 0; i--) {
    seed = seed * 1664525u + 1013904223u;
    unsigned j = (seed >> 8) % (i + 1), number = numbers[i];
    numbers[i] = numbers[j];
    numbers[j] = number;
  }
}

static void many_are_parked_at_once_on_one_worker(void) {
  static unsigned numbers[MANY];
  open_pool(1);
  struct job *jobs = park_jobs(MANY);
  CHECK_EQ(statistics().fibers,
           MANY); /* the first is on the thread's own stack; the last looks for tasks */
  shuffle(numbers, MANY);
  for (unsigned i = 0; i < MANY; i++)
    CHECK_EQ(dromon_park_set(&jobs[numbers[i]].park), 1);
  await_back(MANY);
  check_each_ran_once(jobs, MANY);
  CHECK_EQ(statistics().fibers_parked, 0);
  close_pool();
  free(jobs);
}

static void stacks_that_are_spare_are_used_again_and_few_are_kept(void) {
  enum { SPARES_MOST = 128 };
  open_pool(1);
  for (int round = 0; round < 3; round++) {
    struct job *jobs = park_jobs(MANY);
    set_all(jobs, MANY);
    await_back(MANY);
    await_asleep(1);
    CHECK_THAT(statistics().fibers, <=, SPARES_MOST + 1);
    free(jobs);
    jobs = park_jobs(20);
    CHECK_THAT(statistics().fibers, <=, SPARES_MOST + 1);
    set_all(jobs, 20);
    await_back(20);
    free(jobs);
  }
  dromon_pool_ref(pool);
  dromon_pool *closed = pool;
  close_pool();
  CHECK_EQ(slabs_in_use(&closed->slabs), 0);
  CHECK_EQ(closed->workers[0].fiber_count, 0);
  dromon_pool_unref(closed);
}

static void end_first_and_wait(struct job *job) {
  if (job->timeout_ns == 0)
    dromon_park_cancel(&job->park);
  else
    dromon_park_set(&job->park);
  wait_for_park(job);
}

static void what_has_ended_is_not_waited_for(void) {
  open_pool(1);
  struct job *jobs = jobs_make(2, end_first_and_wait);
  jobs[1].timeout_ns = 0;
  submit_all(jobs, 2);
  await_back(2);
  CHECK_EQ(jobs[0].result, 0);
  CHECK_EQ(jobs[1].result, -ECANCELED);
  CHECK_EQ(statistics().fibers, 0);
  CHECK_EQ(statistics().fiber_parks, 0);
  close_pool();
  free(jobs);
}

static void a_task_that_never_parks_uses_no_stack_of_its_own(void) {
  open_pool(2);
  struct job *jobs = jobs_make(1000, do_nothing);
  submit_all(jobs, 1000);
  await_back(1000);
  check_each_ran_once(jobs, 1000);
  CHECK_EQ(statistics().fibers, 0);
  CHECK_EQ(statistics().fiber_switches, 0);
  close_pool();
  free(jobs);
}

static struct job *to_set;

static void set_other(struct job *job) {
  (void)job;
  CHECK_EQ(dromon_park_set(&to_set->park), 1);
}

static void a_task_sets_another_of_its_worker(void) {
  open_pool(1);
  to_set = park_jobs(1);
  struct job *setter = jobs_make(1, set_other);
  submit(setter);
  await_back(2);
  CHECK_EQ(to_set->result, 0);
  close_pool();
  free(to_set);
  free(setter);
}

static void a_parked_task_can_be_cancelled(void) {
  open_pool(2);
  struct job *jobs = park_jobs(10);
  for (unsigned i = 0; i < 10; i++)
    CHECK_EQ(dromon_park_cancel(&jobs[i].park), 1);
  await_back(10);
  for (unsigned i = 0; i < 10; i++)
    CHECK_EQ(jobs[i].result, -ECANCELED);
  close_pool();
  free(jobs);
}

static void wait_twice(struct job *job) {
  wait_for_park(job);
  CHECK_EQ(dromon_park_wait(&job->children_ended, -1), 0);
}

static void a_task_may_park_again(void) {
  open_pool(1);
  struct job *jobs = jobs_make(10, wait_twice);
  submit_all(jobs, 10);
  await_parked(10);
  for (unsigned i = 0; i < 10; i++)
    CHECK_EQ(dromon_park_cancel(&jobs[i].park), 1);
  while (statistics().fiber_parks != 20)
    sleep_a_moment();
  for (unsigned i = 0; i < 10; i++)
    CHECK_EQ(dromon_park_set(&jobs[i].children_ended), 1);
  await_back(10);
  close_pool();
  free(jobs);
}

static void check_stack(struct job *job) {
  void *low = NULL;
  uint64_t size = 0;
  bool is_own = worker_current()->fibers.running == &worker_current()->fibers.own;
  CHECK_EQ(dromon_current_stack(&low, &size), !is_own);
  if (!is_own && !UNDER_ASAN) { /* whose frames may be elsewhere */
    CHECK_THAT((uintptr_t)&size, >=, (uintptr_t)low);
    CHECK_THAT((uintptr_t)&size, <, (uintptr_t)low + size);
  }
  wait_for_park(job);
}

static void a_task_is_told_the_bounds_of_its_stack(void) {
  void *low;
  uint64_t size;
  CHECK_EQ(dromon_current_stack(&low, &size), 0);
  open_pool(1);
  struct job *jobs = jobs_make(3, check_stack);
  submit_all(jobs, 3);
  await_parked(3);
  set_all(jobs, 3);
  await_back(3);
  close_pool();
  free(jobs);
}

/* ---- Time ----------------------------------------------------------------------------------- */

static void a_parked_task_does_not_wait_longer_than_it_said(void) {
  open_pool(2);
  struct job *jobs = jobs_make(30, wait_for_park);
  for (unsigned i = 0; i < 30; i++)
    jobs[i].timeout_ns = i * 100000;
  submit_all(jobs, 30);
  await_back(30);
  for (unsigned i = 0; i < 30; i++) {
    CHECK_EQ(jobs[i].result, -ETIMEDOUT);
    CHECK_EQ(dromon_park_set(&jobs[i].park), 0);
  }
  close_pool();
  free(jobs);
}

static void one_that_is_set_in_time_is_not_late(void) {
  open_pool(1);
  struct job *jobs = jobs_make(30, wait_for_park);
  for (unsigned i = 0; i < 30; i++)
    jobs[i].timeout_ns = INT64_MAX / 2;
  submit_all(jobs, 30);
  await_parked(30);
  set_all(jobs, 30);
  await_back(30);
  for (unsigned i = 0; i < 30; i++)
    CHECK_EQ(jobs[i].result, 0);
  close_pool();
  free(jobs);
}

static uint64_t first_deadline_ns;
static bool is_late;
static int order_of_jobs;

enum { SLEEPERS = 100 };

static void sleep_until_its_time(struct job *job) {
  uint64_t deadline_ns = first_deadline_ns + (uint64_t)job->timeout_ns;
  CHECK_EQ(fiber_park(worker_current(), &job->park, deadline_ns), -ETIMEDOUT);
  is_late |= worker_current()->fiber_parks < SLEEPERS;
  job->result = order_of_jobs++;
}

static void sleeping_ones_go_on_in_the_order_of_their_times(void) {
  static unsigned numbers[SLEEPERS];
  shuffle(numbers, SLEEPERS);
  do { /* again, if a time came before all slept */
    open_pool(1);
    struct job *jobs = jobs_make(SLEEPERS, sleep_until_its_time);
    is_late = false;
    order_of_jobs = 0;
    first_deadline_ns = os_now_ns() + 100000000;
    for (unsigned i = 0; i < SLEEPERS; i++)
      jobs[i].timeout_ns = numbers[i];
    submit_all(jobs, SLEEPERS);
    await_back(SLEEPERS);
    for (unsigned i = 0; i < SLEEPERS && !is_late; i++)
      CHECK_EQ(jobs[i].result, numbers[i]);
    close_pool();
    free(jobs);
  } while (is_late);
}

static uint32_t set_wins;

static void set_at_about_that_time(void *arg, unsigned index) {
  struct job *jobs = arg;
  unsigned seed = index + 1;
  for (unsigned i = 0; i < rounds(2000); i++) {
    unsigned step = 0;
    while (load_acquire(&jobs[i].park.state) == DROMON_PARK_EMPTY)
      relax(&step);
    for (unsigned j = (seed >> 16) % 30; j > 0; j--)
      dither(&seed);
    fetch_add_relaxed(&set_wins, (uint32_t)dromon_park_set(&jobs[i].park));
  }
}

static void a_task_is_set_or_its_time_is_over(void) {
  open_pool(1);
  unsigned count = rounds(2000), seed = 1;
  struct job *jobs = jobs_make(count, wait_for_park);
  struct threads threads;
  set_wins = 0;
  threads_start(&threads, 1, set_at_about_that_time, jobs);
  for (unsigned i = 0; i < count; i++) {
    seed = seed * 1664525u + 1013904223u;
    jobs[i].timeout_ns = (seed >> 16) % 20000;
    submit(&jobs[i]);
    await_back(1);
  }
  threads_join(&threads);
  unsigned were_set = 0;
  for (unsigned i = 0; i < count; i++) {
    CHECK(jobs[i].result == 0 || jobs[i].result == -ETIMEDOUT);
    were_set += jobs[i].result == 0;
  }
  CHECK_EQ(were_set, set_wins);
  close_pool();
  free(jobs);
}

/* ---- Turns ---------------------------------------------------------------------------------- */

static void wait_and_log(struct job *job) {
  wait_for_park(job);
  log_add('r');
}

static void log_new(struct job *job) {
  (void)job;
  log_add('n');
}

static void who_can_go_on_comes_before_a_new_task(void) {
  open_pool(1);
  struct job *parked = jobs_make(3, wait_and_log), *fresh = jobs_make(3, log_new);
  submit_all(parked, 3);
  await_parked(3);
  struct job *busy = occupy();
  submit_all(fresh, 3);
  set_all(parked, 3);
  sem_post(&may_go_on);
  await_back(7);
  log_check("rrrnnn");
  close_pool();
  free(parked);
  free(fresh);
  free(busy);
}

static void yield_until_set(struct job *job) {
  while (load_acquire(&job->park.state) == DROMON_PARK_EMPTY)
    dromon_yield();
}

static void new_tasks_do_not_starve_behind_those_that_go_on_and_on(void) {
  open_pool(1);
  struct job *yielding = jobs_make(3, yield_until_set), *setters = jobs_make(3, set_other);
  submit_all(yielding, 3); /* the second one begins in the turn of a new one, as do the setters */
  for (unsigned i = 0; i < 3; i++) {
    to_set = &yielding[i];
    submit(&setters[i]);
    await_back(2);
  }
  close_pool();
  free(yielding);
  free(setters);
}

static void submit_next(struct job *job) {
  (void)job;
  if (load_relaxed(&to_set->result) == 1)
    submit(jobs_make(1, submit_next));
}

static void those_that_go_on_do_not_starve_behind_new_tasks(void) {
  open_pool(1);
  to_set = park_jobs(1);
  struct job *first = jobs_make(1, submit_next);
  submit(first);
  CHECK_EQ(dromon_park_set(&to_set->park), 1);
  while (load_relaxed(&to_set->result) == 1)
    sleep_a_moment();
  CHECK_EQ(dromon_pool_close(pool, NULL), 0);
  CHECK_EQ(dromon_pool_join(pool), 0);
  for (dromon_task *task = dromon_port_take(port), *next; task != NULL; task = next) {
    next = task->next;
    free(task); /* `to_set` and `first` among them */
  }
  dromon_pool_unref(pool);
  dromon_port_unref(port);
}

static void yield_alone(struct job *job) {
  job->result = dromon_yield();
}

static void who_yields_alone_goes_on(void) {
  CHECK_EQ(dromon_yield(), 0); /* no worker */
  open_pool(1);
  struct job *job = jobs_make(1, yield_alone);
  submit(job);
  await_back(1);
  CHECK_EQ(job->result, 0);
  CHECK_EQ(statistics().fibers, 0);
  close_pool();
  free(job);
}

static void log_and_yield(char what, unsigned times) {
  for (unsigned i = 0; i < times; i++) {
    log_add(what);
    CHECK_EQ(dromon_yield(), 1);
  }
}

static void wait_log_and_yield(struct job *job) {
  wait_for_park(job);
  log_and_yield('a', 5);
}

static void set_log_and_yield(struct job *job) {
  set_other(job);
  log_and_yield('b', 5);
}

static void who_yields_lets_others_go_on_in_turn(void) {
  open_pool(1);
  to_set = jobs_make(1, wait_log_and_yield);
  struct job *other = jobs_make(1, set_log_and_yield);
  submit(to_set);
  await_parked(1);
  submit(other);
  await_back(2);
  log_check("bababababa");
  close_pool();
  free(to_set);
  free(other);
}

/* ---- What cannot park ----------------------------------------------------------------------- */

static void forbid_and_wait(struct job *job) {
  CHECK_EQ(dromon_park_forbid(1), 0);
  CHECK_EQ(dromon_yield(), 0);
  wait_for_park(job);
  CHECK_EQ(dromon_park_forbid(0), 1);
}

static void check_that_one_blocks(struct job *job) {
  submit(job);
  await_blocked(1);
  CHECK_EQ(statistics().fibers_parked, 0);
  CHECK_EQ(dromon_park_set(&job->park), 1);
  await_back(1);
  CHECK_EQ(job->result, 0);
  CHECK_EQ(statistics().fiber_parks, 0);
  CHECK_EQ(statistics().fibers, 0);
  close_pool();
  free(job);
}

static void a_task_that_must_not_park_blocks(void) {
  CHECK_EQ(dromon_park_forbid(1), 0); /* no worker */
  CHECK_EQ(dromon_park_forbid(0), 0);
  open_pool(1);
  check_that_one_blocks(jobs_make(1, forbid_and_wait));
}

static void a_task_that_must_not_park_does_not_wait_longer_than_it_said(void) {
  open_pool(1);
  struct job *job = jobs_make(1, forbid_and_wait);
  job->timeout_ns = 1000000;
  submit(job);
  await_back(1);
  CHECK_EQ(job->result, -ETIMEDOUT);
  close_pool();
  free(job);
}

static void have_a_shadow_stack(struct job *job) {
  worker_current()->fibers.cannot_switch = true;
  wait_for_park(job);
}

static void where_there_is_a_shadow_stack_a_task_blocks(void) {
  CHECK(!os_has_shadow_stack()); /* else none of these tests can run */
  open_pool(1);
  check_that_one_blocks(jobs_make(1, have_a_shadow_stack));
}

static void past_the_limit_of_stacks_a_task_blocks(void) {
  enum { LEFT = 3, SMALL = 1 << 14 };
  struct slabs others;
  struct stack stack;
  open_pool(1);
  CHECK_EQ(slabs_init(&others, SMALL, 1), 0);
  for (uint64_t i = LEFT; i < slabs_limit(); i++)
    CHECK_EQ(slabs_take(&others, &stack), 0);
  struct job *jobs = park_jobs(LEFT);
  struct job *late = jobs_make(1, wait_for_park);
  submit(late);
  await_blocked(1);
  CHECK_EQ(statistics().fibers, LEFT);
  CHECK_EQ(statistics().fibers_parked, LEFT);
  set_all(late, 1);
  set_all(jobs, LEFT);
  await_back(LEFT + 1);
  slabs_destroy(&others);
  close_pool();
  free(jobs);
  free(late);
}

static void begin_and_wait(struct job *job) {
  sem_post(&has_begun);
  wait_for_park(job);
}

static void the_closing_task_blocks(void) {
  open_pool(2);
  struct job *last = jobs_make(1, begin_and_wait);
  CHECK_EQ(dromon_pool_close(pool, &last->native.task), 0);
  await(&has_begun);
  set_all(last, 1);
  CHECK_EQ(dromon_pool_join(pool), 0);
  CHECK_EQ(last->result, 0);
  CHECK_EQ(statistics().fibers, 0);
  dromon_pool_unref(pool);
  dromon_port_unref(port);
  free(last);
}

/* ---- A runtime's side ----------------------------------------------------------------------- */

static struct {
  uint32_t entered, left, most; /* fibers, and how many may enter */
  uint32_t workers;
} runtime;

static int the_workers_own, a_fibers; /* their addresses are the states */

static int runtime_enter(void *arg, uint32_t worker, void **state) {
  (void)arg, (void)worker;
  *state = &the_workers_own;
  return 0;
}

static void runtime_run(void *state, dromon_batch *batch) {
  for (dromon_task *task; (task = dromon_batch_next(batch)) != NULL;) {
    dromon_native_task *native = (dromon_native_task *)task;
    bool is_own = fiber_current() == &worker_current()->fibers.own;
    CHECK(state == (is_own ? &the_workers_own : &a_fibers));
    native->status = native->fn(native->arg);
    CHECK_EQ(dromon_task_finish(task), 0);
    CHECK_EQ(dromon_batch_post(batch, native->port, task), 0);
  }
}

static void runtime_drop(void *state, dromon_task *task) {
  (void)state, (void)task;
  CHECK(false); /* the ports of these tests are open */
}

static void runtime_leave(void *state) {
  CHECK(state == &the_workers_own);
}

static void check_that_nothing_parks(void) {
  uint64_t blocks = worker_current()->fiber_blocks;
  dromon_park park;
  dromon_park_init(&park);
  CHECK_EQ(dromon_park_wait(&park, 1), -ETIMEDOUT);
  CHECK_EQ(worker_current()->fiber_blocks, blocks + 1);
  store_relaxed(&worker_current()->fiber_blocks, blocks);
}

static int runtime_enter_fiber(void *state, void **fiber_state) {
  CHECK(state == &the_workers_own);
  check_that_nothing_parks();
  if (load_relaxed(&runtime.entered) >= runtime.most)
    return -ENOMEM;
  fetch_add_relaxed(&runtime.entered, 1);
  *fiber_state = &a_fibers;
  return 0;
}

static void runtime_leave_fiber(void *fiber_state) {
  CHECK(fiber_state == &a_fibers);
  check_that_nothing_parks();
  fetch_add_relaxed(&runtime.left, 1);
}

static const dromon_ops ops = {
    .enter = runtime_enter,
    .run = runtime_run,
    .drop = runtime_drop,
    .leave = runtime_leave,
    .enter_fiber = runtime_enter_fiber,
    .leave_fiber = runtime_leave_fiber,
};

static void open_with_ops(const dromon_ops *with) {
  dromon_pool_config config = config_of(1);
  config.ops = with;
  memset(&runtime, 0, sizeof runtime);
  runtime.most = UINT32_MAX;
  open_configured(config);
}

static void each_fiber_enters_and_leaves_the_runtime(void) {
  open_with_ops(&ops);
  struct job *jobs = jobs_make(MANY, wait_for_park);
  for (unsigned i = 0; i < MANY; i++)
    jobs[i].native.task.native = i % 3 == 0;
  submit_all(jobs, MANY);
  await_parked(MANY);
  CHECK_EQ(load_relaxed(&runtime.entered), MANY);
  set_all(jobs, MANY);
  await_back(MANY);
  check_each_ran_once(jobs, MANY);
  close_pool();
  CHECK_EQ(runtime.left, runtime.entered);
  free(jobs);
}

static void where_no_fiber_can_enter_a_task_blocks(void) {
  open_with_ops(&ops);
  runtime.most = 0;
  check_that_one_blocks(jobs_make(1, wait_for_park));
  CHECK_EQ(runtime.left, 0);
}

static void what_blocks_since_one_fiber_could_not_enter_parks_the_next_time(void) {
  open_with_ops(&ops);
  runtime.most = 1;
  struct job *jobs = park_jobs(1), *late = jobs_make(1, wait_for_park);
  submit(late);
  await_blocked(1);
  set_all(late, 1);
  await_back(1);
  store_relaxed(&runtime.most, 2);
  struct job *next = jobs_make(1, wait_for_park);
  submit(next);
  await_parked(2);
  set_all(next, 1);
  set_all(jobs, 1);
  await_back(2);
  close_pool();
  CHECK_EQ(runtime.left, 2);
  free(jobs);
  free(late);
  free(next);
}

static void a_runtime_without_fibers_blocks(void) {
  dromon_ops without = ops;
  without.enter_fiber = NULL;
  without.leave_fiber = NULL;
  open_with_ops(&without);
  check_that_one_blocks(jobs_make(1, wait_for_park));
}

static void a_runtime_that_only_enters_or_only_leaves_is_refused(void) {
  dromon_ops half = ops;
  half.leave_fiber = NULL;
  dromon_pool_config config = config_of(1);
  config.ops = &half;
  CHECK_EQ(dromon_pool_open(&config, &pool), -EINVAL);
}

/* ---- The end -------------------------------------------------------------------------------- */

static void check_close_while_parked(unsigned workers, unsigned count) {
  open_pool(workers);
  struct job *jobs = park_jobs(count);
  CHECK_EQ(dromon_pool_close(pool, NULL), 0);
  CHECK_THAT(statistics().workers, >=, 1);
  set_all(jobs, count);
  CHECK_EQ(dromon_pool_join(pool), 0);
  for (unsigned i = 0; i < count; i++)
    CHECK_EQ(jobs[i].result, 0);
  CHECK_EQ(statistics().completed, count);
  CHECK_EQ(statistics().fibers, 0);
  dromon_pool_unref(pool);
  dromon_port_unref(port);
  free(jobs);
}

static void closing_waits_for_those_that_are_parked(void) {
  for (unsigned workers = 1; workers <= 8; workers *= 2)
    check_close_while_parked(workers, 10);
}

static void closing_waits_for_thousands(void) {
  check_close_while_parked(2, 5 * MANY);
}

static void wait_and_submit(struct job *job) {
  wait_for_park(job);
  CHECK_EQ(dromon_pool_submit(pool, &job->native.task), -ESHUTDOWN);
}

static void what_goes_on_after_the_close_may_submit_nothing(void) {
  open_pool(1);
  struct job *job = jobs_make(1, wait_and_submit);
  submit(job);
  await_parked(1);
  CHECK_EQ(dromon_pool_close(pool, NULL), 0);
  set_all(job, 1);
  CHECK_EQ(dromon_pool_join(pool), 0);
  CHECK_EQ(job->result, 0);
  dromon_pool_unref(pool);
  dromon_port_unref(port);
  free(job);
}

/* ---- Children ------------------------------------------------------------------------------- */

static void submit_child(struct job *parent, struct job *child, bool pinned) {
  child->parent = parent;
  fetch_add_relaxed(&parent->pending, 1);
  CHECK_EQ(dromon_submit_child(&child->native.task, pinned), 0);
}

/* One pending stands for the parent itself until it waits. */
static void await_children(struct job *parent) {
  if (fetch_sub_acq_rel(&parent->pending, 1) > 1)
    CHECK_EQ(dromon_park_wait(&parent->children_ended, -1), 0);
}

static int take_back(struct job *child) {
  int result = dromon_take_back_child(&child->native.task);
  if (result >= 0)
    CHECK_THAT(fetch_sub_acq_rel(&child->parent->pending, 1), >, 1);
  return result;
}

enum { CHILDREN = 1000 }; /* more than a deque holds */

static struct job *children;

static void submit_children(struct job *job, bool pinned) {
  job->pending = 1;
  for (unsigned i = 0; i < CHILDREN; i++)
    submit_child(job, &children[i], pinned);
  await_children(job);
}

static void submit_pinned(struct job *job) {
  submit_children(job, true);
  for (unsigned i = 0; i < CHILDREN; i++)
    CHECK(children[i].worker == job->worker);
}

static void submit_free(struct job *job) {
  submit_children(job, false);
}

static void run_with_children(unsigned workers, void (*fn)(struct job *)) {
  open_pool(workers);
  children = jobs_make(CHILDREN, do_nothing);
  struct job *job = jobs_make(1, fn);
  submit(job);
  await_back(CHILDREN + 1);
  check_each_ran_once(children, CHILDREN);
  check_each_ran_once(job, 1);
  CHECK_EQ(statistics().completed, CHILDREN + 1);
  close_pool();
  free(children);
  free(job);
}

static void a_task_waits_for_children_that_stay_on_its_worker(void) {
  run_with_children(1, submit_pinned);
  run_with_children(4, submit_pinned);
}

static void a_task_waits_for_children_that_any_worker_may_run(void) {
  run_with_children(1, submit_free);
  run_with_children(4, submit_free);
}

static void who_is_no_worker_has_no_children(void) {
  dromon_task task;
  dromon_task_init(&task);
  CHECK_EQ(dromon_submit_child(&task, 0), -EPERM);
  CHECK_EQ(dromon_take_back_child(&task), -EBUSY);
}

/* Takes children 3 (of 0 to 3), 1 and 0 back. */
static void take_children_back(struct job *job, bool pinned) {
  job->pending = 1;
  for (unsigned i = 0; i < 4; i++)
    submit_child(job, &children[i], pinned);
  CHECK_EQ(take_back(&children[3]), 1); /* the newest */
  CHECK_EQ(take_back(&children[3]), -EBUSY);
  CHECK_EQ(take_back(&children[1]), pinned);
  CHECK_EQ(take_back(&children[0]), pinned);
  CHECK_EQ(take_back(&children[2]), 1); /* the newest of those that are left */
  submit_child(job, &children[4], pinned);
  await_children(job);
  CHECK_EQ(take_back(&children[4]), -EBUSY);
}

static void take_pinned_back(struct job *job) {
  take_children_back(job, true);
}

static void take_free_back(struct job *job) {
  take_children_back(job, false);
}

static void check_taking_back(void (*fn)(struct job *), unsigned left) {
  open_pool(1);
  children = jobs_make(5, do_nothing);
  struct job *job = jobs_make(1, fn);
  submit(job);
  await_back(2 + left); /* a native one that was left comes back */
  for (unsigned i = 0; i < 4; i++)
    CHECK_EQ(children[i].runs, 0);
  CHECK_EQ(children[4].runs, 1);
  CHECK_EQ(statistics().withdrawn, 0);
  CHECK_EQ(statistics().completed, 2);
  CHECK_EQ(statistics().queued, 0);
  close_pool();
  free(children);
  free(job);
}

static void a_child_that_has_not_begun_is_taken_back(void) {
  check_taking_back(take_pinned_back, 0);
  check_taking_back(take_free_back, 2);
}

static void leave_one_behind(struct job *job) {
  job->pending = 1;
  submit_child(job, &children[0], false);
  submit_child(job, &children[1], false);
  CHECK_EQ(take_back(&children[0]), 0);
  CHECK_EQ(statistics().withdrawn, 0); /* it is not yet come across */
  CHECK_EQ(statistics().queued, 2);
  await_children(job);
}

static void a_child_that_was_taken_back_is_never_counted_as_withdrawn(void) {
  open_pool(1);
  children = jobs_make(2, do_nothing);
  struct job *job = jobs_make(1, leave_one_behind);
  submit(job);
  await_back(3);
  CHECK_EQ(statistics().withdrawn, 0);
  CHECK_EQ(children[0].runs, 0);
  close_pool();
  free(children);
  free(job);
}

static void begin_child(struct job *job) {
  job->pending = 1;
  submit_child(job, &children[0], true);
  submit_child(job, &children[1], true);
  sem_post(&has_begun);
  await(&may_go_on);
  await_children(job);
}

static void take_back_of_another(struct job *job) {
  job->result = dromon_take_back_child(&children[0].native.task);
}

static void a_pinned_child_is_taken_back_on_its_worker_alone(void) {
  open_pool(2);
  children = jobs_make(2, do_nothing);
  struct job *parent = jobs_make(1, begin_child), *other = jobs_make(1, take_back_of_another);
  submit(parent);
  await(&has_begun);
  submit(other); /* begins on the other worker, as this one is busy */
  await_back(1);
  CHECK_EQ(other->result, -EBUSY);
  sem_post(&may_go_on);
  await_back(3);
  check_each_ran_once(children, 2);
  close_pool();
  free(children);
  free(parent);
  free(other);
}

static void take_back_when_told(struct job *job) {
  job->pending = 1;
  submit_child(job, &children[0], false);
  submit_child(job, &children[1], false);
  sem_post(&has_begun);
  await(&may_go_on);
  CHECK_EQ(take_back(&children[0]), -EBUSY);
  await_children(job);
}

static void a_child_that_another_worker_has_begun_is_not_taken_back(void) {
  open_pool(2);
  children = jobs_make(2, wait_for_park);
  struct job *parent = jobs_make(1, take_back_when_told);
  submit(parent);
  await(&has_begun);
  await_parked(2); /* both, on the other worker */
  sem_post(&may_go_on);
  await_parked(3);
  set_all(children, 2);
  await_back(3);
  close_pool();
  free(children);
  free(parent);
}

static void tell(struct job *job) {
  (void)job;
  sem_post(&has_begun);
}

/* The other worker, which was told of the second child, must find it, though this one takes the first back
 * and goes on without parking. */
static void take_the_older_one_back_and_keep_busy(struct job *job) {
  job->pending = 1;
  submit_child(job, &children[0], false);
  submit_child(job, &children[1], false);
  take_back(&children[0]);
  await(&has_begun);
  await_children(job);
}

static void a_child_is_found_by_others_while_an_older_one_is_taken_back(void) {
  for (unsigned round = 0; round < rounds(500); round++) {
    open_pool(2);
    await_asleep(2);
    children = jobs_make(2, do_nothing);
    children[1].fn = tell;
    struct job *parent = jobs_make(1, take_the_older_one_back_and_keep_busy);
    submit(parent);
    await_back(3);
    close_pool();
    free(children);
    free(parent);
  }
}

static void wait_and_have_a_child(struct job *job) {
  wait_for_park(job);
  job->pending = 1;
  submit_child(job, &children[0], false);
  submit_child(job, &children[1], true);
  await_children(job);
}

static void what_goes_on_after_the_close_may_have_children(void) {
  open_pool(2);
  children = jobs_make(2, do_nothing);
  struct job *job = jobs_make(1, wait_and_have_a_child);
  submit(job);
  await_parked(1);
  CHECK_EQ(dromon_pool_close(pool, NULL), 0);
  set_all(job, 1);
  CHECK_EQ(dromon_pool_join(pool), 0);
  check_each_ran_once(children, 2);
  dromon_pool_unref(pool);
  dromon_port_unref(port);
  free(children);
  free(job);
}

/* ---- Retired workers ------------------------------------------------------------------------ */

static void replace(void) {
  CHECK_EQ(dromon_pool_replace(pool, 0, dromon_pool_read_began(pool, 0)), 0);
}

/* Fibers of this test stay with their worker, which is retired in another task. */
static void a_retired_worker_goes_on_with_what_is_parked_and_its_children(void) {
  open_pool(1);
  children = jobs_make(2, do_nothing);
  struct job *parked = jobs_make(1, wait_and_have_a_child), *sleeping = jobs_make(1, wait_for_park);
  submit(parked);
  await_parked(1);
  sleeping->timeout_ns = 20000000;
  submit(sleeping);
  await_parked(2);
  struct job *busy = occupy();
  replace();
  sem_post(&may_go_on);
  await_back(2); /* the busy one, and the one whose time is over */
  CHECK_EQ(sleeping->result, -ETIMEDOUT);
  CHECK_EQ(parked->result, 1);
  set_all(parked, 1);
  await_back(3);
  CHECK(parked->worker == busy->worker);
  CHECK(children[1].worker == busy->worker);
  check_each_ran_once(children, 2);
  close_pool();
  await_thread_count(threads_without_pools);
  free(children);
  free(parked);
  free(sleeping);
  free(busy);
}

static void retired_workers_that_sleep_take_no_wake_of_others(void) {
  enum { RETIRED_ONES = 3 };
  open_pool(1);
  struct job *parked = jobs_make(RETIRED_ONES, wait_for_park);
  for (unsigned i = 0; i < RETIRED_ONES; i++) {
    submit(&parked[i]);
    await_parked(i + 1);
    struct job *busy = occupy();
    replace();
    sem_post(&may_go_on);
    await_back(1);
    free(busy);
  }
  struct job *jobs = jobs_make(100, do_nothing);
  for (unsigned i = 0; i < 100; i++) {
    await_asleep(1); /* they do not count */
    submit(&jobs[i]);
    await_back(1);
  }
  set_all(parked, RETIRED_ONES);
  await_back(RETIRED_ONES);
  close_pool();
  await_thread_count(threads_without_pools);
  free(jobs);
  free(parked);
}

static void have_children_when_retired(struct job *job) {
  keep_busy(job);
  job->pending = 1;
  for (unsigned i = 0; i < 10; i++)
    submit_child(job, &children[i], false);
  await_children(job);
}

static void a_retired_worker_runs_the_children_of_its_tasks_itself(void) {
  open_pool(1);
  children = jobs_make(10, do_nothing);
  struct job *job = jobs_make(1, have_children_when_retired);
  submit(job);
  await(&has_begun);
  replace();
  CHECK_EQ(dromon_pool_close(pool, NULL), 0);
  CHECK_EQ(dromon_pool_join(pool), 0); /* without it */
  sem_post(&may_go_on);
  await_back(11);
  for (unsigned i = 0; i < 10; i++)
    CHECK(children[i].worker == job->worker);
  dromon_pool_unref(pool);
  dromon_port_unref(port);
  await_thread_count(threads_without_pools);
  free(children);
  free(job);
}

/* Children at the very moment in which it is retired, and the pool ends. */
static void have_children_at_any_moment(struct job *job) {
  static unsigned seed;
  job->pending = 1;
  sem_post(&has_begun);
  while (load_acquire(&job->park.state) == DROMON_PARK_EMPTY)
    cpu_relax();
  dither(&seed);
  for (unsigned i = 0; i < 3; i++)
    submit_child(job, &children[i], false);
  await_children(job);
}

/* The second one is about to take the place of the first. */
static int enter_and_set(void *arg, uint32_t worker, void **state) {
  static unsigned seed;
  if (fetch_add_acq_rel(&runtime.workers, 1) == 1) {
    CHECK_EQ(dromon_park_set(&to_set->park), 1);
    dither(&seed);
  }
  return runtime_enter(arg, worker, state);
}

static void no_child_is_lost_when_its_worker_is_just_retired(void) {
  dromon_ops setting = ops;
  setting.enter = enter_and_set;
  for (unsigned round = 0; round < rounds(1000); round++) {
    open_with_ops(&setting);
    to_set = jobs_make(1, have_children_at_any_moment);
    children = jobs_make(3, do_nothing);
    submit(to_set);
    await(&has_begun);
    CHECK_EQ(dromon_pool_close(pool, NULL), 0);
    int result = dromon_pool_replace(pool, 0, dromon_pool_read_began(pool, 0));
    CHECK(result == 0 || result == -EALREADY);
    CHECK_EQ(dromon_pool_join(pool), 0);
    await_back(4);
    check_each_ran_once(children, 3);
    dromon_pool_unref(pool);
    dromon_port_unref(port);
    free(children);
    free(to_set);
  }
  await_thread_count(threads_without_pools);
}

/* ---- Forks ---------------------------------------------------------------------------------- */

static void forget(void) {
  dromon_pool_forget(pool);
  CHECK_EQ(dromon_park_set(&to_set->park), 1); /* nobody goes on */
}

static void a_fork_leaves_parked_tasks_to_the_parent(void) {
  open_pool(2);
  struct job *jobs = park_jobs(100);
  to_set = jobs;
  CHECK_EQ(run_in_child(forget), 0);
  set_all(jobs, 100);
  await_back(100);
  check_each_ran_once(jobs, 100);
  close_pool();
  free(jobs);
}

static int status_of_child;

static void wait_and_fork(struct job *job) {
  wait_for_park(job);
  pid_t child = fork();
  CHECK_THAT(child, >=, 0);
  if (child > 0) {
    CHECK_EQ(waitpid(child, &status_of_child, 0), child);
    return;
  }
  alarm(HANGS_AFTER_SECONDS);
  dromon_pool_forget(pool);
  CHECK_EQ(dromon_park_wait(&job->children_ended, 1), -ETIMEDOUT); /* it blocks */
  job->runs++;
}

/* On the thread's own stack, and on another one. */
static void a_parked_task_may_fork_when_it_goes_on(void) {
  for (unsigned i = 0; i < 2; i++) {
    open_pool(1);
    struct job *jobs = jobs_make(2, wait_for_park);
    jobs[i].fn = wait_and_fork;
    submit_all(jobs, 2);
    await_parked(2);
    status_of_child = -1;
    CHECK_EQ(dromon_park_set(&jobs[i].park), 1);
    await_back(1);
    CHECK_EQ(status_of_child, 0); /* libc ends a process with its last thread */
    CHECK_EQ(dromon_park_set(&jobs[1 - i].park), 1);
    await_back(1);
    check_each_ran_once(jobs, 2);
    close_pool();
    free(jobs);
  }
}

/* ---- All at once ---------------------------------------------------------------------------- */

enum { JOBS = 600, ENDERS = 2 };

static struct job *tree;
static uint32_t is_over;
static uint8_t ways[JOBS]; /* in which its wait was ended: 1 set, 2 cancelled */

static void end_wait(unsigned job, bool set) {
  int result = set ? dromon_park_set(&tree[job].park) : dromon_park_cancel(&tree[job].park);
  if (result == 1)
    store_relaxed(&ways[job], set ? 1 : 2);
}

static void end_waits_at_random(unsigned seed) {
  while (!load_acquire(&is_over)) {
    dither(&seed);
    unsigned job = (seed >> 8) % JOBS;
    if (load_relaxed(&tree[job].park.state) == DROMON_PARK_PARKED || (seed >> 18 & 4095) == 0)
      end_wait(job, seed >> 31);
  }
}

/* Retires whoever runs a task, now and then. */
static void retire_at_random(unsigned seed) {
  while (!load_acquire(&is_over)) {
    uint32_t place = (seed >> 8) % pool->worker_count;
    uint64_t began_ns = dromon_pool_read_began(pool, place);
    dither(&seed);
    if (began_ns == 0)
      continue;
    int result = dromon_pool_replace(pool, place, began_ns);
    CHECK(result == 0 || result == -EALREADY || result == -ESHUTDOWN);
    if (result == 0)
      sleep_a_moment();
  }
}

static void disturb(void *arg, unsigned index) {
  (void)arg;
  if (index < ENDERS)
    end_waits_at_random(index);
  else
    retire_at_random(index);
}

static unsigned random_of(const struct job *job, unsigned below) {
  unsigned seed = (unsigned)(job - tree) * 2654435761u;
  return (seed >> 8) % below;
}

/* The children of job i are jobs 3 i + 1 to 3 i + 3. */
static void live_at_random(struct job *job) {
  unsigned first = 3 * (unsigned)(job - tree) + 1;
  unsigned taken = first + random_of(job, 3);
  job->pending = 1;
  for (unsigned i = first; i < first + 3 && i < JOBS; i++)
    submit_child(job, &tree[i], random_of(&tree[i], 2));
  if (random_of(job, 5) == 0)
    dromon_yield();
  if (taken < JOBS && random_of(job, 2) && take_back(&tree[taken]) >= 0) {
    tree[taken].parent = NULL; /* it is run in place, and not waited for */
    run_job(&tree[taken]);
  }
  dromon_park_forbid(random_of(job, 97) == 0);
  wait_for_park(job);
  dromon_park_forbid(0);
  await_children(job);
}

static void check_waits(void) {
  static const int results[] = {-ETIMEDOUT, 0, -ECANCELED};
  for (unsigned i = 0; i < JOBS; i++)
    CHECK_EQ(tree[i].result, results[ways[i]]);
}

static void nothing_is_lost_or_doubled_when_trees_of_tasks_park_at_random(void) {
  for (unsigned round = 0; round < rounds(60); round++) {
    open_pool(1 + round % 3);
    tree = jobs_make(JOBS, live_at_random);
    memset(ways, 0, sizeof ways);
    for (unsigned i = 0; i < JOBS; i++)
      tree[i].timeout_ns = 1000 + random_of(&tree[i], 8) * 100000;
    store_relaxed(&is_over, 0);
    struct threads threads;
    threads_start(&threads, ENDERS + round % 2, disturb, NULL);
    submit(tree);
    while (load_acquire(&tree->native.task.state) != DROMON_TASK_DONE)
      sleep_a_moment();
    CHECK_EQ(dromon_pool_close(pool, NULL), 0);
    CHECK_EQ(dromon_pool_join(pool), 0);
    store_release(&is_over, 1);
    threads_join(&threads);
    await_thread_count(threads_without_pools);
    check_each_ran_once(tree, JOBS);
    check_waits();
    CHECK_EQ(statistics().fibers, 0);
    CHECK_EQ(statistics().fibers_parked, 0);
    CHECK_EQ(statistics().queued, 0);
    CHECK_EQ(statistics().running, 0);
    dromon_pool_unref(pool);
    dromon_port_unref(port);
    free(tree);
  }
}

/* ---- What others see ------------------------------------------------------------------------ */

static void a_wait_that_was_ended_is_over_before_its_fiber_has_its_turn(void) {
  open_pool(1);
  struct job *jobs = park_jobs(1), *busy = occupy();
  CHECK_EQ(dromon_park_is_over(&jobs[0].park), 0);
  CHECK_EQ(dromon_park_set(&jobs[0].park), 1);
  CHECK_EQ(dromon_park_is_over(&jobs[0].park), 1);
  sem_post(&may_go_on);
  await_back(2);
  free(busy);
  free(jobs);
  close_pool();
}

static void the_address_space_of_stacks_is_counted(void) {
  open_pool(1);
  CHECK_EQ(statistics().fiber_bytes, 0);
  struct job *jobs = park_jobs(10);
  CHECK_THAT(statistics().fiber_bytes, >=, statistics().fibers * (uint64_t)STACK_SIZE);
  set_all(jobs, 10);
  await_back(10);
  free(jobs);
  close_pool();
}

enum { STUCK_NS = 4000000 };

static struct {
  unsigned reports;
  uint64_t began_ns;
  uint64_t stuck_ns;
} stuck;

static void note_stuck(void *arg, uint32_t worker, uint64_t began_ns, uint64_t stuck_ns) {
  CHECK_EQ((uintptr_t)arg, (uintptr_t)&stuck);
  CHECK_EQ(worker, 0);
  stuck.began_ns = began_ns;
  stuck.stuck_ns = stuck_ns;
  fetch_add_acq_rel(&stuck.reports, 1);
}

static void open_debugged(void) {
  dromon_pool_config config = config_of(1);
  config.stuck_ns = STUCK_NS;
  config.on_stuck = note_stuck;
  config.on_stuck_arg = &stuck;
  memset(&stuck, 0, sizeof stuck);
  open_configured(config);
}

/* Several times as long as a stuck worker takes to be reported. */
static void give_it_time(void) {
  uint64_t end = os_now_ns() + UINT64_C(4) * STUCK_NS;
  while (os_now_ns() < end)
    sleep_a_moment();
}

static void a_worker_that_keeps_a_parked_task_from_going_on_is_reported_once(void) {
  open_debugged();
  struct job *jobs = park_jobs(1), *busy = occupy();
  give_it_time(); /* it is busy, but nobody could go on */
  CHECK_EQ(load_acquire(&stuck.reports), 0);
  CHECK_EQ(dromon_park_set(&jobs[0].park), 1);
  while (load_acquire(&stuck.reports) == 0)
    sleep_a_moment();
  give_it_time();
  CHECK_EQ(load_acquire(&stuck.reports), 1);
  CHECK_THAT(stuck.stuck_ns, >=, STUCK_NS);
  CHECK_EQ(dromon_pool_read_began(pool, 0), stuck.began_ns); /* it is still that task */
  sem_post(&may_go_on);
  await_back(2);
  free(busy);
  free(jobs);
  close_pool();
}

static void a_worker_that_keeps_one_from_going_on_whose_time_is_over_is_reported(void) {
  open_debugged();
  struct job *jobs = jobs_make(1, wait_for_park);
  jobs[0].timeout_ns = STUCK_NS;
  submit(&jobs[0]);
  struct job *busy = occupy();
  while (load_acquire(&stuck.reports) == 0)
    sleep_a_moment();
  sem_post(&may_go_on);
  await_back(2);
  free(busy);
  free(jobs);
  close_pool();
}

int main(void) {
  threads_without_pools = count_threads() + UNDER_TSAN; /* it starts one of its own later */
  CHECK_EQ(sem_init(&has_begun, 0, 0), 0);
  CHECK_EQ(sem_init(&may_go_on, 0, 0), 0);
  RUN(a_node_ends_in_one_way);
  RUN(an_ordinary_thread_waits_too);
  RUN(an_ordinary_thread_does_not_wait_longer_than_it_said);
  RUN(a_wait_that_a_signal_has_ended_can_be_begun_again);
  RUN(a_parked_task_goes_on_when_it_is_set);
  RUN(a_parked_task_gives_its_worker_back);
  RUN(many_are_parked_at_once_on_one_worker);
  RUN(stacks_that_are_spare_are_used_again_and_few_are_kept);
  RUN(what_has_ended_is_not_waited_for);
  RUN(a_task_that_never_parks_uses_no_stack_of_its_own);
  RUN(a_task_sets_another_of_its_worker);
  RUN(a_parked_task_can_be_cancelled);
  RUN(a_task_may_park_again);
  RUN(a_task_is_told_the_bounds_of_its_stack);
  RUN(a_parked_task_does_not_wait_longer_than_it_said);
  RUN(one_that_is_set_in_time_is_not_late);
  RUN(sleeping_ones_go_on_in_the_order_of_their_times);
  RUN(a_task_is_set_or_its_time_is_over);
  RUN(who_can_go_on_comes_before_a_new_task);
  RUN(new_tasks_do_not_starve_behind_those_that_go_on_and_on);
  RUN(those_that_go_on_do_not_starve_behind_new_tasks);
  RUN(who_yields_alone_goes_on);
  RUN(who_yields_lets_others_go_on_in_turn);
  RUN(a_task_that_must_not_park_blocks);
  RUN(a_task_that_must_not_park_does_not_wait_longer_than_it_said);
  RUN(where_there_is_a_shadow_stack_a_task_blocks);
  RUN(past_the_limit_of_stacks_a_task_blocks);
  RUN(the_closing_task_blocks);
  RUN(each_fiber_enters_and_leaves_the_runtime);
  RUN(where_no_fiber_can_enter_a_task_blocks);
  RUN(what_blocks_since_one_fiber_could_not_enter_parks_the_next_time);
  RUN(a_runtime_without_fibers_blocks);
  RUN(a_runtime_that_only_enters_or_only_leaves_is_refused);
  RUN(closing_waits_for_those_that_are_parked);
  RUN(closing_waits_for_thousands);
  RUN(what_goes_on_after_the_close_may_submit_nothing);
  RUN(a_task_waits_for_children_that_stay_on_its_worker);
  RUN(a_task_waits_for_children_that_any_worker_may_run);
  RUN(who_is_no_worker_has_no_children);
  RUN(a_child_that_has_not_begun_is_taken_back);
  RUN(a_child_that_was_taken_back_is_never_counted_as_withdrawn);
  RUN(a_pinned_child_is_taken_back_on_its_worker_alone);
  RUN(a_child_that_another_worker_has_begun_is_not_taken_back);
  RUN(a_child_is_found_by_others_while_an_older_one_is_taken_back);
  RUN(what_goes_on_after_the_close_may_have_children);
  RUN(a_retired_worker_goes_on_with_what_is_parked_and_its_children);
  RUN(retired_workers_that_sleep_take_no_wake_of_others);
  RUN(a_retired_worker_runs_the_children_of_its_tasks_itself);
  RUN(no_child_is_lost_when_its_worker_is_just_retired);
  RUN(a_wait_that_was_ended_is_over_before_its_fiber_has_its_turn);
  RUN(the_address_space_of_stacks_is_counted);
  RUN(a_worker_that_keeps_a_parked_task_from_going_on_is_reported_once);
  RUN(a_worker_that_keeps_one_from_going_on_whose_time_is_over_is_reported);
  if (!UNDER_TSAN)
    RUN(a_fork_leaves_parked_tasks_to_the_parent);
  if (!UNDER_TSAN)
    RUN(a_parked_task_may_fork_when_it_goes_on);
  await_thread_count(threads_without_pools);
  RUN(nothing_is_lost_or_doubled_when_trees_of_tasks_park_at_random);
  await_thread_count(threads_without_pools);
  thread_join_ended();
  return 0;
}
