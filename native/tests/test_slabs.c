/* test_slabs.c - tests of the stacks of slabs.h. */
#include "slabs.h"

#include "process.h"

#include <dromon/dromon.h>
#include <sys/mman.h>
#include <sys/resource.h>

enum { SMALL = 1 << 14, GUARD = 1 << 12, SLAB = 64, MANY = 5 * SLAB + 3 };

static struct stack stacks[MANY];

static void take(struct slabs *slabs, unsigned count) {
  for (unsigned i = 0; i < count; i++)
    CHECK_EQ(slabs_take(slabs, &stacks[i]), 0);
}

static void give(struct slabs *slabs, unsigned count) {
  for (unsigned i = 0; i < count; i++)
    slabs_give(slabs, &stacks[i]);
}

static void sizes_that_make_no_stack_are_refused(void) {
  struct slabs slabs;
  CHECK_EQ(slabs_init(&slabs, 0, GUARD), -EINVAL);
  CHECK_EQ(slabs_init(&slabs, SMALL, 0), -EINVAL);
  CHECK_EQ(slabs_init(&slabs, UINT64_MAX, GUARD), -EINVAL);
  CHECK_EQ(slabs_init(&slabs, SMALL, UINT64_MAX), -EINVAL);
}

static void a_stack_that_no_address_space_holds_is_refused(void) {
  struct slabs slabs;
  CHECK_EQ(slabs_init(&slabs, (uint64_t)1 << 61, GUARD), 0);
  CHECK_EQ(slabs_take(&slabs, &stacks[0]), -ENOMEM);
  CHECK_EQ(slabs_in_use(&slabs), 0);
  slabs_destroy(&slabs);
}

static void sizes_are_rounded_up_to_pages(void) {
  size_t page = os_page_size();
  struct slabs slabs;
  CHECK_EQ(slabs_init(&slabs, SMALL + 1, 1), 0);
  take(&slabs, 1);
  CHECK_EQ(stacks[0].size, SMALL + page);
  CHECK_EQ(stacks[0].guard, page);
  CHECK_EQ((uintptr_t)stacks[0].low % page, 0);
  give(&slabs, 1);
  slabs_destroy(&slabs);
}

static void every_byte_of_every_stack_is_its_own(void) {
  struct slabs slabs;
  CHECK_EQ(slabs_init(&slabs, SMALL, GUARD), 0);
  take(&slabs, MANY);
  for (unsigned i = 0; i < MANY; i++)
    memset(stacks[i].low, (int)i % 251, stacks[i].size);
  for (unsigned i = 0; i < MANY; i++) {
    for (size_t at = 0; at < stacks[i].size; at++)
      CHECK_EQ(stacks[i].low[at], i % 251);
  }
  give(&slabs, MANY);
  slabs_destroy(&slabs);
}

static void the_stacks_in_use_are_counted(void) {
  struct slabs slabs;
  CHECK_EQ(slabs_init(&slabs, SMALL, GUARD), 0);
  CHECK_EQ(slabs_in_use(&slabs), 0);
  take(&slabs, MANY);
  CHECK_EQ(slabs_in_use(&slabs), MANY);
  give(&slabs, MANY);
  CHECK_EQ(slabs_in_use(&slabs), 0);
  slabs_destroy(&slabs);
}

/* ---- The guard ------------------------------------------------------------------------------ */

static unsigned char *touched;

static void touch(void) {
  *(volatile unsigned char *)touched = 1;
}

static void check_faults(unsigned char *address) {
  touched = address;
  int status = run_in_child(touch);
  CHECK(WIFSIGNALED(status));
  CHECK_EQ(WTERMSIG(status), SIGSEGV);
}

static void check_guards(void) {
  struct slabs slabs;
  CHECK_EQ(slabs_init(&slabs, SMALL, DROMON_GUARD_SIZE_DEFAULT), 0);
  take(&slabs, SLAB);
  for (unsigned i = 0; i < SLAB; i += 9) { /* the first and the last one among them */
    check_faults(stacks[i].low - 1);
    check_faults(stacks[i].low - stacks[i].guard);
  }
  give(&slabs, SLAB);
  take(&slabs, 1);
  check_faults(stacks[0].low - 1); /* also the second time */
  give(&slabs, 1);
  slabs_destroy(&slabs);
}

static void a_write_to_the_guard_of_any_stack_faults(void) {
  check_guards();
}

/* As kernels before 6.13 do, and as an emulator may. They are in effect in a child whose probe comes after
 * the refusal, so these tests are the first. */
static void refuse_guards(int error) {
  struct refusal refusal = {
      .call = SYS_madvise,
      .error = error,
      .checks_argument = true,
      .index = 2,
      .value = 102, /* MADV_GUARD_INSTALL */
  };
  if (!refuse(&refusal))
    _exit(77);
  check_guards();
}

static void check_guards_where_there_are_none(void) {
  refuse_guards(EINVAL);
}

static void check_guards_where_they_are_pretended(void) {
  refuse_guards(0);
}

static void check_in_child(void (*fn)(void)) {
  int status = run_in_child(fn);
  if (WIFEXITED(status) && WEXITSTATUS(status) == 77)
    printf("skipped, since no filter can be installed\n");
  else
    CHECK_EQ(status, 0);
}

static void a_kernel_without_such_guards_protects_pages(void) {
  check_in_child(check_guards_where_there_are_none);
}

static void a_kernel_that_pretends_to_have_such_guards_protects_pages(void) {
  check_in_child(check_guards_where_they_are_pretended);
}

/* ---- Memory --------------------------------------------------------------------------------- */

static void a_stack_that_was_given_back_holds_no_memory(void) {
  struct slabs slabs;
  CHECK_EQ(slabs_init(&slabs, SMALL, GUARD), 0);
  take(&slabs, 1);
  memset(stacks[0].low, 1, stacks[0].size);
  CHECK_EQ(stack_used(&stacks[0]), stacks[0].size);
  give(&slabs, 1); /* its slab stays, as the only empty one */
  CHECK_EQ(stack_used(&stacks[0]), 0);
  slabs_destroy(&slabs);
}

static void a_slot_that_was_given_back_is_taken_before_a_slab_is_mapped(void) {
  struct slabs slabs;
  CHECK_EQ(slabs_init(&slabs, SMALL, GUARD), 0);
  take(&slabs, 5 * SLAB);
  for (unsigned i = 0; i < 5 * SLAB; i++) {
    unsigned char *low = stacks[i].low;
    slabs_give(&slabs, &stacks[i]);
    CHECK_EQ(slabs_take(&slabs, &stacks[i]), 0);
    CHECK(stacks[i].low == low);
  }
  give(&slabs, 5 * SLAB);
  slabs_destroy(&slabs);
}

static bool is_mapped(const struct stack *stack) {
  if (msync(stack->low, os_page_size(), MS_ASYNC) ==
      0) /* for memory without a file it only looks */
    return true;
  CHECK_EQ(errno, ENOMEM);
  return false;
}

static void of_the_empty_slabs_one_is_kept(void) {
  struct slabs slabs;
  CHECK_EQ(slabs_init(&slabs, SMALL, GUARD), 0);
  take(&slabs, 5 * SLAB);
  give(&slabs, 5 * SLAB);
  unsigned kept = 0;
  for (unsigned i = 0; i < 5 * SLAB; i++)
    kept += is_mapped(&stacks[i]);
  CHECK_EQ(kept, SLAB);
  slabs_destroy(&slabs);
}

static void destroying_unmaps_also_what_was_not_given_back(void) {
  struct slabs slabs;
  CHECK_EQ(slabs_init(&slabs, SMALL, GUARD), 0);
  take(&slabs, MANY);
  slabs_destroy(&slabs);
  for (unsigned i = 0; i < MANY; i++)
    CHECK(!is_mapped(&stacks[i]));
}

static void many_stacks_come_and_go_without_trace(void) {
  unsigned mappings = count_mappings();
  for (unsigned i = 0; i < 10; i++) {
    struct slabs slabs;
    CHECK_EQ(slabs_init(&slabs, SMALL, GUARD), 0);
    take(&slabs, MANY);
    give(&slabs, MANY);
    slabs_destroy(&slabs);
  }
  CHECK_EQ(count_mappings(), mappings);
}

/* Memory for one slab in full would be 64 MiB; there is some for a small one, and for single stacks. */
static void take_all_that_fits(void) {
  enum { LARGE = 1 << 20, FEW = 20, ROOM = FEW << 20 };
  struct slabs slabs;
  CHECK_EQ(slabs_init(&slabs, LARGE, GUARD), 0);
  unsigned char *room = mmap(NULL, ROOM, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  CHECK(room != MAP_FAILED);
  FILE *statm = fopen("/proc/self/statm", "r");
  unsigned long pages;
  CHECK(statm != NULL && fscanf(statm, "%lu", &pages) == 1);
  fclose(statm);
  struct rlimit limit = {.rlim_cur = pages * os_page_size(), .rlim_max = RLIM_INFINITY};
  CHECK_EQ(setrlimit(RLIMIT_AS, &limit), 0);
  munmap(room, ROOM);
  unsigned taken = 0;
  while (slabs_take(&slabs, &stacks[taken]) == 0)
    taken++;
  CHECK_THAT(taken, >=, FEW - 2); /* the rest is for guards and for malloc */
  CHECK_EQ(slabs_take(&slabs, &stacks[taken]), -ENOMEM);
  CHECK_EQ(slabs_in_use(&slabs), taken);
  give(&slabs, taken);
  slabs_destroy(&slabs);
}

static void where_a_slab_does_not_fit_a_smaller_one_may(void) {
  CHECK_EQ(run_in_child(take_all_that_fits), 0);
}

/* ---- The limit ------------------------------------------------------------------------------ */

static uint64_t max_map_count(void) {
  FILE *file = fopen("/proc/sys/vm/max_map_count", "r");
  unsigned long long count;
  CHECK(file != NULL && fscanf(file, "%llu", &count) == 1);
  fclose(file);
  return count;
}

static void the_limit_is_a_part_of_the_mappings_that_may_be(void) {
  uint64_t quarter = max_map_count() / 4;
  CHECK(slabs_limit() == quarter || slabs_limit() == 3 * quarter);
}

static void the_limit_is_one_for_the_whole_process(void) {
  struct slabs most, one;
  struct stack stack;
  CHECK_EQ(slabs_init(&most, SMALL, GUARD), 0);
  CHECK_EQ(slabs_init(&one, SMALL, GUARD), 0);
  for (uint64_t i = 0; i < slabs_limit(); i++)
    CHECK_EQ(slabs_take(&most, &stack), 0);
  CHECK_EQ(slabs_take(&most, &stacks[0]), -EAGAIN);
  CHECK_EQ(slabs_take(&one, &stacks[0]), -EAGAIN);
  slabs_give(&most, &stack);
  CHECK_EQ(slabs_take(&one, &stacks[0]), 0);
  CHECK_EQ(slabs_take(&one, &stacks[1]), -EAGAIN);
  slabs_destroy(&most); /* gives the rest back */
  CHECK_EQ(slabs_take(&one, &stacks[1]), 0);
  slabs_destroy(&one);
}

/* ---- Several threads ------------------------------------------------------------------------ */

static void come_and_go(void *arg, unsigned index) {
  enum { HELD = 100 };
  struct stack held[HELD];
  for (unsigned round = 0; round < rounds(200); round++) {
    for (unsigned i = 0; i < HELD; i++) {
      CHECK_EQ(slabs_take(arg, &held[i]), 0);
      held[i].low[0] = (unsigned char)index;
    }
    for (unsigned i = 0; i < HELD; i++) {
      CHECK_EQ(held[i].low[0], index);
      slabs_give(arg, &held[i]);
    }
  }
}

static void threads_share_the_slabs(void) {
  struct slabs slabs;
  struct threads threads;
  CHECK_EQ(slabs_init(&slabs, SMALL, GUARD), 0);
  threads_start(&threads, 4, come_and_go, &slabs);
  threads_join(&threads);
  CHECK_EQ(slabs_in_use(&slabs), 0);
  slabs_destroy(&slabs);
}

int main(void) {
  (void)count_mappings(); /* stdio's first buffers are mapped before anything is counted */
  RUN(a_kernel_without_such_guards_protects_pages);
  RUN(a_kernel_that_pretends_to_have_such_guards_protects_pages);
  RUN(a_write_to_the_guard_of_any_stack_faults);
  RUN(sizes_that_make_no_stack_are_refused);
  RUN(a_stack_that_no_address_space_holds_is_refused);
  RUN(sizes_are_rounded_up_to_pages);
  RUN(every_byte_of_every_stack_is_its_own);
  RUN(the_stacks_in_use_are_counted);
  RUN(a_stack_that_was_given_back_holds_no_memory);
  RUN(a_slot_that_was_given_back_is_taken_before_a_slab_is_mapped);
  RUN(of_the_empty_slabs_one_is_kept);
  RUN(destroying_unmaps_also_what_was_not_given_back);
  RUN(many_stacks_come_and_go_without_trace);
  RUN_UNLESS(UNDER_ASAN || UNDER_TSAN, "since the sanitizer needs the address space",
             where_a_slab_does_not_fit_a_smaller_one_may);
  RUN(the_limit_is_a_part_of_the_mappings_that_may_be);
  RUN(the_limit_is_one_for_the_whole_process);
  RUN_THREADED(threads_share_the_slabs);
  return 0;
}
