/* overflow.c - says in one line that the stack of a thread has overflowed (its function is public, in
 * dromon.h).
 *
 * A handler for SIGSEGV and SIGBUS, which runs on the signal stack of a citizen thread (thread.h). It
 * writes a line if the fault lies in the guard of the stack that the thread is on, and in any case hands over to
 * what was there before: it puts that action in its own place and returns, so that the fault happens
 * again, under that action.
 *
 * Who was installed later than this hands over to it in the same way, perhaps when it has had its turn
 * already. So it remembers two actions for each signal, the one under its latest place and the one under
 * its first, and goes on by one with each call: under the latest, under the first, the kernel's own. No
 * chain of handlers is longer than that, or comes round.
 */
#include "atomic.h"
#include "fiber.h"
#include "os.h"
#include "thread.h"

#include <dromon/dromon.h>
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <unistd.h>

/* Where the handler is in the chain of those for one signal. */
struct place {
  int signal;
  bool was_installed;
  uint32_t calls; /* since it was put in its latest place */
  struct sigaction under_first;
  struct sigaction under_latest;
};

enum { PLACES = 2 };

static struct place places[PLACES] = {{.signal = SIGSEGV}, {.signal = SIGBUS}};

/* ---- The line ------------------------------------------------------------------------------- */

/* Put together without stdio, which must not be used in a handler. */
struct line {
  char text[256];
  size_t length;
};

static void add_text(struct line *line, const char *text) {
  while (*text != 0 && line->length < sizeof line->text)
    line->text[line->length++] = *text++;
}

static void add_number(struct line *line, uint64_t number, unsigned base) {
  char digits[24];
  size_t first = sizeof digits - 1;
  digits[first] = 0;
  do {
    digits[--first] = "0123456789abcdef"[number % base];
    number /= base;
  } while (number != 0);
  add_text(line, digits + first);
}

static void add_address(struct line *line, uintptr_t address) {
  add_text(line, "0x");
  add_number(line, address, 16);
}

static void write_line(const char *thread, const struct stack *stack, uintptr_t fault) {
  uintptr_t low = (uintptr_t)stack->low;
  struct line line = {.length = 0};
  add_text(&line, "dromon: stack overflow in thread ");
  add_text(&line, thread);
  add_text(&line, ": its stack has ");
  add_number(&line, stack->size, 10);
  add_text(&line, " bytes, and ");
  add_address(&line, fault);
  add_text(&line, " lies in its guard page, ");
  add_address(&line, low - stack->guard);
  add_text(&line, " to ");
  add_address(&line, low);
  add_text(&line, "\n");
  (void)!write(STDERR_FILENO, line.text, line.length);
}

/* ---- The handler ---------------------------------------------------------------------------- */

/* The one that runs: the thread's own or, on a worker, that of a fiber. */
static const struct stack *running_stack(const struct thread *thread) {
  const struct fiber *fiber = fiber_current();
  return fiber == NULL ? &thread->stack : &fiber->stack;
}

static bool lies_in_guard(const struct stack *stack, uintptr_t address) {
  uintptr_t low = (uintptr_t)stack->low;
  return address >= low - stack->guard && address < low;
}

static void report_fault(const struct thread *thread, uintptr_t fault) {
  const struct stack *stack = running_stack(thread);
  if (lies_in_guard(stack, fault))
    write_line(thread->name, stack, fault);
}

static bool is_same_handler(const struct sigaction *one, const struct sigaction *other) {
  return one->sa_handler == other->sa_handler; /* a union with sa_sigaction */
}

static void hand_over(const struct place *place, uint32_t call) {
  bool are_two = !is_same_handler(&place->under_latest, &place->under_first);
  if (call == 0)
    sigaction(place->signal, &place->under_latest, NULL);
  else if (call == 1 && are_two)
    sigaction(place->signal, &place->under_first, NULL);
  else
    sigaction(place->signal, &(struct sigaction){.sa_handler = SIG_DFL}, NULL);
}

static void report(int signal, siginfo_t *info, void *context) {
  (void)context;
  int saved_errno = errno;
  struct place *place = &places[signal == SIGSEGV ? 0 : 1];
  /* Relaxed: the rest of `place` was written before the handler was installed. */
  uint32_t call = fetch_add_relaxed(&place->calls, 1);
  bool is_fault = info->si_code > 0; /* else the signal was sent */
  const struct thread *thread = thread_current();
  if (call == 0 && is_fault && thread != NULL)
    report_fault(thread, (uintptr_t)info->si_addr);
  hand_over(place, call);
  if (!is_fault)
    raise(signal); /* it comes when this has returned; a fault comes again by itself */
  errno = saved_errno;
}

/* ---- Installing ----------------------------------------------------------------------------- */

static int install(struct place *place) {
  struct sigaction action = {.sa_sigaction = report, .sa_flags = SA_SIGINFO | SA_ONSTACK};
  struct sigaction present;
  sigemptyset(&action.sa_mask);
  if (sigaction(place->signal, NULL, &present) < 0)
    return -errno;
  if (is_same_handler(&present, &action))
    return 0;
  if (!place->was_installed)
    place->under_first = present;
  place->under_latest = present;
  place->was_installed = true;
  store_relaxed(&place->calls, 0);
  return sigaction(place->signal, &action, NULL) < 0 ? -errno : 0;
}

int dromon_overflow_report_install(void) {
  static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
  pthread_mutex_lock(&mutex);
  int result = 0;
  for (int i = 0; i < PLACES && result == 0; i++)
    result = install(&places[i]);
  pthread_mutex_unlock(&mutex);
  return result;
}
