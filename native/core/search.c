/* search.c - see search.h. */
#include "search.h"

enum {
  SHORTEST_PART = 16, /* of the longest; below that, not at all */
  LEAST_PATIENCE = 32,
  MOST_PATIENCE = 4096,
};

void search_init(struct search *search, uint32_t longest_ns) {
  *search = (struct search){
      .longest_ns = longest_ns, .length_ns = longest_ns, .patience = LEAST_PATIENCE};
}

uint32_t search_begin(struct search *search) {
  if (search->length_ns > 0)
    return search->length_ns;
  if (++search->skipped < search->patience)
    return 0;
  search->skipped = 0;
  search->length_ns = search->longest_ns;
  return search->length_ns;
}

static void wait_longer(struct search *search) {
  search->length_ns = 0;
  search->calm = 0;
  if (search->patience < MOST_PATIENCE)
    search->patience *= 2;
}

void search_end(struct search *search, bool found, uint64_t took_ns) {
  if (took_ns > (uint64_t)search->length_ns + search->longest_ns) {
    wait_longer(search);
    return;
  }
  if (++search->calm >= search->patience)
    search->patience = LEAST_PATIENCE;
  if (!found)
    search->length_ns /= 2;
  else if (search->length_ns > search->longest_ns / 2)
    search->length_ns = search->longest_ns;
  else
    search->length_ns *= 2;
  if (search->length_ns < search->longest_ns / SHORTEST_PART)
    search->length_ns = 0;
}
