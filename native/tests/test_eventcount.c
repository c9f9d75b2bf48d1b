/* test_eventcount.c - tests of the sleeping and waking of eventcount.h.
 *
 * Most play both sides in one thread: what a worker does between two of its steps is then in the
 * test's hand. A worker that would really sleep hangs such a test, and so fails it.
 */
#include "eventcount.h"
#include "os.h"
#include "ring.h"
#include "testing.h"

#include <dromon/dromon.h>

static struct eventcount *eventcount_make(void) {
  static struct eventcount eventcount;
  eventcount_init(&eventcount);
  return &eventcount;
}

#define CALLS ((uint64_t)0xfffff800) /* the field that is never at rest */

static void check_at_rest(const struct eventcount *eventcount) {
  CHECK_EQ(eventcount->word & ~CALLS, 0);
  CHECK_EQ(eventcount_sleepers(eventcount), 0);
}

/* Sleeps as a worker that nobody calls. */
static void await_permit(struct eventcount *eventcount) {
  void *called = NULL;
  eventcount_sleep(eventcount, 0, &called, OS_NO_DEADLINE);
}

static void notify_without_sleepers_makes_no_system_call(void) {
  struct eventcount *eventcount = eventcount_make();
  for (int i = 0; i < 10; i++)
    eventcount_notify(eventcount);
  eventcount_notify_all(eventcount);
  CHECK_EQ(eventcount_wakes(eventcount), 0);
  check_at_rest(eventcount);
}

static void notify_says_whether_a_worker_slept(void) {
  struct eventcount *eventcount = eventcount_make();
  CHECK(!eventcount_notify(eventcount));
  eventcount_announce(eventcount, false);
  eventcount_announce(eventcount, false);
  CHECK_EQ(eventcount_observe(eventcount), 2);
  CHECK(eventcount_notify(eventcount)); /* wakes one */
  CHECK(eventcount_notify(eventcount)); /* leaves it to that one: the other one sleeps */
  await_permit(eventcount);
  CHECK(eventcount_found(eventcount));
  CHECK(eventcount_notify(eventcount)); /* wakes the other one */
  CHECK_EQ(eventcount_observe(eventcount), 0);
  CHECK(!eventcount_notify(eventcount)); /* it searches, and nobody sleeps */
  await_permit(eventcount);
  CHECK(eventcount_found(eventcount));
  check_at_rest(eventcount);
}

static void a_permit_granted_before_the_sleep_is_not_lost(void) {
  struct eventcount *eventcount = eventcount_make();
  eventcount_announce(eventcount, false);
  CHECK_EQ(eventcount_sleepers(eventcount), 1);
  eventcount_notify(eventcount);
  CHECK_EQ(eventcount_sleepers(eventcount), 0);
  CHECK_EQ(eventcount_wakes(eventcount), 1);
  await_permit(eventcount);
  CHECK(eventcount_found(eventcount));
  check_at_rest(eventcount);
}

static void retract_takes_the_announcement_back(void) {
  struct eventcount *eventcount = eventcount_make();
  eventcount_announce(eventcount, false);
  eventcount_retract(eventcount);
  CHECK_EQ(eventcount_sleepers(eventcount), 0);
  eventcount_notify(eventcount);
  CHECK_EQ(eventcount_wakes(eventcount), 0);
  CHECK(eventcount_found(eventcount));
  check_at_rest(eventcount);
}

static void retract_takes_a_permit_that_was_granted_meanwhile(void) {
  struct eventcount *eventcount = eventcount_make();
  eventcount_announce(eventcount, false);
  eventcount_notify(eventcount);
  eventcount_retract(eventcount);
  CHECK(eventcount_found(eventcount));
  check_at_rest(eventcount);
}

/* Of two announced workers one may take the other's permit; then its own announcement stays for the
 * other. */
static void retract_leaves_one_count_for_each_worker_that_still_sleeps(void) {
  struct eventcount *eventcount = eventcount_make();
  eventcount_announce(eventcount, false);
  eventcount_announce(eventcount, false);
  eventcount_notify(eventcount);
  eventcount_retract(eventcount); /* took the announcement: the permit is the sleeper's */
  CHECK_EQ(eventcount_sleepers(eventcount), 0);
  await_permit(eventcount);
  CHECK(!eventcount_found(eventcount));
  CHECK(eventcount_found(eventcount));
  check_at_rest(eventcount);
}

static void a_searcher_that_announces_sleep_no_longer_searches(void) {
  struct eventcount *eventcount = eventcount_make();
  eventcount_announce(eventcount, false);
  eventcount_retract(eventcount);
  eventcount_announce(eventcount, true);
  CHECK_EQ(eventcount_sleepers(eventcount), 1);
  eventcount_notify(eventcount);
  CHECK_EQ(eventcount_wakes(eventcount), 1);
  await_permit(eventcount);
  CHECK(eventcount_found(eventcount));
  check_at_rest(eventcount);
}

static void nobody_is_woken_while_somebody_searches(void) {
  struct eventcount *eventcount = eventcount_make();
  eventcount_announce(eventcount, false);
  eventcount_announce(eventcount, false);
  eventcount_retract(eventcount); /* one searches, one sleeps */
  for (int i = 0; i < 10; i++)
    eventcount_notify(eventcount);
  CHECK_EQ(eventcount_wakes(eventcount), 0);
  CHECK_EQ(eventcount_sleepers(eventcount), 1);
  CHECK(eventcount_found(eventcount));
  eventcount_notify(eventcount);
  CHECK_EQ(eventcount_wakes(eventcount), 1);
  await_permit(eventcount);
  CHECK(eventcount_found(eventcount));
  check_at_rest(eventcount);
}

/* The woken one counts as a searcher from the grant on, long before it runs. */
static void a_burst_wakes_one_and_each_last_searcher_the_next(void) {
  enum { SLEEPERS = 3 };
  struct eventcount *eventcount = eventcount_make();
  for (int i = 0; i < SLEEPERS; i++)
    eventcount_announce(eventcount, false);
  for (int i = 0; i < SLEEPERS; i++)
    eventcount_notify(eventcount);
  for (int woken = 1; woken <= SLEEPERS; woken++) {
    CHECK_EQ(eventcount_wakes(eventcount), woken);
    await_permit(eventcount);
    CHECK(eventcount_found(eventcount));
    eventcount_notify(eventcount);
  }
  CHECK_EQ(eventcount_wakes(eventcount), SLEEPERS);
  check_at_rest(eventcount);
}

static void only_the_last_searcher_is_told_so(void) {
  struct eventcount *eventcount = eventcount_make();
  for (int i = 0; i < 3; i++)
    eventcount_announce(eventcount, false);
  for (int i = 0; i < 3; i++)
    eventcount_retract(eventcount);
  CHECK(!eventcount_found(eventcount));
  CHECK(!eventcount_found(eventcount));
  CHECK(eventcount_found(eventcount));
  check_at_rest(eventcount);
}

static void no_more_than_the_bound_search(void) {
  struct eventcount *eventcount = eventcount_make();
  CHECK(!eventcount_search(eventcount, 0));
  CHECK(eventcount_search(eventcount, 2));
  CHECK(eventcount_search(eventcount, 2));
  CHECK(!eventcount_search(eventcount, 2));
  CHECK(!eventcount_found(eventcount));
  CHECK(eventcount_search(eventcount, 2)); /* one has found something, so another may look */
  CHECK(!eventcount_found(eventcount));
  CHECK(eventcount_found(eventcount));
  check_at_rest(eventcount);
}

/* Who was woken has work to find and was not asked whether it may. */
static void the_woken_count_against_the_bound(void) {
  struct eventcount *eventcount = eventcount_make();
  eventcount_announce(eventcount, false);
  eventcount_notify(eventcount);
  CHECK(!eventcount_search(eventcount, 1));
  await_permit(eventcount);
  CHECK(!eventcount_search(eventcount, 1));
  CHECK(eventcount_found(eventcount));
  check_at_rest(eventcount);
}

static void nobody_is_woken_while_a_worker_that_ran_dry_searches(void) {
  struct eventcount *eventcount = eventcount_make();
  eventcount_announce(eventcount, false);
  CHECK(eventcount_search(eventcount, 1));
  eventcount_notify(eventcount);
  CHECK_EQ(eventcount_wakes(eventcount), 0);
  eventcount_announce(eventcount, true); /* it found nothing */
  CHECK_EQ(eventcount_sleepers(eventcount), 2);
  eventcount_retract(eventcount);
  CHECK(eventcount_found(eventcount));
  eventcount_retract(eventcount);
  CHECK(eventcount_found(eventcount));
  check_at_rest(eventcount);
}

struct searchers {
  struct eventcount eventcount;
  unsigned searching;
};

static void search_many_times(void *arg, unsigned index) {
  struct searchers *shared = arg;
  unsigned seed = index;
  for (unsigned i = rounds(200000); i > 0; i--) {
    if (eventcount_search(&shared->eventcount, 2)) {
      CHECK_THAT(fetch_add_acq_rel(&shared->searching, 1), <, 2);
      dither(&seed);
      fetch_sub_acq_rel(&shared->searching, 1);
      eventcount_found(&shared->eventcount);
    }
  }
}

static void no_more_than_the_bound_search_at_once(void) {
  static struct searchers shared;
  struct threads threads;
  eventcount_init(&shared.eventcount);
  threads_start(&threads, 4, search_many_times, &shared);
  threads_join(&threads);
  check_at_rest(&shared.eventcount);
}

static void notify_all_grants_a_permit_to_each_sleeper(void) {
  struct eventcount *eventcount = eventcount_make();
  for (int i = 0; i < 3; i++)
    eventcount_announce(eventcount, false);
  eventcount_notify_all(eventcount);
  CHECK_EQ(eventcount_sleepers(eventcount), 0);
  CHECK_EQ(eventcount_wakes(eventcount), 1);
  for (int i = 0; i < 3; i++)
    await_permit(eventcount);
  for (int i = 0; i < 3; i++)
    CHECK_EQ(eventcount_found(eventcount), i == 2);
  check_at_rest(eventcount);
}

static void notify_all_wakes_although_somebody_searches(void) {
  struct eventcount *eventcount = eventcount_make();
  eventcount_announce(eventcount, false);
  eventcount_announce(eventcount, false);
  eventcount_retract(eventcount);
  eventcount_notify_all(eventcount);
  CHECK_EQ(eventcount_wakes(eventcount), 1);
  await_permit(eventcount);
  CHECK(!eventcount_found(eventcount));
  CHECK(eventcount_found(eventcount));
  check_at_rest(eventcount);
}

/* Each field of the word has to hold as many workers as a pool may have. */
static void more_sleepers_than_a_pool_has_workers_fit(void) {
  enum { MANY = DROMON_WORKERS_MAX + 1 };
  struct eventcount *eventcount = eventcount_make();
  for (int i = 0; i < MANY; i++)
    eventcount_announce(eventcount, false);
  CHECK_EQ(eventcount_sleepers(eventcount), MANY);
  eventcount_notify_all(eventcount);
  for (int i = 0; i < MANY; i++)
    await_permit(eventcount);
  for (int i = 0; i < MANY; i++)
    CHECK_EQ(eventcount_found(eventcount), i == MANY - 1);
  check_at_rest(eventcount);
}

/* ---- Calls and deadlines ---------------------------------------------------------------------- */

static void a_call_without_sleepers_makes_no_system_call(void) {
  struct eventcount *eventcount = eventcount_make();
  eventcount_call(eventcount, 0);
  CHECK_EQ(eventcount_wakes(eventcount), 0);
  check_at_rest(eventcount);
}

static void who_is_called_before_it_sleeps_takes_its_announcement_back(void) {
  struct eventcount *eventcount = eventcount_make();
  int what;
  void *called = NULL;
  eventcount_announce(eventcount, false);
  called = &what;
  eventcount_call(eventcount, 0);
  CHECK_EQ(eventcount_wakes(eventcount), 1);
  eventcount_sleep(eventcount, 0, &called, OS_NO_DEADLINE);
  CHECK(eventcount_found(eventcount));
  check_at_rest(eventcount);
}

static void a_call_grants_no_permit(void) {
  struct eventcount *eventcount = eventcount_make();
  eventcount_announce(eventcount, false);
  eventcount_call(eventcount, 0);
  CHECK_EQ(eventcount_sleepers(eventcount), 1);
  eventcount_retract(eventcount); /* takes the announcement back, so nobody is left behind */
  CHECK(eventcount_found(eventcount));
  check_at_rest(eventcount);
}

/* Its wake may be the one that was made for the permit: who leaves that to another one leaves that one
 * asleep. */
static void who_is_called_takes_a_permit_all_the_same(void) {
  struct eventcount *eventcount = eventcount_make();
  int what;
  void *called = &what;
  eventcount_announce(eventcount, false);
  eventcount_announce(eventcount, false);
  eventcount_notify(eventcount);
  eventcount_call(eventcount, 0);
  eventcount_sleep(eventcount, 0, &called, OS_NO_DEADLINE);
  CHECK_EQ(eventcount_sleepers(eventcount), 1); /* the other one, for the next Notify */
  CHECK(eventcount_found(eventcount));
  CHECK(eventcount_notify(eventcount));
  await_permit(eventcount);
  CHECK(eventcount_found(eventcount));
  check_at_rest(eventcount);
}

static void the_count_of_calls_stays_in_its_field_when_it_comes_round(void) {
  struct eventcount *eventcount = eventcount_make();
  eventcount->word = CALLS;
  eventcount_call(eventcount, 0);
  CHECK_EQ(eventcount->word, 0);
}

static void a_sleep_ends_at_its_deadline(void) {
  struct eventcount *eventcount = eventcount_make();
  void *called = NULL;
  uint64_t deadline = os_now_ns() + 1000000;
  eventcount_announce(eventcount, false);
  eventcount_sleep(eventcount, 0, &called, deadline);
  CHECK(os_now_ns() >= deadline);
  CHECK(eventcount_found(eventcount));
  check_at_rest(eventcount);
}

static void who_is_past_its_deadline_takes_a_permit_all_the_same(void) {
  struct eventcount *eventcount = eventcount_make();
  void *called = NULL;
  eventcount_announce(eventcount, false);
  eventcount_announce(eventcount, false);
  eventcount_notify(eventcount);
  eventcount_sleep(eventcount, 0, &called, 0);
  CHECK_EQ(eventcount_sleepers(eventcount), 1);
  CHECK(eventcount_found(eventcount));
  eventcount_sleep(eventcount, 0, &called, 0);
  CHECK(eventcount_found(eventcount));
  check_at_rest(eventcount);
}

/* ---- Real sleepers -------------------------------------------------------------------------- */

static void sleep_once(void *arg, unsigned index) {
  (void)index;
  eventcount_announce(arg, false);
  await_permit(arg);
  eventcount_found(arg);
}

static void await_sleepers(struct eventcount *eventcount, unsigned count) {
  while (eventcount_sleepers(eventcount) != count)
    sched_yield();
}

static void notify_all_wakes_all_threads(void) {
  enum { SLEEPERS = 8 };
  for (unsigned round = rounds(200); round > 0; round--) {
    struct eventcount *eventcount = eventcount_make();
    struct threads threads;
    threads_start(&threads, SLEEPERS, sleep_once, eventcount);
    await_sleepers(eventcount, SLEEPERS);
    eventcount_notify_all(eventcount);
    threads_join(&threads);
    CHECK_EQ(eventcount_wakes(eventcount), 1);
    check_at_rest(eventcount);
  }
}

static void each_notify_wakes_one_thread(void) {
  enum { SLEEPERS = 8 };
  struct eventcount *eventcount = eventcount_make();
  struct threads threads;
  threads_start(&threads, SLEEPERS, sleep_once, eventcount);
  await_sleepers(eventcount, SLEEPERS);
  while (eventcount_wakes(eventcount) < SLEEPERS) {
    eventcount_notify(eventcount); /* none as long as the woken one has not reported Found */
    sched_yield();
  }
  threads_join(&threads);
  check_at_rest(eventcount);
}

struct callees {
  struct eventcount eventcount;
  uint32_t indexes[3];
  void *called[3];
  uint32_t awake[3];
};

static void sleep_until_called(void *arg, unsigned number) {
  struct callees *callees = arg;
  eventcount_announce(&callees->eventcount, false);
  eventcount_sleep(&callees->eventcount, callees->indexes[number], &callees->called[number],
                   OS_NO_DEADLINE);
  eventcount_found(&callees->eventcount);
  raise_count(&callees->awake[number], 1);
}

/* Also if it shares its bit of the futex with another one. */
static void a_call_wakes_the_worker_with_that_index(void) {
  for (unsigned round = rounds(200); round > 0; round--) {
    struct callees callees = {.indexes = {1, 2, 33}};
    struct threads threads;
    eventcount_init(&callees.eventcount);
    threads_start(&threads, 3, sleep_until_called, &callees);
    for (unsigned asleep = 3; asleep-- > 0;) {
      store_release(&callees.called[asleep], &callees);
      eventcount_call(&callees.eventcount, callees.indexes[asleep]);
      await_count(&callees.awake[asleep], 1);
      await_sleepers(&callees.eventcount, asleep);
    }
    threads_join(&threads);
    check_at_rest(&callees.eventcount);
  }
}

/* ---- Stress --------------------------------------------------------------------------------- */

/* What a caller hangs on a consumer's stack. */
struct link {
  struct link *next;
  struct item *item;
};

/* Producers publish into a ring, consumers wait as a pool's workers do. Callers give their items to one
 * consumer each time, past the ring. A producer goes on only when its last few items were received, so
 * that the queue is empty most of the time, everybody is about to sleep most of the time, and one lost
 * wake-up stops all. */
struct stress {
  struct eventcount *eventcount;
  struct ring ring;
  struct item *items;
  struct link *links;  /* an item each */
  unsigned callers;    /* so many of the producers, the first ones */
  uint64_t longest_ns; /* the length of every other sleep */
  unsigned producers;
  unsigned consumers;
  unsigned per_producer;
  unsigned burst;
  unsigned producing; /* producers that are not done */
  unsigned sleeps;
  unsigned left_early; /* consumers that left before all was received */
  unsigned total;
  unsigned received;
  void *called[THREADS_MAX]; /* by consumer: a stack of links */
};

static void await_received(const struct item *items, unsigned count) {
  for (unsigned i = 0; i < count; i++)
    await_count(&items[i].times_received, 1);
}

static void publish(struct stress *stress, struct item *item) {
  /* Has the word at hand on this processor, so that a notify that only looked at it would be done
   * before the push is visible to others. */
  (void)eventcount_sleepers(stress->eventcount);
  /* It has room, but looks full behind a cell whose consumer was preempted inside its pop. */
  for (unsigned step = 0; !ring_push(&stress->ring, item);)
    relax(&step);
  eventcount_notify(stress->eventcount);
}

static void call(struct stress *stress, struct item *item) {
  struct link *link = &stress->links[item - stress->items];
  unsigned consumer = item->number % stress->consumers;
  /* Relaxed: a first guess for the loop. Release below, pairs with take_called. */
  void *top = load_relaxed(&stress->called[consumer]);
  link->item = item;
  do {
    link->next = top;
  } while (!cas_weak_release(&stress->called[consumer], &top, link));
  if (top == NULL)
    eventcount_call(stress->eventcount, consumer);
}

static void produce(struct stress *stress, unsigned producer) {
  struct item *items = &stress->items[producer * stress->per_producer];
  unsigned seed = producer;
  for (unsigned number = 0; number < stress->per_producer; number++) {
    items[number].producer = producer;
    items[number].number = number;
    if (producer < stress->callers)
      call(stress, &items[number]);
    else
      publish(stress, &items[number]);
    dither(&seed);
    if ((number + 1) % stress->burst == 0)
      await_received(&items[number + 1 - stress->burst], stress->burst);
  }
  if (fetch_sub_acq_rel(&stress->producing, 1) == 1)
    eventcount_notify_all(stress->eventcount);
}

struct consumer {
  struct stress *stress;
  unsigned index;
  unsigned sleeps;
  struct link *taken; /* off its stack */
};

static struct item *take_called(struct consumer *consumer) {
  if (consumer->taken == NULL)
    /* Acquire, pairs with the release in call. */
    consumer->taken = exchange_acquire(&consumer->stress->called[consumer->index], NULL);
  struct link *link = consumer->taken;
  if (link == NULL)
    return NULL;
  consumer->taken = link->next;
  return link->item;
}

static struct item *find_item(struct consumer *consumer) {
  return take_called(consumer) ?: ring_pop(&consumer->stress->ring);
}

static void sleep_a_while(struct consumer *consumer) {
  struct stress *stress = consumer->stress;
  bool is_bounded = stress->longest_ns > 0 && ++consumer->sleeps % 2 == 0;
  fetch_add_relaxed(&stress->sleeps, 1);
  eventcount_sleep(stress->eventcount, consumer->index, &stress->called[consumer->index],
                   is_bounded ? os_now_ns() + stress->longest_ns : OS_NO_DEADLINE);
}

/* As await_task in worker.c. */
static struct item *await_item(struct consumer *consumer) {
  struct stress *stress = consumer->stress;
  struct eventcount *eventcount = stress->eventcount;
  struct item *item = find_item(consumer);
  bool searching = false;
  while (item == NULL) {
    eventcount_announce(eventcount, searching);
    bool closed = load_acquire(&stress->producing) == 0;
    item = find_item(consumer);
    if (item != NULL || closed) {
      eventcount_retract(eventcount);
    } else {
      sleep_a_while(consumer);
      closed = load_acquire(&stress->producing) == 0;
      item = find_item(consumer);
    }
    searching = true;
    if (closed)
      break;
  }
  if (searching && eventcount_found(eventcount) && ring_count(&stress->ring) > 0)
    eventcount_notify(eventcount);
  return item;
}

static void consume(struct stress *stress, unsigned index) {
  struct consumer consumer = {.stress = stress, .index = index};
  struct order order = {0};
  struct item *item;
  while ((item = await_item(&consumer)) != NULL) {
    if (item->producer >= stress->callers) /* a stack keeps no order */
      order_check(&order, item);
    fetch_add_relaxed(&stress->received, 1);
    raise_count(&item->times_received, 1);
  }
  if (load_relaxed(&stress->received) != stress->total)
    fetch_add_relaxed(&stress->left_early, 1);
}

static void stress_thread(void *arg, unsigned index) {
  struct stress *stress = arg;
  if (index < stress->producers)
    produce(stress, index);
  else
    consume(stress, index - stress->producers);
}

/* Of it only who takes part, and how, is set. */
static void stress_as(struct stress *stress, unsigned total) {
  stress->eventcount = eventcount_make();
  stress->producing = stress->producers;
  /* Whole bursts: when a producer is done, what it sent was received. */
  stress->per_producer = rounds(total / stress->producers) / stress->burst * stress->burst;
  stress->total = stress->per_producer * stress->producers;
  stress->items = items_make(stress->total);
  stress->links = calloc(stress->total, sizeof *stress->links);
  CHECK(stress->links != NULL);
  CHECK_EQ(ring_init(&stress->ring, 16), 0);
  struct threads threads;
  threads_start(&threads, stress->producers + stress->consumers, stress_thread, stress);
  threads_join(&threads);
  items_check_each_received_once(stress->items, stress->total);
  CHECK_EQ(stress->left_early, 0);
  CHECK_THAT(stress->sleeps, >, 0); /* else the test tested nothing */
  check_at_rest(stress->eventcount);
  ring_destroy(&stress->ring);
  free(stress->links);
  free(stress->items);
}

static void stress_eventcount(unsigned producers, unsigned consumers, unsigned burst,
                              unsigned total) {
  stress_as(&(struct stress){.producers = producers, .consumers = consumers, .burst = burst},
            total);
}

static void one_producer_wakes_one_consumer_each_time(void) {
  stress_eventcount(1, 1, 1, 200000);
  stress_eventcount(1, 1, 2, 1000000);
}

static void one_producer_wakes_one_of_several_consumers_each_time(void) {
  stress_eventcount(1, 4, 1, 100000);
  stress_eventcount(1, 2, 3, 100000);
}

static void several_producers_and_consumers_never_all_sleep(void) {
  stress_eventcount(2, 2, 1, 200000);
  stress_eventcount(3, 1, 2, 200000);
  stress_eventcount(4, 4, 2, 100000);
}

static void who_is_called_never_sleeps_on(void) {
  stress_as(&(struct stress){.producers = 1, .callers = 1, .consumers = 1, .burst = 1}, 100000);
  stress_as(&(struct stress){.producers = 2, .callers = 2, .consumers = 2, .burst = 3}, 100000);
}

static void calls_and_notifications_do_not_lose_each_other(void) {
  stress_as(&(struct stress){.producers = 2, .callers = 1, .consumers = 2, .burst = 1}, 100000);
  stress_as(&(struct stress){.producers = 4, .callers = 2, .consumers = 3, .burst = 2}, 100000);
}

static void deadlines_do_not_lose_calls_and_notifications(void) {
  stress_as(
      &(struct stress){
          .producers = 2, .callers = 1, .consumers = 3, .burst = 2, .longest_ns = 10000},
      50000);
}

int main(void) {
  RUN(notify_without_sleepers_makes_no_system_call);
  RUN(notify_says_whether_a_worker_slept);
  RUN(a_permit_granted_before_the_sleep_is_not_lost);
  RUN(retract_takes_the_announcement_back);
  RUN(retract_takes_a_permit_that_was_granted_meanwhile);
  RUN(retract_leaves_one_count_for_each_worker_that_still_sleeps);
  RUN(a_searcher_that_announces_sleep_no_longer_searches);
  RUN(nobody_is_woken_while_somebody_searches);
  RUN(a_burst_wakes_one_and_each_last_searcher_the_next);
  RUN(only_the_last_searcher_is_told_so);
  RUN(no_more_than_the_bound_search);
  RUN(the_woken_count_against_the_bound);
  RUN(nobody_is_woken_while_a_worker_that_ran_dry_searches);
  RUN(notify_all_grants_a_permit_to_each_sleeper);
  RUN(notify_all_wakes_although_somebody_searches);
  RUN(more_sleepers_than_a_pool_has_workers_fit);
  RUN(a_call_without_sleepers_makes_no_system_call);
  RUN(who_is_called_before_it_sleeps_takes_its_announcement_back);
  RUN(a_call_grants_no_permit);
  RUN(who_is_called_takes_a_permit_all_the_same);
  RUN(the_count_of_calls_stays_in_its_field_when_it_comes_round);
  RUN(a_sleep_ends_at_its_deadline);
  RUN(who_is_past_its_deadline_takes_a_permit_all_the_same);
  RUN_THREADED(no_more_than_the_bound_search_at_once);
  RUN_THREADED(notify_all_wakes_all_threads);
  RUN_THREADED(each_notify_wakes_one_thread);
  RUN_THREADED(a_call_wakes_the_worker_with_that_index);
  RUN_THREADED(one_producer_wakes_one_consumer_each_time);
  RUN_THREADED(one_producer_wakes_one_of_several_consumers_each_time);
  RUN_THREADED(several_producers_and_consumers_never_all_sleep);
  RUN_THREADED(who_is_called_never_sleeps_on);
  RUN_THREADED(calls_and_notifications_do_not_lose_each_other);
  RUN_THREADED(deadlines_do_not_lose_calls_and_notifications);
  return 0;
}
