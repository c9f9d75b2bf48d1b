/* test_deque.c - tests of a worker's own queue of deque.h. */
#include "deque.h"
#include "testing.h"

#include <errno.h>

static struct deque *deque_make(uint64_t capacity) {
  static struct deque deque;
  CHECK_EQ(deque_init(&deque, capacity), 0);
  return &deque;
}

/* Numbers as values, which must not be NULL. */
static void *value_of(uint64_t number) {
  return (void *)(uintptr_t)(number + 1);
}

static bool push(struct deque *deque, uint64_t number) {
  return deque_push(deque, value_of(number));
}

static void check_pop(struct deque *deque, uint64_t number) {
  CHECK_EQ((uintptr_t)deque_pop(deque), (uintptr_t)value_of(number));
}

static void check_steal(struct deque *deque, uint64_t number) {
  CHECK_EQ((uintptr_t)deque_steal(deque), (uintptr_t)value_of(number));
}

static void check_empty(struct deque *deque) {
  CHECK(deque_pop(deque) == NULL);
  CHECK(deque_steal(deque) == NULL);
  CHECK_EQ(deque_count(deque), 0);
}

static void an_empty_deque_gives_nothing(void) {
  struct deque *deque = deque_make(4);
  check_empty(deque);
  CHECK(push(deque, 0));
  check_pop(deque, 0);
  check_empty(deque);
  CHECK(push(deque, 1));
  check_steal(deque, 1);
  check_empty(deque);
  deque_destroy(deque);
}

static void the_newest_is_popped_first(void) {
  struct deque *deque = deque_make(64);
  for (uint64_t i = 0; i < 64; i++)
    CHECK(push(deque, i));
  for (uint64_t i = 64; i > 0; i--)
    check_pop(deque, i - 1);
  check_empty(deque);
  deque_destroy(deque);
}

static void the_newest_is_seen_before_it_is_popped(void) {
  struct deque deque;
  CHECK_EQ(deque_init(&deque, 4), 0);
  for (uint64_t i = 0; i < 4; i++) {
    CHECK(deque_push(&deque, value_of(i)));
    CHECK(deque_newest(&deque) == value_of(i));
  }
  for (uint64_t i = 4; i-- > 0;) {
    CHECK(deque_newest(&deque) == value_of(i));
    check_pop(&deque, i);
  }
  check_empty(&deque);
  deque_destroy(&deque);
}

static void the_oldest_is_stolen_first(void) {
  struct deque *deque = deque_make(64);
  for (uint64_t i = 0; i < 64; i++)
    CHECK(push(deque, i));
  for (uint64_t i = 0; i < 64; i++)
    check_steal(deque, i);
  check_empty(deque);
  deque_destroy(deque);
}

static void both_ends_meet_in_the_middle(void) {
  struct deque *deque = deque_make(8);
  for (uint64_t i = 0; i < 5; i++)
    CHECK(push(deque, i));
  check_steal(deque, 0);
  check_pop(deque, 4);
  check_steal(deque, 1);
  CHECK(push(deque, 5));
  check_pop(deque, 5);
  check_pop(deque, 3);
  check_steal(deque, 2);
  check_empty(deque);
  deque_destroy(deque);
}

static void the_count_follows_each_step(void) {
  struct deque *deque = deque_make(8);
  for (uint64_t i = 0; i < 8; i++) {
    CHECK_EQ(deque_count(deque), i);
    CHECK(push(deque, i));
  }
  for (uint64_t i = 8; i > 0; i -= 2) {
    CHECK_EQ(deque_count(deque), i);
    check_pop(deque, 4 + i / 2 - 1);
    CHECK_EQ(deque_count(deque), i - 1);
    check_steal(deque, 4 - i / 2);
  }
  CHECK_EQ(deque_count(deque), 0);
  deque_destroy(deque);
}

static void capacities_that_are_no_power_of_two_are_refused(void) {
  static const uint64_t bad[] = {0, 3, 5, 6, 12, 4095, 4097, UINT64_MAX};
  struct deque deque;
  for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
    CHECK_EQ(deque_init(&deque, bad[i]), -EINVAL);
}

static void a_capacity_beyond_the_memory_is_refused(void) {
  struct deque deque;
  CHECK_EQ(deque_init(&deque, (uint64_t)1 << 63), -ENOMEM);
}

static void a_full_deque_refuses_until_something_is_taken_at_either_end(void) {
  for (uint64_t capacity = 1; capacity <= 1024; capacity *= 2) {
    struct deque *deque = deque_make(capacity);
    for (uint64_t i = 0; i < capacity; i++)
      CHECK(push(deque, i));
    CHECK_EQ(deque_count(deque), capacity);
    CHECK(!push(deque, capacity));
    CHECK(!push(deque, capacity));
    check_pop(deque, capacity - 1);
    CHECK(push(deque, capacity));
    CHECK(!push(deque, capacity + 1));
    check_steal(deque, capacity > 1 ? 0 : capacity);
    CHECK(push(deque, capacity + 1));
    CHECK(!push(deque, capacity + 2));
    deque_destroy(deque);
  }
}

/* Goes round the deque often, with every number of values in it from 1 to its capacity, of which
 * each second round takes half at either end. */
static void go_many_laps(struct deque *deque) {
  uint64_t capacity = deque->mask + 1;
  for (uint64_t lap = 0; lap < 100; lap++) {
    for (uint64_t fill = 1; fill <= capacity; fill++) {
      for (uint64_t i = 0; i < fill; i++)
        CHECK(push(deque, i));
      if (fill == capacity)
        CHECK(!push(deque, fill));
      uint64_t newest = lap % 2 == 0 ? fill : fill - fill / 2;
      for (uint64_t i = fill; i > newest; i--)
        check_pop(deque, i - 1);
      for (uint64_t i = 0; i < newest; i++)
        check_steal(deque, i);
      check_empty(deque);
    }
  }
}

static void many_laps_keep_the_order(void) {
  for (uint64_t capacity = 1; capacity <= 16; capacity *= 2) {
    struct deque *deque = deque_make(capacity);
    go_many_laps(deque);
    deque_destroy(deque);
  }
}

/* Where 32 bits end, where the sign bit changes, and where 64 bits end. The last two can't be
 * reached, but show that only differences of positions count. A pop from an empty deque goes below
 * the position where it starts. */
static void positions_may_pass_any_power_of_two(void) {
  static const uint64_t starts[] = {0, UINT32_MAX - 5, INT64_MAX - 5, UINT64_MAX - 5};
  for (size_t i = 0; i < sizeof starts / sizeof *starts; i++) {
    struct deque *deque = deque_make(4);
    deque->bottom = deque->top = starts[i];
    check_empty(deque);
    go_many_laps(deque);
    CHECK_EQ(deque->bottom - deque->top, 0);
    CHECK_THAT(deque->top - starts[i], >, 100);
    deque_destroy(deque);
  }
}

/* ---- Several threads ------------------------------------------------------------------------ */

static bool flow_push(void *deque, void *item) {
  return deque_push(deque, item);
}

static void *flow_steal(void *deque) {
  return deque_steal(deque);
}

/* The producer owns the deque, the consumers steal from it. */
static void stress_deque(uint64_t capacity, unsigned thieves, unsigned total,
                         void (*own)(struct flow *flow, unsigned producer)) {
  struct deque *deque = deque_make(capacity);
  struct flow flow = {
      .queue = deque,
      .push = flow_push,
      .take = flow_steal,
      .produce = own,
      .producers = 1,
  };
  flow_run(&flow, thieves, total);
  check_empty(deque);
  deque_destroy(deque);
}

/* With one receiver nothing may be skipped either: exactly once and never backwards is in order. */
static void one_thief_gets_all_in_order(void) {
  stress_deque(1, 1, 50000, flow_push_all);
  stress_deque(256, 1, 1000000, flow_push_all);
}

static void several_thieves_take_each_value_once(void) {
  stress_deque(1, 3, 30000, flow_push_all);
  stress_deque(64, 3, 500000, flow_push_all);
}

/* The owner has one value at a time, and tries to get it back. */
static void push_and_pop_one(struct flow *flow, unsigned producer) {
  unsigned seed = 1;
  for (unsigned number = 0; number < flow->total; number++) {
    CHECK(deque_push(flow->queue, flow_item(flow, producer, number)));
    dither(&seed);
    struct item *item = deque_pop(flow->queue);
    if (item != NULL) {
      CHECK_EQ(item->number, number);
      flow_receive(flow, item);
    }
    CHECK(deque_pop(flow->queue) == NULL);
  }
}

static void the_last_value_goes_to_the_owner_or_to_one_thief(void) {
  stress_deque(1, 1, 2000000, push_and_pop_one);
  stress_deque(4, 3, 500000, push_and_pop_one);
}

/* Pushes and pops at random, few at a time, so that the ends meet often. */
static void push_and_pop_at_random(struct flow *flow, unsigned producer) {
  unsigned seed = 1;
  unsigned number = 0;
  struct item *item;
  while (number < flow->total) {
    dither(&seed);
    for (unsigned pushes = seed >> 20 & 3; pushes > 0 && number < flow->total; pushes--)
      if (deque_push(flow->queue, flow_item(flow, producer, number)))
        number++;
    for (unsigned pops = seed >> 22 & 3; pops > 0; pops--)
      if ((item = deque_pop(flow->queue)) != NULL)
        flow_receive(flow, item);
  }
  while ((item = deque_pop(flow->queue)) != NULL)
    flow_receive(flow, item);
}

static void owner_and_thieves_take_each_value_once(void) {
  stress_deque(2, 1, 1000000, push_and_pop_at_random);
  stress_deque(4, 3, 500000, push_and_pop_at_random);
  stress_deque(256, 3, 500000, push_and_pop_at_random);
}

/* Many in it at first, and then all take. Nothing is added, so that who once got nothing never gets
 * anything again: had that steal only lost a race, there might be more. */
struct stampede {
  struct deque *deque;
  struct item *items;
};

static void stampede_thread(void *arg, unsigned index) {
  struct stampede *stampede = arg;
  bool owner = index == 0;
  struct order thief_order = {0};
  unsigned number = UINT_MAX;
  struct item *item;
  while ((item = owner ? deque_pop(stampede->deque) : deque_steal(stampede->deque)) != NULL) {
    if (owner)
      CHECK_THAT(item->number, <, number);
    else
      order_check(&thief_order, item);
    number = item->number;
    fetch_add_relaxed(&item->times_received, 1);
  }
  for (unsigned i = 0; i < 100; i++)
    CHECK(deque_steal(stampede->deque) == NULL);
}

static void all_empty_a_full_deque_and_nothing_means_nothing(void) {
  enum { MANY = 4096 };
  for (unsigned round = rounds(200); round > 0; round--) {
    struct stampede stampede = {.deque = deque_make(MANY), .items = items_make(MANY)};
    for (unsigned number = 0; number < MANY; number++) {
      stampede.items[number].number = number;
      CHECK(deque_push(stampede.deque, &stampede.items[number]));
    }
    struct threads threads;
    threads_start(&threads, 4, stampede_thread, &stampede);
    threads_join(&threads);
    items_check_each_received_once(stampede.items, MANY);
    check_empty(stampede.deque);
    deque_destroy(stampede.deque);
    free(stampede.items);
  }
}

/* What a worker's re-check before it sleeps rests on. */
struct told {
  struct deque *deque;
  unsigned total;
  uint32_t pushes;
};

static void told_thread(void *arg, unsigned index) {
  struct told *told = arg;
  for (unsigned number = 0; number < told->total; number++) {
    if (index == 0) {
      for (unsigned step = 0; !push(told->deque, number);)
        relax(&step);
      raise_count(&told->pushes, 1);
    } else {
      await_count(&told->pushes, number + 1);
      check_steal(told->deque, number);
    }
  }
}

static void a_thief_that_was_told_of_a_push_finds_it(void) {
  struct told told = {.deque = deque_make(4), .total = rounds(500000)};
  struct threads threads;
  threads_start(&threads, 2, told_thread, &told);
  threads_join(&threads);
  deque_destroy(told.deque);
}

/* Each thief stops once it had enough. */
struct meal {
  struct deque *deque;
  unsigned hungry;
};

static void feed(struct meal *meal) {
  unsigned seed = 1;
  while (load_relaxed(&meal->hungry) > 0) {
    dither(&seed);
    for (unsigned pushes = seed >> 20 & 3; pushes > 0; pushes--)
      (void)push(meal->deque, 0);
    for (unsigned pops = seed >> 22 & 3; pops > 0; pops--)
      (void)deque_pop(meal->deque);
  }
}

static void eat(struct meal *meal) {
  unsigned step = 0;
  for (unsigned eaten = 0; eaten < 1000;) {
    if (deque_steal(meal->deque) != NULL)
      eaten++;
    else
      relax(&step);
  }
  fetch_sub_acq_rel(&meal->hungry, 1);
}

static void meal_thread(void *arg, unsigned index) {
  if (index == 0)
    feed(arg);
  else
    eat(arg);
}

static void no_thief_starves_beside_a_busy_owner(void) {
  enum { THIEVES = 3 };
  struct meal meal = {.deque = deque_make(8), .hungry = THIEVES};
  struct threads threads;
  threads_start(&threads, 1 + THIEVES, meal_thread, &meal);
  threads_join(&threads);
  deque_destroy(meal.deque);
}

int main(void) {
  RUN(an_empty_deque_gives_nothing);
  RUN(the_newest_is_popped_first);
  RUN(the_newest_is_seen_before_it_is_popped);
  RUN(the_oldest_is_stolen_first);
  RUN(both_ends_meet_in_the_middle);
  RUN(the_count_follows_each_step);
  RUN(capacities_that_are_no_power_of_two_are_refused);
  RUN(a_capacity_beyond_the_memory_is_refused);
  RUN(a_full_deque_refuses_until_something_is_taken_at_either_end);
  RUN(many_laps_keep_the_order);
  RUN(positions_may_pass_any_power_of_two);
  RUN_THREADED(one_thief_gets_all_in_order);
  RUN_THREADED(several_thieves_take_each_value_once);
  RUN_THREADED(the_last_value_goes_to_the_owner_or_to_one_thief);
  RUN_THREADED(owner_and_thieves_take_each_value_once);
  RUN_THREADED(all_empty_a_full_deque_and_nothing_means_nothing);
  RUN_THREADED(a_thief_that_was_told_of_a_push_finds_it);
  RUN_THREADED(no_thief_starves_beside_a_busy_owner);
  return 0;
}
