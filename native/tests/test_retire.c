/* test_retire.c - tests of workers that are replaced while they are stuck in a task, and of what a worker
 * prepares in the background.
 */
#include "os.h"
#include "pool.h"
#include "process.h"

#include <dromon/dromon.h>
#include <semaphore.h>
#include <string.h>

/* ---- Pools and jobs of a test --------------------------------------------------------------- */

/* ThreadSanitizer's own thread-locals, at the top of each stack, take about a MiB. */
enum { STACK_SIZE = UNDER_TSAN ? 4 << 20 : DROMON_STACK_SIZE_MIN };

static unsigned threads_without_pools;
static dromon_pool *pool; /* of the current test, as its port */
static dromon_port *port;

static struct {
  uint32_t entered;
  uint32_t prepared;
  uint32_t left;
  int refusal; /* what `enter` answers */
  bool prepares_long;
} seen;

static sem_t has_begun, may_go_on;

static void await(sem_t *semaphore) {
  while (sem_wait(semaphore) < 0)
    CHECK_EQ(errno, EINTR);
}

static int enter(void *arg, uint32_t worker, void **state) {
  (void)arg, (void)worker;
  if (load_relaxed(&seen.refusal) < 0)
    return load_relaxed(&seen.refusal);
  *state = &seen;
  raise_count(&seen.entered, 1);
  return 0;
}

static void prepare(void *state) {
  CHECK(state == &seen);
  if (seen.prepares_long)
    await(&may_go_on);
  raise_count(&seen.prepared, 1);
}

static void run(void *state, dromon_batch *batch) {
  CHECK(state == &seen);
  for (dromon_task *task; (task = dromon_batch_next(batch)) != NULL;) {
    dromon_native_task *native = (dromon_native_task *)task;
    native->status = native->fn(native->arg);
    CHECK_EQ(dromon_task_finish(task), 0);
    CHECK_EQ(dromon_batch_post(batch, native->port, task), 0);
  }
}

static void drop(void *state, dromon_task *task) {
  (void)state, (void)task;
  CHECK(false); /* the ports of these tests are open */
}

static void leave(void *state) {
  CHECK(state == &seen);
  raise_count(&seen.left, 1);
}

static const dromon_ops ops = {
    .enter = enter, .prepare = prepare, .run = run, .drop = drop, .leave = leave};

static dromon_pool_config config_of(unsigned workers) {
  memset(&seen, 0, sizeof seen);
  return (dromon_pool_config){
      .workers = workers, .queue_capacity = 16, .stack_size = STACK_SIZE, .ops = &ops};
}

static void open_configured(dromon_pool_config config) {
  CHECK_EQ(dromon_port_open(&port), 0);
  CHECK_EQ(dromon_pool_open(&config, &pool), 0);
}

static void open_pool(unsigned workers) {
  open_configured(config_of(workers));
}

static void close_pool(void) {
  CHECK_EQ(dromon_pool_close(pool, NULL), 0);
  CHECK_EQ(dromon_pool_join(pool), 0);
  dromon_pool_unref(pool);
}

static dromon_pool_statistics statistics(void) {
  dromon_pool_statistics statistics;
  dromon_pool_read_statistics(pool, &statistics);
  return statistics;
}

static pid_t tid_of(uint32_t index) {
  dromon_worker worker;
  CHECK_EQ(dromon_pool_read_worker(pool, index, &worker), 0);
  return worker.tid;
}

struct job {
  dromon_native_task native; /* first, so that a task is its job */
  unsigned runs;
  pid_t tid; /* of who ran it */
  char name[16];
  void (*fn)(struct job *);
  struct job *others; /* what it submits */
  unsigned other_count;
  unsigned late_count; /* and what it submits behind those, after a pause */
  long pause_ns;
  int32_t accepted; /* of those */
};

static int run_job(void *arg) {
  struct job *job = arg;
  fetch_add_relaxed(&job->runs, 1);
  job->tid = os_gettid();
  os_get_name(job->name);
  if (job->fn != NULL)
    job->fn(job);
  return 0;
}

static struct job *jobs_make(unsigned count) {
  struct job *jobs = calloc(count, sizeof *jobs);
  CHECK(jobs != NULL);
  for (unsigned i = 0; i < count; i++)
    dromon_native_task_init(&jobs[i].native, run_job, &jobs[i], port);
  return jobs;
}

static void submit(struct job *job) {
  CHECK_EQ(dromon_pool_submit(pool, &job->native.task), 0);
}

static void keep_busy(struct job *job) {
  (void)job;
  sem_post(&has_begun);
  await(&may_go_on);
}

static void occupy(struct job *job) {
  job->fn = job->fn ?: keep_busy;
  submit(job);
  await(&has_begun);
}

/* Takes what has come back, waiting for so many. */
static void await_back(unsigned count) {
  while (count > 0) {
    CHECK_EQ(dromon_port_wait(port, -1), 0);
    for (dromon_task *task = dromon_port_take(port); task != NULL; task = task->next)
      count--;
  }
}

static int replace(uint32_t index) {
  return dromon_pool_replace(pool, index, dromon_pool_read_began(pool, index));
}

/* ---- Preparing ------------------------------------------------------------------------------ */

static void a_worker_prepares_when_the_pool_is_open_and_before_its_first_task(void) {
  dromon_pool_config config = config_of(1);
  seen.prepares_long = true;
  open_configured(config);
  CHECK_EQ(load_acquire(&seen.prepared), 0);
  struct job *job = jobs_make(1);
  submit(job);
  sem_post(&may_go_on);
  await_back(1);
  CHECK_EQ(load_acquire(&seen.prepared), 1);
  close_pool();
  CHECK_EQ(load_acquire(&seen.prepared), 1);
  dromon_port_unref(port);
  free(job);
}

/* ---- One worker is replaced ----------------------------------------------------------------- */

static void check_that_a_fresh_worker_takes_the_place(bool native) {
  open_pool(1);
  struct job *jobs = jobs_make(3);
  for (unsigned i = 0; i < 3; i++)
    jobs[i].native.task.native = native;
  occupy(&jobs[0]);
  pid_t old = tid_of(0);
  submit(&jobs[1]);
  CHECK_EQ(replace(0), 0);
  await_back(1);
  CHECK_EQ(jobs[1].tid, tid_of(0));
  CHECK_THAT(jobs[1].tid, !=, old);
  CHECK_EQ(strcmp(jobs[1].name, "dromon-0"), 0);
  CHECK_EQ(load_acquire(&seen.left), 0);
  CHECK_EQ(statistics().retired, 1);
  CHECK_EQ(statistics().workers, 1);
  CHECK_EQ(statistics().running, 1);
  sem_post(&may_go_on);
  await_back(1);
  await_count(&seen.left, 1); /* in place of looking for another task */
  CHECK_EQ(jobs[0].native.task.state, DROMON_TASK_DONE);
  submit(&jobs[2]);
  await_back(1);
  CHECK_EQ(jobs[2].tid, tid_of(0));
  while (statistics().completed < 3) /* what the retired one has counted stays counted */
    sleep_a_moment();
  CHECK_EQ(statistics().running, 0);
  close_pool();
  CHECK_EQ(seen.entered, 2);
  CHECK_EQ(seen.prepared, 2);
  CHECK_EQ(seen.left, 2);
  dromon_port_unref(port);
  free(jobs);
}

static void a_fresh_worker_takes_the_place_of_one_that_is_stuck_in_a_native_task(void) {
  check_that_a_fresh_worker_takes_the_place(true);
}

static void a_fresh_worker_takes_the_place_of_one_that_is_stuck_in_a_batch(void) {
  check_that_a_fresh_worker_takes_the_place(false);
}

static void a_worker_whose_task_has_ended_keeps_its_place(void) {
  open_pool(1);
  struct job *jobs = jobs_make(2);
  occupy(&jobs[0]);
  uint64_t began_ns = dromon_pool_read_began(pool, 0);
  sem_post(&may_go_on);
  await_back(1);
  occupy(&jobs[1]);
  CHECK_EQ(dromon_pool_replace(pool, 0, began_ns), -EALREADY);
  sem_post(&may_go_on);
  await_back(1);
  while (dromon_pool_read_began(pool, 0) != 0)
    sleep_a_moment();
  CHECK_EQ(dromon_pool_replace(pool, 0, 0), -EALREADY);
  CHECK_EQ(dromon_pool_replace(pool, 1, began_ns), -EINVAL);
  CHECK_EQ(statistics().retired, 0);
  close_pool();
  dromon_port_unref(port);
  free(jobs);
}

static void a_worker_is_retired_once(void) {
  open_pool(1);
  struct job *job = jobs_make(1);
  occupy(job);
  uint64_t began_ns = dromon_pool_read_began(pool, 0);
  CHECK_EQ(dromon_pool_replace(pool, 0, began_ns), 0);
  CHECK_EQ(dromon_pool_replace(pool, 0, began_ns), -EALREADY);
  CHECK_EQ(dromon_pool_read_began(pool, 0), 0);
  sem_post(&may_go_on);
  await_count(&seen.left, 1);
  close_pool();
  dromon_port_unref(port);
  free(job);
}

static void who_cannot_enter_leaves_the_place_to_the_stuck_one(void) {
  open_pool(1);
  struct job *jobs = jobs_make(2);
  occupy(&jobs[0]);
  pid_t tid = tid_of(0);
  store_relaxed(&seen.refusal, -EXDEV);
  CHECK_EQ(replace(0), -EXDEV);
  CHECK_EQ(tid_of(0), tid);
  CHECK_EQ(statistics().retired, 0);
  submit(&jobs[1]);
  sem_post(&may_go_on);
  await_back(2);
  CHECK_EQ(jobs[1].tid, tid);
  close_pool();
  dromon_port_unref(port);
  free(jobs);
}

/* The task ends while its worker's successor enters. */
static int enter_too_late(void *arg, uint32_t worker, void **state) {
  if (load_relaxed(&seen.entered) > 0) {
    sem_post(&may_go_on);
    while (dromon_pool_read_began(pool, worker) != 0)
      sleep_a_moment();
  }
  return enter(arg, worker, state);
}

static void who_enters_too_late_leaves_again(void) {
  dromon_ops late = ops;
  late.enter = enter_too_late;
  dromon_pool_config config = config_of(1);
  config.ops = &late;
  open_configured(config);
  struct job *job = jobs_make(1);
  occupy(job);
  CHECK_EQ(replace(0), -EALREADY);
  CHECK_EQ(load_acquire(&seen.left), 1);
  await_count(&seen.prepared, 1); /* the first one alone has */
  close_pool();
  CHECK_EQ(seen.prepared, 1);
  CHECK_EQ(seen.left, 2);
  dromon_port_unref(port);
  free(job);
}

/* ---- What a retired worker submits ---------------------------------------------------------- */

static void submit_others_of(struct job *job, struct job *others, unsigned count) {
  for (unsigned i = 0; i < count; i++) {
    int result = dromon_pool_submit(pool, &others[i].native.task);
    if (result == 0)
      job->accepted++;
    else
      CHECK_EQ(result, -ESHUTDOWN);
  }
}

static void submit_others(struct job *job) {
  submit_others_of(job, job->others, job->other_count);
}

static void submit_others_before_and_after(struct job *job) {
  submit_others(job);
  keep_busy(job);
  job->others += job->other_count;
  submit_others(job);
  sem_post(&has_begun);
  await(&may_go_on);
}

static void what_it_submits_before_and_after_is_run_by_others(void) {
  enum { OTHERS = 300 }; /* more than a deque holds */
  open_pool(1);
  struct job *jobs = jobs_make(1 + 2 * OTHERS);
  jobs[0].fn = submit_others_before_and_after;
  jobs[0].others = &jobs[1];
  jobs[0].other_count = OTHERS;
  occupy(&jobs[0]);
  CHECK_EQ(replace(0), 0);
  await_back(OTHERS);
  sem_post(&may_go_on);
  await(&has_begun);
  await_back(OTHERS);
  CHECK_EQ(jobs[0].accepted, 2 * OTHERS);
  for (unsigned i = 1; i <= 2 * OTHERS; i++)
    CHECK_EQ(jobs[i].runs, 1);
  sem_post(&may_go_on);
  await_count(&seen.left, 1);
  close_pool();
  dromon_port_unref(port);
  free(jobs);
}

/* ---- Closing -------------------------------------------------------------------------------- */

static void closing_waits_for_no_retired_worker_whose_submissions_are_refused(void) {
  enum { OTHERS = 4 };
  open_pool(2);
  struct job *jobs = jobs_make(2 + 2 * OTHERS);
  jobs[0].fn = submit_others_before_and_after;
  jobs[0].others = &jobs[2];
  jobs[0].other_count = OTHERS;
  occupy(&jobs[0]);
  uint32_t index = dromon_pool_read_began(pool, 0) != 0 ? 0 : 1;
  CHECK_EQ(replace(index), 0);
  CHECK_EQ(dromon_pool_close(pool, &jobs[1].native.task), 0);
  CHECK_EQ(dromon_pool_join(pool), 0);
  await_back(OTHERS + 1);
  CHECK_EQ(jobs[1].runs, 1); /* the closing task */
  CHECK_EQ(load_acquire(&seen.left), 2);
  CHECK_EQ(dromon_pool_replace(pool, 0, 1), -ESHUTDOWN);
  dromon_pool_unref(pool); /* the retired one has a reference */
  sem_post(&may_go_on);
  await(&has_begun);
  sem_post(&may_go_on);
  await_back(1);
  CHECK_EQ(jobs[0].accepted, OTHERS);
  await_count(&seen.left, 3);
  dromon_port_unref(port);
  free(jobs);
}

static void close_and_join(void *arg, unsigned index) {
  (void)arg, (void)index;
  CHECK_EQ(dromon_pool_close(pool, NULL), 0);
  CHECK_EQ(dromon_pool_join(pool), 0);
}

static void a_join_that_waits_for_a_stuck_worker_goes_on_when_it_is_retired(void) {
  open_pool(1);
  struct job *jobs = jobs_make(2);
  occupy(&jobs[0]);
  submit(&jobs[1]);
  struct threads threads;
  threads_start(&threads, 1, close_and_join, NULL);
  while (!dromon_pool_is_closed(pool))
    sleep_a_moment();
  CHECK_EQ(replace(0), 0);
  threads_join(&threads);
  CHECK_EQ(jobs[1].runs, 1);
  CHECK_EQ(statistics().workers, 0);
  dromon_pool_unref(pool);
  sem_post(&may_go_on);
  await_count(&seen.left, 2);
  await_back(2);
  dromon_port_unref(port);
  free(jobs);
}

/* ---- The monitor ---------------------------------------------------------------------------- */

static uint32_t stalls;

static void note_stall(void *arg, uint32_t worker, uint64_t began_ns, uint64_t running_ns) {
  (void)arg, (void)began_ns, (void)running_ns;
  CHECK_EQ(worker, 0);
  raise_count(&stalls, 1);
}

static void stalls_are_reported_once_of_a_retired_worker_and_of_its_successor(void) {
  dromon_pool_config config = config_of(1);
  config.stall_ns = 1000000;
  config.on_stall = note_stall;
  open_configured(config);
  struct job *jobs = jobs_make(3);
  for (unsigned i = 0; i < 3; i++) {
    occupy(&jobs[i]);
    await_count(&stalls, i + 1);
    CHECK_EQ(replace(0), 0);
  }
  for (int i = 0; i < 10; i++) /* several times as long again */
    sleep_a_moment();
  CHECK_EQ(load_acquire(&stalls), 3);
  CHECK_EQ(statistics().stalls, 3);
  for (unsigned i = 0; i < 3; i++)
    sem_post(&may_go_on);
  await_count(&seen.left, 3);
  close_pool();
  dromon_port_unref(port);
  free(jobs);
}

/* ---- Nothing is left ------------------------------------------------------------------------ */

static void replace_many(unsigned count) {
  struct job *jobs = jobs_make(count);
  for (unsigned i = 0; i < count; i++) {
    occupy(&jobs[i]);
    CHECK_EQ(replace(0), 0);
    sem_post(&may_go_on);
    await_back(1);
    await_count(&seen.left, i + 1);
  }
  free(jobs);
}

static void a_thousand_retired_one_after_the_other_leave_nothing_behind(void) {
  unsigned count = rounds(1000);
  unsigned mappings = 0;
  for (int round = 0; round < 2; round++) { /* the first one for what is allocated once */
    open_pool(1);
    replace_many(count);
    CHECK_EQ(statistics().retired, count);
    CHECK_EQ(statistics().completed, count);
    unsigned memories = 0;
    for (struct worker *worker = pool->workers; worker != NULL; worker = worker_next(worker))
      memories++;
    CHECK_THAT(memories, <=, 4); /* a retired one may be about to end yet */
    close_pool();
    dromon_port_unref(port);
    await_thread_count(threads_without_pools);
    if (round > 0)
      CHECK_THAT(count_mappings(), <=, mappings + 8); /* malloc's arenas come and go */
    mappings = count_mappings();
  }
}

static void fork_and_open(void) {
  open_pool(1);
  struct job *job = jobs_make(1);
  submit(job);
  await_back(1);
  close_pool();
}

static void a_child_of_a_fork_does_not_wait_for_those_that_ended_in_its_parent(void) {
  open_pool(1);
  replace_many(1);
  CHECK_EQ(run_in_child(fork_and_open), 0);
  close_pool();
  dromon_port_unref(port);
}

/* ---- At the same moment --------------------------------------------------------------------- */

static uint32_t entering; /* workers that are about to enter */
static unsigned enter_seed, end_seed;

static int enter_at_any_moment(void *arg, uint32_t worker, void **state) {
  int result = enter(arg, worker, state);
  raise_count(&entering, 1);
  dither(&enter_seed);
  return result;
}

/* Ends just when its worker's successor has entered. */
static void end_at_any_moment(struct job *job) {
  (void)job;
  uint32_t before = load_acquire(&entering);
  sem_post(&has_begun);
  for (unsigned i = 0; i < 300000 && load_acquire(&entering) == before; i++)
    cpu_relax(); /* longer than in await_count: a thread takes its time to start */
  await_count(&entering, before + 1);
  dither(&end_seed);
}

static void a_task_ends_or_its_worker_is_retired(void) {
  dromon_ops dithering = ops;
  dithering.enter = enter_at_any_moment;
  dromon_pool_config config = config_of(1);
  config.ops = &dithering;
  open_configured(config);
  unsigned count = rounds(2000);
  struct job *jobs = jobs_make(count);
  uint32_t retired = 0;
  for (unsigned i = 0; i < count; i++) {
    jobs[i].fn = end_at_any_moment;
    jobs[i].native.task.native = i % 2;
    occupy(&jobs[i]);
    int result = replace(0);
    CHECK(result == 0 || result == -EALREADY);
    retired += result == 0;
    await_back(1);
    await_count(&seen.left, i + 1); /* one of the two: it hangs if both stay */
    CHECK_EQ(load_acquire(&seen.entered), i + 2);
  }
  CHECK_EQ(statistics().retired, retired);
  close_pool();
  CHECK_EQ(seen.left, count + 1);
  dromon_port_unref(port);
  free(jobs);
}

/* ---- All at once ---------------------------------------------------------------------------- */

enum { RETIRERS = 2, JOBS = 400 };

static uint32_t is_over;

/* Retires whoever runs a task, at random moments. */
static void retire_at_random(void *arg, unsigned index) {
  (void)arg;
  unsigned seed = index + 1;
  while (!load_acquire(&is_over)) {
    uint32_t place = (seed >> 8) % pool->worker_count;
    uint64_t began_ns = dromon_pool_read_began(pool, place);
    dither(&seed);
    if (began_ns == 0)
      continue;
    int result = dromon_pool_replace(pool, place, began_ns);
    CHECK(result == 0 || result == -EALREADY || result == -ESHUTDOWN);
    tid_of(0);
  }
}

/* Now and then it takes about as long as a thread to start, so that the end meets the retiring. */
static void submit_others_slowly(struct job *job) {
  submit_others(job);
  if (job->pause_ns > 0)
    nanosleep(&(struct timespec){.tv_nsec = job->pause_ns}, NULL);
  submit_others_of(job, &job->others[job->other_count], job->late_count);
}

/* Each submits some of those behind it, and together they are a tree. */
static struct job *tree_make(unsigned seed) {
  struct job *jobs = jobs_make(JOBS);
  unsigned next = 1;
  for (unsigned i = 0; i < JOBS && next < JOBS; i++) {
    seed = seed * 1664525u + 1013904223u;
    unsigned children = 1 + (seed >> 30);
    if (children > JOBS - next)
      children = JOBS - next;
    jobs[i].others = &jobs[next];
    jobs[i].late_count = children / 2;
    jobs[i].other_count = children - jobs[i].late_count;
    jobs[i].pause_ns = seed >> 8 & 7 ? 0 : 10000L << (seed >> 16 & 7);
    next += children;
  }
  for (unsigned i = 0; i < JOBS; i++) {
    jobs[i].fn = submit_others_slowly;
    jobs[i].native.task.native = i % 3 != 0;
  }
  return jobs;
}

static void check_tree(const struct job *jobs, unsigned submitted) {
  unsigned accepted = submitted, ran = 0;
  for (unsigned i = 0; i < JOBS; i++) {
    accepted += (unsigned)jobs[i].accepted;
    ran += jobs[i].runs;
    CHECK_THAT(jobs[i].runs, <=, 1);
  }
  CHECK_EQ(ran, accepted);
}

static void nothing_is_lost_or_doubled_when_workers_are_retired_amid_trees_and_a_close(void) {
  for (unsigned round = 0; round < rounds(200); round++) {
    open_pool(1 + round % 3);
    struct job *jobs = tree_make(round);
    store_relaxed(&is_over, 0);
    struct threads threads;
    threads_start(&threads, RETIRERS, retire_at_random, NULL);
    submit(jobs);
    if (round % 2 == 0) { /* all of them; else the close comes in between */
      await_back(JOBS);
      CHECK_EQ(jobs[JOBS - 1].runs, 1);
    } else {
      while (statistics().completed < round)
        sleep_a_moment();
    }
    CHECK_EQ(dromon_pool_close(pool, NULL), 0);
    CHECK_EQ(dromon_pool_join(pool), 0);
    store_release(&is_over, 1);
    threads_join(&threads);
    await_count(&seen.left, seen.entered); /* the retired ones, too */
    check_tree(jobs, 1);
    dromon_pool_statistics now = statistics();
    CHECK_EQ(now.queued, 0);
    CHECK_EQ(now.running, 0);
    dromon_pool_unref(pool);
    dromon_port_unref(port);
    free(jobs);
  }
}

int main(void) {
  threads_without_pools = count_threads() + UNDER_TSAN; /* it starts one of its own later */
  CHECK_EQ(sem_init(&has_begun, 0, 0), 0);
  CHECK_EQ(sem_init(&may_go_on, 0, 0), 0);
  RUN(a_worker_prepares_when_the_pool_is_open_and_before_its_first_task);
  RUN(a_fresh_worker_takes_the_place_of_one_that_is_stuck_in_a_native_task);
  RUN(a_fresh_worker_takes_the_place_of_one_that_is_stuck_in_a_batch);
  RUN(a_worker_whose_task_has_ended_keeps_its_place);
  RUN(a_worker_is_retired_once);
  RUN(who_cannot_enter_leaves_the_place_to_the_stuck_one);
  RUN(who_enters_too_late_leaves_again);
  RUN(what_it_submits_before_and_after_is_run_by_others);
  RUN(closing_waits_for_no_retired_worker_whose_submissions_are_refused);
  RUN(a_join_that_waits_for_a_stuck_worker_goes_on_when_it_is_retired);
  RUN(stalls_are_reported_once_of_a_retired_worker_and_of_its_successor);
  RUN(a_thousand_retired_one_after_the_other_leave_nothing_behind);
  if (!UNDER_TSAN)
    RUN(a_child_of_a_fork_does_not_wait_for_those_that_ended_in_its_parent);
  RUN(a_task_ends_or_its_worker_is_retired);
  RUN(nothing_is_lost_or_doubled_when_workers_are_retired_amid_trees_and_a_close);
  await_thread_count(threads_without_pools);
  thread_join_ended();
  return 0;
}
