/* test_task.c - tests of a task's states: every step from every state, and the races for one. */
#include "task.h"
#include "testing.h"

#include <errno.h>

/* ---- Single steps --------------------------------------------------------------------------- */

static dromon_task task_in(uint32_t state) {
  dromon_task task;
  dromon_task_init(&task);
  task.state = state;
  return task;
}

static void a_new_task_is_queued(void) {
  dromon_task task = {.next = &task, .state = DROMON_TASK_DONE};
  dromon_task_init(&task);
  CHECK_EQ(task.state, DROMON_TASK_QUEUED);
  CHECK(task.next == NULL);
}

static int start(dromon_task *task) {
  return task_start(task) ? 0 : -1;
}

static int withdraw(dromon_task *task) {
  return task_withdraw(task) ? 0 : -1;
}

/* Takes `step` from every state: it works from one, and answers `refusal` and changes nothing from
 * all others. */
static void check_step(int (*step)(dromon_task *), uint32_t from, uint32_t to, int refusal) {
  for (uint32_t state = DROMON_TASK_QUEUED; state <= DROMON_TASK_ABANDONED; state++) {
    dromon_task task = task_in(state);
    CHECK_EQ(step(&task), state == from ? 0 : refusal);
    CHECK_EQ(task.state, state == from ? to : state);
  }
}

static void only_a_queued_task_starts(void) {
  check_step(start, DROMON_TASK_QUEUED, DROMON_TASK_RUNNING, -1);
}

static void only_a_running_task_finishes(void) {
  check_step(dromon_task_finish, DROMON_TASK_RUNNING, DROMON_TASK_DONE, -ECANCELED);
}

static void only_a_queued_task_is_withdrawn(void) {
  check_step(withdraw, DROMON_TASK_QUEUED, DROMON_TASK_WITHDRAWN, -1);
}

static void only_a_running_task_is_abandoned(void) {
  check_step(dromon_task_abandon, DROMON_TASK_RUNNING, DROMON_TASK_ABANDONED, -EALREADY);
}

static void only_a_withdrawn_task_says_so(void) {
  for (uint32_t state = DROMON_TASK_QUEUED; state <= DROMON_TASK_ABANDONED; state++) {
    dromon_task task = task_in(state);
    CHECK_EQ(dromon_task_is_withdrawn(&task), state == DROMON_TASK_WITHDRAWN);
  }
}

/* ---- Races ---------------------------------------------------------------------------------- */

enum { TASKS = 64 };

/* Two sides race for each of some tasks. Before its step a side writes to plain memory of its own,
 * and after a lost one it reads the winner's: ThreadSanitizer sees whether the steps order the two.
 */
struct race {
  int (*steps[2])(dromon_task *);
  uint32_t from;
  unsigned rounds;
  pthread_barrier_t barrier;
  dromon_task tasks[TASKS];
  unsigned written_in[2][TASKS]; /* round, from 1 */
  bool won[2][TASKS];
};

static void race_for_all(struct race *race, unsigned side, unsigned round, unsigned *seed) {
  for (unsigned i = 0; i < TASKS; i++) {
    race->written_in[side][i] = round;
    race->won[side][i] = race->steps[side](&race->tasks[i]) == 0;
    if (!race->won[side][i])
      CHECK_EQ(race->written_in[!side][i], round);
    dither(seed);
  }
}

static void race_side(void *arg, unsigned side) {
  struct race *race = arg;
  unsigned seed = side;
  for (unsigned round = 1; round <= race->rounds; round++) {
    if (side == 0) {
      for (unsigned i = 0; i < TASKS; i++)
        race->tasks[i] = task_in(race->from);
    }
    pthread_barrier_wait(&race->barrier);
    race_for_all(race, side, round, &seed);
    pthread_barrier_wait(&race->barrier);
    if (side == 0) {
      for (unsigned i = 0; i < TASKS; i++)
        CHECK(race->won[0][i] != race->won[1][i]);
    }
  }
}

static void check_exactly_one_wins(uint32_t from, int (*one)(dromon_task *),
                                   int (*other)(dromon_task *)) {
  struct race race = {.steps = {one, other}, .from = from, .rounds = rounds(20000)};
  CHECK_EQ(pthread_barrier_init(&race.barrier, NULL, 2), 0);
  struct threads threads;
  threads_start(&threads, 2, race_side, &race);
  threads_join(&threads);
  pthread_barrier_destroy(&race.barrier);
}

static void of_start_and_withdraw_exactly_one_wins(void) {
  check_exactly_one_wins(DROMON_TASK_QUEUED, start, withdraw);
}

static void of_finish_and_abandon_exactly_one_wins(void) {
  check_exactly_one_wins(DROMON_TASK_RUNNING, dromon_task_finish, dromon_task_abandon);
}

int main(void) {
  RUN(a_new_task_is_queued);
  RUN(only_a_queued_task_starts);
  RUN(only_a_running_task_finishes);
  RUN(only_a_queued_task_is_withdrawn);
  RUN(only_a_running_task_is_abandoned);
  RUN(only_a_withdrawn_task_says_so);
  RUN_THREADED(of_start_and_withdraw_exactly_one_wins);
  RUN_THREADED(of_finish_and_abandon_exactly_one_wins);
  return 0;
}
