/* test_eventcount.c - tests of the sleeping and waking of eventcount.h.
 *
 * Most play both sides in one thread: what a worker does between two of its steps is then in the
 * test's hand. A worker that would really sleep hangs such a test, and so fails it.
 */
#include "eventcount.h"
#include "ring.h"
#include "testing.h"

static struct eventcount *eventcount_make(void) {
  static struct eventcount eventcount;
  eventcount_init(&eventcount);
  return &eventcount;
}

static void check_at_rest(const struct eventcount *eventcount) {
  CHECK_EQ(eventcount->word, 0);
  CHECK_EQ(eventcount_sleepers(eventcount), 0);
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
  eventcount_sleep(eventcount);
  CHECK(eventcount_found(eventcount));
  CHECK(eventcount_notify(eventcount)); /* wakes the other one */
  CHECK_EQ(eventcount_observe(eventcount), 0);
  CHECK(!eventcount_notify(eventcount)); /* it searches, and nobody sleeps */
  eventcount_sleep(eventcount);
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
  eventcount_sleep(eventcount);
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
  eventcount_sleep(eventcount);
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
  eventcount_sleep(eventcount);
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
  eventcount_sleep(eventcount);
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
    eventcount_sleep(eventcount);
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
  eventcount_sleep(eventcount);
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
    eventcount_sleep(eventcount);
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
  eventcount_sleep(eventcount);
  CHECK(!eventcount_found(eventcount));
  CHECK(eventcount_found(eventcount));
  check_at_rest(eventcount);
}

/* Each field of the word has to hold as many workers as a pool may have. */
static void more_sleepers_than_a_pool_has_workers_fit(void) {
  enum { MANY = 4096 };
  struct eventcount *eventcount = eventcount_make();
  for (int i = 0; i < MANY; i++)
    eventcount_announce(eventcount, false);
  CHECK_EQ(eventcount_sleepers(eventcount), MANY);
  eventcount_notify_all(eventcount);
  for (int i = 0; i < MANY; i++)
    eventcount_sleep(eventcount);
  for (int i = 0; i < MANY; i++)
    CHECK_EQ(eventcount_found(eventcount), i == MANY - 1);
  check_at_rest(eventcount);
}

/* ---- Real sleepers -------------------------------------------------------------------------- */

static void sleep_once(void *arg, unsigned index) {
  (void)index;
  eventcount_announce(arg, false);
  eventcount_sleep(arg);
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

/* ---- Stress --------------------------------------------------------------------------------- */

/* Producers publish into a ring, consumers wait as a pool's workers do. A producer goes on only
 * when its last few items were received, so that the queue is empty most of the time, everybody is
 * about to sleep most of the time, and one lost wake-up stops all. */
struct stress {
  struct eventcount *eventcount;
  struct ring ring;
  struct item *items;
  unsigned producers;
  unsigned per_producer;
  unsigned burst;
  unsigned producing; /* producers that are not done */
  unsigned sleeps;
  unsigned left_early; /* consumers that left before all was received */
  unsigned total;
  unsigned received;
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

static void produce(struct stress *stress, unsigned producer) {
  struct item *items = &stress->items[producer * stress->per_producer];
  unsigned seed = producer;
  for (unsigned number = 0; number < stress->per_producer; number++) {
    items[number].producer = producer;
    items[number].number = number;
    publish(stress, &items[number]);
    dither(&seed);
    if ((number + 1) % stress->burst == 0)
      await_received(&items[number + 1 - stress->burst], stress->burst);
  }
  if (fetch_sub_acq_rel(&stress->producing, 1) == 1)
    eventcount_notify_all(stress->eventcount);
}

/* As await_task in pool.c. */
static struct item *await_item(struct stress *stress) {
  struct eventcount *eventcount = stress->eventcount;
  struct item *item = ring_pop(&stress->ring);
  bool searching = false;
  while (item == NULL) {
    eventcount_announce(eventcount, searching);
    bool closed = load_acquire(&stress->producing) == 0;
    item = ring_pop(&stress->ring);
    if (item != NULL || closed) {
      eventcount_retract(eventcount);
    } else {
      fetch_add_relaxed(&stress->sleeps, 1);
      eventcount_sleep(eventcount);
      closed = load_acquire(&stress->producing) == 0;
      item = ring_pop(&stress->ring);
    }
    searching = true;
    if (closed)
      break;
  }
  if (searching && eventcount_found(eventcount) && ring_count(&stress->ring) > 0)
    eventcount_notify(eventcount);
  return item;
}

static void consume(struct stress *stress) {
  struct order order = {0};
  struct item *item;
  while ((item = await_item(stress)) != NULL) {
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
    consume(stress);
}

static void stress_eventcount(unsigned producers, unsigned consumers, unsigned burst,
                              unsigned total) {
  unsigned per_producer = rounds(total / producers);
  struct stress stress = {
      .eventcount = eventcount_make(),
      .items = items_make(per_producer * producers),
      .producers = producers,
      .per_producer = per_producer,
      .burst = burst,
      .producing = producers,
      .total = per_producer * producers,
  };
  CHECK_EQ(ring_init(&stress.ring, 16), 0);
  struct threads threads;
  threads_start(&threads, producers + consumers, stress_thread, &stress);
  threads_join(&threads);
  items_check_each_received_once(stress.items, stress.total);
  CHECK_EQ(stress.left_early, 0);
  CHECK_THAT(stress.sleeps, >, 0); /* else the test tested nothing */
  check_at_rest(stress.eventcount);
  ring_destroy(&stress.ring);
  free(stress.items);
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
  RUN_THREADED(no_more_than_the_bound_search_at_once);
  RUN_THREADED(notify_all_wakes_all_threads);
  RUN_THREADED(each_notify_wakes_one_thread);
  RUN_THREADED(one_producer_wakes_one_consumer_each_time);
  RUN_THREADED(one_producer_wakes_one_of_several_consumers_each_time);
  RUN_THREADED(several_producers_and_consumers_never_all_sleep);
  return 0;
}
