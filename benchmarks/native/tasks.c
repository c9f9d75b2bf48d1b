/* tasks.c - empty native tasks, as fast as one producer can submit them and take them back, beside a
 * bare ring between two threads.
 */
#include "measure.h"
#include "ring.h"

#include <dromon/dromon.h>
#include <pthread.h>
#include <sched.h>

enum {
  IN_FLIGHT = 4096, /* at most, as many as the injection queue holds */
  TASKS = 1000000,
};

static int nothing(void *arg) {
  (void)arg;
  return 0;
}

/* ---- A pool --------------------------------------------------------------------------------- */

/* Submits all those that came back anew, until `left` is used up. */
static unsigned submit_again(dromon_pool *pool, dromon_port *port, dromon_task *tasks,
                             unsigned left) {
  unsigned submitted = 0;
  while (tasks != NULL && submitted < left) {
    dromon_native_task *native = (dromon_native_task *)tasks;
    tasks = tasks->next;
    dromon_native_task_init(native, nothing, NULL, port);
    MUST(dromon_pool_submit(pool, &native->task) == 0);
    submitted++;
  }
  return submitted;
}

static unsigned count_of(const dromon_task *tasks) {
  unsigned count = 0;
  for (; tasks != NULL; tasks = tasks->next)
    count++;
  return count;
}

static void measure_pool(const char *name, const char *wakes, unsigned workers) {
  dromon_pool_config config = {.workers = workers};
  dromon_pool *pool;
  dromon_port *port;
  MUST(dromon_pool_open(&config, &pool) == 0);
  MUST(dromon_port_open(&port) == 0);
  dromon_native_task *natives = calloc(IN_FLIGHT, sizeof *natives);
  MUST(natives != NULL);
  for (unsigned i = 0; i + 1 < IN_FLIGHT; i++)
    natives[i].task.next = &natives[i + 1].task;

  uint64_t start = os_now_ns();
  unsigned submitted = submit_again(pool, port, &natives[0].task, TASKS);
  for (unsigned finished = 0; finished < TASKS;) {
    dromon_task *tasks = dromon_port_take(port);
    if (tasks == NULL) {
      MUST(dromon_port_wait(port, -1) == 0);
      continue;
    }
    finished += count_of(tasks);
    submitted += submit_again(pool, port, tasks, TASKS - submitted);
  }
  report_each(name, start, TASKS);

  dromon_pool_statistics statistics;
  dromon_pool_read_statistics(pool, &statistics);
  report(wakes, 1000.0 * (double)statistics.wakes / TASKS);
  MUST(dromon_pool_close(pool, NULL) == 0);
  MUST(dromon_pool_join(pool) == 0);
  dromon_pool_unref(pool);
  dromon_port_unref(port);
  free(natives);
}

/* ---- Two threads and a ring ----------------------------------------------------------------- */

static void *take_all(void *argument) {
  for (unsigned taken = 0; taken < TASKS;) {
    if (ring_pop(argument) != NULL)
      taken++;
    else
      sched_yield();
  }
  return NULL;
}

static void measure_ring(void) {
  struct ring ring;
  pthread_t thread;
  MUST(ring_init(&ring, IN_FLIGHT) == 0);
  MUST(pthread_create(&thread, NULL, take_all, &ring) == 0);
  uint64_t start = os_now_ns();
  for (unsigned pushed = 0; pushed < TASKS;) {
    if (ring_push(&ring, &ring))
      pushed++;
    else
      sched_yield();
  }
  pthread_join(thread, NULL);
  report_each("bare ring", start, TASKS);
  ring_destroy(&ring);
}

int main(int argc, char **argv) {
  for (unsigned round = begin(argc, argv); round > 0; round--) {
    measure_pool("one worker", "wakes per 1,000 tasks, one worker", 1);
    measure_pool("two workers", "wakes per 1,000 tasks, two workers", 2);
    measure_ring();
  }
  return 0;
}
