/* native_work.c - the C functions that test_native_calls.py runs. */
#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <stddef.h>
#include <string.h>
#include <sys/prctl.h>
#include <time.h>

int first_byte(void *arg) {
  return *(unsigned char *)arg;
}

int is_null(void *arg) {
  return arg == NULL;
}

/* Returns what its argument points to. */
int answer(void *arg) {
  return *(int *)arg;
}

int add_one(void *arg) {
  __atomic_fetch_add((int *)arg, 1, __ATOMIC_RELAXED);
  return 0;
}

/* Its argument is two semaphores: it posts the first when it has begun, and ends when somebody has
 * posted the second. */
int pass_gate(void *arg) {
  sem_t *begun = arg, *opened = begun + 1;
  sem_post(begun);
  while (sem_wait(opened) < 0)
    continue;
  return 7;
}

/* Its argument is a barrier. */
int meet(void *arg) {
  pthread_barrier_wait(arg);
  return 0;
}

/* The name is not looked at after less than a microsecond. */
int change_name(void *arg) {
  (void)arg;
  nanosleep(&(struct timespec){.tv_nsec = 1000}, NULL);
  return prctl(PR_SET_NAME, "changed", 0, 0, 0);
}

int change_mask(void *arg) {
  (void)arg;
  sigset_t signals;
  sigemptyset(&signals);
  sigaddset(&signals, SIGUSR1);
  return pthread_sigmask(SIG_UNBLOCK, &signals, NULL);
}

/* Whether the name and the mask of the thread are those of a worker. */
int has_own_state(void *arg) {
  (void)arg;
  char name[16];
  sigset_t signals;
  prctl(PR_GET_NAME, name, 0, 0, 0);
  pthread_sigmask(SIG_BLOCK, NULL, &signals);
  return strcmp(name, "dromon-0") == 0 && sigismember(&signals, SIGUSR1) == 1;
}
