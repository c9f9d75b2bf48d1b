/* test_ring.c - tests of the bounded queue of ring.h. */
#include "ring.h"
#include "testing.h"

#include <errno.h>

static struct ring *ring_make(uint64_t capacity) {
  static struct ring ring;
  CHECK_EQ(ring_init(&ring, capacity), 0);
  return &ring;
}

/* Numbers as values, which must not be NULL. */
static void *value_of(uint64_t number) {
  return (void *)(uintptr_t)(number + 1);
}

static bool push(struct ring *ring, uint64_t number) {
  return ring_push(ring, value_of(number));
}

static void check_pop(struct ring *ring, uint64_t number) {
  CHECK_EQ((uintptr_t)ring_pop(ring), (uintptr_t)value_of(number));
}

static void a_value_goes_in_and_comes_out(void) {
  struct ring *ring = ring_make(2);
  CHECK_EQ(ring_count(ring), 0);
  CHECK(push(ring, 7));
  CHECK_EQ(ring_count(ring), 1);
  check_pop(ring, 7);
  CHECK_EQ(ring_count(ring), 0);
  ring_destroy(ring);
}

static void an_empty_ring_gives_nothing(void) {
  struct ring *ring = ring_make(4);
  CHECK(ring_pop(ring) == NULL);
  CHECK(push(ring, 0));
  check_pop(ring, 0);
  CHECK(ring_pop(ring) == NULL);
  CHECK(ring_pop(ring) == NULL);
  ring_destroy(ring);
}

static void the_first_in_is_the_first_out(void) {
  struct ring *ring = ring_make(64);
  for (uint64_t i = 0; i < 64; i++)
    CHECK(push(ring, i));
  for (uint64_t i = 0; i < 64; i++)
    check_pop(ring, i);
  ring_destroy(ring);
}

static void capacities_that_are_no_power_of_two_or_below_two_are_refused(void) {
  static const uint64_t bad[] = {0, 1, 3, 5, 6, 12, 4095, 4097, UINT64_MAX};
  struct ring ring;
  for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
    CHECK_EQ(ring_init(&ring, bad[i]), -EINVAL);
}

static void a_capacity_beyond_the_memory_is_refused(void) {
  struct ring ring;
  CHECK_EQ(ring_init(&ring, (uint64_t)1 << 63), -ENOMEM);
}

static void a_full_ring_refuses_until_something_is_taken(void) {
  for (uint64_t capacity = 2; capacity <= 1024; capacity *= 2) {
    struct ring *ring = ring_make(capacity);
    for (uint64_t i = 0; i < capacity; i++)
      CHECK(push(ring, i));
    CHECK_EQ(ring_count(ring), capacity);
    CHECK(!push(ring, capacity));
    CHECK(!push(ring, capacity));
    check_pop(ring, 0);
    CHECK(push(ring, capacity));
    CHECK(!push(ring, capacity + 1));
    ring_destroy(ring);
  }
}

/* Goes round the ring often, with every number of values in it from 1 to its capacity. */
static void go_many_laps(struct ring *ring) {
  uint64_t capacity = ring->mask + 1;
  uint64_t pushed = 0, popped = 0;
  for (uint64_t lap = 0; lap < 100; lap++) {
    for (uint64_t fill = 1; fill <= capacity; fill++) {
      while (pushed - popped < fill)
        CHECK(push(ring, pushed++));
      if (fill == capacity)
        CHECK(!push(ring, pushed));
      while (popped < pushed)
        check_pop(ring, popped++);
      CHECK(ring_pop(ring) == NULL);
    }
  }
}

static void many_laps_keep_the_order(void) {
  for (uint64_t capacity = 2; capacity <= 16; capacity *= 2) {
    struct ring *ring = ring_make(capacity);
    go_many_laps(ring);
    ring_destroy(ring);
  }
}

/* Makes an empty ring look as if `position` values had already gone through. */
static void start_at(struct ring *ring, uint64_t position) {
  ring->push_position = ring->pop_position = position;
  for (uint64_t i = 0; i <= ring->mask; i++)
    ring->cells[(position + i) & ring->mask].sequence = position + i;
}

/* Where 32 bits end, where the sign bit changes, and where 64 bits end. The last can't be reached
 * (at a push per nanosecond it takes 584 years), but shows that only differences of positions
 * count. */
static void positions_may_pass_any_power_of_two(void) {
  static const uint64_t starts[] = {UINT32_MAX - 5, INT64_MAX - 5, UINT64_MAX - 5};
  for (size_t i = 0; i < sizeof starts / sizeof *starts; i++) {
    struct ring *ring = ring_make(4);
    start_at(ring, starts[i]);
    go_many_laps(ring);
    CHECK_EQ(ring->push_position - ring->pop_position, 0);
    CHECK_THAT(ring->pop_position - starts[i], >, 100);
    ring_destroy(ring);
  }
}

static void the_count_is_right_where_32_bits_end(void) {
  struct ring *ring = ring_make(8);
  start_at(ring, UINT32_MAX - 2);
  for (uint64_t i = 0; i < 8; i++) {
    CHECK_EQ(ring_count(ring), i);
    CHECK(push(ring, i));
  }
  CHECK_EQ(ring_count(ring), 8);
  ring_destroy(ring);
}

/* A producer that has claimed a cell and not filled it yet hides what others have pushed behind it,
 * and they come out in order once it goes on. */
static void a_stalled_producer_makes_the_ring_look_empty_for_a_while(void) {
  struct ring *ring = ring_make(4);
  uint64_t claimed = ring->push_position++;
  CHECK(push(ring, 1));
  CHECK(ring_pop(ring) == NULL);
  CHECK_EQ(ring_count(ring), 2);
  ring->cells[claimed].value = value_of(0);
  ring->cells[claimed].sequence = claimed + 1;
  check_pop(ring, 0);
  check_pop(ring, 1);
  ring_destroy(ring);
}

/* ---- Stress --------------------------------------------------------------------------------- */

static bool flow_push(void *ring, void *item) {
  return ring_push(ring, item);
}

static void *flow_pop(void *ring) {
  return ring_pop(ring);
}

static void stress_ring(uint64_t capacity, unsigned producers, unsigned consumers, unsigned total) {
  struct ring *ring = ring_make(capacity);
  struct flow flow = {
      .queue = ring,
      .push = flow_push,
      .take = flow_pop,
      .produce = flow_push_all,
      .producers = producers,
  };
  flow_run(&flow, consumers, total);
  CHECK_EQ(ring_count(ring), 0);
  ring_destroy(ring);
}

/* With one receiver nothing may be skipped either: exactly once and never backwards is in order. */
static void one_producer_and_one_consumer_keep_the_order(void) {
  stress_ring(2, 1, 1, 50000);
  stress_ring(256, 1, 1, 2000000);
}

static void many_producers_and_one_consumer_lose_nothing(void) {
  stress_ring(2, 3, 1, 30000);
  stress_ring(64, 3, 1, 1000000);
}

static void many_producers_and_consumers_pass_each_value_once(void) {
  stress_ring(2, 4, 4, 30000);
  stress_ring(8, 3, 3, 300000);
  stress_ring(1024, 4, 4, 2000000);
}

int main(void) {
  RUN(a_value_goes_in_and_comes_out);
  RUN(an_empty_ring_gives_nothing);
  RUN(the_first_in_is_the_first_out);
  RUN(capacities_that_are_no_power_of_two_or_below_two_are_refused);
  RUN(a_capacity_beyond_the_memory_is_refused);
  RUN(a_full_ring_refuses_until_something_is_taken);
  RUN(many_laps_keep_the_order);
  RUN(positions_may_pass_any_power_of_two);
  RUN(the_count_is_right_where_32_bits_end);
  RUN(a_stalled_producer_makes_the_ring_look_empty_for_a_while);
  RUN_THREADED(one_producer_and_one_consumer_keep_the_order);
  RUN_THREADED(many_producers_and_one_consumer_lose_nothing);
  RUN_THREADED(many_producers_and_consumers_pass_each_value_once);
  return 0;
}
