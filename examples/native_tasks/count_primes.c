/* count_primes.c - a C function for workers, and the same work done in C alone.
 *
 * count_primes.py compiles this with cffi. Nothing here knows of Python.
 */
#include <dromon/dromon.h>
#include <stdlib.h>

struct job {
  uint32_t first, end; /* count the primes from `first` up to, but without, `end` */
  uint32_t primes;     /* the answer */
};

static int is_prime(uint32_t number) {
  for (uint32_t divisor = 2; divisor <= number / divisor; divisor++) {
    if (number % divisor == 0)
      return 0;
  }
  return number >= 2;
}

/* What a worker calls: with the address of a job. A negative errno would be raised as OSError. */
int count_primes(void *arg) {
  struct job *job = arg;
  job->primes = 0;
  for (uint32_t number = job->first; number < job->end; number++)
    job->primes += (uint32_t)is_prime(number);
  return 0;
}

/* ---- One after the other -------------------------------------------------------------------- */

int count_serially(struct job *jobs, uint32_t count) {
  for (uint32_t i = 0; i < count; i++)
    count_primes(&jobs[i]);
  return 0;
}

/* ---- On a pool of one's own, in C alone ----------------------------------------------------- */

/* Submits all jobs, and takes their tasks out of the port until each has come back. */
static int run_all(dromon_pool *pool, dromon_port *port, dromon_native_task *tasks,
                   struct job *jobs, uint32_t count) {
  uint32_t submitted = 0;
  int result = 0;
  for (; submitted < count && result == 0; submitted++) {
    dromon_native_task_init(&tasks[submitted], count_primes, &jobs[submitted], port);
    result = dromon_pool_submit(pool, &tasks[submitted].task);
  }
  for (uint32_t back = 0; back < submitted - (result < 0);) {
    dromon_port_wait(port, -1); /* a signal may end it early: then nothing is there to be taken */
    for (dromon_task *task = dromon_port_take(port); task != NULL; task = task->next) {
      int status = ((dromon_native_task *)task)->status;
      if (status < 0)
        result = status;
      back++;
    }
  }
  return result;
}

/* 0, or a negative errno. */
int count_on_pool(struct job *jobs, uint32_t count, uint32_t workers) {
  dromon_native_task *tasks = calloc(count, sizeof *tasks);
  dromon_port *port;
  dromon_pool *pool;
  int result = dromon_port_open(&port);
  if (result < 0) {
    free(tasks);
    return result;
  }
  result = dromon_pool_open(&(dromon_pool_config){.workers = workers}, &pool);
  if (result == 0) {
    result = run_all(pool, port, tasks, jobs, count);
    dromon_pool_close(pool, NULL);
    dromon_pool_join(pool);
    dromon_pool_unref(pool);
  }
  dromon_port_unref(port);
  free(tasks);
  return result;
}
