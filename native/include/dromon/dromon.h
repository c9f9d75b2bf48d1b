/* dromon.h - what libdromon.so offers: threads, queues and completion ports.
 *
 * This is the only public header. The cffi binding (`dromon._native`) is derived from it at build
 * time by the C preprocessor, so the two cannot drift: whatever is declared here is callable from
 * Python, and nothing else is exported from the library.
 *
 * Conventions, for every function:
 *  - `int` results are 0 (or a count) on success and a negative errno on failure; nothing is
 *    printed and errno is not part of the contract.
 *  - Objects are counted (`_ref`, `_unref`); a pointer is valid while its caller holds a reference.
 *  - Any thread may call any function, unless its comment names the thread that must.
 */
#ifndef DROMON_H
#define DROMON_H

#ifdef DROMON_CDEF /* preprocessed for cffi: declarations only */
#define DROMON_API
#else
#include <stddef.h>
#include <stdint.h>
#define DROMON_API __attribute__((visibility("default")))
#ifdef __cplusplus
extern "C" {
#endif
#endif

enum {
  DROMON_WORKERS_MAX = 1024,      /* workers of one pool */
  DROMON_STACK_SIZE_MIN = 262144, /* bytes; below this CPython itself does not start */
  DROMON_STACK_SIZE_DEFAULT = 8388608,
  DROMON_GUARD_SIZE_DEFAULT = 65536,
  DROMON_QUEUE_CAPACITY_DEFAULT = 4096,
};

/* ---- Ways to make a thread ------------------------------------------------------------------ */

enum dromon_spawn {
  DROMON_SPAWN_AUTO,    /* as a wish: the first of the others that can be had */
  DROMON_SPAWN_CLONE3,  /* the clone3 system call */
  DROMON_SPAWN_CLONE,   /* the older clone system call, where clone3 is refused */
  DROMON_SPAWN_PTHREAD, /* libc's own, where a raw thread could not be proven safe for libc */
};

/* ---- Tasks ----------------------------------------------------------------------------------
 *
 * A task is a node that the submitter embeds in a record of its own. The core queues it, hands it
 * to a worker, and carries it to a port; it never allocates, copies or frees one. The fields
 * belong to the core.
 *
 * A task ends in exactly one of these ways, decided by one compare-and-swap on its state:
 *
 *      QUEUED --start--> RUNNING --finish--> DONE        the ordinary life (a worker starts it)
 *      QUEUED --withdraw--> WITHDRAWN                    it never runs
 *      RUNNING --abandon--> ABANDONED                    nobody waits for its result any more
 */
typedef struct dromon_task {
  struct dromon_task *next; /* link in an overflow queue, then in a port */
  uint32_t state;           /* enum dromon_task_state */
} dromon_task;

enum dromon_task_state {
  DROMON_TASK_QUEUED,
  DROMON_TASK_RUNNING,
  DROMON_TASK_DONE,
  DROMON_TASK_WITHDRAWN,
  DROMON_TASK_ABANDONED,
};

/* Makes `task` QUEUED. */
DROMON_API void dromon_task_init(dromon_task *task);

/* For the worker: 0 if `task` is now DONE, -ECANCELED if it was abandoned meanwhile. */
DROMON_API int dromon_task_finish(dromon_task *task);

/* For the submitter: 0 if `task` will never run, -EBUSY if a worker already started it. The queue
 * keeps pointing at the node until a worker has come across it. */
DROMON_API int dromon_task_withdraw(dromon_task *task);

/* For the submitter: 0 if `task` runs and its result is no longer wanted, -EALREADY if it has
 * finished (its completion is on the way) or does not run. */
DROMON_API int dromon_task_abandon(dromon_task *task);

/* For the worker that was handed `task`: 1 if it was withdrawn, else 0. */
DROMON_API int dromon_task_is_withdrawn(const dromon_task *task);

/* ---- Completion ports -----------------------------------------------------------------------
 *
 * A port carries finished tasks from any number of workers to one consumer (an event loop) and
 * makes an eventfd readable when it goes from empty to not empty.
 */
typedef struct dromon_port dromon_port;

/* Opens a port with one reference. Fails with -ENOMEM, or eventfd's -EMFILE, -ENFILE, -ENODEV. */
DROMON_API int dromon_port_open(dromon_port **port);
DROMON_API void dromon_port_ref(dromon_port *port);
DROMON_API void dromon_port_unref(dromon_port *port);

/* The eventfd to poll for reading; it is closed with the last reference. */
DROMON_API int dromon_port_fd(const dromon_port *port);

/* Adds `task` without telling the consumer: call dromon_port_notify soon after. 0, or -ESHUTDOWN
 * if the port is closed: then the task still belongs to the caller. */
DROMON_API int dromon_port_post(dromon_port *port, dromon_task *task);

/* Makes the eventfd readable, unless the consumer has been told and has not looked since. */
DROMON_API void dromon_port_notify(dromon_port *port);

/* For the consumer: takes all posted tasks, oldest first, linked by `next`; NULL if none. */
DROMON_API dromon_task *dromon_port_take(dromon_port *port);

/* For the consumer: takes what is left and refuses all later posts. */
DROMON_API dromon_task *dromon_port_close(dromon_port *port);

/* ---- Pools ---------------------------------------------------------------------------------- */

typedef struct dromon_pool dromon_pool;
typedef struct dromon_batch dromon_batch;

/* How work is run: the only place where the scheduler and a language runtime meet. All three are
 * called on the worker's own thread. */
typedef struct dromon_ops {
  /* Once, before any work. Stores what `run` and `leave` shall get in `*state`. A negative errno
   * ends the worker (without `leave`) and fails dromon_pool_open. */
  int (*enter)(void *arg, uint32_t worker, void **state);
  /* Runs the tasks that dromon_batch_next hands out, until it returns NULL. */
  void (*run)(void *state, dromon_batch *batch);
  /* Once, after the last batch. */
  void (*leave)(void *state);
} dromon_ops;

/* The next task of this batch, or NULL when there is none or the batch has used up its count or its
 * time. Unless dromon_task_is_withdrawn, it is RUNNING: run it and end it by dromon_batch_post. A
 * withdrawn one is only to be let go of. The first call always gives a task. */
DROMON_API dromon_task *dromon_batch_next(dromon_batch *batch);

/* Posts a finished (or abandoned) task to `port`, whose consumer is told before the next task begins
 * or, if there is none, right after `run` returned. Once for each task that dromon_batch_next gave and
 * that was not withdrawn. Result as dromon_port_post. */
DROMON_API int dromon_batch_post(dromon_batch *batch, dromon_port *port, dromon_task *task);

typedef struct dromon_pool_config {
  uint32_t workers;        /* 1 to DROMON_WORKERS_MAX */
  uint32_t queue_capacity; /* of the lock-free ring: a power of two, at least 2; what exceeds it
                              queues behind a lock. 0: DROMON_QUEUE_CAPACITY_DEFAULT */
  uint64_t stack_size;     /* bytes, rounded up to pages, at least DROMON_STACK_SIZE_MIN. 0: the
                              default */
  uint64_t guard_size;     /* bytes below the stack, rounded up to pages. 0: the default */
  uint32_t batch_tasks;    /* most tasks of one batch. 0: 64 */
  uint32_t batch_ns;       /* no task begins later than this in its batch. 0: 500,000 */
  uint32_t spawn; /* enum dromon_spawn: how to make the workers. Any but AUTO is taken by its
                              word: where it cannot be had the opening fails */
  const dromon_ops *ops;
  void *ops_arg; /* for `enter` */
} dromon_pool_config;

/* Starts the workers and waits until each has entered. On failure nothing is left behind. Fails
 * with -EINVAL (a value out of range), -ENOMEM, -EAGAIN (a limit on threads), or what `enter`
 * answered.
 *
 * Where libc is glibc, do not call its setuid, setgid, setgroups and their kin in another thread
 * meanwhile: a worker that is just being made could keep the old rights, or the call could hang. */
DROMON_API int dromon_pool_open(const dromon_pool_config *config, dromon_pool **pool);
DROMON_API void dromon_pool_ref(dromon_pool *pool);
/* The workers hold references of their own: a pool that was not closed stays, with its threads, until
 * the process ends. */
DROMON_API void dromon_pool_unref(dromon_pool *pool);

/* Queues `task`. Never blocks on a full queue and never loses a task: 0, or -ESHUTDOWN if the pool
 * is closed, and then the task still belongs to the caller. */
DROMON_API int dromon_pool_submit(dromon_pool *pool, dromon_task *task);

/* Refuses later submissions. The workers run all that was accepted, then end; `last`, unless NULL,
 * is run as the very last task, by the last worker, when all others have left. 0, or -EALREADY.
 * Join afterwards. */
DROMON_API int dromon_pool_close(dromon_pool *pool, dromon_task *last);

/* Waits until the workers of a closed pool have ended and frees their stacks. Once, by the owner. 0, or
 * -EBUSY if the pool is not closed. */
DROMON_API int dromon_pool_join(dromon_pool *pool);

typedef struct dromon_pool_statistics {
  uint32_t workers;   /* started and not yet ended */
  uint32_t parked;    /* asleep on the futex */
  uint64_t queued;    /* waiting, withdrawn ones that no worker has come across included */
  uint64_t running;   /* handed to a worker and not yet done */
  uint64_t completed; /* done, abandoned ones included, the closing one not */
  uint64_t withdrawn; /* withdrawn before they began, and discarded by a worker */
  uint64_t batches;   /* runs of `ops->run` */
  uint64_t parks;     /* times that a worker went to sleep */
  uint64_t wakes;     /* futex wake syscalls by submitters and workers */
} dromon_pool_statistics;

/* A snapshot; each number is exact for some moment during the call, not all for the same one. */
DROMON_API void dromon_pool_read_statistics(dromon_pool *pool, dromon_pool_statistics *statistics);

typedef struct dromon_worker {
  int32_t tid;   /* kernel thread id */
  int32_t spawn; /* enum dromon_spawn: how the thread was made */
  int32_t
      spawn_error; /* 0, or why it is not a clone3 thread though it might have been, as a negative
                          errno */
  uint64_t stack_low;  /* lowest usable byte of its stack; the guard lies below */
  uint64_t stack_size; /* bytes */
  uint64_t guard_size; /* bytes */
  uint64_t
      stack_used; /* bytes of the stack that were ever used, by whole pages. Too few if the system
                          has swapped out the lowest ones */
} dromon_worker;

/* Describes worker `index` of an open pool: 0, or -EINVAL. */
DROMON_API int dromon_pool_read_worker(dromon_pool *pool, uint32_t index, dromon_worker *worker);

/* ---- Probes --------------------------------------------------------------------------------- */

/* How many threads this process has made in this way (enum dromon_spawn) through this library, bare
 * ones included. */
DROMON_API uint64_t dromon_spawn_count(int32_t spawn);

/* 0 if this process may call clone3, else how the call is refused, as a negative errno: -ENOSYS by older
 * kernels and by most sandboxes, -EPERM by some. Makes no thread. */
DROMON_API int dromon_clone3_probe(void);

#if !defined(DROMON_CDEF) && defined(__cplusplus)
}
#endif
#endif
