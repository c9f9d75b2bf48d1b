/* stack.c - see stack.h. */
#include "stack.h"

#include "os.h"

#include <dromon/dromon.h>
#include <errno.h>
#include <sys/mman.h>

static uint64_t whole_pages(uint64_t bytes) {
  uint64_t page = os_page_size();
  return (bytes + page - 1) / page * page;
}

int stack_map(struct stack *stack, uint64_t size, uint64_t guard) {
  uint64_t limit = (uint64_t)PTRDIFF_MAX / 2; /* so that no sum below overflows */
  if (size < DROMON_STACK_SIZE_MIN || size > limit || guard == 0 || guard > limit)
    return -EINVAL;
  size = whole_pages(size);
  guard = whole_pages(guard);

  /* NORESERVE: a stack is mostly never touched, and must not count against overcommit. */
  unsigned char *mapping = mmap(NULL, guard + size, PROT_READ | PROT_WRITE,
                                MAP_PRIVATE | MAP_ANONYMOUS | MAP_STACK | MAP_NORESERVE, -1, 0);
  if (mapping == MAP_FAILED)
    return -errno;
  /* MAP_STACK implies this since Linux 6.7; before, one touched page could become 2 MiB. A kernel
   * without huge pages answers EINVAL, which is as good. */
  madvise(mapping, guard + size, MADV_NOHUGEPAGE);
  if (mprotect(mapping, guard, PROT_NONE) < 0) {
    int error = -errno;
    munmap(mapping, guard + size);
    return error;
  }
  *stack = (struct stack){.low = mapping + guard, .size = size, .guard = guard};
  return 0;
}

void stack_unmap(struct stack *stack) {
  munmap(stack->low - stack->guard, stack->guard + stack->size);
}
