/* fiber.c - see fiber.h. */
#include "fiber.h"

#include "arch/arch.h"
#include "os.h"
#include "pool.h"
#include "sanitizers.h"

#include <errno.h>
#include <stddef.h>
#include <stdlib.h>
#include <unistd.h>

#if UNDER_TSAN
#include <sanitizer/tsan_interface.h>
#define UNWATCHED __attribute__((no_sanitize_thread))
#else
#define UNWATCHED
#endif
#if UNDER_ASAN
#include <sanitizer/common_interface_defs.h>
#endif

enum {
  NEW_EVERY = 64,  /* turns */
  CLOCK_EVERY = 8, /* turns, while there are ready fibers */
  SPARES_MOST = 128,
};

/* ---- What a build's sanitizer has to know --------------------------------------------------- */

static void sanitizer_note_own(struct fiber *fiber) {
#if UNDER_TSAN
  fiber->sanitizer = __tsan_get_current_fiber();
#else
  (void)fiber;
#endif
}

static void sanitizer_make(struct fiber *fiber) {
#if UNDER_TSAN
  fiber->sanitizer = __tsan_create_fiber(0);
#else
  (void)fiber;
#endif
}

static void sanitizer_free(struct fiber *fiber) {
#if UNDER_TSAN
  __tsan_destroy_fiber(fiber->sanitizer);
#else
  (void)fiber;
#endif
}

/* Right before `from` stops and `to` runs. ThreadSanitizer notes each call and return of what it watches, for
 * the fiber that it knows to run: between this and the switch there must be neither. */
UNWATCHED static void sanitizer_leave(struct fiber *from, struct fiber *to, bool for_good) {
#if UNDER_TSAN
  (void)from, (void)for_good;
  __tsan_switch_to_fiber(to->sanitizer, 0);
#elif UNDER_ASAN
  __sanitizer_start_switch_fiber(for_good ? NULL : &from->sanitizer, to->stack.low, to->stack.size);
#else
  (void)from, (void)to, (void)for_good;
#endif
}

static void sanitizer_arrive(struct fiber *fiber) {
#if UNDER_ASAN
  __sanitizer_finish_switch_fiber(fiber->sanitizer, NULL, NULL);
#else
  (void)fiber;
#endif
}

/* ---- Lists ---------------------------------------------------------------------------------- */

/* Relaxed: only this thread follows it; the monitor looks whether there is one. */
static void set_ready_first(struct fibers *fibers, struct fiber *fiber) {
  store_relaxed(&fibers->ready_first, fiber);
}

static void push_ready(struct fibers *fibers, struct fiber *fiber) {
  fiber->next = NULL;
  if (fibers->ready_first == NULL)
    set_ready_first(fibers, fiber);
  else
    fibers->ready_last->next = fiber;
  fibers->ready_last = fiber;
}

static struct fiber *pop_ready(struct fibers *fibers) {
  struct fiber *fiber = fibers->ready_first;
  if (fiber != NULL)
    set_ready_first(fibers, fiber->next);
  return fiber;
}

static void push_spare(struct fibers *fibers, struct fiber *fiber) {
  fiber->next = fibers->spare;
  fiber->is_spare = true;
  fibers->spare = fiber;
  fibers->spare_count++;
}

static struct fiber *pop_spare(struct fibers *fibers) {
  struct fiber *fiber = fibers->spare;
  if (fiber != NULL) {
    fibers->spare = fiber->next;
    fibers->spare_count--;
  }
  return fiber;
}

/* What was chosen and does not run after all. */
static void put_back(struct fibers *fibers, struct fiber *fiber) {
  if (fiber->is_spare) {
    push_spare(fibers, fiber);
    return;
  }
  fiber->next = fibers->ready_first;
  if (fibers->ready_first == NULL)
    fibers->ready_last = fiber;
  set_ready_first(fibers, fiber);
}

/* ---- Switching ------------------------------------------------------------------------------ */

static void free_fiber(struct worker *worker, struct fiber *fiber) {
  slabs_give(&worker->pool->slabs, &fiber->stack);
  sanitizer_free(fiber);
  free(fiber);
  /* Relaxed, as all counts here: one writer, and nothing is ordered by them. */
  store_relaxed(&worker->fiber_count, worker->fiber_count - 1);
}

/* The first that a fiber does each time that it runs. */
static void arrive(struct worker *worker, struct fiber *self) {
  struct fibers *fibers = &worker->fibers;
  sanitizer_arrive(self);
  cxx_restore(&self->cxx);
  self->is_spare = false;
  if (fibers->dead != NULL) {
    free_fiber(worker, fibers->dead);
    fibers->dead = NULL;
  }
}

UNWATCHED static void switch_to(struct worker *worker, struct fiber *next) {
  struct fiber *self = worker->fibers.running;
  worker->fibers.running = next;
  store_relaxed(&worker->fiber_switches, worker->fiber_switches + 1);
  cxx_save(&self->cxx);
  sanitizer_leave(self, next, false);
  arch_switch(&self->stack_pointer, next->stack_pointer);
  arrive(worker, self);
}

/* The running fiber ends, and `next` runs. */
UNWATCHED static _Noreturn void switch_for_good(struct worker *worker, struct fiber *next) {
  struct fiber *self = worker->fibers.running;
  worker->fibers.running = next;
  worker->fibers.dead = self;
  sanitizer_leave(self, next, true);
  arch_switch(&self->stack_pointer, next->stack_pointer);
  __builtin_unreachable();
}

/* ---- A fiber's life ------------------------------------------------------------------------- */

/* What goes on when the loop of a fiber has ended. */
static struct fiber *successor(struct fibers *fibers) {
  struct fiber *next = fibers->is_over ? NULL : pop_ready(fibers);
  if (next != NULL)
    return next; /* it has ended since there are many spare ones */
  fibers->is_over = true;
  return &fibers->own; /* which is spare */
}

static void fiber_main(void *argument) {
  struct fiber *self = argument;
  struct worker *worker = self->worker;
  struct fibers *fibers = &worker->fibers;
  const dromon_ops *ops = &worker->pool->ops;
  arrive(worker, self);
  fibers->entered = ops->enter_fiber(fibers->own.state, &self->state);
  if (fibers->entered < 0)
    switch_for_good(worker, fibers->maker);
  self->is_spare = true;
  switch_to(worker, fibers->maker);
  worker_work(worker, self->state);
  if (worker->pool->forgotten)
    _exit(0);               /* as a process whose last thread ends */
  fibers->forbidden = true; /* what is let go of may run a user's code */
  ops->leave_fiber(self->state);
  fibers->forbidden = false;
  switch_for_good(worker, successor(fibers));
}

/* A new one, which has entered and whose loop is about to begin; NULL: it cannot be had. */
static struct fiber *make(struct worker *worker) {
  struct fibers *fibers = &worker->fibers;
  struct fiber *fiber = calloc(1, sizeof *fiber);
  if (fiber == NULL)
    return NULL;
  if (slabs_take(&worker->pool->slabs, &fiber->stack) < 0) {
    free(fiber);
    return NULL;
  }
  store_relaxed(&worker->fiber_count, worker->fiber_count + 1);
  fiber->worker = worker;
  fiber->timer.index = TIMER_IDLE;
  fiber->stack_pointer = arch_prepare(fiber->stack.low + fiber->stack.size, fiber_main, fiber);
  sanitizer_make(fiber);
  fibers->maker = fibers->running;
  fibers->forbidden = true; /* to enter may run a user's code */
  switch_to(worker, fiber);
  fibers->forbidden = false;
  return fibers->entered < 0 ? NULL : fiber;
}

void fibers_begin(struct worker *worker, void *state) {
  struct fibers *fibers = &worker->fibers;
  *fibers = (struct fibers){
      .own = {.worker = worker,
              .state = state,
              .stack = worker->thread->stack,
              .timer = {.index = TIMER_IDLE}},
  };
  timers_init(&fibers->timers);
  fibers->deadline_ns = OS_NO_DEADLINE;
  sanitizer_note_own(&fibers->own);
  fibers->cannot_switch = os_has_shadow_stack();
  fibers->running = &fibers->own;
}

void fibers_end(struct worker *worker) {
  struct fibers *fibers = &worker->fibers;
  fibers->is_over = true;
  for (struct fiber *fiber; !worker->pool->forgotten && (fiber = pop_spare(fibers)) != NULL;) {
    if (fiber != &fibers->own)
      switch_to(worker, fiber);
  }
  timers_destroy(&fibers->timers);
  fibers->running = NULL;
}

/* ---- Turns ---------------------------------------------------------------------------------- */

/* In the place of NULL in `called`: the worker sleeps there. No fiber's address has that lower half. */
#define SLEEPS ((void *)1)

static void take_called(struct worker *worker) {
  struct fiber *oldest = NULL, *next;
  if (load_relaxed(&worker->called) == NULL) /* relaxed: the Call wakes who sleeps over it */
    return;
  /* Acquire, pairs with the push in fiber_call. */
  for (struct fiber *fiber = exchange_acquire(&worker->called, NULL); fiber != NULL; fiber = next) {
    next = fiber->next;
    fiber->next = oldest;
    oldest = fiber;
  }
  for (; oldest != NULL; oldest = next) {
    next = oldest->next;
    push_ready(&worker->fibers, oldest);
  }
}

static void note_deadline(struct fibers *fibers) {
  const struct timer *timer = timers_first(&fibers->timers);
  store_relaxed(&fibers->deadline_ns, timer == NULL ? OS_NO_DEADLINE : timer->deadline_ns);
}

static void take_due(struct fibers *fibers) {
  struct timer *timer = timers_first(&fibers->timers);
  if (timer == NULL || (fibers->ready_first != NULL && fibers->turns % CLOCK_EVERY != 0))
    return;
  uint64_t now = os_now_ns();
  for (; timer != NULL && timer->deadline_ns <= now; timer = timers_first(&fibers->timers)) {
    struct fiber *fiber = (struct fiber *)(void *)((char *)timer - offsetof(struct fiber, timer));
    timers_remove(&fibers->timers, timer);
    fiber->timed_out = dromon_park_cancel(fiber->park) == 1; /* else it is called already */
  }
  note_deadline(fibers);
}

static void collect(struct worker *worker) {
  take_called(worker);
  take_due(&worker->fibers);
}

/* Counts one turn. Whether it is one for a task that has not begun, and there is one. */
static bool is_turn_of_new(struct worker *worker) {
  return ++worker->fibers.turns % NEW_EVERY == 0 && worker_has_new(worker);
}

/* With what the worker goes on when its running fiber stops. NULL: nothing can be had. */
static struct fiber *choose(struct worker *worker, bool new_first) {
  struct fibers *fibers = &worker->fibers;
  struct fiber *fiber = new_first ? NULL : pop_ready(fibers);
  if (fiber != NULL)
    return fiber;
  fiber = pop_spare(fibers);
  if (fiber == NULL)
    fiber = make(worker);
  if (fiber == NULL)
    return pop_ready(fibers);
  fibers->new_first = new_first;
  return fiber;
}

bool fibers_are_ready(struct worker *worker) {
  if (worker->pool->forgotten)
    return false;
  collect(worker);
  return worker->fibers.ready_first != NULL;
}

bool fibers_are_due(const struct worker *worker, uint64_t now) {
  const struct fibers *fibers = &worker->fibers;
  /* Relaxed: what is called later is seen later. */
  return load_relaxed(&fibers->ready_first) != NULL || load_relaxed(&worker->called) != NULL ||
         fibers_deadline(worker) <= now;
}

static const uint32_t *futex_half(const struct worker *worker) {
  _Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "it is the first four bytes");
  return (const uint32_t *)&worker->called;
}

void fibers_sleep(struct worker *worker) {
  void *found = NULL;
  /* Whoever calls it reads from this or has come before: one word. Relaxed: what comes with a fiber is
   * acquired in take_called. */
  if (!cas_weak_relaxed(&worker->called, &found, SLEEPS))
    return;
  os_futex_wait_until(futex_half(worker), (uint32_t)(uintptr_t)SLEEPS, fibers_deadline(worker));
  found = SLEEPS;
  cas_relaxed(&worker->called, &found, NULL); /* or somebody has called */
}

uint64_t fibers_deadline(const struct worker *worker) {
  return load_relaxed(&worker->fibers.deadline_ns); /* relaxed: a time, which orders nothing */
}

bool fibers_take_new_turn(struct worker *worker) {
  struct fibers *fibers = &worker->fibers;
  bool is_new = fibers->new_first || is_turn_of_new(worker);
  fibers->new_first = false;
  return is_new;
}

bool fibers_give_turn(struct worker *worker) {
  struct fibers *fibers = &worker->fibers;
  struct fiber *self = fibers->running;
  if (self != &fibers->own && fibers->spare_count >= SPARES_MOST)
    return false;
  push_spare(fibers, self);
  switch_to(worker, pop_ready(fibers));
  return !fibers->is_over;
}

/* ---- Parking -------------------------------------------------------------------------------- */

static bool can_park(const struct worker *worker) {
  const struct fibers *fibers = &worker->fibers;
  return fibers->running != NULL && !fibers->cannot_switch && !fibers->forbidden &&
         worker->pool->ops.enter_fiber != NULL && !worker->pool->forgotten;
}

/* Stops the running fiber, of which somebody has noted what it waits for. */
static void stop_for(struct worker *worker, struct fiber *next) {
  uint64_t began = worker_pause_task(worker);
  store_relaxed(&worker->fibers_parked, worker->fibers_parked + 1);
  store_relaxed(&worker->fiber_parks, worker->fiber_parks + 1);
  switch_to(worker, next);
  store_relaxed(&worker->fibers_parked, worker->fibers_parked - 1);
  if (began != 0)
    worker_resume_task(worker, began);
}

static int not_parked(struct worker *worker) {
  store_relaxed(&worker->fiber_blocks, worker->fiber_blocks + 1);
  return -ENOTSUP;
}

int fiber_park(struct worker *worker, dromon_park *park, uint64_t deadline_ns) {
  struct fibers *fibers = &worker->fibers;
  struct fiber *self = fibers->running;
  if (!can_park(worker))
    return not_parked(worker);
  collect(worker);
  struct fiber *next = choose(worker, is_turn_of_new(worker));
  if (next == NULL)
    return not_parked(worker);
  self->timer.deadline_ns = deadline_ns;
  if (deadline_ns != OS_NO_DEADLINE && timers_add(&fibers->timers, &self->timer) < 0) {
    put_back(fibers, next);
    return not_parked(worker);
  }
  note_deadline(fibers);
  self->park = park;
  self->timed_out = false;
  if (park_commit(park, self))
    stop_for(worker, next);
  else
    put_back(fibers, next);
  timers_remove(&fibers->timers, &self->timer);
  note_deadline(fibers);
  return self->timed_out ? -ETIMEDOUT : 0;
}

int dromon_yield(void) {
  struct worker *worker = worker_current();
  if (worker == NULL || !can_park(worker))
    return 0;
  struct fibers *fibers = &worker->fibers;
  collect(worker);
  bool new_first = is_turn_of_new(worker);
  struct fiber *next = fibers->ready_first == NULL && !new_first ? NULL : choose(worker, new_first);
  if (next == NULL)
    return 0;
  push_ready(fibers, fibers->running);
  stop_for(worker, next);
  return 1;
}

int dromon_park_forbid(int forbidden) {
  struct worker *worker = worker_current();
  if (worker == NULL)
    return 0;
  int before = worker->fibers.forbidden;
  worker->fibers.forbidden = forbidden != 0;
  return before;
}

const struct fiber *fiber_current(void) {
  struct worker *worker = worker_current();
  return worker == NULL ? NULL : worker->fibers.running;
}

int dromon_current_stack(void **low, uint64_t *size) {
  const struct fiber *self = fiber_current();
  if (self == NULL || self == &self->worker->fibers.own)
    return 0;
  *low = self->stack.low;
  *size = self->stack.size;
  return 1;
}

void fiber_call(struct fiber *fiber) {
  struct worker *worker = fiber->worker;
  if (worker == worker_current()) {
    push_ready(&worker->fibers, fiber);
    return;
  }
  /* Once pushed it may run, and all that the pool has may come to an end. */
  dromon_pool *pool = worker->pool;
  uint32_t index = worker->index;
  dromon_pool_ref(pool);
  void *first = load_relaxed(&worker->called); /* relaxed: a first guess */
  do {
    fiber->next = first == SLEEPS ? NULL : first;
    /* Release, pairs with take_called, and with the look in eventcount_sleep. */
  } while (!cas_weak_release(&worker->called, &first, fiber));
  if (first == NULL)
    eventcount_call(&pool->eventcount, index); /* Call */
  else if (first == SLEEPS)
    os_futex_wake(futex_half(worker), 1);
  dromon_pool_unref(pool);
}
