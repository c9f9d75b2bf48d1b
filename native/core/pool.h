/* pool.h - a fixed set of workers over one injection queue (its functions are public, in dromon.h).
 *
 * A worker's life (worker.c): enter; then find a task, run it, and park when there is none
 * (eventcount.md); leave when the pool is closed and drained, or when another one has taken its place
 * (pool.md).
 *
 * Where a worker finds a task: what it submitted itself lies in its own list of pinned tasks or in its own
 * deque, newest first; then comes the injection queue; then it steals the oldest from another worker, a random one first. Every so
 * often it begins elsewhere: so neither the injection queue, nor the oldest of its own tasks, nor what a
 * blocked worker has submitted waits for ever behind the others.
 */
#ifndef DROMON_CORE_POOL_H
#define DROMON_CORE_POOL_H

#include "atomic.h"
#include "deque.h"
#include "eventcount.h"
#include "fiber.h"
#include "injection.h"
#include "monitor.h"
#include "pinned.h"
#include "placement.h"
#include "search.h"
#include "slabs.h"
#include "thread.h"

#include <dromon/dromon.h>

/* A worker's memory lives as long as the pool, and serves another thread when its own has ended
 * (retire.c): the deque and the counters go on with what is in them. */
struct worker {
  _Alignas(CACHE_LINES) dromon_pool *pool;
  struct worker *next;     /* in the list of all that the pool has had; NULL: the last one so far */
  uint32_t index;          /* its place */
  uint32_t phase;          /* enum worker_phase; a futex for who waits until it has entered */
  int enter_result;        /* before phase ENTERED or LEFT */
  struct thread *thread;   /* malloc's; kept after its end, for who looks at a closed pool */
  struct worker *replaced; /* whose place it is to take; NULL: it was there from the beginning */
  uint64_t replaced_began_ns;
  struct own_state own_state;

  struct deque deque; /* what it submitted itself */

  /* The worker's alone. */
  _Alignas(CACHE_LINES)
      dromon_task *held; /* found inside a batch that could not run it; the next one */
  struct search search;
  struct pinned pinned; /* what its tasks have submitted for it alone */
  struct fibers fibers;
  uint32_t looks;  /* for a task, counted to look the other way round now and then */
  uint32_t random; /* for the choice of a victim */

  _Alignas(CACHE_LINES) void
      *called; /* fibers that others have called, newest first: see eventcount.md */

  uint64_t
      began_ns; /* when the task that it runs began; 0: it runs none. With RETIRED, once another
                        one has taken its place */

  /* Written by the worker alone, read by statistics and the monitor. */
  uint64_t started;
  uint64_t completed;
  uint64_t abandoned;
  uint64_t interrupted;
  uint64_t withdrawn;
  uint64_t batches;
  uint64_t steals;
  uint64_t parks;
  uint64_t children;         /* that went into the deque */
  uint64_t children_started; /* of any worker's deque, and in no other count of what has started */
  uint64_t taken_back;       /* children, out of the deque */
  uint64_t children_left;    /* of the withdrawn: those that were taken back, and left in a queue */
  uint64_t fiber_count;
  uint64_t fibers_parked;
  uint64_t fiber_parks;
  uint64_t fiber_switches;
  uint64_t fiber_blocks;
  uint64_t queue_wait[DROMON_HISTOGRAM_BUCKETS];
  uint64_t run_time[DROMON_HISTOGRAM_BUCKETS];
};

enum worker_phase {
  WORKER_STARTING,
  WORKER_ENTERED,
  WORKER_LEFT,  /* or could not enter */
  WORKER_SPARE, /* its memory may serve another thread */
};

#define RETIRED ((uint64_t)1 << 63)

struct dromon_batch {
  struct worker *worker;
  dromon_task *first;      /* found before the batch began */
  uint32_t tasks_left;     /* how many more may begin */
  uint64_t began_ns;       /* when the last task began */
  uint64_t deadline_ns;    /* none begins later; 0: the first has not begun */
  uint64_t entered_ns;     /* when the foreign code of the last task began */
  uint64_t task_ns;        /* how long that took; UINT64_MAX: not known */
  dromon_port *unnotified; /* a port that was posted to, with a reference; NULL if none */
};

struct dromon_pool {
  struct injection injection;
  struct eventcount eventcount;
  _Alignas(CACHE_LINES) uint64_t gate; /* see pool.md */
  _Alignas(CACHE_LINES) uint32_t references;
  uint32_t alive;     /* places whose worker has not begun to leave; a futex for dromon_pool_join */
  uint32_t closing;   /* 1: dromon_pool_close was called */
  bool forgotten;     /* by dromon_pool_forget, when this process had one thread */
  uint64_t withdrawn; /* tasks that were withdrawn out of the waiting room */
  uint64_t withdrawn_in_queue; /* tasks that were withdrawn, and left for a worker to come across */
  dromon_task *last;           /* run by the last worker, and in no count */
  dromon_ops ops;
  void *ops_arg;
  bool native_only; /* opened without ops */
  uint32_t batch_tasks;
  uint32_t batch_ns;
  dromon_placement placement;
  char name[16]; /* what the names of its threads begin with */
  uint64_t stack_size;
  uint64_t guard_size;
  struct slabs slabs; /* stacks of fibers */
  enum dromon_spawn spawn;
  uint32_t search_ns;
  struct monitor monitor;
  pthread_mutex_t replacing;    /* held by who replaces a worker */
  pthread_mutex_t places_mutex; /* held while a place changes hands */
  uint32_t retired;             /* workers that were replaced */
  struct worker **places;       /* by index: who has it now */
  uint32_t worker_count;        /* places */
  struct worker workers[];      /* those of the beginning; the list of all begins with them */
};

#define GATE_CLOSED ((uint64_t)1 << 63)

/* What runs on a worker's thread; the argument is its struct worker. */
void worker_main(void *worker);

/* The worker's loop on a fiber, which its ops call `state`: until it is to end. */
void worker_work(struct worker *worker, void *state);

/* The running task stops for others, and goes on. The time that it began; 0: there is none. */
uint64_t worker_pause_task(struct worker *worker);
void worker_resume_task(struct worker *worker, uint64_t began);

/* Whether it sees a task that has not begun. */
bool worker_has_new(const struct worker *worker);

/* Makes a worker, whose memory is zero but for `next`. -ENOMEM. */
int worker_make(struct worker *worker, dromon_pool *pool, uint32_t index);

/* Starts its thread, which holds a reference to the pool, and waits until the thread is about to enter. A
 * negative errno of thread_start or -ENOMEM. */
int worker_start(struct worker *worker);

/* Waits until it has entered, and gives the negative errno if it could not. */
int worker_await_start(const struct worker *worker);

/* Frees what it has. */
void worker_free(struct worker *worker);

/* For a worker that has entered: takes the place of the one that it was made to replace, if any. -EALREADY
 * if that one's task has ended. */
int worker_take_place(struct worker *worker);

/* The next in the list of all workers that the pool has had, after `worker`; NULL if there is none. */
static inline struct worker *worker_next(const struct worker *worker) {
  /* Acquire, pairs with the release in append (retire.c). */
  return load_acquire(&worker->next);
}

/* Who has the place now. */
static inline struct worker *pool_place(const dromon_pool *pool, uint32_t index) {
  /* Acquire, pairs with Take place: what it points to was made before. */
  return load_acquire(&pool->places[index]);
}

/* When the task that it runs began; 0: it runs none, or has lost its place. */
static inline uint64_t worker_began(const struct worker *worker) {
  /* Relaxed: a time, which orders nothing. */
  uint64_t began = load_relaxed(&worker->began_ns);
  return began & RETIRED ? 0 : began;
}

/* How many tasks it has started. */
static inline uint64_t worker_started(const struct worker *worker) {
  /* Relaxed: counts. */
  return load_relaxed(&worker->started) + load_relaxed(&worker->children_started);
}

/* For the worker itself. */
static inline bool worker_is_retired(const struct worker *worker) {
  /* Acquire, pairs with Take place: nobody looks any more at what goes with the place. */
  return (load_acquire(&worker->began_ns) & RETIRED) != 0;
}

/* How many tasks are queued, withdrawn ones that no worker has come across included. */
uint64_t pool_queued(const dromon_pool *pool);

/* Notify, after each Publish (eventcount.md), and Arm (monitor.h). */
void pool_notify(dromon_pool *pool);

/* The worker that the calling thread is; NULL if it is none. */
struct worker *worker_current(void);

#endif
