/* task.h - the steps of a task's life that only the core takes (see dromon.h for the others). */
#ifndef DROMON_CORE_TASK_H
#define DROMON_CORE_TASK_H

#include <dromon/dromon.h>
#include <stdbool.h>

/* For a worker that popped `task`: true if it is now RUNNING, false if it was withdrawn. */
bool task_start(dromon_task *task);

/* For the submitter: true if `task` is now WITHDRAWN. The queue still points at it. */
bool task_withdraw(dromon_task *task);

/* The same for a child, which its parent will run itself: TAKEN_BACK. */
bool task_take_back(dromon_task *task);

#endif
