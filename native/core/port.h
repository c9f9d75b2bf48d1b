/* port.h - the completion port (its functions are public, in dromon.h).
 *
 * The protocol, its events (Push, Signal; Read, Clear, Take) and why no completion is left behind are
 * in port.md.
 */
#ifndef DROMON_CORE_PORT_H
#define DROMON_CORE_PORT_H

#include "atomic.h"
#include "search.h"

#include <dromon/dromon.h>

struct dromon_port {
  _Alignas(CACHE_LINES) dromon_task *head; /* newest posted task, or CLOSED */
  uint32_t pending;                        /* 1: the consumer was told and has not looked since */
  _Alignas(CACHE_LINES) uint32_t references;
  int fd;
  struct search look; /* the consumer's */
};

#endif
