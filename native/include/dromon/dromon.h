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
  DROMON_SEARCH_NEVER = 0x7fffffff,
  DROMON_HISTOGRAM_BUCKETS = 64,
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
 * There are two kinds. The first is run by the pool's own functions (dromon_ops, below): so Python's
 * callables are. A native task is a C function, which a worker of any pool calls by itself.
 *
 * A task ends in exactly one of these ways, decided by one compare-and-swap on its state:
 *
 *      QUEUED --start--> RUNNING --finish--> DONE        the ordinary life (a worker starts it)
 *      QUEUED --withdraw--> WITHDRAWN                    it never runs
 *      QUEUED --take back--> TAKEN_BACK                  a child, which its parent runs itself
 *      RUNNING --abandon--> ABANDONED                    nobody waits for its result any more
 */
typedef struct dromon_task {
  struct dromon_task *next;     /* link in the waiting room or a worker's list, then in a port */
  struct dromon_task *previous; /* link in the waiting room or a worker's list */
  uint32_t state;               /* enum dromon_task_state */
  uint32_t waiting;             /* whether it is in the waiting room, and somebody sleeps on it */
  uint32_t native;              /* 1: it is the first field of a dromon_native_task */
  uint32_t child;               /* 1: it is a child that others may take */
  uint32_t interrupted;         /* set to 1 by the pool's `run`: see dromon_batch_post */
  uint64_t submitted_ns;        /* when it was queued, in CLOCK_MONOTONIC's nanoseconds */
  const void *home;             /* the worker in whose list of pinned tasks it is; or NULL */
} dromon_task;

enum dromon_task_state {
  DROMON_TASK_QUEUED,
  DROMON_TASK_RUNNING,
  DROMON_TASK_DONE,
  DROMON_TASK_WITHDRAWN,
  DROMON_TASK_ABANDONED,
  DROMON_TASK_TAKEN_BACK,
};

/* Makes `task` QUEUED, to be run by the pool's dromon_ops. */
DROMON_API void dromon_task_init(dromon_task *task);

/* For the worker: 0 if `task` is now DONE, -ECANCELED if it was abandoned meanwhile. */
DROMON_API int dromon_task_finish(dromon_task *task);

/* For the submitter: 0 if `task` runs and its result is no longer wanted, -EALREADY if it has
 * finished (its completion is on the way) or does not run. */
DROMON_API int dromon_task_abandon(dromon_task *task);

/* The enum dromon_task_state of the moment. */
DROMON_API uint32_t dromon_task_read_state(const dromon_task *task);

/* For the worker that was handed `task`: 1 if it was withdrawn or taken back, else 0. */
DROMON_API int dromon_task_is_withdrawn(const dromon_task *task);

struct dromon_port;

/* A C function as a task: a worker calls fn(arg) and posts the task to `port`. Each one that was
 * accepted comes back through its port exactly once (a withdrawn one too, unless dromon_pool_withdraw
 * returned 1); until then the record, what
 * `arg` points to and the submitter's reference to the port must stay. */
typedef struct dromon_native_task {
  dromon_task task;     /* first, so that a task that dromon_port_take gives is its record */
  int (*fn)(void *arg); /* what it returns is not interpreted */
  void *arg;
  struct dromon_port *port;
  int32_t status; /* what fn returned, once the task is DONE or ABANDONED */
} dromon_native_task;

/* Makes `native` QUEUED. */
DROMON_API void dromon_native_task_init(dromon_native_task *native, int (*fn)(void *arg), void *arg,
                                        struct dromon_port *port);

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

/* For the consumer, before it sleeps on the descriptor: waits a short while without for a notify. To be
 * woken takes longer than a short task. dromon_port_look_time says how many nanoseconds it pays to
 * look this time. If that is not 0, one dromon_port_look has to follow, for that long or less. It is 0
 * while looking does not pay, or if the port was opened where the process might use one CPU only. */
DROMON_API uint32_t dromon_port_look_time(dromon_port *port);
DROMON_API void dromon_port_look(dromon_port *port, uint32_t length_ns);

/* For a consumer without an event loop: waits until the eventfd is readable. 0, -ETIMEDOUT after
 * `timeout_ns` nanoseconds (below 0: no limit), or -EINTR. */
DROMON_API int dromon_port_wait(dromon_port *port, int64_t timeout_ns);

/* For the consumer: takes all posted tasks, oldest first, linked by `next`; NULL if none. */
DROMON_API dromon_task *dromon_port_take(dromon_port *port);

/* For the consumer: takes what is left and refuses all later posts. */
DROMON_API dromon_task *dromon_port_close(dromon_port *port);

/* ---- Pools ---------------------------------------------------------------------------------- */

typedef struct dromon_pool dromon_pool;
typedef struct dromon_batch dromon_batch;

/* How work is run: the only place where the scheduler and a language runtime meet. All are called on
 * the worker's own thread. */
typedef struct dromon_ops {
  /* Once, before any work. Stores what the others shall get in `*state`. A negative errno ends the worker
   * (without `leave`) and fails dromon_pool_open or dromon_pool_replace, which wait for this. */
  int (*enter)(void *arg, uint32_t worker, void **state);
  /* Once, before the first task, when nobody waits for the worker any more: for what takes long. NULL: there
   * is no such thing. */
  void (*prepare)(void *state);
  /* Runs the tasks that dromon_batch_next hands out, until it returns NULL or, between two tasks,
   * until the language runtime has something better to do. */
  void (*run)(void *state, dromon_batch *batch);
  /* Lets go of a native task that has ended and whose port is closed. */
  void (*drop)(void *state, dromon_task *task);
  /* Once, after the last batch. */
  void (*leave)(void *state);
  /* On a fiber that a worker has made since one of its tasks has parked: before the first task there, and
   * after the last. `*fiber_state` is what `run` and `drop` get there in place of what `enter` has stored. A
   * negative errno: there is no such fiber, and the task blocks the worker instead. NULL: so it is always. */
  int (*enter_fiber)(void *state, void **fiber_state);
  void (*leave_fiber)(void *fiber_state);
} dromon_ops;

/* The next task of this batch, or NULL when there is none or the batch has used up its count or its
 * time. Unless dromon_task_is_withdrawn, it is RUNNING: run it and end it by dromon_batch_post. A
 * withdrawn one is only to be let go of. The first call always gives a task. */
DROMON_API dromon_task *dromon_batch_next(dromon_batch *batch);

/* What a runtime calls right before and right after the foreign code of a task, so that what it takes to
 * undo what that code may have changed of its thread is not spent on tasks too short to have changed any
 * of it. The thread is called `name` meanwhile, as the system shows it (15 bytes count); NULL: by the
 * worker's own name. */
DROMON_API void dromon_batch_enter_task(dromon_batch *batch, const char *name);
DROMON_API void dromon_batch_leave_task(dromon_batch *batch);

/* Posts a finished (or abandoned) task to `port`, whose consumer is told before the next task begins
 * or, if there is none, right after `run` returned. Once for each task that dromon_batch_next gave and
 * that was not withdrawn. Result as dromon_port_post.
 *
 * A runtime that cut the task short, so that it ended before its time, sets `interrupted` first: such
 * tasks are counted. */
DROMON_API int dromon_batch_post(dromon_batch *batch, dromon_port *port, dromon_task *task);

/* Ends a finished task that goes to no port: in the place of dromon_batch_post. */
DROMON_API void dromon_batch_end(dromon_batch *batch, dromon_task *task);

/* ---- Parking --------------------------------------------------------------------------------
 *
 * A task that waits gives its worker back: it parks, on a stack of its own (a fiber), and the worker goes
 * on with others. A fiber never moves to another worker. The parked come first when they can go on, but for
 * every 64th turn, which is for a task that has not begun.
 *
 * A park node is for one wait, and ends in one of two ways, decided by one compare-and-swap:
 *
 *      EMPTY --wait--> PARKED --set--> SET, or --cancel--> CANCELLED        also from EMPTY, before the wait
 *
 * It may be on the stack of who waits, if who ends the wait finds it only under a lock, with which the
 * waiter takes it out of reach before it returns.
 */
struct fiber;

typedef struct dromon_park {
  uint32_t state;      /* enum dromon_park_state; a futex where an OS thread waits */
  struct fiber *fiber; /* that is parked; NULL: an OS thread waits. Published by PARKED */
} dromon_park;

enum dromon_park_state {
  DROMON_PARK_EMPTY,
  DROMON_PARK_PARKED,
  DROMON_PARK_SET,
  DROMON_PARK_CANCELLED,
};

DROMON_API void dromon_park_init(dromon_park *park);

/* Waits until it is set: 0; -ECANCELED if it is cancelled, or -ETIMEDOUT after `timeout_ns` nanoseconds (below 0:
 * no limit). On a worker's fiber this parks, without anything of a language runtime held. Where that cannot
 * be it blocks, and so it does on any other thread, there with -EINTR after a signal's handler: wait again. */
DROMON_API int dromon_park_wait(dromon_park *park, int64_t timeout_ns);

/* From any thread: ends the wait, which may be still to come. 1, or 0 if something else had. */
DROMON_API int dromon_park_set(dromon_park *park);
DROMON_API int dromon_park_cancel(dromon_park *park);

/* From any thread, as a guess, while a wait that is on a fiber cannot return: 1 if it was ended or its time is
 * over, and it only has to get its turn. */
DROMON_API int dromon_park_is_over(const dromon_park *park);

/* Forbids (1) and allows (0) the calling worker's running task to park; returns what was before. */
DROMON_API int dromon_park_forbid(int forbidden);

/* On a worker: lets those go on that can, and returns when it is this one's turn again: 1, or 0 if there was
 * none. */
DROMON_API int dromon_yield(void);

/* The stack that the calling worker's running task is on: 1 if it is a fiber's, and then its lowest byte and its
 * size; 0 if it is the thread's own. */
DROMON_API int dromon_current_stack(void **low, uint64_t *size);

/* Whether the calling thread is a worker: then of which pool, without a reference; else NULL. */
DROMON_API dromon_pool *dromon_current_pool(void);

/* For a task that runs on a worker: queues another one there. It is run even if the pool was closed
 * meanwhile, so the caller has to wait for it. `pinned`: no other worker takes it. -EPERM if the calling
 * thread is no worker. */
DROMON_API int dromon_submit_child(dromon_task *task, int pinned);

/* Takes such a task back, which the caller will run itself. -EBUSY if one has begun it, or if it is pinned
 * to another worker. 1: nothing points at the task any more. 0: a worker will still come across it, to find it
 * withdrawn. */
DROMON_API int dromon_take_back_child(dromon_task *task);

/* The longest, in nanoseconds, that it pays to look for what somebody else does soon, before sleeping until then:
 * 50,000, but 0 where the process may use one CPU only. */
DROMON_API uint32_t dromon_longest_search_ns(void);

/* Where, and how willingly, the kernel runs the workers. */
typedef struct dromon_placement {
  const uint64_t *cpus; /* for each worker `cpu_words` words, bit n of word w for CPU 64 * w + n.
                             NULL: any CPU that the opening thread may use */
  uint32_t cpu_words;
  int32_t nice; /* added to the opening thread's nice value, see nice(2) */
  int32_t
      policy; /* SCHED_OTHER, SCHED_BATCH or SCHED_IDLE, see sched(7). -1: as the opening thread */
} dromon_placement;

typedef struct dromon_pool_config {
  uint32_t workers;        /* 1 to DROMON_WORKERS_MAX */
  uint32_t queue_capacity; /* of the injection queue, a power of two, at least 2: see
                              dromon_pool_submit. 0: DROMON_QUEUE_CAPACITY_DEFAULT */
  uint64_t stack_size;     /* bytes, rounded up to pages, at least DROMON_STACK_SIZE_MIN. 0: the
                              default */
  uint64_t guard_size;     /* bytes below the stack, rounded up to pages. 0: the default */
  uint32_t batch_tasks;    /* most tasks of one batch. 0: 256 */
  uint32_t batch_ns;       /* no task begins later than this in its batch. 0: 500,000 */
  uint32_t search_ns;    /* longest that a worker looks for work before it parks; it looks shorter,
                              or not at all, while that does not pay. 0: as
                              dromon_longest_search_ns() says; never: DROMON_SEARCH_NEVER */
  uint32_t spawn;        /* enum dromon_spawn: how to make the workers. Any but AUTO is taken by its
                              word: where it cannot be had the opening fails */
  const dromon_ops *ops; /* NULL: the workers run native tasks alone */
  void *ops_arg;    /* for `enter`, by which a worker may come at any time if others are replaced */
  const char *name; /* UTF-8: thread n is named name-n, of which the name is cut to what fits into
                              15 bytes. Copied. NULL: "dromon" */
  const dromon_placement *placement; /* NULL: as the thread that opens the pool */
  uint64_t stall_ns; /* a task that runs longer than this counts as stalled. 0: none does */
  /* Called once for each stalled task while it runs, on a thread that exists for this alone (so it
   * may wait for a lock of the language runtime, but later stalls wait with it). NULL: none is. */
  void (*on_stall)(void *arg, uint32_t worker, uint64_t began_ns, uint64_t running_ns);
  void *on_stall_arg;
  uint64_t
      stuck_ns; /* how long a task keeps others waiting that were parked and can go on, until its
                            worker counts as stuck. 0: 1,000,000,000 */
  /* Called once for each such task while it runs, on the thread of `on_stall`: perhaps it blocks its worker for
   * what only one of those can give, as a lock of the system's that was held across a park. They have waited
   * for at least `stuck_ns`. NULL: nobody looks. */
  void (*on_stuck)(void *arg, uint32_t worker, uint64_t began_ns, uint64_t stuck_ns);
  void *on_stuck_arg;
  uint64_t
      saturated_ns; /* a pool is saturated while no worker sleeps and one and the same task waits
                            to begin; this is how long. 0: 1,000,000,000 */
  /* Called once in the pool's life, when it has been saturated for longer than `saturated_ns`, on the
   * thread of `on_stall`. So many tasks waited and ran then. NULL: nobody looks. */
  void (*on_saturated)(void *arg, uint64_t waiting, uint64_t running, uint64_t saturated_ns);
  void *on_saturated_arg;
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

/* The three ways to queue a task differ in what they do when the injection queue is full. None loses a
 * task, and one that is refused still belongs to the caller: -ESHUTDOWN if the pool is closed, -EINVAL
 * if the pool has no `ops` and the task is not native.
 *
 * A worker of the pool that submits to it never meets a full queue: its tasks go to a queue of its
 * own, from which idle workers steal, and what exceeds that goes to the injection queue in any case.
 *
 * dromon_pool_submit lets the task wait in line, behind the full queue, and returns at once: for a
 * submitter that will wait for its result anyway. */
DROMON_API int dromon_pool_submit(dromon_pool *pool, dromon_task *task);

/* -EAGAIN if the queue is full. */
DROMON_API int dromon_pool_submit_nowait(dromon_pool *pool, dromon_task *task);

/* Waits until the queue has room; `task` must stay until this returns, however soon it has run.
 * -ETIMEDOUT after `timeout_ns` nanoseconds (below 0: no limit), or -EINTR after a signal's handler: the
 * task was then not accepted. */
DROMON_API int dromon_pool_submit_wait(dromon_pool *pool, dromon_task *task, int64_t timeout_ns);

/* For the submitter: takes back a task that no worker has started; it will never run. -EBUSY if one
 * has. 1: nothing points at the task any more. 0: a worker will still come across it, and then let go
 * of it (dromon_task_is_withdrawn) or, if it is native, post it to its port; the record must stay until
 * this has returned. A submitter that sleeps in dromon_pool_submit_wait goes on as if accepted. */
DROMON_API int dromon_pool_withdraw(dromon_pool *pool, dromon_task *task);

/* Refuses later submissions. The workers run all that was accepted, then end; `last`, unless NULL,
 * is run as the very last task, by the last worker, when all others have left. 0, or -EALREADY.
 * Join afterwards. */
DROMON_API int dromon_pool_close(dromon_pool *pool, dromon_task *last);

/* 1 if it refuses submissions, since dromon_pool_close or dromon_pool_forget, else 0. */
DROMON_API int dromon_pool_is_closed(const dromon_pool *pool);

/* In the child of a fork, where of all threads only the one that forked is left: refuses later
 * submissions to a pool of the parent. If it was a worker of that pool that forked, it leaves when its
 * task has ended, and runs none of the queued ones, which are the parent's. Not to be joined. */
DROMON_API void dromon_pool_forget(dromon_pool *pool);

/* Waits until the workers of a closed pool have ended and frees their stacks. Once, by the owner. 0, or
 * -EBUSY if the pool is not closed. The stack of a retired worker that has ended is freed when another
 * retired one ends, of any pool, or by the next join. */
DROMON_API int dromon_pool_join(dromon_pool *pool);

/* Gives the place of a worker that is stuck in a task to a fresh one. If worker `index` still runs the task
 * that began at `began_ns`, as dromon_pool_read_began told it, it is *retired*: it goes on with its task,
 * which is posted and counted as ever, then it leaves. Nobody waits for it any more, neither dromon_pool_close
 * nor dromon_pool_join, so it may come to `leave` later than these return; it has a reference to the pool
 * until then. Tasks that it submitted to the pool are run by others, and it may submit more.
 *
 * The fresh one is made as the pool's workers were, and placed from where the calling thread is placed; this
 * returns when it has entered, as dromon_pool_open does, so do not hold what `enter` waits for. Callers take
 * turns.
 *
 * 0; -EALREADY if that task has ended, or if it is the closing one; -ESHUTDOWN if the pool is closed and each
 * worker has begun to leave, or after dromon_pool_forget; -EINVAL if there is no such worker; -ENOMEM, or what
 * thread creation or `enter` answered. Whatever fails, the worker keeps its place. A worker that could not
 * have it, since the task ended while it entered, leaves at once. */
DROMON_API int dromon_pool_replace(dromon_pool *pool, uint32_t index, uint64_t began_ns);

typedef struct dromon_pool_statistics {
  uint32_t workers;     /* started and not yet ended; retired ones do not count */
  uint32_t retired;     /* workers that were replaced, in the pool's life */
  uint32_t parked;      /* asleep on the futex */
  uint64_t queued;      /* waiting, withdrawn ones that no worker has come across included */
  uint64_t running;     /* handed to a worker and not yet done */
  uint64_t completed;   /* done, abandoned ones included, the closing one not */
  uint64_t abandoned;   /* of the completed: abandoned before they ended */
  uint64_t interrupted; /* of the completed: those that `run` has marked so */
  uint64_t withdrawn;   /* withdrawn before they began, and discarded by a worker */
  uint64_t batches;     /* runs of `ops->run` */
  uint64_t steals;      /* tasks that a worker took out of another's queue */
  uint64_t stalls;      /* tasks that ran longer than `stall_ns` */
  uint64_t parks;       /* times that a worker went to sleep */
  uint64_t wakes;       /* futex wake syscalls by submitters and workers */
  uint64_t fibers; /* stacks of parked, running and spare fibers, the threads' own not counted */
  uint64_t fiber_bytes;    /* of address space that is reserved for these stacks */
  uint64_t fibers_parked;  /* fibers whose task waits, or could go on */
  uint64_t fiber_parks;    /* times that a task has parked, or yielded to another */
  uint64_t fiber_switches; /* times that a worker went from one stack to another */
  uint64_t fiber_blocks;   /* times that a task had to block its worker instead of parking */
  /* How many tasks took so long: bucket n counts those of 2^n nanoseconds to just below 2^(n + 1), and
   * bucket 0 those of none, too. */
  uint64_t queue_wait[DROMON_HISTOGRAM_BUCKETS]; /* from submission to begin; of all that began */
  uint64_t run_time[DROMON_HISTOGRAM_BUCKETS];   /* from begin to end; of all that have ended */
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

/* When the task that worker `index` of an open pool runs began, in CLOCK_MONOTONIC's nanoseconds; 0 if it
 * runs none. Two tasks of a worker do not begin at the same time: who finds the same answer again knows
 * that it is still the same task. A task ends when its worker turns to what comes next, which is right
 * after it was posted. */
DROMON_API uint64_t dromon_pool_read_began(dromon_pool *pool, uint32_t index);

/* Describes worker `index` of an open pool, the one that has the place now: 0, or -EINVAL. */
DROMON_API int dromon_pool_read_worker(dromon_pool *pool, uint32_t index, dromon_worker *worker);

/* ---- Bare threads ---------------------------------------------------------------------------
 *
 * A thread without libc, for freestanding code: a loop over memory and system calls of its own. It is
 * made by clone3 or clone with nothing but a stack, a function and its argument.
 *
 * libc does not know of it. So the function, and all that it calls, may not
 *  - call libc (malloc, stdio, pthread_*, even syscall(), which sets errno), nor Python;
 *  - use a thread-local or errno: the thread pointer is 0, so that this faults at once;
 *  - be compiled with stack protectors (-fno-stack-protector) or instrumented by a sanitizer or profiler,
 *    which use thread-locals; nor be the first to call a function that the dynamic linker binds lazily;
 *  - throw, or unwind past its own frames.
 * It may read and write memory (with atomics, where others do too), and make system calls by their
 * instruction.
 *
 * All signals but those that report a fault of its own are blocked in it. Such a fault ends the process
 * without a report: the handlers that would make one need libc.
 *
 * libc's setuid and its kin do not reach it: it keeps the rights that its creator had when it was
 * started. A process that gives up rights must join its bare threads first. In the child of a fork it
 * does not exist, and must not be joined.
 */
typedef struct dromon_bare_thread dromon_bare_thread;

typedef struct dromon_bare_config {
  void (*fn)(void *arg);
  void *arg;
  uint64_t stack_size; /* bytes, rounded up to pages. 0: DROMON_STACK_SIZE_DEFAULT */
  uint64_t
      guard_size; /* bytes below the stack, rounded up to pages. 0: DROMON_GUARD_SIZE_DEFAULT */
  uint32_t spawn; /* enum dromon_spawn: AUTO, CLONE3 or CLONE */
} dromon_bare_config;

/* Starts a thread that runs fn(arg), with the stack aligned as the ABI has it at a call, and ends when
 * that returns. Join afterwards. Fails with -EINVAL (a value out of range), -ENOMEM, -EAGAIN (a limit on
 * threads), or as clone3 is refused, if clone is, too. */
DROMON_API int dromon_bare_start(const dromon_bare_config *config, dromon_bare_thread **thread);

/* Its kernel thread id. Another thread may have the same once this one has ended. */
DROMON_API int32_t dromon_bare_tid(const dromon_bare_thread *thread);

/* Waits until the thread has ended, and frees its stack and `thread`. -ETIMEDOUT if that took longer than
 * `timeout_ns` nanoseconds: nothing has changed, and it may be tried again. A negative time-out waits
 * for ever. Only one thread may join at a time, and none after a join that returned 0. */
DROMON_API int dromon_bare_join(dromon_bare_thread *thread, int64_t timeout_ns);

/* ---- Stack overflows ------------------------------------------------------------------------ */

/* From now on a worker whose stack overflows says so before the process dies: one line on stderr with its
 * name, its stack's size and the addresses of its guard page.
 *
 * Handles SIGSEGV and SIGBUS, and hands each one over to the action that it found, under which the fault
 * then happens again. Call it again after others have installed handlers, to come before them; where it
 * comes first already that changes nothing. */
DROMON_API int dromon_overflow_report_install(void);

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
