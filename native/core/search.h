/* search.h - how long a worker looks for work before it parks.
 *
 * To be woken costs tens of microseconds where the processor has gone idle meanwhile, and costs the
 * producer a system call. So a worker that runs dry first looks again for a while. That only pays if
 * work comes soon: each search that found some doubles the length of the next one, up to the longest;
 * each that did not halves it. A worker that has come down to nothing tries again now and then.
 */
#ifndef DROMON_CORE_SEARCH_H
#define DROMON_CORE_SEARCH_H

#include <stdbool.h>
#include <stdint.h>

struct search {
  uint32_t longest_ns; /* 0: never */
  uint32_t length_ns;
  uint32_t skipped;
};

void search_init(struct search *search, uint32_t longest_ns);

/* How long to look now, in nanoseconds; 0: park at once. */
uint32_t search_begin(struct search *search);

/* After each one that was not 0. */
void search_end(struct search *search, bool found);

#endif
