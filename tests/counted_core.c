/* counted_core.c - what counted_works.py does with the core alone. */
#include "deque.h"
#include "ring.h"

#include <dromon/dromon.h>
#include <semaphore.h>
#include <stdlib.h>

enum { CAPACITY = 256, TASKS_MOST = 4000 };

static void must(bool condition) {
  if (!condition)
    abort();
}

void use_ring(unsigned count) {
  struct ring ring;
  must(ring_init(&ring, CAPACITY) == 0);
  for (unsigned i = 0; i < count; i++) {
    must(ring_push(&ring, &ring));
    must(ring_pop(&ring) == &ring);
  }
  ring_destroy(&ring);
}

void use_deque(unsigned count) {
  struct deque deque;
  must(deque_init(&deque, CAPACITY) == 0);
  for (unsigned i = 0; i < count; i++) {
    must(deque_push(&deque, &deque));
    must(deque_pop(&deque) == &deque);
  }
  deque_destroy(&deque);
}

static int wait_for(void *semaphore) {
  return sem_wait(semaphore);
}

static int tell(void *semaphore) {
  return sem_post(semaphore);
}

static int nothing(void *arg) {
  (void)arg;
  return 0;
}

/* Opened at the first use, which is not counted, and then kept. */
static dromon_pool *pool;
static dromon_port *port;

static void submit(dromon_native_task *native, int (*fn)(void *), void *arg) {
  dromon_native_task_init(native, fn, arg, port);
  must(dromon_pool_submit(pool, &native->task) == 0);
}

static void take(unsigned count) {
  while (count > 0) {
    must(dromon_port_wait(port, -1) == 0);
    for (dromon_task *task = dromon_port_take(port); task != NULL; task = task->next)
      count--;
  }
}

/* None begins before all are queued, and nobody looks at the port before all have run: so it does not depend on
 * who gets the processor how often somebody sleeps and is woken. */
void run_native_tasks(unsigned count) {
  static dromon_native_task first, natives[TASKS_MOST], last;
  sem_t all_are_queued, all_have_run;
  if (pool == NULL) {
    dromon_pool_config config = {.workers = 1};
    must(dromon_pool_open(&config, &pool) == 0);
    must(dromon_port_open(&port) == 0);
  }
  must(count <= TASKS_MOST);
  must(sem_init(&all_are_queued, 0, 0) == 0 && sem_init(&all_have_run, 0, 0) == 0);
  submit(&first, wait_for, &all_are_queued);
  for (unsigned i = 0; i < count; i++)
    submit(&natives[i], nothing, NULL);
  submit(&last, tell, &all_have_run);
  must(sem_post(&all_are_queued) == 0);
  must(sem_wait(&all_have_run) == 0);
  take(count + 2);
}
