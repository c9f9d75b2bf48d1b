/* test_worker.c - tests of what workers do with native tasks: their own deques, stealing, the two sides
 * of a full queue, times, stalls, saturation, and the state of their threads. (Tests of pools that run tasks by functions of
 * their own, as Python's, are in test_pool.c.)
 */
#include "os.h"
#include "pool.h"
#include "process.h"

#include <dromon/dromon.h>
#include <sched.h>
#include <semaphore.h>
#include <signal.h>
#include <sys/resource.h>

/* ---- Pools and jobs of a test --------------------------------------------------------------- */

enum {
  /* ThreadSanitizer's own thread-locals, at the top of each stack, take about a MiB. */
  STACK_SIZE = UNDER_TSAN ? 4 << 20 : DROMON_STACK_SIZE_MIN,
  QUEUE_CAPACITY = 16,
};

static dromon_pool *pool; /* of the current test, as its port */
static dromon_port *port;

static dromon_pool_config config_of(unsigned workers) {
  return (dromon_pool_config){
      .workers = workers, .queue_capacity = QUEUE_CAPACITY, .stack_size = STACK_SIZE};
}

static void open_configured(dromon_pool_config config) {
  CHECK_EQ(dromon_port_open(&port), 0);
  CHECK_EQ(dromon_pool_open(&config, &pool), 0);
}

static void open_pool(unsigned workers) {
  open_configured(config_of(workers));
}

static dromon_pool_statistics statistics(void) {
  dromon_pool_statistics statistics;
  dromon_pool_read_statistics(pool, &statistics);
  return statistics;
}

/* Closes the pool, and gives how many tasks came back in all since the last take. */
static unsigned close_pool(void) {
  CHECK_EQ(dromon_pool_close(pool, NULL), 0);
  CHECK_EQ(dromon_pool_join(pool), 0);
  dromon_pool_unref(pool);
  unsigned count = 0;
  for (dromon_task *task = dromon_port_take(port); task != NULL; task = task->next)
    count++;
  dromon_port_unref(port);
  return count;
}

struct job {
  dromon_native_task native; /* first, so that a task is its job */
  unsigned runs;
  unsigned order; /* which task of the test it was to begin, from 1 */
  void (*fn)(struct job *);
  struct job *others; /* what it submits */
  unsigned other_count;
  int32_t answer;
};

static unsigned begun;

static int run_job(void *arg) {
  struct job *job = arg;
  fetch_add_relaxed(&job->runs, 1);
  job->order = fetch_add_relaxed(&begun, 1) + 1;
  if (job->fn != NULL)
    job->fn(job);
  return job->answer;
}

static struct job *jobs_make(unsigned count) {
  struct job *jobs = calloc(count, sizeof *jobs);
  CHECK(jobs != NULL);
  begun = 0;
  for (unsigned i = 0; i < count; i++)
    dromon_native_task_init(&jobs[i].native, run_job, &jobs[i], port);
  return jobs;
}

static void submit(struct job *job) {
  CHECK_EQ(dromon_pool_submit(pool, &job->native.task), 0);
}

static void submit_others(struct job *job) {
  for (unsigned i = 0; i < job->other_count; i++)
    submit(&job->others[i]);
}

static void check_all_ran_once(const struct job *jobs, unsigned count) {
  for (unsigned i = 0; i < count; i++)
    CHECK_EQ(load_relaxed(&jobs[i].runs), 1);
}

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

static void occupy(struct job *job) {
  job->fn = keep_busy;
  submit(job);
  await(&has_begun);
}

static void submit_others_and_keep_busy(struct job *job) {
  submit_others(job);
  keep_busy(job);
}

/* ---- Native tasks --------------------------------------------------------------------------- */

static void a_native_task_comes_back_with_its_status(void) {
  open_pool(2);
  struct job *jobs = jobs_make(3);
  static const int32_t answers[] = {0, 7, -ENOENT};
  for (unsigned i = 0; i < 3; i++) {
    jobs[i].answer = answers[i];
    submit(&jobs[i]);
    CHECK_EQ(dromon_port_wait(port, -1), 0);
    dromon_task *task = dromon_port_take(port);
    CHECK(task == &jobs[i].native.task);
    CHECK_EQ(task->state, DROMON_TASK_DONE);
    CHECK_EQ(jobs[i].native.status, answers[i]);
  }
  CHECK_EQ(close_pool(), 0);
  free(jobs);
}

static void waiting_for_a_port_ends_with_its_time(void) {
  open_pool(1);
  CHECK_EQ(dromon_port_wait(port, 1000), -ETIMEDOUT);
  CHECK_EQ(close_pool(), 0);
}

static void a_pool_without_ops_refuses_other_tasks(void) {
  open_pool(1);
  dromon_task task;
  dromon_task_init(&task);
  CHECK_EQ(dromon_pool_submit(pool, &task), -EINVAL);
  CHECK_EQ(dromon_pool_submit_nowait(pool, &task), -EINVAL);
  CHECK_EQ(dromon_pool_submit_wait(pool, &task, -1), -EINVAL);
  CHECK_EQ(close_pool(), 0);
}

static void a_withdrawn_native_task_never_runs_and_comes_back(void) {
  enum { JOBS = 2 * QUEUE_CAPACITY };
  open_pool(1);
  struct job *jobs = jobs_make(1 + JOBS);
  occupy(&jobs[JOBS]);
  unsigned left_at_once = 0;
  for (unsigned i = 0; i < JOBS; i++)
    submit(&jobs[i]);
  for (unsigned i = 0; i < JOBS; i++)
    left_at_once += (unsigned)dromon_pool_withdraw(pool, &jobs[i].native.task);
  CHECK_EQ(left_at_once, QUEUE_CAPACITY); /* those that waited in line */
  CHECK_EQ(dromon_pool_withdraw(pool, &jobs[JOBS].native.task), -EBUSY);
  sem_post(&may_go_on);
  CHECK_EQ(close_pool(), 1 + JOBS - left_at_once);
  for (unsigned i = 0; i < JOBS; i++) {
    CHECK_EQ(jobs[i].runs, 0);
    CHECK_EQ(jobs[i].native.task.state, DROMON_TASK_WITHDRAWN);
  }
  free(jobs);
}

static void an_abandoned_native_task_is_counted_and_so_are_the_times_of_all(void) {
  open_pool(1);
  struct job *jobs = jobs_make(2);
  occupy(&jobs[0]);
  submit(&jobs[1]);
  CHECK_EQ(dromon_task_abandon(&jobs[0].native.task), 0);
  sem_post(&may_go_on);
  while (statistics().completed < 2)
    sleep_a_moment();
  CHECK_EQ(statistics().abandoned, 1);
  uint64_t waits = 0, runs = 0;
  for (int bucket = 0; bucket < DROMON_HISTOGRAM_BUCKETS; bucket++) {
    waits += statistics().queue_wait[bucket];
    runs += statistics().run_time[bucket];
  }
  CHECK_EQ(waits, 2);
  CHECK_EQ(runs, 2);
  CHECK_EQ(close_pool(), 2);
  free(jobs);
}

/* ---- A full queue --------------------------------------------------------------------------- */

/* One busy worker, and a queue that is as full as can be. The last job is the busy one. */
static struct job *fill_the_queue(unsigned more) {
  open_pool(1);
  struct job *jobs = jobs_make(QUEUE_CAPACITY + more + 1);
  occupy(&jobs[QUEUE_CAPACITY + more]);
  for (unsigned i = 0; i < QUEUE_CAPACITY; i++)
    CHECK_EQ(dromon_pool_submit_nowait(pool, &jobs[i].native.task), 0);
  return jobs;
}

static void who_does_not_wait_is_refused_by_a_full_queue(void) {
  struct job *jobs = fill_the_queue(1);
  CHECK_EQ(dromon_pool_submit_nowait(pool, &jobs[QUEUE_CAPACITY].native.task), -EAGAIN);
  CHECK_EQ(statistics().queued, QUEUE_CAPACITY);
  sem_post(&may_go_on);
  CHECK_EQ(close_pool(), QUEUE_CAPACITY + 1);
  CHECK_EQ(jobs[QUEUE_CAPACITY].runs, 0);
  free(jobs);
}

static void who_waits_too_long_for_room_gets_the_task_back(void) {
  struct job *jobs = fill_the_queue(1);
  CHECK_EQ(dromon_pool_submit_wait(pool, &jobs[QUEUE_CAPACITY].native.task, 1000), -ETIMEDOUT);
  CHECK_EQ(statistics().queued, QUEUE_CAPACITY);
  sem_post(&may_go_on);
  CHECK_EQ(close_pool(), QUEUE_CAPACITY + 1);
  CHECK_EQ(jobs[QUEUE_CAPACITY].runs, 0);
  free(jobs);
}

static void do_nothing(int signal) {
  (void)signal;
}

static pid_t waiting_tid;
static pthread_t waiting_pthread;

static void submit_and_be_interrupted(void *arg, unsigned index) {
  (void)index;
  waiting_pthread = pthread_self();
  store_release(&waiting_tid, os_gettid());
  CHECK_EQ(dromon_pool_submit_wait(pool, arg, -1), -EINTR);
  store_release(&waiting_tid, 0);
}

static void a_signal_ends_the_wait_for_room(void) {
  struct sigaction action = {.sa_handler = do_nothing}; /* without SA_RESTART */
  sigaction(SIGUSR1, &action, NULL);
  struct job *jobs = fill_the_queue(1);
  struct threads threads;
  threads_start(&threads, 1, submit_and_be_interrupted, &jobs[QUEUE_CAPACITY]);
  while (load_acquire(&waiting_tid) == 0)
    sleep_a_moment();
  while (load_acquire(&waiting_tid) != 0) {
    pthread_kill(waiting_pthread, SIGUSR1); /* more than once: it may not have been asleep yet */
    sleep_a_moment();
  }
  threads_join(&threads);
  sem_post(&may_go_on);
  CHECK_EQ(close_pool(), QUEUE_CAPACITY + 1);
  free(jobs);
}

struct waiting_submitters {
  struct job *jobs;
  unsigned per_thread;
};

static void submit_and_wait_for_room(void *arg, unsigned index) {
  struct waiting_submitters *submitters = arg;
  for (unsigned i = 0; i < submitters->per_thread; i++) {
    struct job *job = &submitters->jobs[index * submitters->per_thread + i];
    CHECK_EQ(dromon_pool_submit_wait(pool, &job->native.task, -1), 0);
  }
}

static void who_waits_for_room_gets_it_and_nothing_is_dropped(void) {
  enum { THREADS = 3 };
  open_pool(2);
  struct waiting_submitters submitters = {.per_thread = rounds(20000)};
  unsigned count = THREADS * submitters.per_thread;
  submitters.jobs = jobs_make(count);
  struct threads threads;
  threads_start(&threads, THREADS, submit_and_wait_for_room, &submitters);
  threads_join(&threads);
  CHECK_EQ(close_pool(), count);
  check_all_ran_once(submitters.jobs, count);
  free(submitters.jobs);
}

/* ---- Its own deque, and stealing ------------------------------------------------------------ */

static void what_a_worker_submits_it_runs_newest_first(void) {
  open_pool(1);
  struct job *jobs = jobs_make(4);
  jobs[0].fn = submit_others;
  jobs[0].others = &jobs[1];
  jobs[0].other_count = 3;
  submit(&jobs[0]);
  while (statistics().completed < 4)
    sleep_a_moment();
  for (unsigned i = 1; i < 4; i++)
    CHECK_EQ(jobs[i].order, 5 - i);
  CHECK_EQ(statistics().steals, 0);
  CHECK_EQ(close_pool(), 4);
  free(jobs);
}

static void submit_one_and_wait_for_it(struct job *job) {
  submit(job->others);
  keep_busy(job); /* until the other one has run */
}

static void let_go_on(struct job *job) {
  (void)job;
  sem_post(&may_go_on);
}

static void an_idle_worker_steals_what_a_busy_one_submitted(void) {
  open_pool(2);
  for (unsigned round = rounds(2000); round > 0; round--) {
    struct job *jobs = jobs_make(2);
    uint64_t steals = statistics().steals;
    jobs[0].fn = submit_one_and_wait_for_it;
    jobs[0].others = &jobs[1];
    jobs[1].fn = let_go_on;
    submit(&jobs[0]);
    await(&has_begun);
    for (unsigned back = 0; back < 2;) {
      CHECK_EQ(dromon_port_wait(port, -1), 0);
      for (dromon_task *task = dromon_port_take(port); task != NULL; task = task->next)
        back++;
    }
    check_all_ran_once(jobs, 2);
    CHECK_EQ(statistics().steals, steals + 1);
    free(jobs);
  }
  CHECK_EQ(close_pool(), 0);
}

static void a_worker_that_submits_never_meets_a_full_queue(void) {
  enum { JOBS = 1000 }; /* more than a deque and the ring hold */
  open_pool(1);
  struct job *jobs = jobs_make(1 + JOBS);
  jobs[JOBS].fn = submit_others;
  jobs[JOBS].others = jobs;
  jobs[JOBS].other_count = JOBS;
  submit(&jobs[JOBS]);
  while (statistics().completed < 1 + JOBS)
    sleep_a_moment();
  check_all_ran_once(jobs, 1 + JOBS);
  CHECK_EQ(close_pool(), 1 + JOBS);
  free(jobs);
}

static unsigned chain_is_over;

static void end_chain(struct job *job) {
  (void)job;
  store_relaxed(&chain_is_over, 1);
}

/* Each of a long chain submits the next one. */
static void submit_next(struct job *job) {
  if (!load_relaxed(&chain_is_over) && job->other_count > 0)
    submit(job->others);
}

static struct job *chain_make(unsigned length) {
  struct job *jobs = jobs_make(length);
  store_relaxed(&chain_is_over, 0);
  for (unsigned i = 0; i + 1 < length; i++) {
    jobs[i].fn = submit_next;
    jobs[i].others = &jobs[i + 1];
    jobs[i].other_count = 1;
  }
  return jobs;
}

enum { CHAIN = 5000 };

static void injected_work_does_not_wait_for_a_chain_of_own_work_to_end(void) {
  open_pool(1);
  struct job *chain = chain_make(CHAIN);
  struct job *injected = jobs_make(2);
  injected[1].fn = end_chain;
  occupy(&injected[0]);
  submit(&chain[0]);
  submit(&injected[1]);
  sem_post(&may_go_on);
  while (!load_relaxed(&chain_is_over))
    sleep_a_moment();
  close_pool();
  CHECK_EQ(load_relaxed(&chain[CHAIN - 1].runs), 0);
  free(chain);
  free(injected);
}

static void submit_two(struct job *job) {
  submit(&job->others[0]);
  submit(&job->others[1]);
}

static void the_oldest_own_work_does_not_wait_for_a_chain_of_newer_to_end(void) {
  open_pool(1);
  struct job *chain = chain_make(2 + CHAIN);
  chain[0].fn = submit_two; /* the oldest, and the first of the chain */
  chain[1].fn = end_chain;
  chain[1].other_count = 0;
  submit(&chain[0]);
  while (!load_relaxed(&chain_is_over))
    sleep_a_moment();
  close_pool();
  CHECK_EQ(chain[1].runs, 1);
  CHECK_THAT(chain[1].order, >, 2);                  /* newest first... */
  CHECK_EQ(load_relaxed(&chain[1 + CHAIN].runs), 0); /* ...but not for ever */
  free(chain);
}

static void close_runs_what_lies_in_deques(void) {
  enum { JOBS = 100 };
  open_pool(2);
  struct job *jobs = jobs_make(1 + JOBS);
  jobs[JOBS].fn = submit_others;
  jobs[JOBS].others = jobs;
  jobs[JOBS].other_count = JOBS;
  struct job *busy = jobs_make(1);
  occupy(busy);
  submit(&jobs[JOBS]);
  while (load_relaxed(&jobs[JOBS].runs) == 0)
    sleep_a_moment();
  sem_post(&may_go_on);
  while (statistics().completed < 2)
    sleep_a_moment();
  CHECK_EQ(close_pool(), 2 + JOBS);
  check_all_ran_once(jobs, 1 + JOBS);
  free(jobs);
  free(busy);
}

static void submit_after_close(struct job *job) {
  keep_busy(job);
  job->answer = dromon_pool_submit(pool, &job->others->native.task);
}

static void a_closed_pool_refuses_its_own_workers(void) {
  open_pool(1);
  struct job *jobs = jobs_make(2);
  jobs[0].fn = submit_after_close;
  jobs[0].others = &jobs[1];
  submit(&jobs[0]);
  await(&has_begun);
  CHECK_EQ(dromon_pool_close(pool, NULL), 0);
  sem_post(&may_go_on);
  CHECK_EQ(dromon_pool_join(pool), 0);
  CHECK_EQ(jobs[0].native.status, -ESHUTDOWN);
  CHECK_EQ(jobs[1].runs, 0);
  dromon_pool_unref(pool);
  dromon_port_unref(port);
  free(jobs);
}

/* Each job submits some of those behind it: together they are a random tree. */
static void grow_tree(struct job *jobs, unsigned count, unsigned seed) {
  unsigned next = 1;
  for (unsigned i = 0; i < count && next < count; i++) {
    seed = seed * 1664525u + 1013904223u;
    unsigned children = i + 1 == next ? 1 + (seed >> 28) : seed >> 28; /* else it would end here */
    if (children > count - next)
      children = count - next;
    jobs[i].fn = submit_others;
    jobs[i].others = &jobs[next];
    jobs[i].other_count = children;
    next += children;
  }
}

static void random_trees_of_tasks_run_once_each(void) {
  enum { TREES = 4 };
  for (unsigned workers = 1; workers <= 4; workers++) {
    open_pool(workers);
    unsigned count = rounds(20000);
    struct job *trees[TREES];
    for (unsigned i = 0; i < TREES; i++) {
      trees[i] = jobs_make(count);
      grow_tree(trees[i], count, i + workers);
    }
    for (unsigned i = 0; i < TREES; i++)
      submit(trees[i]);
    while (statistics().completed < (uint64_t)TREES * count)
      sleep_a_moment();
    CHECK_EQ(close_pool(), TREES * count);
    for (unsigned i = 0; i < TREES; i++) {
      check_all_ran_once(trees[i], count);
      free(trees[i]);
    }
  }
}

/* A tree is cut off where the pool is closed: each job runs, or was refused with all below it. */
static void submit_what_is_accepted(struct job *job) {
  for (unsigned i = 0; i < job->other_count; i++) {
    int result = dromon_pool_submit(pool, &job->others[i].native.task);
    if (result < 0)
      CHECK_EQ(result, -ESHUTDOWN);
    else
      fetch_add_relaxed(&job->answer, 1);
  }
}

static void a_close_amid_trees_runs_what_was_accepted(void) {
  for (unsigned round = 0; round < rounds(300); round++) {
    open_pool(1 + round % 4);
    unsigned count = 300;
    struct job *jobs = jobs_make(count);
    grow_tree(jobs, count, round);
    for (unsigned i = 0; i < count; i++)
      jobs[i].fn = jobs[i].other_count > 0 ? submit_what_is_accepted : NULL;
    submit(jobs);
    unsigned seed = round;
    for (unsigned i = round % 50; i > 0; i--)
      dither(&seed);
    unsigned back = close_pool();
    unsigned accepted = 1, ran = 0;
    for (unsigned i = 0; i < count; i++) {
      accepted += (unsigned)jobs[i].answer;
      ran += jobs[i].runs;
      CHECK_THAT(jobs[i].runs, <=, 1);
    }
    CHECK_EQ(ran, accepted);
    CHECK_EQ(back, accepted);
    free(jobs);
  }
}

/* Submits one job and waits until it has run, as a callable does that wants a result. */
static void submit_and_await(struct job *job) {
  submit(job->others);
  sem_post(&has_begun);
  while (load_acquire(&job->others->native.task.state) != DROMON_TASK_DONE)
    sleep_a_moment();
}

static void what_a_blocked_worker_submitted_does_not_wait_for_the_queue_to_run_dry(void) {
  enum { CROWD = 64 };
  open_pool(2);
  struct job *jobs = jobs_make(2 + CROWD);
  jobs[0].fn = submit_and_await;
  jobs[0].others = &jobs[1];
  submit(&jobs[0]);
  await(&has_begun);
  for (unsigned i = 0; i < CROWD; i++)
    submit(&jobs[2 + i]);
  unsigned back = 0; /* of those two */
  while (back < 2) { /* whatever else comes back is queued anew, so the queue is never empty */
    CHECK_EQ(dromon_port_wait(port, -1), 0);
    for (dromon_task *task = dromon_port_take(port), *next; task != NULL; task = next) {
      next = task->next;
      struct job *job = (struct job *)task;
      if (job < &jobs[2]) {
        back++;
      } else {
        dromon_native_task_init(&job->native, run_job, job, port);
        submit(job);
      }
    }
  }
  CHECK_EQ(jobs[1].runs, 1);
  CHECK_EQ(statistics().steals, 1);
  CHECK_EQ(close_pool(), CROWD);
  free(jobs);
}

/* ---- Searching ------------------------------------------------------------------------------ */

static void at_most_half_of_the_workers_search(void) {
  enum { WORKERS = 4 };
  dromon_pool_config config = config_of(WORKERS);
  config.search_ns = 1000000000;
  open_configured(config);
  uint64_t searchers, sleepers;
  do { /* at first all have run dry at once */
    uint64_t word = load_relaxed(&pool->eventcount.word);
    searchers = word >> 48;
    sleepers = word >> 32 & 0xffff;
    CHECK_THAT(searchers, <=, WORKERS / 2);
  } while (searchers < WORKERS / 2 || sleepers < WORKERS / 2);
  CHECK_EQ(close_pool(), 0);
}

static void whose_pool_never_searches_parks_at_once(void) {
  dromon_pool_config config = config_of(2);
  config.search_ns = DROMON_SEARCH_NEVER;
  open_configured(config);
  for (unsigned i = 0; i < 2; i++)
    CHECK_EQ(pool->workers[i].search.longest_ns, 0);
  CHECK_EQ(close_pool(), 0);
}

static void open_on_one_processor(void) {
  uint64_t cpus[PLACEMENT_CPU_WORDS] = {0};
  int bytes = os_get_affinity(cpus, sizeof cpus);
  bool found = false;
  for (size_t i = 0; i < PLACEMENT_CPU_WORDS; i++) {
    cpus[i] = found ? 0 : cpus[i] & -cpus[i]; /* the lowest bit */
    found = found || cpus[i] != 0;
  }
  CHECK_EQ(os_set_affinity(cpus, (size_t)bytes), 0);
  open_pool(2);
  for (unsigned i = 0; i < 2; i++)
    CHECK_EQ(pool->workers[i].search.longest_ns, 0);
  CHECK_EQ(close_pool(), 0);
}

static void on_one_processor_nobody_searches(void) {
  CHECK_EQ(run_in_child(open_on_one_processor), 0);
}

/* ---- Stalls --------------------------------------------------------------------------------- */

static struct {
  unsigned reports;
  uint32_t worker;
  uint64_t began_ns;
  uint64_t running_ns;
  pid_t tid;
} stall;

static void note_stall(void *arg, uint32_t worker, uint64_t began_ns, uint64_t running_ns) {
  CHECK_EQ((uintptr_t)arg, (uintptr_t)&stall);
  CHECK_THAT(worker, <, 2);
  store_relaxed(&stall.worker, worker);
  store_relaxed(&stall.began_ns, began_ns);
  store_relaxed(&stall.running_ns, running_ns);
  store_relaxed(&stall.tid, os_gettid());
  fetch_add_acq_rel(&stall.reports, 1);
}

static void a_task_that_runs_too_long_is_reported_once_on_a_thread_of_its_own(void) {
  enum { STALL_NS = 1000000 };
  dromon_pool_config config = config_of(2);
  config.stall_ns = STALL_NS;
  config.on_stall = note_stall;
  config.on_stall_arg = &stall;
  memset(&stall, 0, sizeof stall);
  open_configured(config);
  for (unsigned round = 1; round <= 3; round++) {
    struct job *job = jobs_make(1);
    occupy(job);
    while (load_acquire(&stall.reports) < round)
      sleep_a_moment();
    for (int i = 0; i < 10; i++) /* several times as long again: it is not reported twice */
      sleep_a_moment();
    CHECK_EQ(load_acquire(&stall.reports), round);
    CHECK_EQ(statistics().stalls, round);
    CHECK_THAT(load_relaxed(&stall.running_ns), >=, STALL_NS);
    uint64_t began_ns = dromon_pool_read_began(pool, load_relaxed(&stall.worker));
    CHECK_EQ(began_ns, load_relaxed(&stall.began_ns)); /* it is still that task */
    for (uint32_t i = 0; i < 2; i++) {
      dromon_worker worker;
      CHECK_EQ(dromon_pool_read_worker(pool, i, &worker), 0);
      CHECK_THAT(worker.tid, !=, load_relaxed(&stall.tid));
    }
    sem_post(&may_go_on);
    CHECK_EQ(dromon_port_wait(port, -1), 0);
    CHECK(dromon_port_take(port) == &job->native.task);
    free(job);
  }
  CHECK_EQ(close_pool(), 0);
}

/* ---- Saturation ----------------------------------------------------------------------------- */

static struct {
  sem_t reported;
  unsigned reports;
  uint64_t waiting;
  uint64_t running;
  uint64_t saturated_ns;
} saturation;

static void note_saturation(void *arg, uint64_t waiting, uint64_t running, uint64_t saturated_ns) {
  CHECK_EQ((uintptr_t)arg, (uintptr_t)&saturation);
  saturation.waiting = waiting;
  saturation.running = running;
  saturation.saturated_ns = saturated_ns;
  fetch_add_acq_rel(&saturation.reports, 1);
  sem_post(&saturation.reported);
}

enum { SATURATED_NS = 8000000 };

static void open_watched(unsigned workers, uint64_t saturated_ns) {
  dromon_pool_config config = config_of(workers);
  config.saturated_ns = saturated_ns;
  config.on_saturated = note_saturation;
  config.on_saturated_arg = &saturation;
  saturation.reports = 0;
  CHECK_EQ(sem_init(&saturation.reported, 0, 0), 0);
  open_configured(config);
}

static void await_monitor_asleep(void) {
  while (load_acquire(&pool->monitor.state) != MONITOR_ASLEEP)
    sleep_a_moment();
}

/* Several times as long as a saturated pool takes to be reported: nothing comes. */
static void check_not_reported(void) {
  for (int i = 0; i < 4 * SATURATED_NS / 1000000; i++)
    sleep_a_moment();
  CHECK_EQ(load_acquire(&saturation.reports), 0);
}

static void a_pool_whose_workers_are_stuck_while_tasks_wait_is_reported_once(void) {
  enum { WORKERS = 2, WAITING = 3 * QUEUE_CAPACITY };
  open_watched(WORKERS, SATURATED_NS);
  struct job *jobs = jobs_make(WORKERS + WAITING);
  for (unsigned i = 0; i < WORKERS; i++)
    occupy(&jobs[i]);
  for (unsigned i = 0; i < WAITING; i++)
    submit(&jobs[WORKERS + i]); /* and nothing happens any more */
  await(&saturation.reported);
  CHECK_EQ(saturation.waiting, WAITING);
  CHECK_EQ(saturation.running, WORKERS);
  CHECK_THAT(saturation.saturated_ns, >=, SATURATED_NS);
  for (int i = 0; i < 2 * SATURATED_NS / 1000000; i++)
    sleep_a_moment();
  CHECK_EQ(load_acquire(&saturation.reports), 1);
  CHECK_EQ(load_acquire(&pool->monitor.state), MONITOR_OFF); /* nor will it ever look again */
  for (unsigned i = 0; i < WORKERS; i++)
    sem_post(&may_go_on);
  CHECK_EQ(close_pool(), WORKERS + WAITING);
  free(jobs);
}

static void what_a_stuck_worker_submitted_itself_counts_as_waiting(void) {
  enum { JOBS = 3 };
  open_watched(1, SATURATED_NS);
  struct job *jobs = jobs_make(1 + JOBS);
  jobs[JOBS].fn = submit_others_and_keep_busy;
  jobs[JOBS].others = jobs;
  jobs[JOBS].other_count = JOBS;
  submit(&jobs[JOBS]);
  await(&saturation.reported);
  CHECK_EQ(saturation.waiting, JOBS);
  CHECK_EQ(saturation.running, 1);
  await(&has_begun);
  sem_post(&may_go_on);
  CHECK_EQ(close_pool(), 1 + JOBS);
  free(jobs);
}

static void a_pool_in_which_nothing_waits_is_not_looked_at(void) {
  open_watched(2, SATURATED_NS);
  struct job *jobs = jobs_make(2);
  for (unsigned i = 0; i < 2; i++) {
    occupy(&jobs[i]);
    await_monitor_asleep();
  }
  CHECK_EQ(load_acquire(&saturation.reports), 0);
  sem_post(&may_go_on);
  sem_post(&may_go_on);
  CHECK_EQ(close_pool(), 2);
  free(jobs);
}

static void withdrawn_tasks_do_not_wait(void) {
  open_watched(1, SATURATED_NS);
  struct job *jobs = jobs_make(1 + QUEUE_CAPACITY);
  occupy(&jobs[QUEUE_CAPACITY]);
  for (unsigned i = 0; i < QUEUE_CAPACITY; i++) {
    submit(&jobs[i]);
    CHECK_EQ(dromon_pool_withdraw(pool, &jobs[i].native.task), 0);
  }
  CHECK_EQ(statistics().queued, QUEUE_CAPACITY);
  check_not_reported();
  sem_post(&may_go_on);
  CHECK_EQ(close_pool(), 1 + QUEUE_CAPACITY);
  free(jobs);
}

static void one_task_that_waits_behind_withdrawn_ones_is_seen(void) {
  open_watched(1, SATURATED_NS);
  struct job *jobs = jobs_make(1 + QUEUE_CAPACITY);
  occupy(&jobs[QUEUE_CAPACITY]);
  for (unsigned i = 0; i < QUEUE_CAPACITY; i++)
    submit(&jobs[i]);
  for (unsigned i = 0; i + 1 < QUEUE_CAPACITY; i++)
    CHECK_EQ(dromon_pool_withdraw(pool, &jobs[i].native.task), 0);
  await(&saturation.reported);
  CHECK_EQ(saturation.waiting, 1);
  sem_post(&may_go_on);
  CHECK_EQ(close_pool(), 1 + QUEUE_CAPACITY);
  free(jobs);
}

static void run_for_a_while(struct job *job) {
  unsigned seed = job->order;
  for (unsigned i = 0; i < job->order % 64; i++)
    dither(&seed);
}

/* The monitor is awake again and again, and falls asleep just when the pool gets stuck. */
static void a_pool_that_gets_stuck_at_any_moment_is_reported(void) {
  enum { WORKERS = 2, JOBS = 40, WAITING = 2 };
  unsigned seed = 1;
  for (unsigned round = rounds(400); round > 0; round--) {
    open_watched(WORKERS, 100000);
    struct job *jobs = jobs_make(JOBS + WORKERS + WAITING);
    for (unsigned i = 0; i < JOBS + WORKERS + WAITING; i++) {
      jobs[i].fn = i < JOBS ? run_for_a_while : keep_busy;
      submit(&jobs[i]);
      for (unsigned wait = seed >> 24; i < JOBS && wait > 0; wait--)
        dither(&seed);
    }
    await(&saturation.reported); /* it is not, if an Arm was lost */
    for (unsigned i = 0; i < WORKERS + WAITING; i++)
      sem_post(&may_go_on);
    CHECK_EQ(close_pool(), JOBS + WORKERS + WAITING);
    CHECK_EQ(saturation.reports, 1);
    for (unsigned i = 0; i < WORKERS + WAITING; i++)
      await(&has_begun);
    free(jobs);
  }
}

static void a_pool_closes_while_its_monitor_looks(void) {
  for (unsigned round = rounds(200); round > 0; round--) {
    open_watched(1, 1000);
    struct job *jobs = jobs_make(1 + QUEUE_CAPACITY);
    for (unsigned i = 0; i <= QUEUE_CAPACITY; i++)
      submit(&jobs[i]);
    CHECK_EQ(close_pool(), 1 + QUEUE_CAPACITY);
    CHECK_THAT(saturation.reports, <=, 1);
    free(jobs);
  }
}

static void one_thread_reports_stalls_and_saturation(void) {
  dromon_pool_config config = config_of(1);
  config.stall_ns = config.saturated_ns = SATURATED_NS;
  config.on_stall = note_stall;
  config.on_stall_arg = &stall;
  config.on_saturated = note_saturation;
  config.on_saturated_arg = &saturation;
  memset(&stall, 0, sizeof stall);
  saturation.reports = 0;
  CHECK_EQ(sem_init(&saturation.reported, 0, 0), 0);
  open_configured(config);
  for (unsigned round = 1; round <= 2; round++) {
    struct job *jobs = jobs_make(2);
    occupy(&jobs[0]);
    submit(&jobs[1]);
    while (load_acquire(&stall.reports) < round)
      sleep_a_moment();
    if (round == 1)
      await(&saturation.reported);
    sem_post(&may_go_on);
    for (unsigned taken = 0; taken < 2;) {
      CHECK_EQ(dromon_port_wait(port, -1), 0);
      for (dromon_task *task = dromon_port_take(port); task != NULL; task = task->next)
        taken++;
    }
    free(jobs);
  }
  CHECK_EQ(load_acquire(&saturation.reports), 1);
  CHECK_EQ(load_acquire(&stall.reports), 2);
  CHECK_EQ(close_pool(), 0);
}

/* ---- The state of their threads ------------------------------------------------------------- */

static struct {
  char name[16];
  uint64_t mask;
  uint64_t cpus[128];
  int cpu_bytes;
  int nice;
  int policy;
} found;

static void look(struct job *job) {
  (void)job;
  os_get_name(found.name);
  found.mask = os_get_blocked_signals();
  found.cpu_bytes = os_get_affinity(found.cpus, sizeof found.cpus);
  found.nice = getpriority(PRIO_PROCESS, 0);
  found.policy = sched_getscheduler(0);
}

static void run_and_wait(struct job *job, void (*fn)(struct job *)) {
  dromon_native_task_init(&job->native, run_job, job, port);
  job->fn = fn;
  submit(job);
  CHECK_EQ(dromon_port_wait(port, -1), 0);
  CHECK(dromon_port_take(port) == &job->native.task);
}

static void spoil(struct job *job) {
  (void)job;
  uint64_t one_cpu[128] = {0};
  for (int i = 0; i < 128 && one_cpu[0] == 0; i++)
    one_cpu[i] = found.cpus[i] & -found.cpus[i]; /* the lowest bit */
  os_set_name("spoilt");
  os_set_blocked_signals(0);
  CHECK_EQ(os_set_affinity(one_cpu, (size_t)found.cpu_bytes), 0);
}

static void what_a_task_changed_of_its_thread_the_next_one_finds_restored(void) {
  open_pool(1);
  struct job *job = jobs_make(1);
  run_and_wait(job, look);
  CHECK_EQ(strcmp(found.name, "dromon-0"), 0);
  uint64_t mask = found.mask, cpus[128];
  memcpy(cpus, found.cpus, sizeof cpus);
  run_and_wait(job, spoil);
  run_and_wait(job, look);
  CHECK_EQ(strcmp(found.name, "dromon-0"), 0);
  CHECK_EQ(found.mask, mask);
  CHECK_EQ(memcmp(found.cpus, cpus, sizeof cpus), 0);
  CHECK_EQ(close_pool(), 0);
  free(job);
}

static void workers_are_placed_as_asked_for(void) {
  uint64_t all[128] = {0}, cpus[2] = {0};
  os_get_affinity(all, sizeof all);
  cpus[0] = all[0] & -all[0]; /* the lowest CPU for worker 0, in the first 64 */
  cpus[1] = all[0];
  if (cpus[0] == 0) {
    printf("  skipped: this process may use none of the first 64 CPUs\n");
    return;
  }
  dromon_pool_config config = config_of(2);
  int nice = getpriority(PRIO_PROCESS, 0);
  config.placement =
      &(dromon_placement){.cpus = cpus, .cpu_words = 1, .nice = 3, .policy = SCHED_BATCH};
  open_configured(config);
  for (uint32_t i = 0; i < 2; i++) {
    dromon_worker worker;
    CHECK_EQ(dromon_pool_read_worker(pool, i, &worker), 0);
    cpu_set_t set;
    CHECK_EQ(sched_getaffinity(worker.tid, sizeof set, &set), 0);
    CHECK_EQ(CPU_COUNT(&set), __builtin_popcountll(cpus[i]));
    CHECK_EQ(getpriority(PRIO_PROCESS, (id_t)worker.tid), nice + 3);
    CHECK_EQ(sched_getscheduler(worker.tid), SCHED_BATCH);
  }
  CHECK_EQ(getpriority(PRIO_PROCESS, 0), nice); /* the opening thread's own */
  CHECK_EQ(close_pool(), 0);
}

static void a_placement_that_the_kernel_refuses_fails_the_open(void) {
  uint64_t no_cpu[2] = {0, 0};
  dromon_pool_config config = config_of(2);
  dromon_pool *none = NULL;
  config.placement = &(dromon_placement){.cpus = no_cpu, .cpu_words = 1};
  CHECK_EQ(dromon_pool_open(&config, &none), -EINVAL);
  config.placement = &(dromon_placement){.cpus = no_cpu};
  CHECK_EQ(dromon_pool_open(&config, &none), -EINVAL);
  CHECK(none == NULL);
}

int main(void) {
  CHECK_EQ(sem_init(&has_begun, 0, 0), 0);
  CHECK_EQ(sem_init(&may_go_on, 0, 0), 0);
  RUN(a_native_task_comes_back_with_its_status);
  RUN(waiting_for_a_port_ends_with_its_time);
  RUN(a_pool_without_ops_refuses_other_tasks);
  RUN(a_withdrawn_native_task_never_runs_and_comes_back);
  RUN(an_abandoned_native_task_is_counted_and_so_are_the_times_of_all);
  RUN(who_does_not_wait_is_refused_by_a_full_queue);
  RUN(who_waits_too_long_for_room_gets_the_task_back);
  RUN(a_signal_ends_the_wait_for_room);
  RUN(who_waits_for_room_gets_it_and_nothing_is_dropped);
  RUN(what_a_worker_submits_it_runs_newest_first);
  RUN(an_idle_worker_steals_what_a_busy_one_submitted);
  RUN(a_worker_that_submits_never_meets_a_full_queue);
  RUN(injected_work_does_not_wait_for_a_chain_of_own_work_to_end);
  RUN(the_oldest_own_work_does_not_wait_for_a_chain_of_newer_to_end);
  RUN(what_a_blocked_worker_submitted_does_not_wait_for_the_queue_to_run_dry);
  RUN(close_runs_what_lies_in_deques);
  RUN(a_closed_pool_refuses_its_own_workers);
  RUN(random_trees_of_tasks_run_once_each);
  RUN(a_close_amid_trees_runs_what_was_accepted);
  RUN(at_most_half_of_the_workers_search);
  RUN(whose_pool_never_searches_parks_at_once);
  if (!UNDER_TSAN)
    RUN(on_one_processor_nobody_searches);
  RUN(a_task_that_runs_too_long_is_reported_once_on_a_thread_of_its_own);
  RUN(a_pool_whose_workers_are_stuck_while_tasks_wait_is_reported_once);
  RUN(what_a_stuck_worker_submitted_itself_counts_as_waiting);
  RUN(a_pool_in_which_nothing_waits_is_not_looked_at);
  RUN(withdrawn_tasks_do_not_wait);
  RUN(one_task_that_waits_behind_withdrawn_ones_is_seen);
  RUN(a_pool_that_gets_stuck_at_any_moment_is_reported);
  RUN(a_pool_closes_while_its_monitor_looks);
  RUN(one_thread_reports_stalls_and_saturation);
  RUN(what_a_task_changed_of_its_thread_the_next_one_finds_restored);
  RUN(workers_are_placed_as_asked_for);
  RUN(a_placement_that_the_kernel_refuses_fails_the_open);
  return 0;
}
