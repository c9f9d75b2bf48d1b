/* search.c - see search.h. */
#include "search.h"

enum {
  SHORTEST_PART = 16, /* of the longest; below that, not at all */
  TRY_AGAIN_AFTER = 32,
};

void search_init(struct search *search, uint32_t longest_ns) {
  *search = (struct search){.longest_ns = longest_ns, .length_ns = longest_ns};
}

uint32_t search_begin(struct search *search) {
  if (search->length_ns > 0)
    return search->length_ns;
  if (++search->skipped < TRY_AGAIN_AFTER)
    return 0;
  search->skipped = 0;
  search->length_ns = search->longest_ns / SHORTEST_PART;
  return search->length_ns;
}

void search_end(struct search *search, bool found) {
  if (!found)
    search->length_ns /= 2;
  else if (search->length_ns > search->longest_ns / 2)
    search->length_ns = search->longest_ns;
  else
    search->length_ns *= 2;
  if (search->length_ns < search->longest_ns / SHORTEST_PART)
    search->length_ns = 0;
}
