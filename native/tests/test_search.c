/* test_search.c - tests of how long a worker looks for work, see search.h. */
#include "search.h"
#include "testing.h"

enum { LONGEST_NS = 16000 };

static struct search *search_make(uint32_t longest_ns) {
  static struct search search;
  search_init(&search, longest_ns);
  return &search;
}

/* A search that finds nothing, or something; how long it might have been. */
static uint32_t look(struct search *search, bool found) {
  uint32_t length = search_begin(search);
  if (length > 0)
    search_end(search, found, length);
  return length;
}

/* How many are skipped until there is one. */
static unsigned skip(struct search *search) {
  unsigned skipped = 0;
  while (search_begin(search) == 0)
    skipped++;
  return skipped;
}

/* Lets it come down to nothing. */
static void look_in_vain(struct search *search) {
  while (look(search, false) > 0)
    continue;
}

static void it_begins_with_the_longest(void) {
  CHECK_EQ(search_begin(search_make(LONGEST_NS)), LONGEST_NS);
}

static void each_search_in_vain_halves_the_next_one_down_to_nothing(void) {
  struct search *search = search_make(LONGEST_NS);
  for (uint32_t length = LONGEST_NS; length >= LONGEST_NS / 16; length /= 2)
    CHECK_EQ(look(search, false), length);
  CHECK_EQ(look(search, false), 0);
}

static void each_search_that_paid_doubles_the_next_one_up_to_the_longest(void) {
  struct search *search = search_make(LONGEST_NS);
  CHECK_EQ(look(search, true), LONGEST_NS);
  CHECK_EQ(look(search, false), LONGEST_NS);
  CHECK_EQ(look(search, false), LONGEST_NS / 2);
  CHECK_EQ(look(search, true), LONGEST_NS / 4);
  CHECK_EQ(look(search, true), LONGEST_NS / 2);
  CHECK_EQ(look(search, true), LONGEST_NS);
  CHECK_EQ(look(search, true), LONGEST_NS);
}

static void the_longest_is_never_exceeded_whatever_it_is(void) {
  static const uint32_t longest[] = {1, 15, 16, 17, 20000, 1000003, 0x7ffffffe, UINT32_MAX};
  for (size_t i = 0; i < sizeof longest / sizeof *longest; i++) {
    struct search *search = search_make(longest[i]);
    unsigned seed = 1;
    for (int step = 0; step < 10000; step++) {
      seed = seed * 1664525u + 1013904223u;
      CHECK_THAT(look(search, seed >> 31), <=, longest[i]);
    }
  }
}

/* So a worker for which searching does not pay spends little on it. */
static void after_nothing_it_tries_the_longest_now_and_then(void) {
  struct search *search = search_make(LONGEST_NS);
  look_in_vain(search);
  for (int round = 0; round < 3; round++) {
    unsigned skipped = 1; /* the one that look_in_vain ended with, or this loop */
    while (look(search, false) == 0)
      skipped++;
    CHECK_THAT(skipped, >=, 30);
    CHECK_THAT(skipped, <=, 33);
    look_in_vain(search);
  }
}

static void a_try_that_paid_brings_it_back(void) {
  struct search *search = search_make(LONGEST_NS);
  look_in_vain(search);
  uint32_t length;
  while ((length = look(search, true)) == 0)
    continue;
  CHECK_EQ(length, LONGEST_NS);
  CHECK_EQ(look(search, true), LONGEST_NS);
}

static void after_one_that_took_too_long_it_skips_more_each_time(void) {
  struct search *search = search_make(LONGEST_NS);
  unsigned before = 0;
  CHECK_EQ(search_begin(search), LONGEST_NS);
  for (int round = 0; round < 6; round++) {
    search_end(search, true, 3 * LONGEST_NS);
    unsigned skipped = skip(search);
    CHECK_THAT(skipped, >, before + before / 2);
    before = skipped;
  }
}

static void so_many_does_it_skip_and_no_more(void) {
  struct search *search = search_make(LONGEST_NS);
  search_begin(search);
  for (int round = 0; round < 100; round++) {
    search_end(search, true, UINT64_MAX);
    CHECK_THAT(skip(search), <=, 4096);
  }
}

static void when_as_many_have_gone_well_it_skips_few_again(void) {
  struct search *search = search_make(LONGEST_NS);
  search_begin(search);
  for (int round = 0; round < 6; round++) {
    search_end(search, true, 3 * LONGEST_NS);
    skip(search);
  }
  for (int round = 0; round < 4096; round++)
    look(search, true);
  search_begin(search);
  search_end(search, true, 3 * LONGEST_NS);
  CHECK_THAT(skip(search), <, 64);
}

static void with_a_longest_of_nothing_it_never_searches(void) {
  struct search *search = search_make(0);
  for (int i = 0; i < 1000; i++)
    CHECK_EQ(search_begin(search), 0);
}

int main(void) {
  RUN(it_begins_with_the_longest);
  RUN(each_search_in_vain_halves_the_next_one_down_to_nothing);
  RUN(each_search_that_paid_doubles_the_next_one_up_to_the_longest);
  RUN(the_longest_is_never_exceeded_whatever_it_is);
  RUN(after_nothing_it_tries_the_longest_now_and_then);
  RUN(a_try_that_paid_brings_it_back);
  RUN(after_one_that_took_too_long_it_skips_more_each_time);
  RUN(so_many_does_it_skip_and_no_more);
  RUN(when_as_many_have_gone_well_it_skips_few_again);
  RUN(with_a_longest_of_nothing_it_never_searches);
  return 0;
}
