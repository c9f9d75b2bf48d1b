/* worker.c - what a worker does: finds tasks, runs them, parks, leaves. See pool.h, and eventcount.md
 * and pool.md, whose event names the comments here use.
 *
 * All of it runs on the worker's own thread.
 */
#include "os.h"
#include "pool.h"
#include "task.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>

enum {
  LOOK_OTHER_WAY_EVERY = 64, /* looks for a task */
  DEQUE_CAPACITY = 256,      /* tasks that a worker submitted itself and that have not begun */
};

/* Initial-exec: it fits into what libc keeps spare for such words, and is read at every submission. */
static _Thread_local struct worker *current __attribute__((tls_model("initial-exec")));

struct worker *worker_current(void) {
  return current;
}

static void count_one(uint64_t *counter) {
  /* One writer: no read-modify-write needed. Release, for dromon_pool_read_statistics. */
  store_release(counter, *counter + 1);
}

static void set_phase(struct worker *worker, enum worker_phase phase) {
  /* Release, pairs with the acquire in worker_await_start, and with that of a spare one's next user. */
  store_release(&worker->phase, phase);
  os_futex_wake(&worker->phase, 1);
}

/* ---- Finding a task ------------------------------------------------------------------------- */

static uint32_t next_random(struct worker *worker) {
  worker->random ^= worker->random << 13; /* Marsaglia's xorshift32 */
  worker->random ^= worker->random >> 17;
  worker->random ^= worker->random << 5;
  return worker->random;
}

static dromon_task *steal(struct worker *worker) {
  dromon_pool *pool = worker->pool;
  struct worker *first = &pool->workers[next_random(worker) % pool->worker_count], *victim = first;
  do {
    dromon_task *task = victim == worker ? NULL : deque_steal(&victim->deque);
    if (task != NULL) {
      count_one(&worker->steals);
      return task;
    }
    victim = worker_next(victim) ?: pool->workers;
  } while (victim != first);
  return NULL;
}

/* What else would wait behind tasks that submit tasks, or behind a queue that never runs dry: in turn
 * another one is looked at first, so that each is in the end. */
static dromon_task *find_other_way(struct worker *worker) {
  enum { INJECTED, PINNED_OLDEST, OWN_OLDEST, OF_OTHERS, SOURCES };
  dromon_task *task = NULL;
  uint32_t first = worker->looks / LOOK_OTHER_WAY_EVERY;
  for (uint32_t i = 0; i < SOURCES && task == NULL; i++) {
    switch ((first + i) % SOURCES) {
    case INJECTED:
      task = injection_pop(&worker->pool->injection);
      break;
    case PINNED_OLDEST:
      task = pinned_pop_oldest(&worker->pinned);
      break;
    case OWN_OLDEST:
      task = deque_steal(&worker->deque);
      break;
    case OF_OTHERS: /* whose owner may be waiting for it */
      task = steal(worker);
      break;
    }
  }
  return task;
}

/* From its own queues or the injection queue, as a rule. */
static dromon_task *find_near(struct worker *worker) {
  if (worker->pool->forgotten)
    return NULL;
  if (++worker->looks % LOOK_OTHER_WAY_EVERY == 0)
    return find_other_way(worker);
  dromon_task *task = pinned_pop(&worker->pinned);
  if (task == NULL)
    task = deque_pop(&worker->deque);
  return task != NULL ? task : injection_pop(&worker->pool->injection);
}

bool worker_has_new(const struct worker *worker) {
  if (worker->pinned.newest != NULL || worker_is_retired(worker))
    return worker->pinned.newest != NULL;
  return deque_count(&worker->deque) > 0 || injection_count(&worker->pool->injection) > 0;
}

/* From anywhere. NULL: every queue was empty when it was looked at. A retired worker begins only what nobody
 * else may. */
static dromon_task *find(struct worker *worker) {
  if (worker->pool->forgotten)
    return NULL;
  if (worker_is_retired(worker))
    return pinned_pop(&worker->pinned);
  dromon_task *task = worker->held;
  worker->held = NULL;
  if (task == NULL)
    task = find_near(worker);
  return task != NULL ? task : steal(worker);
}

/* Closed: Drained, if every queue is empty after this. */
static bool is_closed(const dromon_pool *pool) {
  /* Acquire, pairs with Exit: what submitters published is visible to the look that follows. */
  return load_acquire(&pool->gate) == GATE_CLOSED;
}

/* Whether nobody submits anything for it any more, but its own tasks. */
static bool is_apart(const struct worker *worker) {
  return is_closed(worker->pool) || worker_is_retired(worker) || worker->pool->forgotten;
}

/* Whether it has no more to do than to leave, if it finds no task. */
static bool is_over(const struct worker *worker) {
  return is_apart(worker) && (worker->fibers_parked == 0 || worker->pool->forgotten);
}

/* Looks again and again, for a bounded while. It yields to whom it waits for, who may want this processor. */
static dromon_task *look_for(struct worker *worker, uint64_t end) {
  dromon_pool *pool = worker->pool;
  uint64_t now;
  do {
    os_yield();
    dromon_task *task = pool_queued(pool) > 0 ? find(worker) : NULL;
    if (task != NULL)
      return task;
    now = os_now_ns();
  } while (now < end && !is_closed(pool) && !fibers_are_due(worker, now));
  return NULL;
}

/* Search: at most half of the workers, since each takes a processor from somebody. */
static dromon_task *search(struct worker *worker, bool *searching) {
  dromon_pool *pool = worker->pool;
  uint32_t length_ns = search_begin(&worker->search);
  if (length_ns == 0 || !eventcount_search(&pool->eventcount, (pool->worker_count + 1) / 2))
    return NULL;
  *searching = true;
  uint64_t began = os_now_ns();
  dromon_task *task = look_for(worker, began + length_ns);
  search_end(&worker->search, task != NULL, os_now_ns() - began);
  return task;
}

/* Sleeps until there may be a task, or a fiber that can go on. NULL with `*over`: it is time to leave, which is
 * looked at before the queues are. */
static dromon_task *park(struct worker *worker, bool searching, bool *over) {
  struct eventcount *eventcount = &worker->pool->eventcount;
  eventcount_announce(eventcount, searching);
  bool apart = is_apart(worker);
  *over = is_over(worker);
  dromon_task *task = find(worker); /* Recheck */
  if (task != NULL || apart) {
    eventcount_retract(eventcount);
    return task;
  }
  count_one(&worker->parks);
  eventcount_sleep(eventcount, worker->index, &worker->called, fibers_deadline(worker));
  *over = is_over(worker);
  return find(worker);
}

/* The same for one that is apart, and waits for its own fibers alone. Not by the eventcount: it would take
 * permits that others need, of a Notify if it is retired, of a Close if it goes to sleep again. */
static dromon_task *park_apart(struct worker *worker, bool *over) {
  *over = is_over(worker);
  dromon_task *task = find(worker);
  if (task == NULL && !*over)
    fibers_sleep(worker);
  return task;
}

/* A searcher turns to something else. */
static void leave_search(dromon_pool *pool, bool *searching) {
  if (*searching && eventcount_found(&pool->eventcount) && pool_queued(pool) > 0)
    pool_notify(pool);
  *searching = false;
}

/* Waits for a task. NULL: a fiber can go on, or with `*over` it is time to leave. */
static dromon_task *await_task(struct worker *worker, bool *over) {
  bool searching = false;
  dromon_task *task = find(worker);
  if (task == NULL && !worker_is_retired(worker))
    task = search(worker, &searching);
  while (task == NULL && !*over && !fibers_are_ready(worker)) {
    if (is_apart(worker)) {
      leave_search(worker->pool, &searching);
      task = park_apart(worker, over);
    } else {
      task = park(worker, searching, over);
      searching = true;
    }
  }
  leave_search(worker->pool, &searching);
  return task;
}

/* The next task of a loop, which gives its turn to fibers that can go on. NULL: the loop is to end. */
static dromon_task *next_task(struct worker *worker) {
  bool over = false;
  while (!over && !worker->fibers.is_over) {
    bool is_turn_of_new = fibers_take_new_turn(worker);
    /* What is held is in no queue: nobody else would find it. */
    dromon_task *task = is_turn_of_new || worker->held != NULL ? find(worker) : NULL;
    if (task == NULL && fibers_are_ready(worker)) {
      if (!fibers_give_turn(worker))
        return NULL;
      continue;
    }
    if (task == NULL)
      task = await_task(worker, &over);
    if (task != NULL)
      return task;
  }
  return NULL;
}

/* ---- Running -------------------------------------------------------------------------------- */

/* Whether it is the closing task: the pool's own, and no task of its users'. */
static bool is_last(const dromon_pool *pool, const dromon_task *task) {
  /* Relaxed: the worker that runs it has seen it in `finish`, and for others any answer is no. */
  return task == load_relaxed(&pool->last);
}

/* The worker begins a task, unless it was withdrawn. */
static bool begin(struct worker *worker, dromon_task *task, uint64_t now) {
  bool started = task_start(task);
  if (is_last(worker->pool, task))
    return started; /* who runs it is not to be replaced */
  uint64_t *started_ones = task->child ? &worker->children_started : &worker->started;
  count_one(started ? started_ones : &worker->withdrawn);
  if (!started && load_relaxed(&task->state) == DROMON_TASK_TAKEN_BACK) /* relaxed: its last one */
    count_one(&worker->children_left);
  if (started && !worker_is_retired(worker))
    store_release(&worker->began_ns, now); /* pairs with look_whether_stuck */
  return started;
}

static void count_time(uint64_t *histogram, uint64_t ns) {
  count_one(&histogram[63 - __builtin_clzll(ns | 1)]); /* by the position of the highest bit */
}

/* Before the task is posted: who has got the result finds it counted. */
static void count_completed(struct worker *worker, const dromon_task *task, uint64_t task_ns) {
  if (is_last(worker->pool, task))
    return;
  count_one(&worker->completed);
  count_time(worker->run_time, task_ns);
  if (load_relaxed(&task->state) == DROMON_TASK_ABANDONED) /* relaxed: its last state, see task.c */
    count_one(&worker->abandoned);
  if (task->interrupted)
    count_one(&worker->interrupted);
}

/* The task that was begun has waited until `now`. */
static void count_wait(struct worker *worker, const dromon_task *task, uint64_t now) {
  /* The clock may have been read before it was submitted, and it was found right after. */
  if (!is_last(worker->pool, task))
    count_time(worker->queue_wait, now > task->submitted_ns ? now - task->submitted_ns : 0);
}

/* The worker no longer runs the task that it began last, if any, and which took so long at most. If it
 * was retired meanwhile nothing else comes: see worker_is_retired. */
static void end(struct worker *worker, uint64_t task_ns) {
  uint64_t began = worker_began(worker);
  if (began == 0)
    return;
  /* End. acq_rel, with Take place: one of the two. */
  if (cas_acq_rel(&worker->began_ns, &began, 0))
    own_state_restore(&worker->own_state, task_ns);
}

uint64_t worker_pause_task(struct worker *worker) {
  uint64_t began = worker_began(worker);
  own_name_set(&worker->own_state, NULL);
  /* acq_rel, with Take place: one of the two. */
  return began != 0 && cas_acq_rel(&worker->began_ns, &began, 0) ? began : 0;
}

void worker_resume_task(struct worker *worker, uint64_t began) {
  const struct monitor *monitor = &worker->pool->monitor;
  if (monitor->stall_ns > 0 || monitor->on_stuck != NULL)
    began = os_now_ns(); /* it has neither stalled nor been stuck while it was parked */
  /* Release, as in begin. Nobody takes the place of a worker that runs no task. */
  if (!worker_is_retired(worker))
    store_release(&worker->began_ns, began);
}

static void count_batched(dromon_batch *batch, const dromon_task *task) {
  struct worker *worker = batch->worker;
  bool is_known = batch->task_ns != UINT64_MAX; /* else the runtime has not told */
  count_completed(worker, task, is_known ? batch->task_ns : os_now_ns() - batch->began_ns);
}

static void end_batched(dromon_batch *batch) {
  end(batch->worker, batch->task_ns);
  batch->task_ns = UINT64_MAX; /* unless the runtime tells */
}

static void notify_posted(dromon_batch *batch) {
  if (batch->unnotified != NULL) {
    dromon_port_notify(batch->unnotified);
    dromon_port_unref(batch->unnotified);
    batch->unnotified = NULL;
  }
}

/* The next task, within the batch's bounds. */
static dromon_task *take_next(dromon_batch *batch, uint64_t now) {
  struct worker *worker = batch->worker;
  dromon_task *task = batch->first;
  if (task != NULL) {
    batch->first = NULL;
    batch->deadline_ns = now + worker->pool->batch_ns;
    return task;
  }
  if (batch->tasks_left == 0 || now >= batch->deadline_ns || worker_is_retired(worker) ||
      fibers_are_due(worker, now))
    return NULL;
  task = find_near(worker);
  if (task != NULL && task->native) {
    worker->held = task; /* it runs without what the batch holds */
    return NULL;
  }
  return task;
}

dromon_task *dromon_batch_next(dromon_batch *batch) {
  struct worker *worker = batch->worker;
  uint64_t now = os_now_ns();
  end_batched(batch);
  dromon_task *task = take_next(batch, now);
  if (task == NULL)
    return NULL; /* run_batch notifies, once `run` has let go of its runtime's locks */
  /* The next task may take long: nobody shall wait that long for the last one's result. */
  notify_posted(batch);
  batch->tasks_left--;
  batch->began_ns = now;
  if (begin(worker, task, now))
    count_wait(worker, task, now);
  return task;
}

void dromon_batch_enter_task(dromon_batch *batch, const char *name) {
  own_name_set(&batch->worker->own_state, name);
  batch->entered_ns = os_now_ns();
}

void dromon_batch_leave_task(dromon_batch *batch) {
  batch->task_ns = os_now_ns() - batch->entered_ns;
}

void dromon_batch_end(dromon_batch *batch, dromon_task *task) {
  count_batched(batch, task);
}

int dromon_batch_post(dromon_batch *batch, dromon_port *port, dromon_task *task) {
  count_batched(batch, task);
  /* Once posted the task is the consumer's, and the port may go with it: hence a reference first. */
  dromon_port_ref(port);
  int result = dromon_port_post(port, task);
  if (result < 0) {
    dromon_port_unref(port);
    return result;
  }
  batch->unnotified = port; /* there was none: dromon_batch_next has notified it */
  return 0;
}

static void run_batch(struct worker *worker, void *state, dromon_task *first) {
  dromon_pool *pool = worker->pool;
  dromon_batch batch = {
      .worker = worker, .first = first, .tasks_left = pool->batch_tasks, .task_ns = UINT64_MAX};
  count_one(&worker->batches);
  pool->ops.run(state, &batch);
  notify_posted(&batch); /* first: somebody waits for it */
  end_batched(&batch);
  own_name_set(&worker->own_state, NULL);
}

/* Runs one native task, which began at `now`, if at all, and returns the time of its end. */
static uint64_t call_native(struct worker *worker, dromon_native_task *native, uint64_t now) {
  if (!begin(worker, &native->task, now))
    return now;
  uint64_t called = os_now_ns(); /* anew: to begin it may have had to fetch its record from afar */
  count_wait(worker, &native->task, called);
  native->status = native->fn(native->arg);
  now = os_now_ns();
  end(worker, now - called);
  own_name_set(&worker->own_state, NULL);
  dromon_task_finish(&native->task); /* abandoned or not, it is posted: its record is in use */
  count_completed(worker, &native->task, now - called);
  return now;
}

/* Runs native tasks, one after the other, as long as the next one at hand is native too. After one in
 * which it was retired there is no next one. */
static void run_natives(struct worker *worker, void *state, dromon_task *task) {
  dromon_port *port = NULL; /* of the last one, with a reference as in dromon_batch_post */
  uint64_t now = os_now_ns();
  do {
    dromon_native_task *native = (dromon_native_task *)task;
    if (native->port != port) {
      if (port != NULL)
        dromon_port_unref(port);
      port = native->port;
      dromon_port_ref(port);
    }
    now = call_native(worker, native, now);
    if (dromon_port_post(port, task) == 0)
      dromon_port_notify(port);
    else
      worker->pool->ops.drop(state, task);
    task = worker_is_retired(worker) || fibers_are_due(worker, now) ? NULL : find_near(worker);
  } while (task != NULL && task->native);
  worker->held = task;
  dromon_port_unref(port);
}

static void run(struct worker *worker, void *state, dromon_task *task) {
  if (task->native)
    run_natives(worker, state, task);
  else
    run_batch(worker, state, task);
}

/* ---- A worker's life ------------------------------------------------------------------------ */

/* The last worker runs the closing task before it leaves itself. */
static void finish(struct worker *worker, void *state) {
  dromon_pool *pool = worker->pool;
  /* acq_rel: the last one sees all that the others did. */
  if (fetch_sub_acq_rel(&pool->alive, 1) > 1)
    return;
  os_futex_wake(&pool->alive, INT_MAX);
  monitor_stop(&pool->monitor);
  if (load_relaxed(&pool->last) != NULL) /* relaxed: is_closed has acquired it */
    run(worker, state, load_relaxed(&pool->last));
}

static int enter(struct worker *worker, void **state) {
  dromon_pool *pool = worker->pool;
  int result = placement_apply(&pool->placement, worker->index);
  if (result < 0)
    return result;
  own_state_note(&worker->own_state);
  result = pool->ops.enter(pool->ops_arg, worker->index, state);
  own_state_restore(&worker->own_state, UINT64_MAX); /* as after a task: it may run a user's code */
  own_name_set(&worker->own_state, NULL);
  return result;
}

static void prepare(struct worker *worker, void *state) {
  dromon_pool *pool = worker->pool;
  if (pool->ops.prepare == NULL)
    return;
  pool->ops.prepare(state);
  own_state_restore(&worker->own_state, UINT64_MAX); /* as in enter */
  own_name_set(&worker->own_state, NULL);
}

void worker_work(struct worker *worker, void *state) {
  dromon_task *task;
  while ((task = next_task(worker)) != NULL)
    run(worker, state, task);
}

/* Looks for tasks and runs them, until it is time to leave or another one has its place. */
static void work(struct worker *worker, void *state) {
  fibers_begin(worker, state);
  worker_work(worker, state);
  fibers_end(worker);
  if (!worker_is_retired(worker))
    finish(worker, state);
}

void worker_main(void *argument) {
  struct worker *worker = argument;
  dromon_pool *pool = worker->pool;
  struct thread *thread = worker->thread;
  void *state = NULL;
  int result = enter(worker, &state);
  bool has_entered = result == 0;
  if (has_entered)
    result = worker_take_place(worker);
  worker->enter_result = result;
  if (result == 0) {
    current = worker;
    set_phase(worker, WORKER_ENTERED);
    prepare(worker, state);
    work(worker, state);
  }
  if (has_entered)
    pool->ops.leave(state);
  bool is_retired = worker_is_retired(worker);
  if (is_retired)
    worker->thread = NULL; /* it is no longer the pool's */
  set_phase(worker, is_retired ? WORKER_SPARE : WORKER_LEFT);
  current = NULL; /* thread-local destructors are still to come, and the pool may be gone by then */
  dromon_pool_unref(pool);
  if (is_retired)
    thread_end_unjoined(thread);
}

/* ---- Making one ----------------------------------------------------------------------------- */

int worker_make(struct worker *worker, dromon_pool *pool, uint32_t index) {
  worker->pool = pool;
  worker->index = index;
  worker->random = index + 1;
  worker->pinned = (struct pinned){0};
  search_init(&worker->search, pool->search_ns);
  return deque_init(&worker->deque, DEQUE_CAPACITY);
}

int worker_start(struct worker *worker) {
  dromon_pool *pool = worker->pool;
  char name[16], index[12];
  snprintf(index, sizeof index, "%u", worker->index);
  thread_name(name, pool->name, index);
  struct thread_options options = {
      .stack_size = pool->stack_size,
      .guard_size = pool->guard_size,
      .name = name,
      .spawn = pool->spawn,
  };
  worker->thread = malloc(sizeof *worker->thread);
  if (worker->thread == NULL)
    return -ENOMEM;
  dromon_pool_ref(pool); /* the worker's, which drops it at its end */
  int result = thread_start(worker->thread, &options, worker_main, worker);
  if (result < 0) {
    dromon_pool_unref(pool);
    free(worker->thread);
    worker->thread = NULL;
  }
  return result;
}

int worker_await_start(const struct worker *worker) {
  /* Acquire, pairs with the release in set_phase. */
  while (load_acquire(&worker->phase) == WORKER_STARTING)
    os_futex_wait(&worker->phase, WORKER_STARTING);
  return worker->enter_result;
}

void worker_free(struct worker *worker) {
  deque_destroy(&worker->deque);
  free(worker->thread);
}
