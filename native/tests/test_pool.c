/* test_pool.c - tests of pools, with workers that run C functions instead of Python's. */
#include "os.h"
#include "process.h"

#include <dromon/dromon.h>
#include <poll.h>
#include <semaphore.h>
#include <sys/resource.h>

/* ---- Jobs, and how workers run them --------------------------------------------------------- */

/* A task of these tests. */
struct job {
  dromon_task task; /* first, so that a task is its job */
  dromon_port *port;
  void (*fn)(struct job *); /* may be NULL */
  unsigned runs;
  unsigned discards; /* met by a worker when it was withdrawn already */
  bool is_cut_short; /* it says so of itself when it ends */
  bool was_abandoned;
  bool was_refused; /* by the port */
};

/* What the workers of the current test have seen and done. */
static struct {
  unsigned entered;
  unsigned left;
  unsigned runs;
  unsigned most_in_a_batch;
  unsigned dropped;
  unsigned refused_entry; /* 1 + the worker that may not enter; 0: all may */
  bool breaks_off;        /* every batch is left after its first task */
} seen;

static int enter(void *arg, uint32_t worker, void **state) {
  if (worker + 1 == seen.refused_entry)
    return -EXDEV;
  CHECK_EQ((uintptr_t)arg, (uintptr_t)&seen);
  fetch_add_relaxed(&seen.entered, 1);
  *state = &seen;
  return 0;
}

static void leave(void *state) {
  CHECK_EQ((uintptr_t)state, (uintptr_t)&seen);
  fetch_add_relaxed(&seen.left, 1);
}

static void run_job(dromon_batch *batch, struct job *job) {
  fetch_add_relaxed(&job->runs, 1);
  fetch_add_relaxed(&seen.runs, 1);
  if (job->fn != NULL)
    job->fn(job);
  if (dromon_task_finish(&job->task) < 0)
    job->was_abandoned = true;
  job->task.interrupted = job->is_cut_short;
  dromon_port *port = job->port;
  int result = dromon_batch_post(batch, port, &job->task);
  if (result < 0) { /* else the job is the consumer's already */
    CHECK_EQ(result, -ESHUTDOWN);
    job->was_refused = true;
  }
}

static void note_batch(unsigned tasks) {
  unsigned most = load_relaxed(&seen.most_in_a_batch);
  while (tasks > most && !cas_weak_relaxed(&seen.most_in_a_batch, &most, tasks))
    continue;
}

static void run(void *state, dromon_batch *batch) {
  CHECK_EQ((uintptr_t)state, (uintptr_t)&seen);
  unsigned tasks = 0;
  for (dromon_task *task; (task = dromon_batch_next(batch)) != NULL;) {
    tasks++;
    struct job *job = (struct job *)task;
    if (dromon_task_is_withdrawn(task))
      fetch_add_relaxed(&job->discards, 1);
    else
      run_job(batch, job);
    if (load_relaxed(&seen.breaks_off))
      break;
  }
  CHECK_THAT(tasks, >=, 1);
  note_batch(tasks);
}

static void drop(void *state, dromon_task *task) {
  (void)task;
  CHECK_EQ((uintptr_t)state, (uintptr_t)&seen);
  fetch_add_relaxed(&seen.dropped, 1);
}

static const dromon_ops ops = {.enter = enter, .run = run, .drop = drop, .leave = leave};

/* ---- Pools, ports and jobs of a test -------------------------------------------------------- */

/* ThreadSanitizer's own thread-locals, at the top of each stack, take about a MiB. */
enum { STACK_SIZE = UNDER_TSAN ? 4 << 20 : DROMON_STACK_SIZE_MIN };

enum { QUEUE_CAPACITY = 16 }; /* small, so that the waiting room is at work as well */

static dromon_pool_config config_of(unsigned workers) {
  return (dromon_pool_config){
      .workers = workers,
      .queue_capacity = QUEUE_CAPACITY,
      .stack_size = STACK_SIZE,
      .ops = &ops,
      .ops_arg = &seen,
  };
}

static dromon_pool *open_configured(dromon_pool_config config) {
  dromon_pool *pool;
  memset(&seen, 0, sizeof seen);
  CHECK_EQ(dromon_pool_open(&config, &pool), 0);
  CHECK_EQ(seen.entered, config.workers);
  return pool;
}

static dromon_pool *pool_make(unsigned workers) {
  return open_configured(config_of(workers));
}

static void close_and_join(dromon_pool *pool) {
  CHECK_EQ(dromon_pool_close(pool, NULL), 0);
  CHECK_EQ(dromon_pool_join(pool), 0);
  CHECK_EQ(load_relaxed(&seen.left), seen.entered);
}

static dromon_port *port_make(void) {
  dromon_port *port;
  CHECK_EQ(dromon_port_open(&port), 0);
  return port;
}

static struct job *jobs_make(unsigned count, dromon_port *port) {
  struct job *jobs = calloc(count, sizeof *jobs);
  CHECK(jobs != NULL);
  for (unsigned i = 0; i < count; i++) {
    dromon_task_init(&jobs[i].task);
    jobs[i].port = port;
  }
  return jobs;
}

static void submit_all(dromon_pool *pool, struct job *jobs, unsigned count) {
  for (unsigned i = 0; i < count; i++)
    CHECK_EQ(dromon_pool_submit(pool, &jobs[i].task), 0);
}

static void check_all_ran_once(const struct job *jobs, unsigned count) {
  for (unsigned i = 0; i < count; i++)
    CHECK_EQ(load_relaxed(&jobs[i].runs), 1);
}

static unsigned length_of(const dromon_task *task) {
  unsigned length = 0;
  for (; task != NULL; task = task->next)
    length++;
  return length;
}

/* Waits until the port tells of tasks, and takes them. */
static unsigned take_when_told(dromon_port *port) {
  struct pollfd poll_for = {.fd = dromon_port_fd(port), .events = POLLIN};
  CHECK_EQ(poll(&poll_for, 1, HANGS_AFTER_MS), 1); /* else a wake-up was lost */
  return length_of(dromon_port_take(port));
}

static dromon_pool_statistics statistics_of(dromon_pool *pool) {
  dromon_pool_statistics statistics;
  dromon_pool_read_statistics(pool, &statistics);
  return statistics;
}

static void await_parked(dromon_pool *pool, unsigned workers) {
  while (statistics_of(pool).parked != workers)
    sleep_a_moment();
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

static void occupy(dromon_pool *pool, struct job *job) {
  job->fn = keep_busy;
  CHECK_EQ(dromon_pool_submit(pool, &job->task), 0);
  await(&has_begun);
}

/* ---- Opening -------------------------------------------------------------------------------- */

static void check_not_opened(dromon_pool_config config, int error) {
  dromon_pool *pool = NULL;
  CHECK_EQ(dromon_pool_open(&config, &pool), error);
  CHECK(pool == NULL);
  await_thread_count(1);
}

static void a_value_out_of_range_is_refused(void) {
  const dromon_pool_config good = config_of(2);
  dromon_pool_config bad = good;
  bad.workers = 0;
  check_not_opened(bad, -EINVAL);
  bad.workers = DROMON_WORKERS_MAX + 1;
  check_not_opened(bad, -EINVAL);
  bad = good;
  bad.queue_capacity = 3;
  check_not_opened(bad, -EINVAL);
  bad = good;
  bad.stack_size = DROMON_STACK_SIZE_MIN - 1;
  check_not_opened(bad, -EINVAL);
  bad = good;
  bad.guard_size = UINT64_MAX;
  check_not_opened(bad, -EINVAL);
}

static void ops_that_lack_a_function_are_refused(void) {
  dromon_pool_config config = config_of(1);
  config.ops = &(dromon_ops){.run = run, .drop = drop, .leave = leave};
  check_not_opened(config, -EINVAL);
  config.ops = &(dromon_ops){.enter = enter, .drop = drop, .leave = leave};
  check_not_opened(config, -EINVAL);
  config.ops = &(dromon_ops){.enter = enter, .run = run, .leave = leave};
  check_not_opened(config, -EINVAL);
  config.ops = &(dromon_ops){.enter = enter, .run = run, .drop = drop};
  check_not_opened(config, -EINVAL);
}

static void zeros_stand_for_the_defaults(void) {
  dromon_pool *pool = open_configured((dromon_pool_config){
      .workers = 1,
      .ops = &ops,
      .ops_arg = &seen,
  });
  dromon_worker worker;
  CHECK_EQ(dromon_pool_read_worker(pool, 0, &worker), 0);
  CHECK_EQ(worker.stack_size, DROMON_STACK_SIZE_DEFAULT);
  CHECK_EQ(worker.guard_size, DROMON_GUARD_SIZE_DEFAULT);
  close_and_join(pool);
  dromon_pool_unref(pool);
}

static void each_worker_is_described(void) {
  enum { WORKERS = 3 };
  dromon_pool *pool = pool_make(WORKERS);
  dromon_worker workers[WORKERS];
  for (uint32_t i = 0; i < WORKERS; i++) {
    CHECK_EQ(dromon_pool_read_worker(pool, i, &workers[i]), 0);
    CHECK_THAT(workers[i].tid, !=, os_gettid());
    CHECK_EQ(workers[i].spawn == DROMON_SPAWN_CLONE3, workers[i].spawn_error == 0);
    CHECK_EQ(workers[i].stack_size, STACK_SIZE);
    for (uint32_t j = 0; j < i; j++) {
      CHECK_THAT(workers[i].tid, !=, workers[j].tid);
      CHECK_THAT(workers[i].stack_low, !=, workers[j].stack_low);
    }
  }
  CHECK_EQ(dromon_pool_read_worker(pool, WORKERS, &workers[0]), -EINVAL);
  close_and_join(pool);
  dromon_pool_unref(pool);
}

static void check_name_of_worker_10(const char *prefix, const char *expected) {
  dromon_pool_config config = config_of(11);
  char path[64], name[32] = "";
  config.name = prefix;
  dromon_pool *pool = open_configured(config);
  dromon_worker worker;
  CHECK_EQ(dromon_pool_read_worker(pool, 10, &worker), 0);
  snprintf(path, sizeof path, "/proc/self/task/%d/comm", worker.tid);
  FILE *file = fopen(path, "r");
  CHECK(file != NULL && fgets(name, sizeof name, file) != NULL);
  fclose(file);
  CHECK_EQ(strcmp(strtok(name, "\n"), expected), 0);
  close_and_join(pool);
  dromon_pool_unref(pool);
}

static void workers_are_named_and_a_long_name_is_cut_before_the_index(void) {
  check_name_of_worker_10(NULL, "dromon-10");
  check_name_of_worker_10("io", "io-10");
  check_name_of_worker_10("exactly-12-b", "exactly-12-b-10");
  check_name_of_worker_10("longer-than-it-fits", "longer-than--10");
  check_name_of_worker_10("eleven+++++\xc3\xbc", "eleven+++++-10"); /* not inside a character */
}

static void one_worker_that_can_not_enter_fails_the_open(void) {
  unsigned mappings = 0;
  for (uint32_t refused = 0; refused < 4; refused++) {
    memset(&seen, 0, sizeof seen);
    seen.refused_entry = refused + 1;
    check_not_opened(config_of(4), -EXDEV);
    CHECK_EQ(seen.entered, 3);
    CHECK_EQ(seen.left, 3);
    if (refused == 0)
      mappings = count_mappings();
  }
  CHECK_EQ(count_mappings(), mappings);
  memset(&seen, 0, sizeof seen);
}

static rlim_t bytes_mapped(void) {
  unsigned long pages;
  FILE *file = fopen("/proc/self/statm", "r");
  CHECK(file != NULL);
  CHECK_EQ(fscanf(file, "%lu", &pages), 1);
  fclose(file);
  return pages * os_page_size();
}

/* So little address space that some of the stacks fit, and not all. */
static void open_with_little_memory(void) {
  rlim_t some_more = bytes_mapped() + (100 << 20);
  struct rlimit limit = {.rlim_cur = some_more, .rlim_max = some_more};
  CHECK_EQ(setrlimit(RLIMIT_AS, &limit), 0);
  dromon_pool_config config = config_of(64);
  config.stack_size = 16u << 20;
  unsigned mappings = 0;
  for (int i = 0; i < 3; i++) {
    memset(&seen, 0, sizeof seen);
    check_not_opened(config, -ENOMEM);
    CHECK_THAT(seen.entered, >, 0);
    CHECK_EQ(seen.left, seen.entered);
    if (i == 0)
      mappings = count_mappings();
  }
  CHECK_EQ(count_mappings(), mappings);
}

static void an_open_that_fails_half_way_leaves_nothing_behind(void) {
  CHECK_EQ(run_in_child(open_with_little_memory), 0);
}

/* ---- Running -------------------------------------------------------------------------------- */

static void workers_run_all_tasks_and_post_them(void) {
  enum { JOBS = 20000 };
  dromon_pool *pool = pool_make(4);
  dromon_port *port = port_make();
  struct job *jobs = jobs_make(JOBS, port);
  submit_all(pool, jobs, JOBS);
  for (unsigned taken = 0; taken < JOBS;)
    taken += take_when_told(port);
  check_all_ran_once(jobs, JOBS);
  for (unsigned i = 0; i < JOBS; i++)
    CHECK_EQ(jobs[i].task.state, DROMON_TASK_DONE);
  close_and_join(pool);
  CHECK(dromon_port_take(port) == NULL);
  dromon_pool_unref(pool);
  dromon_port_unref(port);
  free(jobs);
}

/* Takes the one task that is to come; looks often before it waits, and so is likely to go on while
 * the worker that has posted it is still on its way to sleep. */
static void take_one(dromon_port *port) {
  for (int tries = 0; tries < 100; tries++) {
    if (dromon_port_take(port) != NULL)
      return;
  }
  while (take_when_told(port) == 0)
    continue; /* told of a task that was found before */
}

/* One after the other through a port of one's own: the workers are about to sleep each time. */
struct round_trips {
  dromon_pool *pool;
  unsigned rounds;
};

static void make_round_trips(void *arg, unsigned index) {
  struct round_trips *trips = arg;
  dromon_port *port = port_make();
  struct job *job = jobs_make(1, port);
  unsigned seed = index;
  for (unsigned round = 0; round < trips->rounds; round++) {
    dromon_task_init(&job->task);
    CHECK_EQ(dromon_pool_submit(trips->pool, &job->task), 0);
    take_one(port);
    dither(&seed);
  }
  CHECK_EQ(job->runs, trips->rounds);
  dromon_port_unref(port);
  free(job);
}

static void check_round_trips(unsigned workers, unsigned submitters, unsigned count) {
  struct round_trips trips = {.pool = pool_make(workers), .rounds = rounds(count / submitters)};
  struct threads threads;
  threads_start(&threads, submitters, make_round_trips, &trips);
  threads_join(&threads);
  close_and_join(trips.pool);
  CHECK_EQ(statistics_of(trips.pool).completed, trips.rounds * submitters);
  dromon_pool_unref(trips.pool);
}

static void no_wake_up_is_lost(void) {
  check_round_trips(1, 1, 100000);
  check_round_trips(1, 3, 100000);
  check_round_trips(4, 2, 100000);
  check_round_trips(3, 4, 100000);
}

/* Each of the workers is needed, though the submitter wakes but one of them: who finds a task wakes
 * the next. */
static void a_burst_of_long_tasks_occupies_all_workers(void) {
  enum { WORKERS = 4 };
  dromon_pool *pool = pool_make(WORKERS);
  dromon_port *port = port_make();
  struct job *jobs = jobs_make(WORKERS, port);
  for (unsigned round = rounds(2000); round > 0; round--) {
    for (int i = 0; i < WORKERS; i++) {
      dromon_task_init(&jobs[i].task);
      jobs[i].fn = keep_busy;
    }
    submit_all(pool, jobs, WORKERS);
    for (int i = 0; i < WORKERS; i++)
      await(&has_begun);
    for (int i = 0; i < WORKERS; i++)
      sem_post(&may_go_on);
    for (unsigned taken = 0; taken < WORKERS;)
      taken += take_when_told(port);
  }
  close_and_join(pool);
  dromon_pool_unref(pool);
  dromon_port_unref(port);
  free(jobs);
}

/* The second task of a batch may take for ever: the first one's result does not wait for it. */
static void a_result_does_not_wait_for_the_next_task(void) {
  dromon_pool *pool = pool_make(1);
  dromon_port *port = port_make();
  struct job *jobs = jobs_make(3, port);
  occupy(pool, &jobs[0]);
  CHECK_EQ(dromon_pool_submit(pool, &jobs[1].task), 0);
  jobs[2].fn = keep_busy;
  CHECK_EQ(dromon_pool_submit(pool, &jobs[2].task), 0);
  sem_post(&may_go_on);
  for (unsigned taken = 0; taken < 2;)
    taken += take_when_told(port);
  await(&has_begun);
  sem_post(&may_go_on);
  CHECK_EQ(take_when_told(port), 1);
  close_and_join(pool);
  dromon_pool_unref(pool);
  dromon_port_unref(port);
  free(jobs);
}

static void a_task_that_is_abandoned_while_it_runs_is_posted_all_the_same(void) {
  dromon_pool *pool = pool_make(1);
  dromon_port *port = port_make();
  struct job *job = jobs_make(1, port);
  occupy(pool, job);
  CHECK_EQ(dromon_pool_withdraw(pool, &job->task), -EBUSY);
  CHECK_EQ(dromon_task_abandon(&job->task), 0);
  sem_post(&may_go_on);
  CHECK_EQ(take_when_told(port), 1);
  CHECK(job->was_abandoned);
  CHECK_EQ(statistics_of(pool).completed, 1);
  close_and_join(pool);
  dromon_pool_unref(pool);
  dromon_port_unref(port);
  free(job);
}

static void withdrawn_tasks_never_run_and_are_counted(void) {
  enum { JOBS = 100 };
  dromon_pool *pool = pool_make(1);
  dromon_port *port = port_make();
  struct job *jobs = jobs_make(1 + JOBS, port);
  occupy(pool, &jobs[JOBS]);
  submit_all(pool, jobs, JOBS);
  unsigned in_queue = JOBS;
  for (unsigned i = 0; i < JOBS; i += 2) {
    bool waited = i >= QUEUE_CAPACITY; /* and then it leaves at once, else with a worker */
    CHECK_EQ(dromon_pool_withdraw(pool, &jobs[i].task), waited);
    in_queue -= waited;
  }
  CHECK_EQ(statistics_of(pool).queued, in_queue);
  sem_post(&may_go_on);
  close_and_join(pool);
  for (unsigned i = 0; i < JOBS; i++) {
    CHECK_EQ(jobs[i].runs, i % 2);
    CHECK_EQ(jobs[i].discards, i % 2 == 0 && i < QUEUE_CAPACITY);
  }
  CHECK_EQ(statistics_of(pool).withdrawn, JOBS / 2);
  CHECK_EQ(statistics_of(pool).completed, 1 + JOBS / 2);
  CHECK_EQ(length_of(dromon_port_take(port)), 1 + JOBS / 2);
  dromon_pool_unref(pool);
  dromon_port_unref(port);
  free(jobs);
}

/* ---- Batches -------------------------------------------------------------------------------- */

/* Has one worker run `count` tasks that are all queued before the first one ends. */
static dromon_pool_statistics run_queued(dromon_pool_config config, unsigned count) {
  dromon_pool *pool = open_configured(config);
  dromon_port *port = port_make();
  struct job *jobs = jobs_make(count, port);
  occupy(pool, &jobs[0]);
  submit_all(pool, jobs + 1, count - 1);
  sem_post(&may_go_on);
  close_and_join(pool);
  check_all_ran_once(jobs, count);
  dromon_pool_statistics statistics = statistics_of(pool);
  dromon_pool_unref(pool);
  dromon_port_unref(port);
  free(jobs);
  return statistics;
}

static void a_batch_has_no_more_tasks_than_allowed(void) {
  for (unsigned most = 1; most <= 7; most += 2) {
    dromon_pool_config config = config_of(1);
    config.batch_tasks = most;
    config.batch_ns = UINT32_MAX;
    CHECK_THAT(run_queued(config, 1000).batches, >=, 1000 / most);
    CHECK_THAT(seen.most_in_a_batch, <=, most);
  }
}

static void a_batch_takes_more_than_one_task(void) {
  dromon_pool_config config = config_of(1);
  config.batch_ns = UINT32_MAX;
  CHECK_THAT(run_queued(config, 1000).batches, <, 1000);
  CHECK_THAT(seen.most_in_a_batch, >, 1);
}

static void no_task_begins_after_a_batchs_time(void) {
  dromon_pool_config config = config_of(1);
  config.batch_ns = 1;
  CHECK_EQ(run_queued(config, 1000).batches, 1000);
  CHECK_EQ(seen.most_in_a_batch, 1);
}

/* ---- Statistics ----------------------------------------------------------------------------- */

static void statistics_add_up(void) {
  enum { JOBS = 10 };
  dromon_pool *pool = pool_make(2);
  dromon_port *port = port_make();
  struct job *jobs = jobs_make(2 + JOBS, port);
  occupy(pool, &jobs[JOBS]);
  occupy(pool, &jobs[JOBS + 1]);
  submit_all(pool, jobs, JOBS);
  dromon_pool_statistics now = statistics_of(pool);
  CHECK_EQ(now.workers, 2);
  CHECK_EQ(now.parked, 0);
  CHECK_EQ(now.queued, JOBS);
  CHECK_EQ(now.running, 2);
  CHECK_EQ(now.completed, 0);
  CHECK_EQ(now.batches, 2);
  sem_post(&may_go_on);
  sem_post(&may_go_on);
  for (unsigned taken = 0; taken < 2 + JOBS;)
    taken += take_when_told(port);
  CHECK_EQ(statistics_of(pool).completed, 2 + JOBS);
  await_parked(pool, 2);
  while (statistics_of(pool).parks < 2) /* counted a step after */
    sleep_a_moment();
  close_and_join(pool);
  now = statistics_of(pool);
  CHECK_EQ(now.workers, 0);
  CHECK_EQ(now.parked, 0);
  CHECK_EQ(now.queued, 0);
  CHECK_EQ(now.running, 0);
  CHECK_EQ(now.completed, 2 + JOBS);
  CHECK_EQ(now.withdrawn, 0);
  CHECK_THAT(now.batches, <=, now.completed);
  dromon_pool_unref(pool);
  dromon_port_unref(port);
  free(jobs);
}

static void abandoned_and_interrupted_tasks_are_counted_among_the_completed(void) {
  enum { JOBS = 5 };
  dromon_pool *pool = pool_make(1);
  dromon_port *port = port_make();
  struct job *jobs = jobs_make(JOBS, port);
  occupy(pool, &jobs[0]);
  CHECK_EQ(dromon_task_abandon(&jobs[0].task), 0);
  jobs[2].is_cut_short = jobs[4].is_cut_short = true;
  submit_all(pool, jobs + 1, JOBS - 1);
  CHECK_EQ(statistics_of(pool).abandoned, 0); /* it has not ended */
  sem_post(&may_go_on);
  close_and_join(pool);
  dromon_pool_statistics now = statistics_of(pool);
  CHECK_EQ(now.completed, JOBS);
  CHECK_EQ(now.abandoned, 1);
  CHECK_EQ(now.interrupted, 2);
  CHECK_EQ(length_of(dromon_port_take(port)), JOBS);
  dromon_pool_unref(pool);
  dromon_port_unref(port);
  free(jobs);
}

static uint64_t sum_of(const uint64_t histogram[DROMON_HISTOGRAM_BUCKETS]) {
  uint64_t sum = 0;
  for (int bucket = 0; bucket < DROMON_HISTOGRAM_BUCKETS; bucket++)
    sum += histogram[bucket];
  return sum;
}

/* How many took at least `ns`, or as long as others in the same bucket. */
static uint64_t count_from(const uint64_t histogram[DROMON_HISTOGRAM_BUCKETS], uint64_t ns) {
  uint64_t count = 0;
  for (int bucket = 63 - __builtin_clzll(ns); bucket < DROMON_HISTOGRAM_BUCKETS; bucket++)
    count += histogram[bucket];
  return count;
}

static void how_long_tasks_waited_and_ran_is_counted(bool breaks_off) {
  enum { JOBS = 10 };
  dromon_pool *pool = pool_make(1);
  dromon_port *port = port_make();
  struct job *jobs = jobs_make(1 + JOBS, port);
  store_relaxed(&seen.breaks_off, breaks_off);
  occupy(pool, &jobs[JOBS]);
  uint64_t begun = os_now_ns();
  submit_all(pool, jobs, JOBS);
  uint64_t submitted = os_now_ns();
  CHECK_EQ(sum_of(statistics_of(pool).queue_wait), 1);
  CHECK_EQ(sum_of(statistics_of(pool).run_time), 0);
  sleep_a_moment();
  uint64_t now = os_now_ns();
  sem_post(&may_go_on);
  close_and_join(pool);
  dromon_pool_statistics statistics = statistics_of(pool);
  CHECK_EQ(sum_of(statistics.queue_wait), 1 + JOBS);
  CHECK_EQ(sum_of(statistics.run_time), 1 + JOBS);
  CHECK_THAT(count_from(statistics.queue_wait, now - submitted), >=, JOBS);
  CHECK_THAT(count_from(statistics.run_time, now - begun), >=, 1);
  CHECK_EQ(length_of(dromon_port_take(port)), 1 + JOBS);
  dromon_pool_unref(pool);
  dromon_port_unref(port);
  free(jobs);
}

static void how_long_each_task_of_a_batch_waited_and_ran_is_counted(void) {
  how_long_tasks_waited_and_ran_is_counted(false);
}

static void how_long_a_task_ran_is_counted_if_its_batch_was_broken_off(void) {
  how_long_tasks_waited_and_ran_is_counted(true);
}

static void a_withdrawn_task_and_the_closing_one_are_in_no_histogram(void) {
  dromon_pool *pool = pool_make(1);
  dromon_port *port = port_make();
  struct job *jobs = jobs_make(3, port);
  occupy(pool, &jobs[0]);
  submit_all(pool, &jobs[1], 1);
  CHECK_EQ(dromon_pool_withdraw(pool, &jobs[1].task), 0);
  sem_post(&may_go_on);
  CHECK_EQ(dromon_pool_close(pool, &jobs[2].task), 0);
  CHECK_EQ(dromon_pool_join(pool), 0);
  dromon_pool_statistics statistics = statistics_of(pool);
  CHECK_EQ(jobs[2].runs, 1);
  CHECK_EQ(sum_of(statistics.queue_wait), 1);
  CHECK_EQ(sum_of(statistics.run_time), 1);
  CHECK_EQ(length_of(dromon_port_take(port)), 2);
  dromon_pool_unref(pool);
  dromon_port_unref(port);
  free(jobs);
}

static void a_submit_to_busy_workers_makes_no_wake_up(void) {
  enum { JOBS = 100 };
  dromon_pool *pool = pool_make(1);
  dromon_port *port = port_make();
  struct job *jobs = jobs_make(1 + JOBS, port);
  occupy(pool, &jobs[JOBS]);
  uint64_t wakes = statistics_of(pool).wakes;
  submit_all(pool, jobs, JOBS);
  CHECK_EQ(statistics_of(pool).wakes, wakes);
  sem_post(&may_go_on);
  close_and_join(pool);
  dromon_pool_unref(pool);
  dromon_port_unref(port);
  free(jobs);
}

/* ---- Parked workers ------------------------------------------------------------------------- */

/* How often a thread has gone to sleep or was taken off its processor. */
static unsigned long count_switches(pid_t tid) {
  char path[64], line[128];
  unsigned long switches = 0, more;
  snprintf(path, sizeof path, "/proc/self/task/%d/status", tid);
  FILE *file = fopen(path, "r");
  CHECK(file != NULL);
  while (fgets(line, sizeof line, file) != NULL) {
    if (sscanf(line, "voluntary_ctxt_switches: %lu", &more) == 1 ||
        sscanf(line, "nonvoluntary_ctxt_switches: %lu", &more) == 1)
      switches += more;
  }
  fclose(file);
  return switches;
}

static unsigned long count_switches_of_all(dromon_pool *pool, uint32_t workers) {
  unsigned long switches = 0;
  for (uint32_t i = 0; i < workers; i++) {
    dromon_worker worker;
    CHECK_EQ(dromon_pool_read_worker(pool, i, &worker), 0);
    switches += count_switches(worker.tid);
  }
  return switches;
}

static bool all_sleep(dromon_pool *pool, uint32_t workers) {
  for (uint32_t i = 0; i < workers; i++) {
    dromon_worker worker;
    char path[64], state = 0;
    CHECK_EQ(dromon_pool_read_worker(pool, i, &worker), 0);
    snprintf(path, sizeof path, "/proc/self/task/%d/stat", worker.tid);
    FILE *file = fopen(path, "r");
    CHECK(file != NULL);
    CHECK_EQ(fscanf(file, "%*d (%*[^)]) %c", &state), 1);
    fclose(file);
    if (state != 'S')
      return false;
  }
  return true;
}

/* Whether no worker ran for some moments. */
static bool all_rest(dromon_pool *pool, uint32_t workers) {
  unsigned long before = count_switches_of_all(pool, workers);
  for (int moments = 0; moments < 50; moments++)
    sleep_a_moment();
  return all_sleep(pool, workers) && count_switches_of_all(pool, workers) == before;
}

/* Who spins never sleeps, and who looks from time to time is seen to. More than one try, because a
 * worker that has just parked may have its last steps still to go, for however long. */
static void parked_workers_do_not_run(void) {
  enum { WORKERS = 4, TRIES = 100 };
  dromon_pool *pool = pool_make(WORKERS);
  await_parked(pool, WORKERS);
  int tries = 0;
  while (!all_rest(pool, WORKERS))
    CHECK_THAT(++tries, <, TRIES);
  close_and_join(pool);
  dromon_pool_unref(pool);
}

/* ---- Closing -------------------------------------------------------------------------------- */

static void close_runs_everything_that_was_accepted(void) {
  enum { JOBS = 1000 };
  for (unsigned workers = 1; workers <= 8; workers *= 2) {
    dromon_pool *pool = pool_make(workers);
    dromon_port *port = port_make();
    struct job *jobs = jobs_make(JOBS, port);
    submit_all(pool, jobs, JOBS);
    close_and_join(pool);
    check_all_ran_once(jobs, JOBS);
    CHECK_EQ(length_of(dromon_port_take(port)), JOBS);
    dromon_pool_unref(pool);
    dromon_port_unref(port);
    free(jobs);
  }
}

static unsigned runs_before_last;

static void note_last(struct job *job) {
  (void)job;
  runs_before_last = load_relaxed(&seen.runs) - 1; /* but for itself */
}

static void the_last_task_runs_last(void) {
  enum { JOBS = 500 };
  for (int round = 0; round < 20; round++) {
    dromon_pool *pool = pool_make(4);
    dromon_port *port = port_make();
    struct job *jobs = jobs_make(JOBS, port);
    struct job *last = jobs_make(1, port);
    last->fn = note_last;
    submit_all(pool, jobs, JOBS);
    CHECK_EQ(dromon_pool_close(pool, &last->task), 0);
    CHECK_EQ(dromon_pool_join(pool), 0);
    CHECK_EQ(last->runs, 1);
    CHECK_EQ(runs_before_last, JOBS);
    CHECK_EQ(statistics_of(pool).completed, JOBS); /* it is the pool's own */
    check_all_ran_once(jobs, JOBS);
    CHECK_EQ(length_of(dromon_port_take(port)), JOBS + 1);
    dromon_pool_unref(pool);
    dromon_port_unref(port);
    free(jobs);
    free(last);
  }
}

static void the_last_task_runs_in_an_idle_pool_too(void) {
  dromon_pool *pool = pool_make(3);
  dromon_port *port = port_make();
  struct job *last = jobs_make(1, port);
  await_parked(pool, 3);
  CHECK_EQ(dromon_pool_close(pool, &last->task), 0);
  CHECK_EQ(take_when_told(port), 1);
  CHECK_EQ(dromon_pool_join(pool), 0);
  CHECK_EQ(last->runs, 1);
  dromon_pool_unref(pool);
  dromon_port_unref(port);
  free(last);
}

static void a_closed_pool_refuses(void) {
  dromon_pool *pool = pool_make(2);
  struct job *job = jobs_make(1, NULL);
  CHECK_EQ(dromon_pool_join(pool), -EBUSY);
  CHECK_EQ(dromon_pool_is_closed(pool), 0);
  CHECK_EQ(dromon_pool_close(pool, NULL), 0);
  CHECK_EQ(dromon_pool_is_closed(pool), 1);
  CHECK_EQ(dromon_pool_submit(pool, &job->task), -ESHUTDOWN);
  CHECK_EQ(dromon_pool_close(pool, NULL), -EALREADY);
  CHECK_EQ(dromon_pool_join(pool), 0);
  CHECK_EQ(dromon_pool_submit(pool, &job->task), -ESHUTDOWN);
  CHECK_EQ(dromon_pool_close(pool, NULL), -EALREADY);
  CHECK_EQ(job->runs, 0);
  dromon_pool_unref(pool);
  free(job);
}

/* ---- Submit against close ------------------------------------------------------------------- */

struct rush {
  dromon_pool *pool;
  struct job *jobs; /* `per_submitter` for each */
  unsigned per_submitter;
  unsigned accepted[THREADS_MAX];
  unsigned submitted; /* by all */
};

static void submit_until_refused(void *arg, unsigned index) {
  struct rush *rush = arg;
  struct job *jobs = rush->jobs + index * rush->per_submitter;
  unsigned accepted = 0;
  while (accepted < rush->per_submitter &&
         dromon_pool_submit(rush->pool, &jobs[accepted].task) == 0) {
    accepted++;
    fetch_add_relaxed(&rush->submitted, 1);
  }
  rush->accepted[index] = accepted;
}

static void rush_and_close(unsigned workers, unsigned submitters, unsigned close_after) {
  enum { EACH = 2000 };
  dromon_port *port = port_make();
  struct rush rush = {.pool = pool_make(workers),
                      .jobs = jobs_make(submitters * EACH, port),
                      .per_submitter = EACH};
  struct threads threads;
  threads_start(&threads, submitters, submit_until_refused, &rush);
  while (load_relaxed(&rush.submitted) < close_after)
    sched_yield();
  close_and_join(rush.pool);
  threads_join(&threads);
  for (unsigned i = 0; i < submitters; i++) {
    for (unsigned j = 0; j < EACH; j++)
      CHECK_EQ(rush.jobs[i * EACH + j].runs, j < rush.accepted[i]);
  }
  CHECK_EQ(statistics_of(rush.pool).queued, 0);
  dromon_pool_unref(rush.pool);
  dromon_port_unref(port);
  free(rush.jobs);
}

static void of_submit_and_close_at_once_each_task_runs_or_is_refused(void) {
  for (unsigned round = rounds(500); round > 0; round--)
    rush_and_close(1 + round % 4, 1 + round % 3, round % 100);
}

/* ---- Ports that close early ----------------------------------------------------------------- */

static void a_port_may_close_while_workers_post(void) {
  enum { JOBS = 2000 };
  for (unsigned round = rounds(50); round > 0; round--) {
    dromon_pool *pool = pool_make(3);
    dromon_port *port = port_make();
    struct job *jobs = jobs_make(JOBS, port);
    submit_all(pool, jobs, JOBS);
    unsigned taken = take_when_told(port);
    taken += length_of(dromon_port_close(port));
    close_and_join(pool);
    unsigned refused = 0;
    for (unsigned i = 0; i < JOBS; i++)
      refused += jobs[i].was_refused;
    CHECK_EQ(taken + refused, JOBS);
    CHECK_EQ(statistics_of(pool).completed, JOBS);
    dromon_pool_unref(pool);
    dromon_port_unref(port);
    free(jobs);
  }
}

/* Once a task is posted its consumer may let go of the port, while the worker has yet to notify. */
static void a_port_may_go_as_soon_as_its_last_task_came(void) {
  dromon_pool *pool = pool_make(3);
  for (unsigned round = rounds(10000); round > 0; round--) {
    dromon_port *port = port_make();
    struct job *job = jobs_make(1, port);
    CHECK_EQ(dromon_pool_submit(pool, &job->task), 0);
    dromon_task *task;
    while ((task = dromon_port_take(port)) == NULL) /* not waiting to be told */
      sched_yield();
    dromon_port_unref(port);
    free(job);
  }
  close_and_join(pool);
  dromon_pool_unref(pool);
}

/* ---- Pools that are not joined -------------------------------------------------------------- */

/* Lets go of a pool with busy workers and queued tasks, which all run. */
static void let_go_of_a_busy_pool(bool closed) {
  enum { JOBS = 100 };
  dromon_pool *pool = pool_make(2);
  dromon_port *port = port_make();
  struct job *jobs = jobs_make(2 + JOBS, port);
  occupy(pool, &jobs[0]);
  occupy(pool, &jobs[1]);
  submit_all(pool, jobs + 2, JOBS);
  if (closed)
    CHECK_EQ(dromon_pool_close(pool, NULL), 0);
  dromon_pool_unref(pool);
  sem_post(&may_go_on);
  sem_post(&may_go_on);
  for (unsigned taken = 0; taken < 2 + JOBS;)
    taken += take_when_told(port);
  check_all_ran_once(jobs, 2 + JOBS);
  dromon_port_unref(port);
  free(jobs);
}

static void a_closed_pool_that_nobody_joins_goes_with_its_workers(void) {
  let_go_of_a_busy_pool(true);
  await_thread_count(1);
  CHECK_EQ(seen.left, 2);
}

static void let_go_of_an_open_pool(void) {
  let_go_of_a_busy_pool(false);
  CHECK_EQ(count_threads(), 3);
}

/* As an owner does that is interrupted between opening and closing. */
static void an_open_pool_that_is_let_go_stays_for_its_workers(void) {
  CHECK_EQ(run_in_child(let_go_of_an_open_pool), 0);
}

static void exit_with_busy_workers(void) {
  static dromon_pool *pool; /* still reachable at the exit, for leak checkers */
  pool = pool_make(3);
  occupy(pool, jobs_make(1, port_make()));
  exit(3);
}

static void the_process_may_exit_with_busy_workers(void) {
  int status = run_in_child(exit_with_busy_workers);
  CHECK(WIFEXITED(status));
  CHECK_EQ(WEXITSTATUS(status), 3);
}

/* ---- Forks ---------------------------------------------------------------------------------- */

static dromon_pool *parents_pool;
static pid_t parent;
static int status_of_child;

static void fork_on_worker(struct job *job) {
  keep_busy(job);
  pid_t child = fork();
  CHECK_THAT(child, >=, 0);
  if (child > 0) {
    CHECK_EQ(waitpid(child, &status_of_child, 0), child);
    return;
  }
  alarm(HANGS_AFTER_SECONDS);
  dromon_pool_forget(parents_pool);
  struct job *late = jobs_make(1, job->port);
  CHECK_EQ(dromon_pool_submit(parents_pool, &late->task), -ESHUTDOWN);
  free(late);
}

static void run_in_parent_only(struct job *job) {
  (void)job;
  if (getpid() != parent)
    _exit(9);
}

static void a_worker_that_forked_ends_in_the_child_and_runs_no_queued_task_there(void) {
  enum { JOBS = 100 };
  parent = getpid();
  for (unsigned workers = 1; workers <= 3; workers++) {
    dromon_pool *pool = parents_pool = pool_make(workers);
    dromon_port *port = port_make();
    struct job *jobs = jobs_make(workers + JOBS, port);
    jobs[0].fn = fork_on_worker;
    submit_all(pool, jobs, 1);
    await(&has_begun);
    for (unsigned i = 1; i < workers; i++)
      occupy(pool, &jobs[i]);
    for (unsigned i = workers; i < workers + JOBS; i++)
      jobs[i].fn = run_in_parent_only;
    submit_all(pool, jobs + workers, JOBS);
    status_of_child = -1;
    for (unsigned i = 0; i < workers; i++)
      sem_post(&may_go_on);
    close_and_join(pool);
    check_all_ran_once(jobs, workers + JOBS);
    CHECK_EQ(status_of_child, 0); /* libc ends a process with its last thread */
    dromon_pool_unref(pool);
    dromon_port_unref(port);
    free(jobs);
  }
}

/* ---- Many ----------------------------------------------------------------------------------- */

static void live_once(void) {
  enum { JOBS = 20 };
  dromon_pool *pool = pool_make(4);
  dromon_port *port = port_make();
  struct job *jobs = jobs_make(JOBS, port);
  submit_all(pool, jobs, JOBS);
  close_and_join(pool);
  CHECK_EQ(length_of(dromon_port_take(port)), JOBS);
  dromon_pool_unref(pool);
  dromon_port_unref(port);
  free(jobs);
}

static void two_hundred_pools_leave_nothing_behind(void) {
  live_once(); /* what libc keeps for the next thread is not to be counted */
  await_thread_count(1);
  unsigned files = count_files();
  unsigned mappings = count_mappings();
  for (int i = 0; i < 200; i++)
    live_once();
  await_thread_count(1);
  CHECK_EQ(count_files(), files);
  CHECK_EQ(count_mappings(), mappings);
}

static void pools_live_side_by_side(void) {
  dromon_pool *other = pool_make(2);
  dromon_port *port = port_make();
  struct job *jobs = jobs_make(2, port);
  occupy(other, &jobs[0]);
  dromon_pool_config config = config_of(2);
  dromon_pool *pool;
  CHECK_EQ(dromon_pool_open(&config, &pool), 0);
  CHECK_EQ(dromon_pool_submit(pool, &jobs[1].task), 0);
  CHECK_EQ(take_when_told(port), 1);
  CHECK_EQ(dromon_pool_close(pool, NULL), 0);
  CHECK_EQ(dromon_pool_join(pool), 0);
  dromon_pool_unref(pool);
  sem_post(&may_go_on);
  CHECK_EQ(take_when_told(port), 1);
  close_and_join(other);
  dromon_pool_unref(other);
  dromon_port_unref(port);
  free(jobs);
}

/* Where clone's threads take the place of clone3's, all must work the same. */
static void work_without_clone3(void) {
  if (!refuse(&(struct refusal){.call = SYS_clone3, .error = ENOSYS})) {
    printf("  not here: no seccomp filters\n");
    return;
  }
  dromon_pool *pool = pool_make(2);
  dromon_worker worker;
  CHECK_EQ(dromon_pool_read_worker(pool, 1, &worker), 0);
  CHECK_EQ(worker.spawn, DROMON_SPAWN_CLONE);
  CHECK_EQ(worker.spawn_error, -ENOSYS);
  close_and_join(pool);
  dromon_pool_unref(pool);
  two_hundred_pools_leave_nothing_behind();
  check_round_trips(2, 2, 2000);
}

static void where_clone3_does_not_exist_pools_work_all_the_same(void) {
  CHECK_EQ(run_in_child(work_without_clone3), 0);
}

static void run_anywhere(void) {
  RUN(zeros_stand_for_the_defaults);
  RUN(each_worker_is_described);
  RUN(workers_are_named_and_a_long_name_is_cut_before_the_index);
  RUN(workers_run_all_tasks_and_post_them);
  RUN(no_wake_up_is_lost);
  RUN(a_burst_of_long_tasks_occupies_all_workers);
  RUN(a_result_does_not_wait_for_the_next_task);
  RUN(a_task_that_is_abandoned_while_it_runs_is_posted_all_the_same);
  RUN(withdrawn_tasks_never_run_and_are_counted);
  RUN(a_batch_has_no_more_tasks_than_allowed);
  RUN(a_batch_takes_more_than_one_task);
  RUN(no_task_begins_after_a_batchs_time);
  RUN(statistics_add_up);
  RUN(abandoned_and_interrupted_tasks_are_counted_among_the_completed);
  RUN(how_long_each_task_of_a_batch_waited_and_ran_is_counted);
  RUN(how_long_a_task_ran_is_counted_if_its_batch_was_broken_off);
  RUN(a_withdrawn_task_and_the_closing_one_are_in_no_histogram);
  RUN(a_submit_to_busy_workers_makes_no_wake_up);
  RUN(close_runs_everything_that_was_accepted);
  RUN(the_last_task_runs_last);
  RUN(the_last_task_runs_in_an_idle_pool_too);
  RUN(a_closed_pool_refuses);
  RUN(of_submit_and_close_at_once_each_task_runs_or_is_refused);
  RUN(a_port_may_close_while_workers_post);
  RUN(a_port_may_go_as_soon_as_its_last_task_came);
  RUN(pools_live_side_by_side);
}

/* These count what the process holds, or fork, or limit its memory; and ThreadSanitizer has a
 * thread and mappings of its own. */
static void run_where_nothing_else_is_in_the_process(void) {
  RUN(a_value_out_of_range_is_refused);
  RUN(ops_that_lack_a_function_are_refused);
  RUN(one_worker_that_can_not_enter_fails_the_open);
  RUN_UNLESS(UNDER_ASAN, "since AddressSanitizer ends a process that is out of memory",
             an_open_that_fails_half_way_leaves_nothing_behind);
  RUN(parked_workers_do_not_run);
  RUN(a_closed_pool_that_nobody_joins_goes_with_its_workers);
  RUN(an_open_pool_that_is_let_go_stays_for_its_workers);
  RUN(the_process_may_exit_with_busy_workers);
  RUN(a_worker_that_forked_ends_in_the_child_and_runs_no_queued_task_there);
  RUN(two_hundred_pools_leave_nothing_behind);
  RUN(where_clone3_does_not_exist_pools_work_all_the_same);
}

int main(void) {
  CHECK_EQ(sem_init(&has_begun, 0, 0), 0);
  CHECK_EQ(sem_init(&may_go_on, 0, 0), 0);
  run_anywhere();
  if (!UNDER_TSAN)
    run_where_nothing_else_is_in_the_process();
  return 0;
}
