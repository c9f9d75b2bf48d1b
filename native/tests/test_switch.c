/* test_switch.c - tests of arch_switch and arch_prepare. */
#include "arch/arch.h"

#include "process.h"
#include "stack.h"

#include <execinfo.h>
#include <fenv.h>
#include <string.h>

#if UNDER_ASAN
#include <sanitizer/common_interface_defs.h>
#endif
#if UNDER_TSAN
#include <sanitizer/tsan_interface.h>
#endif

/* ---- Two stacks, and what the sanitizers are told of them ------------------------------------ */

enum { STACK_SIZE = 1 << 23, GUARD_SIZE = 1 << 16 }; /* valgrind takes less for the same stack */

struct side {
  void *sp;
  struct stack stack;
  void *fake_stack;
  void *tsan_fiber;
};

static struct side home, away;

static void go(struct side *from, struct side *to) {
#if UNDER_ASAN
  __sanitizer_start_switch_fiber(&from->fake_stack, to->stack.low, to->stack.size);
#endif
#if UNDER_TSAN
  __tsan_switch_to_fiber(to->tsan_fiber, 0);
#endif
  arch_switch(&from->sp, to->sp);
#if UNDER_ASAN
  __sanitizer_finish_switch_fiber(from->fake_stack, NULL, NULL);
#endif
}

static void go_away(void) {
  go(&home, &away);
}

static void go_home(void) {
  go(&away, &home);
}

/* Where the other stack begins: it learns of home's bounds, runs what the test gave, and never returns. */
static void (*errand)(void *arg);

static void begin(void *arg) {
#if UNDER_ASAN
  const void *low;
  __sanitizer_finish_switch_fiber(NULL, &low, &home.stack.size);
  home.stack.low = (unsigned char *)(uintptr_t)low;
#endif
  errand(arg);
  for (;;)
    go_home();
}

static void prepare(void (*fn)(void *), void *arg) {
  CHECK_EQ(stack_map(&away.stack, STACK_SIZE, GUARD_SIZE), 0);
  away.sp = arch_prepare(away.stack.low + away.stack.size, begin, arg);
  errand = fn;
#if UNDER_TSAN
  home.tsan_fiber = __tsan_get_current_fiber();
  away.tsan_fiber = __tsan_create_fiber(0);
#endif
}

static void forget(void) {
#if UNDER_TSAN
  __tsan_destroy_fiber(away.tsan_fiber);
#endif
  stack_unmap(&away.stack);
}

/* ---- The way there and back ------------------------------------------------------------------ */

static void note_arg(void *arg) {
  *(int *)arg = 1;
}

static void the_first_switch_calls_the_function_with_its_argument(void) {
  int called = 0;
  prepare(note_arg, &called);
  CHECK_EQ(called, 0);
  go_away();
  CHECK_EQ(called, 1);
  forget();
}

static void count_rounds(void *arg) {
  for (;;) {
    ++*(unsigned *)arg;
    go_home();
  }
}

static void each_side_goes_on_where_it_left(void) {
  unsigned count = 0;
  prepare(count_rounds, &count);
  for (unsigned i = 1; i <= 1000; i++) {
    go_away();
    CHECK_EQ(count, i);
  }
  forget();
}

static void note_address(void *arg) {
  unsigned char here;
  *(volatile uintptr_t *)arg = (uintptr_t)&here;
}

static void the_function_runs_on_the_prepared_stack(void) {
  uintptr_t address;
  prepare(note_address, &address);
  go_away();
  if (!UNDER_ASAN) { /* whose frames may be elsewhere */
    CHECK_THAT(address, >=, (uintptr_t)away.stack.low);
    CHECK_THAT(address, <, (uintptr_t)away.stack.low + away.stack.size);
  }
  forget();
}

/* The compiler takes the alignment for granted, so the frame is looked at, which is at a known distance from
 * where the ABI wants a multiple of 16. */
static void note_frame(void *arg) {
  *(uintptr_t *)arg = (uintptr_t)__builtin_frame_address(0);
}

static void the_stack_is_aligned_as_the_abi_wants_it(void) {
  uintptr_t frame;
  prepare(note_frame, &frame);
  away.sp = arch_prepare(away.stack.low + away.stack.size - 1, begin, &frame); /* also from here */
  go_away();
  CHECK_EQ(frame % 16, 0);
  forget();
}

/* ---- What is kept --------------------------------------------------------------------------- */

/* The values that must survive, by which each side knows its own. */
struct kept {
  uint64_t integers[10];
  uint64_t floats[8];
};

/* Puts them into the registers that a callee keeps, makes the switch, and reads them back. */
__attribute__((noinline)) static void switch_with_registers(struct kept *kept, void **from,
                                                            void **to) {
#if defined(__x86_64__)
  __asm__ volatile("sub $128, %%rsp\n\t" /* what the compiler may have below */
                   "push %%rbp\n\t"
                   "push %0\n\t"
                   "mov 0(%0), %%rbx\n\t"
                   "mov 8(%0), %%rbp\n\t"
                   "mov 16(%0), %%r12\n\t"
                   "mov 24(%0), %%r13\n\t"
                   "mov 32(%0), %%r14\n\t"
                   "mov 40(%0), %%r15\n\t"
                   "mov (%%rsi), %%rsi\n\t"
                   "call arch_switch\n\t"
                   "pop %%rax\n\t"
                   "mov %%rbx, 0(%%rax)\n\t"
                   "mov %%rbp, 8(%%rax)\n\t"
                   "mov %%r12, 16(%%rax)\n\t"
                   "mov %%r13, 24(%%rax)\n\t"
                   "mov %%r14, 32(%%rax)\n\t"
                   "mov %%r15, 40(%%rax)\n\t"
                   "pop %%rbp\n\t"
                   "add $128, %%rsp"
                   : "+a"(kept), "+D"(from), "+S"(to)
                   :
                   : "rbx", "rcx", "rdx", "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15",
                     "cc", "memory");
#elif defined(__aarch64__)
  register struct kept *kept_ __asm__("x9") = kept;
  register void **from_ __asm__("x0") = from;
  register void **to_ __asm__("x1") = to;
  __asm__ volatile("stp x29, x9, [sp, -16]!\n\t"
                   "str x19, [sp, -16]!\n\t"
                   "ldp x19, x20, [x9, 0]\n\t"
                   "ldp x21, x22, [x9, 16]\n\t"
                   "ldp x23, x24, [x9, 32]\n\t"
                   "ldp x25, x26, [x9, 48]\n\t"
                   "ldp x27, x28, [x9, 64]\n\t"
                   "ldp d8, d9, [x9, 80]\n\t"
                   "ldp d10, d11, [x9, 96]\n\t"
                   "ldp d12, d13, [x9, 112]\n\t"
                   "ldp d14, d15, [x9, 128]\n\t"
                   "ldr x1, [x1]\n\t"
                   "bl arch_switch\n\t"
                   "ldr x9, [sp, 24]\n\t"
                   "stp x19, x20, [x9, 0]\n\t"
                   "stp x21, x22, [x9, 16]\n\t"
                   "stp x23, x24, [x9, 32]\n\t"
                   "stp x25, x26, [x9, 48]\n\t"
                   "stp x27, x28, [x9, 64]\n\t"
                   "stp d8, d9, [x9, 80]\n\t"
                   "stp d10, d11, [x9, 96]\n\t"
                   "stp d12, d13, [x9, 112]\n\t"
                   "stp d14, d15, [x9, 128]\n\t"
                   "ldr x19, [sp], 16\n\t"
                   "ldp x29, x9, [sp], 16"
                   : "+r"(kept_), "+r"(from_), "+r"(to_)
                   :
                   : "x2", "x3", "x4", "x5", "x6", "x7", "x8", "x10", "x11", "x12", "x13", "x14",
                     "x15", "x16", "x17", "x20", "x21", "x22", "x23", "x24", "x25", "x26", "x27",
                     "x28", "x30", "v8", "v9", "v10", "v11", "v12", "v13", "v14", "v15", "cc",
                     "memory");
#endif
}

static struct kept numbered(uint64_t first) {
  struct kept kept;
  for (unsigned i = 0; i < 10; i++)
    kept.integers[i] = first + i;
  for (unsigned i = 0; i < 8; i++)
    kept.floats[i] = first + 10 + i;
  return kept;
}

static void keep_registers(void *arg) {
  for (uint64_t round = 1;; round++) {
    struct kept kept = numbered(round << 32), before = kept;
    switch_with_registers(&kept, &away.sp, &home.sp);
    *(bool *)arg &= memcmp(&kept, &before, sizeof kept) == 0;
  }
}

static void each_side_keeps_its_registers(void) {
  bool kept_away = true;
  prepare(keep_registers, &kept_away);
  for (uint64_t round = 1; round <= 100; round++) {
    struct kept kept = numbered(round), before = kept;
    switch_with_registers(&kept, &home.sp, &away.sp);
    CHECK_EQ(memcmp(&kept, &before, sizeof kept), 0);
    CHECK(kept_away);
  }
  forget();
}

struct float_settings {
  uint64_t words[2];
};

static struct float_settings float_settings(void) {
#if defined(__x86_64__)
  uint32_t sse;
  uint16_t x87;
  __asm__ volatile("stmxcsr %0" : "=m"(sse));
  __asm__ volatile("fnstcw %0" : "=m"(x87));
  return (struct float_settings){{sse & ~0x3fu, x87}}; /* but for what happened */
#elif defined(__aarch64__)
  uint64_t fpcr;
  __asm__ volatile("mrs %0, fpcr" : "=r"(fpcr));
  return (struct float_settings){{fpcr}};
#endif
}

static bool float_settings_are(struct float_settings expected) {
  struct float_settings settings = float_settings();
  return memcmp(&settings, &expected, sizeof settings) == 0;
}

static void round_up(void *arg) {
  fesetround(FE_UPWARD);
  struct float_settings set = float_settings();
  for (;;) {
    go_home();
    *(bool *)arg = float_settings_are(set);
  }
}

static void each_side_keeps_its_rounding(void) {
  bool was_kept = false;
  prepare(round_up, &was_kept);
  fesetround(FE_DOWNWARD);
  struct float_settings set = float_settings();
  go_away();
  CHECK(float_settings_are(set));
  go_away();
  CHECK(float_settings_are(set));
  CHECK(was_kept);
  fesetround(FE_TONEAREST);
  forget();
}

static void note_float_settings(void *arg) {
  *(struct float_settings *)arg = float_settings();
}

static void a_new_stack_has_the_float_settings_of_a_process(void) {
  struct float_settings here = float_settings(), there;
  prepare(note_float_settings, &there);
  fesetround(FE_UPWARD);
  go_away();
  fesetround(FE_TONEAREST);
  CHECK_EQ(memcmp(&there, &here, sizeof here), 0);
  forget();
}

/* ---- The end -------------------------------------------------------------------------------- */

static void begin_and_return(void *arg) {
  (void)arg;
#if UNDER_ASAN
  __sanitizer_finish_switch_fiber(NULL, NULL, NULL);
#endif
}

static void start_a_function_that_returns(void) {
  prepare(NULL, NULL);
  away.sp = arch_prepare(away.stack.low + away.stack.size, begin_and_return, NULL);
  go_away();
}

static void a_function_that_returns_ends_the_process(void) {
  int status = run_in_child(start_a_function_that_returns);
  CHECK(WIFSIGNALED(status));
#if defined(__x86_64__)
  CHECK_EQ(WTERMSIG(status), SIGILL);
#elif defined(__aarch64__)
  CHECK_EQ(WTERMSIG(status), SIGTRAP);
#endif
}

enum { FRAMES_MAX = 32 };

static void note_frames(void *arg) {
  void *frames[FRAMES_MAX];
  *(int *)arg = backtrace(frames, FRAMES_MAX);
}

static void a_backtrace_ends_where_the_stack_begins(void) {
  int frames = 0;
  prepare(note_frames, &frames);
  go_away();
  CHECK_THAT(frames, >=, 2);
  CHECK_THAT(frames, <=, 4); /* note_frames, begin, the entry, and perhaps backtrace's own */
  forget();
}

int main(void) {
  note_frames(&(int){0}); /* the unwinder is loaded before a stack is prepared for it */
  RUN(the_first_switch_calls_the_function_with_its_argument);
  RUN(each_side_goes_on_where_it_left);
  RUN(the_function_runs_on_the_prepared_stack);
  RUN(the_stack_is_aligned_as_the_abi_wants_it);
  RUN_UNLESS(UNDER_ASAN || UNDER_TSAN, "since it switches without a word to the sanitizer",
             each_side_keeps_its_registers);
  RUN(each_side_keeps_its_rounding);
  RUN(a_new_stack_has_the_float_settings_of_a_process);
  RUN(a_function_that_returns_ends_the_process);
  RUN(a_backtrace_ends_where_the_stack_begins);
  return 0;
}
