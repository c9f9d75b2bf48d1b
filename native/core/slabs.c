/* slabs.c - see slabs.h. */
#include "slabs.h"

#include "atomic.h"
#include "os.h"
#include "sanitizers.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/syscall.h>
#include <unistd.h>

#if UNDER_ASAN
#include <sanitizer/asan_interface.h>
#endif

#ifndef MADV_GUARD_INSTALL
#define MADV_GUARD_INSTALL 102
#endif

enum { SLOTS = 64 };

struct slab {
  unsigned char *mapping;
  unsigned slots;
  uint64_t free; /* bit i: slot i is */
};

/* ---- What this kernel offers ---------------------------------------------------------------- */

static struct {
  bool installs_guards;
  uint64_t limit;
} kernel;

static pthread_once_t kernel_known = PTHREAD_ONCE_INIT;

/* An emulator or a sandbox may know nothing of guards and yet answer that all is well. So the kernel is
 * made to write to one: it must refuse that. The kernel, not libc, whose getrandom() may write by itself. */
static bool is_guard(unsigned char *page) {
  return syscall(SYS_getrandom, page, 1, GRND_NONBLOCK) < 0 && errno == EFAULT;
}

static bool guards_can_be_installed(void) {
  unsigned char *page;
  if (stack_reserve(&page, os_page_size()) < 0)
    return false;
  bool can = madvise(page, os_page_size(), MADV_GUARD_INSTALL) == 0 && is_guard(page);
  munmap(page, os_page_size());
  return can;
}

static uint64_t max_map_count(void) {
  char text[32] = "";
  int file = open("/proc/sys/vm/max_map_count", O_RDONLY | O_CLOEXEC);
  if (file >= 0) {
    ssize_t length = read(file, text, sizeof text - 1);
    text[length > 0 ? length : 0] = 0;
    close(file);
  }
  uint64_t count = strtoull(text, NULL, 10);
  return count > 0 ? count : 65530; /* the kernel's default */
}

static void know_kernel(void) {
  kernel.installs_guards = guards_can_be_installed();
  kernel.limit = max_map_count() / 4 * (kernel.installs_guards ? 3 : 1);
}

uint64_t slabs_limit(void) {
  pthread_once(&kernel_known, know_kernel);
  return kernel.limit;
}

/* ---- The stacks in use in this process ------------------------------------------------------- */

/* Relaxed: a number, by which nobody learns of anything else. */
static uint64_t all_in_use;

static bool count_one(void) {
  if (fetch_add_relaxed(&all_in_use, 1) < slabs_limit())
    return true;
  fetch_sub_relaxed(&all_in_use, 1);
  return false;
}

/* ---- Slabs ---------------------------------------------------------------------------------- */

static uint64_t slot_size(const struct slabs *slabs) {
  return slabs->guard_size + slabs->stack_size;
}

static uint64_t all_slots(const struct slab *slab) {
  return UINT64_MAX >> (SLOTS - slab->slots);
}

static bool is_empty(const struct slab *slab) {
  return slab->free == all_slots(slab);
}

/* It fails where the kernel promised guards if memory is locked (mlockall), before Linux 6.15. */
static int make_guard(unsigned char *guard, uint64_t size) {
  if (kernel.installs_guards && madvise(guard, size, MADV_GUARD_INSTALL) == 0)
    return 0;
  return mprotect(guard, size, PROT_NONE) < 0 ? -errno : 0;
}

static int slab_map(const struct slabs *slabs, unsigned slots, struct slab *slab) {
  uint64_t bytes;
  if (__builtin_mul_overflow(slot_size(slabs), slots, &bytes))
    return -ENOMEM;
  *slab = (struct slab){.slots = slots};
  slab->free = all_slots(slab);
  int error = stack_reserve(&slab->mapping, bytes);
  if (error < 0)
    return error;
  for (unsigned i = 0; i < slots && error == 0; i++)
    error = make_guard(slab->mapping + i * slot_size(slabs), slabs->guard_size);
  if (error < 0)
    munmap(slab->mapping, bytes);
  return error;
}

static int slab_unmap(const struct slabs *slabs, const struct slab *slab) {
  return munmap(slab->mapping, slab->slots * slot_size(slabs));
}

/* Where the slab is, or would have to be, that has this address in it. */
static size_t find(const struct slabs *slabs, const unsigned char *address) {
  size_t low = 0, high = slabs->count;
  while (low < high) {
    size_t middle = (low + high) / 2;
    const struct slab *slab = &slabs->slabs[middle];
    if (slab->mapping + slab->slots * slot_size(slabs) <= address)
      low = middle + 1;
    else
      high = middle;
  }
  return low;
}

static int make_room(struct slabs *slabs) {
  if (slabs->count < slabs->capacity)
    return 0;
  size_t capacity = slabs->capacity == 0 ? 16 : 2 * slabs->capacity;
  struct slab *grown = realloc(slabs->slabs, capacity * sizeof *grown);
  if (grown == NULL)
    return -ENOMEM;
  slabs->slabs = grown;
  slabs->capacity = capacity;
  return 0;
}

/* A slab that is smaller is better than none: where address space or mappings are few. */
static int add_slab(struct slabs *slabs) {
  static const unsigned sizes[] = {SLOTS, 8, 1};
  struct slab slab;
  int error = make_room(slabs);
  if (error < 0)
    return error;
  for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
    error = slab_map(slabs, sizes[i], &slab);
    if (error == 0)
      break;
  }
  if (error < 0)
    return error;
  size_t place = find(slabs, slab.mapping);
  struct slab *slot = &slabs->slabs[place];
  memmove(slot + 1, slot, (slabs->count - place) * sizeof *slot);
  *slot = slab;
  slabs->count++;
  slabs->empty++;
  slabs->first = place; /* it is made when no other one has a free slot */
  return 0;
}

/* Unless the kernel refuses: it must have room for two mappings where one was, if others lie around. */
static void remove_slab(struct slabs *slabs, size_t place) {
  struct slab *slab = &slabs->slabs[place];
  if (slab_unmap(slabs, slab) < 0)
    return;
  slabs->count--;
  slabs->empty--;
  memmove(slab, slab + 1, (slabs->count - place) * sizeof *slab);
}

/* ---- Taking and giving ---------------------------------------------------------------------- */

int slabs_init(struct slabs *slabs, uint64_t stack_size, uint64_t guard_size) {
  int error = stack_round(&stack_size, &guard_size);
  if (error < 0)
    return error;
  *slabs = (struct slabs){.stack_size = stack_size, .guard_size = guard_size};
  pthread_mutex_init(&slabs->mutex, NULL);
  return 0;
}

void slabs_destroy(struct slabs *slabs) {
  for (size_t i = 0; i < slabs->count; i++)
    slab_unmap(slabs, &slabs->slabs[i]);
  fetch_sub_relaxed(&all_in_use, slabs->in_use);
  free(slabs->slabs);
  pthread_mutex_destroy(&slabs->mutex);
}

static int find_free(struct slabs *slabs) {
  while (slabs->first < slabs->count && slabs->slabs[slabs->first].free == 0)
    slabs->first++;
  return slabs->first < slabs->count ? 0 : add_slab(slabs);
}

static int take(struct slabs *slabs, struct stack *stack) {
  int error = find_free(slabs);
  if (error < 0)
    return error;
  struct slab *slab = &slabs->slabs[slabs->first];
  slabs->empty -= is_empty(slab);
  unsigned slot = (unsigned)__builtin_ctzll(slab->free);
  slab->free &= slab->free - 1;
  slabs->in_use++;
  *stack = (struct stack){
      .low = slab->mapping + slot * slot_size(slabs) + slabs->guard_size,
      .size = slabs->stack_size,
      .guard = slabs->guard_size,
  };
  return 0;
}

int slabs_take(struct slabs *slabs, struct stack *stack) {
  if (!count_one())
    return -EAGAIN;
  pthread_mutex_lock(&slabs->mutex);
  int error = take(slabs, stack);
  pthread_mutex_unlock(&slabs->mutex);
  if (error < 0)
    fetch_sub_relaxed(&all_in_use, 1);
  return error;
}

static void give(struct slabs *slabs, const struct stack *stack) {
  size_t place = find(slabs, stack->low);
  struct slab *slab = &slabs->slabs[place];
  slab->free |= (uint64_t)1 << ((size_t)(stack->low - slab->mapping) / slot_size(slabs));
  slabs->in_use--;
  if (place < slabs->first)
    slabs->first = place;
  if (is_empty(slab) && ++slabs->empty > 1)
    remove_slab(slabs, place);
}

void slabs_give(struct slabs *slabs, const struct stack *stack) {
#if UNDER_ASAN
  /* What it still holds against frames that never returned. */
  ASAN_UNPOISON_MEMORY_REGION(stack->low, stack->size);
#endif
  madvise(stack->low, stack->size, MADV_DONTNEED); /* refused if it is locked (mlockall), rightly */
  pthread_mutex_lock(&slabs->mutex);
  give(slabs, stack);
  pthread_mutex_unlock(&slabs->mutex);
  fetch_sub_relaxed(&all_in_use, 1);
}

uint64_t slabs_reserved(struct slabs *slabs) {
  uint64_t slots = 0;
  pthread_mutex_lock(&slabs->mutex);
  for (size_t i = 0; i < slabs->count; i++)
    slots += slabs->slabs[i].slots;
  pthread_mutex_unlock(&slabs->mutex);
  return slots * slot_size(slabs);
}

uint64_t slabs_in_use(struct slabs *slabs) {
  pthread_mutex_lock(&slabs->mutex);
  uint64_t count = slabs->in_use;
  pthread_mutex_unlock(&slabs->mutex);
  return count;
}
