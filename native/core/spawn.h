/* spawn.h - by which system call threads are made, and how many each has made.
 *
 * Nothing asks beforehand whether clone3 exists: a clone3 that is refused has made nothing, so the
 * call itself is the question, and the answer cannot be out of date.
 */
#ifndef DROMON_CORE_SPAWN_H
#define DROMON_CORE_SPAWN_H

#include <dromon/dromon.h>
#include <stdbool.h>

/* Whether clone3's answer says that it cannot be had at all (an older kernel, a sandbox), so that clone
 * may be tried. Other errors are limits and hold for both. */
bool spawn_is_refused(int result);

/* Counts a thread that was made. */
void spawn_count(enum dromon_spawn spawn);

#endif
