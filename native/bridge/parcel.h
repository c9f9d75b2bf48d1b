/* parcel.h - what travels between interpreters: raw memory, which any of them can read.
 *
 * A parcel is written in one interpreter and opened in another, once or more often, and may be cleared in
 * any. It holds no Python object (but see bridge_parcel_move), but may hold counted records: buffers that their owner lends (share.c),
 * and functions (function.c).
 */
#ifndef DROMON_BRIDGE_PARCEL_H
#define DROMON_BRIDGE_PARCEL_H

#include "bridge.h"

/* ---- Buffers: share.c ---- */

/* A buffer of one interpreter that others read or write, until the last of them lets go of it. */
struct share;

/* Gets the buffer of `object` in the current interpreter; one reference. NULL with an exception. */
struct share *bridge_share_new(PyObject *object, bool writable);

struct share *bridge_share_ref(struct share *share);

/* In any interpreter. The last one has its owner release the buffer. */
void bridge_share_unref(struct share *share);

const Py_buffer *bridge_share_buffer(const struct share *share);

/* A memoryview of it in the current interpreter, which takes a reference. */
PyObject *bridge_share_view(bridge_state *state, struct share *share);

/* ---- Functions: function.c ---- */

enum bridge_function_kind {
  BRIDGE_BY_REFERENCE, /* "module:qualname" */
  BRIDGE_BY_VALUE,     /* a pickle of the function itself */
};

/* A function that travels: each interpreter makes it out of this once. */
struct function;

struct function *bridge_function_ref(struct function *function);
void bridge_function_unref(struct function *function);

bool bridge_function_is_reference(const struct function *function);

/* The record in a `Function`, borrowed. */
struct function *bridge_function_record(PyObject *function);

/* A new reference to the callable in the current interpreter. */
PyObject *bridge_function_load(bridge_state *state, struct function *function);

/* ---- Parcels: parcel.c ---- */

struct parcel {
  union {
    char *bytes;
    char small[40]; /* most arguments and results fit */
  };
  size_t size;
  size_t capacity;       /* of `bytes`; 0: they are in `small` */
  struct share **shares; /* counted; the buffers of pickled data last */
  size_t share_count;
  size_t pickled_count;        /* of the shares: the buffers of pickled data */
  struct share *pickled;       /* pickled data, if that is large; else it lies in `bytes` */
  size_t pickled_at;           /* where; 0: a written object needs none */
  struct function **functions; /* counted */
  size_t function_count;
  PyObject *moved; /* large bytes that nobody else has: the object itself */
};

/* Writes `object` into an empty parcel. -1 with an exception; the parcel is empty then. */
int bridge_parcel_write(bridge_state *state, struct parcel *parcel, PyObject *object);

/* The same; steals the reference to `object`. The parcel is to be read once, and then cleared, by who is attached
 * to an interpreter. */
int bridge_parcel_move(bridge_state *state, struct parcel *parcel, PyObject *object);

/* Writes an exception. Never fails, except for lack of memory. */
int bridge_parcel_write_error(bridge_state *state, struct parcel *parcel, PyObject *error);

/* What was written, made anew in the current interpreter; NULL with an exception. */
PyObject *bridge_parcel_read(bridge_state *state, const struct parcel *parcel);
PyObject *bridge_parcel_read_error(bridge_state *state, const struct parcel *parcel);

void bridge_parcel_clear(struct parcel *parcel);

#endif
