/* parkable.h - whether what a green thread runs may be parked; see parkable.c. */
#ifndef DROMON_BRIDGE_PARKABLE_H
#define DROMON_BRIDGE_PARKABLE_H

#include "bridge.h"

/* PARKABLE, or why not. */
enum parkable {
  PARKABLE,
  IN_GREENLET,  /* a user's, that is: not a thread's main one */
  IN_FINALIZER, /* a `__del__` that the garbage collector calls */
  IN_IMPORT,    /* of a module: this thread holds its lock */
};

/* Of what the calling thread runs, with the interpreter of `state` attached and no exception set. Never
 * raises: when in doubt, it is PARKABLE. */
enum parkable bridge_parkable(const bridge_state *state);

enum bridge_greenlet_word {
  BRIDGE_GREENLET_MODULE,
  BRIDGE_GREENLET_GETCURRENT,
  BRIDGE_GREENLET_PARENT,
  BRIDGE_GREENLET_WORDS,
};

int bridge_parkable_init(bridge_state *state);

#endif
