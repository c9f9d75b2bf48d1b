/* port.h - the completion port's protocol (its functions are public, in dromon.h).
 *
 *      producer                                 consumer
 *      Push    add to the list                  Read   read the eventfd until it blocks
 *      Signal  exchange(pending, 1);            Clear  exchange(pending, 0)
 *              if it was 0, write the eventfd   Take   exchange the list for an empty one
 *
 * The list is a Treiber stack that is only ever taken whole, so it has no ABA problem and no window
 * between two links; the consumer reverses it.
 *
 * No completion is left behind. Signal and Clear are read-modify-writes of one word, so one of them
 * comes first.
 *  1. Signal first: Clear reads from it, or from a later Signal of the same release sequence. So
 *     Push happens before Take, which finds the task.
 *  2. Clear first, and this Signal found 0: it writes the eventfd, after the consumer's Read (which
 *     is before Clear). The eventfd stays readable until the consumer has come round again.
 *  3. Clear first, and this Signal found 1: another Signal after Clear found 0 and writes, or is
 *     about to write, the eventfd: see 2.
 * Clear after Take would lose what was pushed between the two. A consumer that finds nothing (the
 * task was already there at an earlier Take) just waits again.
 */
#ifndef DROMON_CORE_PORT_H
#define DROMON_CORE_PORT_H

#include "atomic.h"

#include <dromon/dromon.h>

struct dromon_port {
  _Alignas(CACHE_LINES) dromon_task *head; /* newest posted task, or CLOSED */
  uint32_t pending;                        /* 1: the consumer was told and has not looked since */
  _Alignas(CACHE_LINES) uint32_t references;
  int fd;
};

#endif
