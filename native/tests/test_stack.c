/* test_stack.c - tests of the mappings of stack.h. */
#include "stack.h"

#include "os.h"
#include "process.h"

#include <dromon/dromon.h>
#include <signal.h>
#include <sys/mman.h>

static void check_refused(uint64_t size, uint64_t guard) {
  struct stack stack;
  unsigned mappings = count_mappings();
  CHECK_EQ(stack_map(&stack, size, guard), -EINVAL);
  CHECK_EQ(count_mappings(), mappings);
}

static void a_stack_of_no_size_is_refused(void) {
  check_refused(0, 4096);
}

static void a_stack_without_a_guard_is_refused(void) {
  check_refused(DROMON_STACK_SIZE_MIN, 0);
}

static void sizes_whose_sum_overflows_are_refused(void) {
  static const uint64_t huge[] = {UINT64_MAX, UINT64_MAX - 4095, (uint64_t)1 << 63, PTRDIFF_MAX};
  for (size_t i = 0; i < sizeof huge / sizeof *huge; i++) {
    check_refused(huge[i], 4096);
    check_refused(DROMON_STACK_SIZE_MIN, huge[i]);
    check_refused(huge[i], huge[i]);
  }
}

static void a_size_that_no_address_space_holds_is_refused(void) {
  struct stack stack;
  CHECK_EQ(stack_map(&stack, (uint64_t)1 << 61, 4096), -ENOMEM);
  CHECK_EQ(stack_map(&stack, (uint64_t)1 << 61, (uint64_t)1 << 61), -ENOMEM);
}

static void sizes_are_rounded_up_to_pages(void) {
  size_t page = os_page_size();
  struct stack stack;
  CHECK_EQ(stack_map(&stack, DROMON_STACK_SIZE_MIN + 1, 1), 0);
  CHECK_EQ(stack.size, DROMON_STACK_SIZE_MIN + page);
  CHECK_EQ(stack.guard, page);
  CHECK_EQ((uintptr_t)stack.low % page, 0);
  stack_unmap(&stack);
}

static void whole_pages_stay_as_they_are(void) {
  size_t page = os_page_size();
  struct stack stack;
  CHECK_EQ(stack_map(&stack, DROMON_STACK_SIZE_MIN, 3 * page), 0);
  CHECK_EQ(stack.size, DROMON_STACK_SIZE_MIN);
  CHECK_EQ(stack.guard, 3 * page);
  stack_unmap(&stack);
}

static void every_byte_of_the_stack_may_be_written(void) {
  struct stack stack;
  CHECK_EQ(stack_map(&stack, DROMON_STACK_SIZE_MIN, 1), 0);
  memset(stack.low, 0xa5, stack.size);
  CHECK_EQ(stack.low[stack.size - 1], 0xa5);
  stack_unmap(&stack);
}

/* ---- The guard ------------------------------------------------------------------------------ */

static struct stack guarded;
static ptrdiff_t touched; /* counted from the lowest usable byte */

static void touch(void) {
  ((volatile unsigned char *)guarded.low)[touched] = 1;
}

static void check_faults(ptrdiff_t offset) {
  touched = offset;
  int status = run_in_child(touch);
  CHECK(WIFSIGNALED(status));
  CHECK_EQ(WTERMSIG(status), SIGSEGV);
}

static void a_write_to_the_guard_faults(void) {
  CHECK_EQ(stack_map(&guarded, DROMON_STACK_SIZE_MIN, DROMON_GUARD_SIZE_DEFAULT), 0);
  touched = 0;
  CHECK_EQ(run_in_child(touch), 0);
  check_faults(-1);
  check_faults(-(ptrdiff_t)guarded.guard / 2);
  check_faults(-(ptrdiff_t)guarded.guard);
  stack_unmap(&guarded);
}

/* ---- Unmapping ------------------------------------------------------------------------------ */

static bool is_mapped(unsigned char *page) {
  if (msync(page, os_page_size(), MS_ASYNC) == 0) /* for memory without a file it only looks */
    return true;
  CHECK_EQ(errno, ENOMEM);
  return false;
}

static void unmap_leaves_neither_stack_nor_guard(void) {
  struct stack stack;
  CHECK_EQ(stack_map(&stack, DROMON_STACK_SIZE_MIN, DROMON_GUARD_SIZE_DEFAULT), 0);
  unsigned char *ends[] = {
      stack.low - stack.guard,
      stack.low - os_page_size(),
      stack.low,
      stack.low + stack.size - os_page_size(),
  };
  for (int i = 0; i < 4; i++)
    CHECK(is_mapped(ends[i]));
  stack_unmap(&stack);
  for (int i = 0; i < 4; i++)
    CHECK(!is_mapped(ends[i]));
}

static void many_stacks_come_and_go_without_trace(void) {
  unsigned mappings = count_mappings();
  for (int i = 0; i < 1000; i++) {
    struct stack stack;
    CHECK_EQ(stack_map(&stack, DROMON_STACK_SIZE_DEFAULT, DROMON_GUARD_SIZE_DEFAULT), 0);
    stack_unmap(&stack);
  }
  CHECK_EQ(count_mappings(), mappings);
}

/* ---- The high-water mark -------------------------------------------------------------------- */

static void use_down_to(struct stack *stack, size_t used) {
  *(volatile unsigned char *)(stack->low + stack->size - used) = 1;
}

static void what_was_used_is_told_by_whole_pages(void) {
  size_t page = os_page_size();
  struct stack stack;
  CHECK_EQ(stack_map(&stack, DROMON_STACK_SIZE_DEFAULT, 1), 0);
  CHECK_EQ(stack_used(&stack), 0);
  use_down_to(&stack, 1);
  CHECK_EQ(stack_used(&stack), page);
  use_down_to(&stack, page);
  CHECK_EQ(stack_used(&stack), page);
  use_down_to(&stack, page + 1);
  CHECK_EQ(stack_used(&stack), 2 * page);
  use_down_to(&stack, stack.size - 3 * page);
  CHECK_EQ(stack_used(&stack), stack.size - 3 * page);
  use_down_to(&stack, stack.size);
  CHECK_EQ(stack_used(&stack), stack.size);
  stack_unmap(&stack);
}

static void pages_in_between_need_not_have_been_used(void) {
  size_t page = os_page_size();
  struct stack stack;
  CHECK_EQ(stack_map(&stack, 5000 * page, 1), 0); /* more than is looked at in one call */
  for (size_t pages = 1; pages <= 5000; pages += 499) {
    use_down_to(&stack, pages * page);
    CHECK_EQ(stack_used(&stack), pages * page);
  }
  stack_unmap(&stack);
}

static void nothing_is_used_of_a_stack_that_is_gone(void) {
  struct stack stack;
  CHECK_EQ(stack_map(&stack, DROMON_STACK_SIZE_MIN, 1), 0);
  use_down_to(&stack, stack.size);
  stack_unmap(&stack);
  CHECK_EQ(stack_used(&stack), 0);
}

int main(void) {
  (void)count_mappings(); /* stdio's first buffers are mapped before anything is counted */
  RUN(a_stack_of_no_size_is_refused);
  RUN(a_stack_without_a_guard_is_refused);
  RUN(sizes_whose_sum_overflows_are_refused);
  RUN(a_size_that_no_address_space_holds_is_refused);
  RUN(sizes_are_rounded_up_to_pages);
  RUN(whole_pages_stay_as_they_are);
  RUN(every_byte_of_the_stack_may_be_written);
  RUN(a_write_to_the_guard_faults);
  RUN(unmap_leaves_neither_stack_nor_guard);
  RUN(what_was_used_is_told_by_whole_pages);
  RUN(pages_in_between_need_not_have_been_used);
  RUN(nothing_is_used_of_a_stack_that_is_gone);
  RUN(many_stacks_come_and_go_without_trace);
  return 0;
}
