/* tasks.c - empty native tasks, as fast as one producer can submit them and take them back, beside a
 * bare ring between two threads.
 */
#include "pools.h"
#include "ring.h"

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
    submit(pool, port, native, nothing, NULL);
    submitted++;
  }
  return submitted;
}

static void measure_pool(const char *name, unsigned workers) {
  if (!is_asked(name))
    return;
  dromon_pool *pool = open_pool(workers);
  dromon_port *port = open_port();
  dromon_native_task *natives = make_tasks(IN_FLIGHT);
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
    finished += (unsigned)count_of(tasks);
    submitted += submit_again(pool, port, tasks, TASKS - submitted);
  }
  report_each("ns", start, TASKS);

  report("wakes", (double)statistics_of(pool).wakes / TASKS);
  end_pool(pool);
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

static void measure_ring(const char *name) {
  struct ring ring;
  pthread_t thread;
  if (!is_asked(name))
    return;
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
  report_each("ns", start, TASKS);
  ring_destroy(&ring);
}

int main(int argc, char **argv) {
  begin(argc, argv);
  measure_pool("one worker", 1);
  measure_pool("two workers", 2);
  measure_ring("bare ring");
  return end();
}
