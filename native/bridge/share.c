/* share.c - buffers that one interpreter lends to others, and `SharedBuffer`, by which these see them.
 *
 * A share is counted by itself, since the counts of objects belong to their interpreters: a reference for
 * each parcel that holds it and for each SharedBuffer. As long as there is one the owner's buffer is held
 * (PyBuffer_Release is what lets the owner resize or free the memory). Only the owner may release it:
 * whoever drops the last reference elsewhere takes the share to its owner, see isolate.c.
 */
#include "isolate.h"
#include "parcel.h"

#include <stdatomic.h>
#include <stddef.h>

struct share {
  _Atomic uint64_t references;
  struct isolate *owner; /* NULL: the main interpreter */
  bool writable;
  Py_buffer buffer;
  struct share *next; /* among those on their way home */
};

struct share *bridge_share_new(PyObject *object, bool writable) {
  struct share *share = PyMem_RawCalloc(1, sizeof *share);
  if (share == NULL) {
    PyErr_NoMemory();
    return NULL;
  }
  if (PyObject_GetBuffer(object, &share->buffer, writable ? PyBUF_FULL : PyBUF_FULL_RO) < 0) {
    PyMem_RawFree(share);
    return NULL;
  }
  atomic_init(&share->references, 1);
  share->writable = writable;
  share->owner = bridge_isolate_current();
  return share;
}

struct share *bridge_share_ref(struct share *share) {
  /* Relaxed: the caller already holds a reference. */
  atomic_fetch_add_explicit(&share->references, 1, memory_order_relaxed);
  return share;
}

/* In its owner's interpreter. */
static void release(struct share *share) {
  PyBuffer_Release(&share->buffer);
  PyMem_RawFree(share);
}

void bridge_share_release_all(struct share *share) {
  while (share != NULL) {
    struct share *next = share->next;
    release(share);
    share = next;
  }
}

struct share **bridge_share_link(struct share *share) {
  return &share->next;
}

void bridge_share_unref(struct share *share) {
  /* acq_rel: who releases it sees all that others did with the memory. */
  if (atomic_fetch_sub_explicit(&share->references, 1, memory_order_acq_rel) > 1)
    return;
  if (share->owner == NULL)
    bridge_release_in_main(share);
  else
    bridge_isolate_return(share->owner, share);
}

const Py_buffer *bridge_share_buffer(const struct share *share) {
  return &share->buffer;
}

/* ---- The type ------------------------------------------------------------------------------- */

typedef struct {
  PyObject_HEAD
  struct share *share;
} SharedBufferObject;

PyObject *bridge_share_view(bridge_state *state, struct share *share) {
  PyTypeObject *type = state->shared_buffer_type;
  SharedBufferObject *self = (SharedBufferObject *)type->tp_alloc(type, 0);
  if (self == NULL)
    return NULL;
  self->share = bridge_share_ref(share);
  PyObject *view = PyMemoryView_FromObject((PyObject *)self);
  Py_DECREF(self);
  return view;
}

static int shared_buffer_get(SharedBufferObject *self, Py_buffer *out, int flags) {
  const struct share *share = self->share;
  out->obj = NULL;
  if ((flags & PyBUF_WRITABLE) && !share->writable) {
    PyErr_SetString(PyExc_BufferError, "the buffer is shared for reading; dromon.writable() shares "
                                       "one for writing");
    return -1;
  }
  bool is_simple = (flags & PyBUF_STRIDES) != PyBUF_STRIDES;
  if (is_simple && !PyBuffer_IsContiguous(&share->buffer, 'C')) {
    PyErr_SetString(PyExc_BufferError, "the shared buffer is not C-contiguous");
    return -1;
  }
  *out = share->buffer;
  out->internal = NULL;
  out->readonly = !share->writable;
  if (!(flags & PyBUF_FORMAT))
    out->format = NULL;
  if (is_simple)
    out->strides = out->suboffsets = NULL;
  if (!(flags & PyBUF_ND))
    out->shape = NULL;
  out->obj = Py_NewRef((PyObject *)self);
  return 0;
}

static void shared_buffer_dealloc(SharedBufferObject *self) {
  PyTypeObject *type = Py_TYPE(self);
  bridge_share_unref(self->share);
  type->tp_free((PyObject *)self);
  Py_DECREF(type);
}

static PyType_Slot shared_buffer_slots[] = {
    {Py_tp_doc, "Memory of another interpreter, kept there until this is gone."},
    {Py_bf_getbuffer, shared_buffer_get},
    {Py_tp_dealloc, shared_buffer_dealloc},
    {0, NULL},
};

PyType_Spec bridge_shared_buffer_spec = {
    .name = "dromon._bridge.SharedBuffer",
    .basicsize = sizeof(SharedBufferObject),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = shared_buffer_slots,
};
