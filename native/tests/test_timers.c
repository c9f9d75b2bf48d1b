/* test_timers.c - tests of the heap of timers.h. */
#include "timers.h"

#include "testing.h"

static struct timer timer_at(uint64_t deadline_ns) {
  return (struct timer){.deadline_ns = deadline_ns, .index = TIMER_IDLE};
}

static void no_timer_is_the_first_of_none(void) {
  struct timers timers;
  timers_init(&timers);
  CHECK(timers_first(&timers) == NULL);
  timers_destroy(&timers);
}

static void the_earliest_is_first_whatever_the_order(void) {
  struct timers timers;
  struct timer late = timer_at(3), early = timer_at(1), middle = timer_at(2);
  timers_init(&timers);
  CHECK_EQ(timers_add(&timers, &late), 0);
  CHECK(timers_first(&timers) == &late);
  CHECK_EQ(timers_add(&timers, &early), 0);
  CHECK(timers_first(&timers) == &early);
  CHECK_EQ(timers_add(&timers, &middle), 0);
  CHECK(timers_first(&timers) == &early);
  timers_remove(&timers, &early);
  CHECK(timers_first(&timers) == &middle);
  timers_destroy(&timers);
}

static void removing_an_idle_timer_does_nothing(void) {
  struct timers timers;
  struct timer in = timer_at(1), out = timer_at(0);
  timers_init(&timers);
  CHECK_EQ(timers_add(&timers, &in), 0);
  timers_remove(&timers, &out);
  CHECK(timers_first(&timers) == &in);
  timers_remove(&timers, &in);
  timers_remove(&timers, &in);
  CHECK(timers_first(&timers) == NULL);
  timers_destroy(&timers);
}

static void a_removed_timer_is_idle_and_may_be_added_again(void) {
  struct timers timers;
  struct timer timer = timer_at(1);
  timers_init(&timers);
  for (int i = 0; i < 3; i++) {
    CHECK_EQ(timers_add(&timers, &timer), 0);
    CHECK_THAT(timer.index, !=, TIMER_IDLE);
    timers_remove(&timers, &timer);
    CHECK_EQ(timer.index, TIMER_IDLE);
  }
  timers_destroy(&timers);
}

static void destroying_leaves_all_idle(void) {
  struct timers timers;
  struct timer all[3] = {timer_at(1), timer_at(2), timer_at(3)};
  timers_init(&timers);
  for (int i = 0; i < 3; i++)
    CHECK_EQ(timers_add(&timers, &all[i]), 0);
  timers_destroy(&timers);
  for (int i = 0; i < 3; i++)
    CHECK_EQ(all[i].index, TIMER_IDLE);
}

/* ---- Against a plain list -------------------------------------------------------------------- */

enum { TIMERS = 300 };

static uint32_t random_number(void) {
  static uint32_t seed = 1;
  seed ^= seed << 13;
  seed ^= seed >> 17;
  seed ^= seed << 5;
  return seed;
}

static uint64_t earliest(const struct timer *all) {
  uint64_t deadline_ns = UINT64_MAX;
  for (int i = 0; i < TIMERS; i++) {
    if (all[i].index != TIMER_IDLE && all[i].deadline_ns < deadline_ns)
      deadline_ns = all[i].deadline_ns;
  }
  return deadline_ns;
}

static void check_first(const struct timers *timers, const struct timer *all) {
  const struct timer *first = timers_first(timers);
  CHECK_EQ(first == NULL ? UINT64_MAX : first->deadline_ns, earliest(all));
}

static void any_order_of_adding_and_removing_keeps_the_earliest_first(void) {
  struct timers timers;
  struct timer all[TIMERS];
  timers_init(&timers);
  for (int i = 0; i < TIMERS; i++)
    all[i] = timer_at(0);
  for (unsigned step = 0; step < rounds(20000); step++) {
    struct timer *timer = &all[random_number() % TIMERS];
    if (timer->index == TIMER_IDLE) {
      timer->deadline_ns = random_number() % 1000; /* so few that many are equal */
      CHECK_EQ(timers_add(&timers, timer), 0);
    } else {
      timers_remove(&timers, timer);
    }
    check_first(&timers, all);
  }
  timers_destroy(&timers);
}

static void taking_the_first_one_by_one_sorts_them(void) {
  struct timers timers;
  struct timer all[TIMERS];
  timers_init(&timers);
  for (int i = 0; i < TIMERS; i++) {
    all[i] = timer_at(random_number());
    CHECK_EQ(timers_add(&timers, &all[i]), 0);
  }
  for (uint64_t i = 0, latest = 0; i < TIMERS; i++) {
    struct timer *first = timers_first(&timers);
    CHECK_THAT(first->deadline_ns, >=, latest);
    latest = first->deadline_ns;
    timers_remove(&timers, first);
  }
  CHECK(timers_first(&timers) == NULL);
  timers_destroy(&timers);
}

int main(void) {
  RUN(no_timer_is_the_first_of_none);
  RUN(the_earliest_is_first_whatever_the_order);
  RUN(removing_an_idle_timer_does_nothing);
  RUN(a_removed_timer_is_idle_and_may_be_added_again);
  RUN(destroying_leaves_all_idle);
  RUN(any_order_of_adding_and_removing_keeps_the_earliest_first);
  RUN(taking_the_first_one_by_one_sorts_them);
  return 0;
}
