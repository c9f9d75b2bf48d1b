/* queued.c - what so many queued tasks cost: the first argument; the second is how many workers.
 *
 * The workers are held until all tasks are queued. Those that do not fit into the ring wait in line
 * behind it (injection.h), and are moved into it as the workers take tasks.
 */
#include "pools.h"

#include <semaphore.h>
#include <string.h>
#include <unistd.h>

static sem_t held, released;

static int hold(void *arg) {
  (void)arg;
  sem_post(&held);
  while (sem_wait(&released) < 0) {
  }
  return 0;
}

static int nothing(void *arg) {
  (void)arg;
  return 0;
}

static void submit_all(dromon_pool *pool, dromon_port *port, dromon_native_task *tasks,
                       uint64_t count) {
  for (uint64_t i = 0; i < count; i++)
    submit(pool, port, &tasks[i], nothing, NULL);
}

static void measure(unsigned workers, uint64_t count) {
  dromon_pool *pool = open_pool(workers);
  dromon_port *port = open_port();
  dromon_native_task *holders = make_tasks(workers);
  for (unsigned i = 0; i < workers; i++)
    submit(pool, port, &holders[i], hold, NULL);
  for (unsigned i = 0; i < workers; i++)
    MUST(sem_wait(&held) == 0);

  uint64_t resident = resident_pages(), ring = count;
  if (ring > DROMON_QUEUE_CAPACITY_DEFAULT)
    ring = DROMON_QUEUE_CAPACITY_DEFAULT;
  dromon_native_task *tasks = make_tasks(count);
  memset(tasks, 0, count * sizeof *tasks); /* the kernel's part of it is not what is measured */
  uint64_t start = os_now_ns();
  submit_all(pool, port, tasks, ring);
  report_each("submit into the ring", start, ring);
  if (count > ring) {
    start = os_now_ns();
    submit_all(pool, port, tasks + ring, count - ring);
    report_each("submit into the line behind it", start, count - ring);
  }
  uint64_t pages = resident_pages() - resident;
  report("bytes each", (double)(pages * (uint64_t)getpagesize()) / (double)count);

  start = os_now_ns();
  for (unsigned i = 0; i < workers; i++)
    MUST(sem_post(&released) == 0);
  drain(port, count + workers);
  report_each("drain", start, count);
  end_pool(pool);
  dromon_port_unref(port);
  free(tasks);
  free(holders);
}

int main(int argc, char **argv) {
  MUST(argc == 3);
  MUST(sem_init(&held, 0, 0) == 0 && sem_init(&released, 0, 0) == 0);
  measure((unsigned)strtoul(argv[2], NULL, 10), strtoull(argv[1], NULL, 10));
  return 0;
}
