/* workers.c - what a pool of so many workers costs: the argument.
 *
 * Beyond the CPUs of the machine the workers take turns: then memory, mappings, system calls and counts
 * say what they say anywhere, and times are those of an oversubscribed machine.
 */
#include "deque.h"
#include "pools.h"

#include <unistd.h>

enum {
  CALLS = 200,
  IN_FLIGHT = 4096, /* as many as the injection queue holds */
  TASKS = 200000,
  WORK_NS = 40000000, /* of a stream of tasks that are not empty, all together */
};

static int nothing(void *arg) {
  (void)arg;
  return 0;
}

static uint64_t count_mappings(void) {
  uint64_t lines = 0;
  FILE *file = fopen("/proc/self/maps", "r");
  MUST(file != NULL);
  for (int c; (c = fgetc(file)) != EOF;)
    lines += c == '\n';
  fclose(file);
  return lines;
}

static void await_parked(dromon_pool *pool, unsigned workers) {
  while (statistics_of(pool).parked < workers)
    usleep(100);
}

/* ---- A look at every deque ------------------------------------------------------------------ */

static void measure_look(unsigned workers) {
  struct deque *deques = aligned_alloc(_Alignof(struct deque), workers * sizeof *deques);
  MUST(deques != NULL);
  for (unsigned i = 0; i < workers; i++)
    MUST(deque_init(&deques[i], 2) == 0);
  uint64_t start = os_now_ns();
  for (unsigned look = 0; look < CALLS; look++)
    for (unsigned i = 0; i < workers; i++)
      MUST(deque_steal(&deques[i]) == NULL);
  report_each("look at a deque", start, (uint64_t)CALLS * workers);
  for (unsigned i = 0; i < workers; i++)
    deque_destroy(&deques[i]);
  free(deques);
}

/* ---- One call, when all sleep --------------------------------------------------------------- */

static void measure_call(dromon_pool *pool, dromon_port *port, unsigned workers) {
  double submits[CALLS], calls[CALLS];
  dromon_native_task native;
  for (unsigned i = 0; i < CALLS; i++) {
    await_parked(pool, workers);
    uint64_t start = os_now_ns();
    submit(pool, port, &native, nothing, NULL);
    submits[i] = (double)(os_now_ns() - start);
    drain(port, 1);
    calls[i] = (double)(os_now_ns() - start);
  }
  report("submit that wakes", median(submits, CALLS));
  report("one call", median(calls, CALLS));
}

/* ---- One task for each worker at once ------------------------------------------------------- */

static void measure_burst(dromon_pool *pool, dromon_port *port, unsigned workers) {
  double times[CALLS];
  dromon_native_task *tasks = make_tasks(workers);
  uint64_t wakes = statistics_of(pool).wakes;
  for (unsigned i = 0; i < CALLS; i++) {
    await_parked(pool, workers);
    uint64_t start = os_now_ns();
    for (unsigned j = 0; j < workers; j++)
      submit(pool, port, &tasks[j], nothing, NULL);
    drain(port, workers);
    times[i] = (double)(os_now_ns() - start) / workers;
  }
  report("burst of one for each worker, each", median(times, CALLS));
  report("wakes of a burst", (double)(statistics_of(pool).wakes - wakes) / CALLS);
  free(tasks);
}

/* ---- A stream of tasks ---------------------------------------------------------------------- */

static int work(void *arg) {
  uint64_t end = os_now_ns() + (uintptr_t)arg;
  while (os_now_ns() < end)
    cpu_relax();
  return 0;
}

static void report_rates(dromon_pool *pool, const dromon_pool_statistics *before, const char *of,
                         double tasks) {
  char name[64];
  dromon_pool_statistics after = statistics_of(pool);
  snprintf(name, sizeof name, "wakes per 1,000 of %s", of);
  report(name, 1000 * (double)(after.wakes - before->wakes) / tasks);
  snprintf(name, sizeof name, "steals per 1,000 of %s", of);
  report(name, 1000 * (double)(after.steals - before->steals) / tasks);
}

static void submit_work(dromon_pool *pool, dromon_port *port, dromon_task *task, unsigned task_ns) {
  dromon_native_task *native = (dromon_native_task *)task;
  submit(pool, port, native, task_ns == 0 ? nothing : work, (void *)(uintptr_t)task_ns);
}

/* As fast as one producer can submit them and take them back. */
static void measure_stream(dromon_pool *pool, dromon_port *port, unsigned task_ns) {
  unsigned count = task_ns == 0 ? TASKS : WORK_NS / task_ns;
  dromon_native_task *tasks = make_tasks(IN_FLIGHT);
  dromon_pool_statistics before = statistics_of(pool);
  uint64_t start = os_now_ns();
  unsigned submitted = 0;
  for (; submitted < IN_FLIGHT && submitted < count; submitted++)
    submit_work(pool, port, &tasks[submitted].task, task_ns);
  for (unsigned finished = 0; finished < count;) {
    dromon_task *task = dromon_port_take(port);
    if (task == NULL)
      MUST(dromon_port_wait(port, -1) == 0);
    for (dromon_task *next; task != NULL; task = next, finished++) {
      next = task->next;
      if (submitted < count) {
        submit_work(pool, port, task, task_ns);
        submitted++;
      }
    }
  }
  char name[64];
  snprintf(name, sizeof name, "stream of %u ns, each task", task_ns);
  report_each(name, start, count);
  if (task_ns == 0)
    report_rates(pool, &before, "the stream", count);
  free(tasks);
}

/* ---- A tree of tasks that submit tasks ------------------------------------------------------ */

struct tree {
  dromon_pool *pool;
  dromon_port *port;
  dromon_native_task *tasks;
};

static struct tree tree;

/* The children of i are 2 i + 1 and 2 i + 2. */
static int grow(void *arg) {
  dromon_native_task *native = arg;
  size_t index = (size_t)(native - tree.tasks);
  for (size_t child = 2 * index + 1; child <= 2 * index + 2 && child < TASKS; child++)
    submit(tree.pool, tree.port, &tree.tasks[child], grow, &tree.tasks[child]);
  return 0;
}

static void measure_tree(dromon_pool *pool, dromon_port *port) {
  tree = (struct tree){pool, port, make_tasks(TASKS)};
  dromon_pool_statistics before = statistics_of(pool);
  uint64_t start = os_now_ns();
  submit(pool, port, tree.tasks, grow, tree.tasks);
  drain(port, TASKS);
  report_each("tree, each task", start, TASKS);
  report_rates(pool, &before, "the tree", TASKS);
  free(tree.tasks);
}

int main(int argc, char **argv) {
  MUST(argc == 2);
  unsigned workers = (unsigned)strtoul(argv[1], NULL, 10);
  uint64_t resident = resident_pages(), mappings = count_mappings(), start = os_now_ns();
  dromon_pool *pool = open_pool(workers);
  report_each("open, each worker", start, workers);
  await_parked(pool, workers);
  uint64_t pages = resident_pages() - resident;
  report("memory, bytes each worker", (double)(pages * (uint64_t)getpagesize()) / workers);
  report("mappings, each worker", (double)(count_mappings() - mappings) / workers);
  dromon_port *port = open_port();
  measure_look(workers);
  measure_call(pool, port, workers);
  measure_burst(pool, port, workers);
  for (unsigned task_ns = 0; task_ns <= 100000; task_ns = task_ns == 0 ? 1000 : task_ns * 10)
    measure_stream(pool, port, task_ns);
  measure_tree(pool, port);
  await_parked(pool, workers);
  start = os_now_ns();
  end_pool(pool);
  report_each("close, each worker", start, workers);
  dromon_port_unref(port);
  return 0;
}
