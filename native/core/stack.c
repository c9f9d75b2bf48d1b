/* stack.c - see stack.h. */
#include "stack.h"

#include "os.h"

#include <errno.h>
#include <sys/mman.h>

static uint64_t whole_pages(uint64_t bytes) {
  uint64_t page = os_page_size();
  return (bytes + page - 1) / page * page;
}

int stack_round(uint64_t *size, uint64_t *guard) {
  uint64_t limit = (uint64_t)PTRDIFF_MAX / 2; /* so that no sum below overflows */
  if (*size == 0 || *size > limit || *guard == 0 || *guard > limit)
    return -EINVAL;
  *size = whole_pages(*size);
  *guard = whole_pages(*guard);
  return 0;
}

int stack_reserve(unsigned char **mapping, uint64_t bytes) {
  /* NORESERVE: a stack is mostly never touched, and must not count against overcommit. */
  void *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_STACK | MAP_NORESERVE, -1, 0);
  if (memory == MAP_FAILED)
    return -errno;
  /* MAP_STACK implies this since Linux 6.7; before, one touched page could become 2 MiB. A kernel
   * without huge pages answers EINVAL, which is as good. */
  madvise(memory, bytes, MADV_NOHUGEPAGE);
  *mapping = memory;
  return 0;
}

int stack_map(struct stack *stack, uint64_t size, uint64_t guard) {
  unsigned char *mapping;
  int error = stack_round(&size, &guard);
  if (error == 0)
    error = stack_reserve(&mapping, guard + size);
  if (error < 0)
    return error;
  if (mprotect(mapping, guard, PROT_NONE) < 0) {
    error = -errno;
    munmap(mapping, guard + size);
    return error;
  }
  *stack = (struct stack){.low = mapping + guard, .size = size, .guard = guard};
  return 0;
}

void stack_unmap(struct stack *stack) {
  munmap(stack->low - stack->guard, stack->guard + stack->size);
}

size_t stack_used(const struct stack *stack) {
  enum { PAGES = 512 }; /* looked at in one call */
  unsigned char in_memory[PAGES];
  size_t page = os_page_size();
  for (size_t offset = 0; offset < stack->size; offset += PAGES * page) {
    size_t rest = stack->size - offset;
    size_t length = rest < PAGES * page ? rest : PAGES * page;
    if (mincore(stack->low + offset, length, in_memory) < 0)
      return 0; /* not mapped: the thread is gone */
    for (size_t i = 0; i < length / page; i++) {
      if (in_memory[i] & 1)
        return rest - i * page;
    }
  }
  return 0;
}
