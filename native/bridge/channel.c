/* channel.c - `SendChannel` and `ReceiveChannel`: the two ends of a channel, and their clones; see sync.h.
 *
 * What is locked is the channel. Values that nobody has received yet are in its buffer, at most as many as it
 * was opened for, and then with those who wait to send. While one waits to receive the buffer is empty and
 * nobody waits to send. While one waits to send the buffer is full.
 */
#include "sync.h"

/* Values, oldest first, in a ring that grows. */
struct buffer {
  PyObject **places;
  Py_ssize_t capacity;
  Py_ssize_t first, count;
};

typedef struct {
  PyObject_HEAD
  Py_ssize_t most; /* values in the buffer; PY_SSIZE_T_MAX: any number */
  Py_ssize_t open_senders, open_receivers;
  struct waiters senders, receivers; /* each is in a struct exchange */
  struct buffer buffer;
} ChannelObject;

/* An end, of either sort. */
typedef struct {
  PyObject_HEAD
  ChannelObject *channel;
  bool is_closed; /* guarded by the channel's lock */
} EndObject;

enum outcome {
  DONE,
  WOULD_BLOCK,
  CLOSED, /* the end itself */
  BROKEN, /* nobody will receive */
  ENDED,  /* nobody will send, and there is nothing left */
  FAILED, /* with an exception */
};

/* Somebody who waits to send or receive. */
struct exchange {
  struct waiter waiter; /* the first field: see exchange_of */
  EndObject *end;
  PyObject *sent;       /* what it sends, borrowed; or NULL */
  enum outcome outcome; /* set by who wakes it */
};

static struct exchange *exchange_of(struct waiter *waiter) {
  return (struct exchange *)(void *)waiter;
}

/* ---- The buffer ----------------------------------------------------------------------------- */

static PyObject **place(struct buffer *buffer, Py_ssize_t index) {
  return &buffer->places[(buffer->first + index) % buffer->capacity];
}

static bool make_room(struct buffer *buffer) {
  if (buffer->count < buffer->capacity)
    return true;
  Py_ssize_t capacity = buffer->capacity == 0 ? 8 : 2 * buffer->capacity;
  PyObject **places = PyMem_New(PyObject *, (size_t)capacity);
  if (places == NULL) {
    PyErr_NoMemory();
    return false;
  }
  for (Py_ssize_t i = 0; i < buffer->count; i++)
    places[i] = *place(buffer, i);
  PyMem_Free(buffer->places);
  *buffer = (struct buffer){.places = places, .capacity = capacity, .count = buffer->count};
  return true;
}

/* Where there is room. Steals the reference. */
static void append(struct buffer *buffer, PyObject *value) {
  *place(buffer, buffer->count++) = value;
}

static PyObject *take_first(struct buffer *buffer) {
  PyObject *value = *place(buffer, 0);
  buffer->first = (buffer->first + 1) % buffer->capacity;
  buffer->count--;
  return value;
}

static void free_buffer(struct buffer *buffer) {
  while (buffer->count > 0)
    Py_DECREF(take_first(buffer));
  PyMem_Free(buffer->places);
}

/* ---- The channel, which is locked ----------------------------------------------------------- */

/* False if it does not wait any more. */
static bool finish(struct waiter *waiter, enum outcome outcome, PyObject *value) {
  exchange_of(waiter)->outcome = outcome;
  return bridge_wake(waiter, value);
}

/* To who has waited longest. */
static bool give_to_receiver(ChannelObject *channel, PyObject *value) {
  while (channel->receivers.first != NULL) {
    if (finish(channel->receivers.first, DONE, value))
      return true;
  }
  return false;
}

/* From who has waited longest: a new reference, or NULL. */
static PyObject *take_from_sender(ChannelObject *channel) {
  while (channel->senders.first != NULL) {
    PyObject *value = Py_NewRef(exchange_of(channel->senders.first)->sent);
    if (finish(channel->senders.first, DONE, NULL))
      return value;
    Py_DECREF(value); /* the sender still has it */
  }
  return NULL;
}

static enum outcome try_to_send(EndObject *end, PyObject *value) {
  ChannelObject *channel = end->channel;
  if (end->is_closed)
    return CLOSED;
  if (channel->open_receivers == 0)
    return BROKEN;
  if (give_to_receiver(channel, value))
    return DONE;
  if (channel->buffer.count >= channel->most)
    return WOULD_BLOCK;
  if (!make_room(&channel->buffer))
    return FAILED;
  append(&channel->buffer, Py_NewRef(value));
  return DONE;
}

static enum outcome try_to_receive(EndObject *end, PyObject **value) {
  ChannelObject *channel = end->channel;
  if (end->is_closed)
    return CLOSED;
  if (channel->buffer.count == 0) {
    *value = take_from_sender(channel);
    if (*value != NULL)
      return DONE;
    return channel->open_senders == 0 ? ENDED : WOULD_BLOCK;
  }
  *value = take_first(&channel->buffer);
  PyObject *next = take_from_sender(channel);
  if (next != NULL)
    append(&channel->buffer, next);
  return DONE;
}

/* Ends the waits at one end, or (NULL) all. */
static void end_waits(struct waiters *waiters, EndObject *end, enum outcome outcome) {
  struct waiter *next;
  for (struct waiter *waiter = waiters->first; waiter != NULL; waiter = next) {
    next = waiter->next;
    if (end == NULL || exchange_of(waiter)->end == end)
      finish(waiter, outcome, NULL);
  }
}

static void close_sender(EndObject *end) {
  ChannelObject *channel = end->channel;
  end_waits(&channel->senders, end, CLOSED);
  if (--channel->open_senders == 0)
    end_waits(&channel->receivers, NULL, ENDED);
}

/* What nobody will receive is the caller's now. */
static void close_receiver(EndObject *end, struct buffer *dropped) {
  ChannelObject *channel = end->channel;
  end_waits(&channel->receivers, end, CLOSED);
  if (--channel->open_receivers > 0)
    return;
  end_waits(&channel->senders, NULL, BROKEN);
  *dropped = channel->buffer;
  channel->buffer = (struct buffer){0};
}

static Py_ssize_t count_waiters(const struct waiters *waiters) {
  Py_ssize_t count = 0;
  for (const struct waiter *waiter = waiters->first; waiter != NULL; waiter = waiter->next)
    count++;
  return count;
}

static int channel_traverse(ChannelObject *self, visitproc visit, void *arg) {
  Py_VISIT(Py_TYPE(self));
  for (Py_ssize_t i = 0; i < self->buffer.count; i++)
    Py_VISIT(*place(&self->buffer, i));
  return 0;
}

static int channel_clear(ChannelObject *self) {
  struct buffer buffer = self->buffer;
  self->buffer = (struct buffer){0};
  free_buffer(&buffer);
  return 0;
}

static void channel_dealloc(ChannelObject *self) {
  PyTypeObject *type = Py_TYPE(self);
  PyObject_GC_UnTrack(self);
  channel_clear(self);
  type->tp_free((PyObject *)self);
  Py_DECREF(type);
}

static PyType_Slot channel_slots[] = {
    {Py_tp_doc, "What is between the ends of a channel."},
    {Py_tp_traverse, channel_traverse},
    {Py_tp_clear, channel_clear},
    {Py_tp_dealloc, channel_dealloc},
    {0, NULL},
};

PyType_Spec bridge_channel_spec = {
    .name = "dromon.green.Channel",
    .basicsize = sizeof(ChannelObject),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_DISALLOW_INSTANTIATION |
             Py_TPFLAGS_IMMUTABLETYPE,
    .slots = channel_slots,
};

/* ---- Both ends ------------------------------------------------------------------------------ */

static bool is_sender(EndObject *self) {
  return Py_TYPE(self) == bridge_state_of(Py_TYPE(self))->send_channel_type;
}

/* Raises what an outcome means, unless it is DONE: returns None or NULL. */
static PyObject *conclude(EndObject *self, enum outcome outcome) {
  bridge_state *state = bridge_state_of(Py_TYPE(self));
  switch (outcome) {
  case DONE:
    Py_RETURN_NONE;
  case WOULD_BLOCK:
    PyErr_SetString(state->would_block,
                    is_sender(self) ? "the channel is full" : "the channel is empty");
    break;
  case CLOSED:
    PyErr_SetString(state->closed_resource, "this end of the channel is closed");
    break;
  case BROKEN:
    PyErr_SetString(state->broken_resource, "all receiving ends of the channel are closed");
    break;
  case ENDED:
    PyErr_SetString(state->end_of_channel, "all sending ends of the channel are closed");
    break;
  case FAILED:
    break;
  }
  return NULL;
}

/* An end of the channel that is not counted yet. */
static EndObject *new_end(PyTypeObject *type, ChannelObject *channel) {
  EndObject *end = (EndObject *)type->tp_alloc(type, 0);
  if (end != NULL)
    end->channel = (ChannelObject *)Py_NewRef((PyObject *)channel);
  return end;
}

PyDoc_STRVAR(clone_doc, "clone($self, /)\n--\n\n"
                        "Return another end of the same sort, which has to be closed too.\n"
                        "\n"
                        "Raises `ClosedResourceError` if this one is closed.");

static PyObject *end_clone(EndObject *self, PyObject *Py_UNUSED(ignored)) {
  ChannelObject *channel = self->channel;
  EndObject *clone = new_end(Py_TYPE(self), channel);
  if (clone == NULL)
    return NULL;
  Py_BEGIN_CRITICAL_SECTION((PyObject *)channel);
  clone->is_closed = self->is_closed;
  if (!clone->is_closed)
    *(is_sender(self) ? &channel->open_senders : &channel->open_receivers) += 1;
  Py_END_CRITICAL_SECTION();
  if (!clone->is_closed)
    return (PyObject *)clone;
  Py_DECREF(clone);
  return conclude(self, CLOSED);
}

PyDoc_STRVAR(
    close_doc,
    "close($self, /)\n--\n\n"
    "Close this end. From any thread; nothing happens if it is closed.\n"
    "\n"
    "Who waits at it gets `ClosedResourceError`. With the last sending end the channel ends\n"
    "for who receives, once it is empty: `EndOfChannel`. With the last receiving one it is\n"
    "broken for who sends, `BrokenResourceError`, and what it has kept is dropped.");

static PyObject *end_close(EndObject *self, PyObject *Py_UNUSED(ignored)) {
  struct buffer dropped = {0};
  Py_BEGIN_CRITICAL_SECTION((PyObject *)self->channel);
  bool was_closed = self->is_closed;
  self->is_closed = true;
  if (!was_closed && is_sender(self))
    close_sender(self);
  else if (!was_closed)
    close_receiver(self, &dropped);
  Py_END_CRITICAL_SECTION();
  free_buffer(&dropped);
  Py_RETURN_NONE;
}

PyDoc_STRVAR(statistics_doc,
             "statistics($self, /)\n--\n\n"
             "Return what the channel has in it, and how many wait: a `ChannelStatistics`.");

static PyObject *end_statistics(EndObject *self, PyObject *Py_UNUSED(ignored)) {
  ChannelObject *channel = self->channel;
  Py_ssize_t used, senders, receivers, sending, receiving;
  Py_BEGIN_CRITICAL_SECTION((PyObject *)channel);
  used = channel->buffer.count;
  senders = channel->open_senders;
  receivers = channel->open_receivers;
  sending = count_waiters(&channel->senders);
  receiving = count_waiters(&channel->receivers);
  Py_END_CRITICAL_SECTION();
  PyObject *most = channel->most == PY_SSIZE_T_MAX ? PyFloat_FromDouble(Py_HUGE_VAL)
                                                   : PyLong_FromSsize_t(channel->most);
  return bridge_call_python("dromon._channel_statistics", "ChannelStatistics", "nNnnnn", used, most,
                            senders, receivers, sending, receiving);
}

static PyObject *end_enter(EndObject *self, PyObject *Py_UNUSED(ignored)) {
  return Py_NewRef((PyObject *)self);
}

static PyObject *end_exit(EndObject *self, PyObject *const *Py_UNUSED(args),
                          Py_ssize_t Py_UNUSED(nargs)) {
  return end_close(self, NULL);
}

/* Waits for what was begun at a locked channel: how it came out. */
static enum outcome wait_for(struct exchange *exchange, const char *doing, int64_t timeout_ns) {
  PyObject *channel = (PyObject *)exchange->end->channel;
  if (!bridge_wait_on(channel, &exchange->waiter, doing, timeout_ns))
    return FAILED;
  return exchange->outcome;
}

static int end_traverse(EndObject *self, visitproc visit, void *arg) {
  Py_VISIT(Py_TYPE(self));
  Py_VISIT((PyObject *)self->channel);
  return 0;
}

/* There is no tp_clear: whatever cycle an end is in leads through the channel's buffer. */
static void end_dealloc(EndObject *self) {
  PyTypeObject *type = Py_TYPE(self);
  PyObject_GC_UnTrack(self);
  Py_XDECREF((PyObject *)self->channel);
  type->tp_free((PyObject *)self);
  Py_DECREF(type);
}

/* Of either end. */
#define END_METHODS                                                                                \
  {"clone", (PyCFunction)end_clone, METH_NOARGS, clone_doc},                                       \
      {"close", (PyCFunction)end_close, METH_NOARGS, close_doc},                                   \
      {"statistics", (PyCFunction)end_statistics, METH_NOARGS, statistics_doc},                    \
      {"__enter__", (PyCFunction)end_enter, METH_NOARGS, NULL},                                    \
      {"__exit__", (PyCFunction)(void (*)(void))end_exit, METH_FASTCALL, NULL}, {                  \
    "__class_getitem__", Py_GenericAlias, METH_O | METH_CLASS, NULL                                \
  }

#define END_SLOTS                                                                                  \
  {Py_tp_traverse, end_traverse}, {                                                                \
    Py_tp_dealloc, end_dealloc                                                                     \
  }

/* ---- The sending end ------------------------------------------------------------------------ */

PyDoc_STRVAR(
    send_nowait_doc,
    "send_nowait($self, value, /)\n--\n\n"
    "Send a value if that is possible at once. From any thread.\n"
    "\n"
    "Raises `WouldBlock` if the channel is full, `ClosedResourceError` if this end is closed,\n"
    "and `BrokenResourceError` if all receiving ones are.");

static PyObject *send_nowait(EndObject *self, PyObject *value) {
  enum outcome outcome;
  Py_BEGIN_CRITICAL_SECTION((PyObject *)self->channel);
  outcome = try_to_send(self, value);
  Py_END_CRITICAL_SECTION();
  return conclude(self, outcome);
}

PyDoc_STRVAR(
    send_doc,
    "send($self, value, /, timeout=None)\n--\n\n"
    "Send a value, once there is room for it or somebody receives it.\n"
    "\n"
    "Raises `TimeoutError` after ``timeout`` seconds, `ClosedResourceError` if this end is\n"
    "closed, `BrokenResourceError` if all receiving ones are, and `RuntimeError` in the\n"
    "thread of an event loop.\n"
    "\n"
    "**Cancellation** ends the wait; the value is not sent then.");

static PyObject *send(EndObject *self, PyObject *const *args, Py_ssize_t nargs,
                      PyObject *keywords) {
  static const char *const doing = "SendChannel.send";
  int64_t timeout_ns;
  if (nargs == 0)
    return PyErr_Format(PyExc_TypeError, "%s() needs a value", doing);
  if (!bridge_timeout_argument(doing, args + 1, nargs - 1, keywords, &timeout_ns) ||
      bridge_check_wait("trio.open_memory_channel") < 0)
    return NULL;
  struct exchange exchange = {.end = self, .sent = args[0]};
  enum outcome outcome;
  Py_BEGIN_CRITICAL_SECTION((PyObject *)self->channel);
  outcome = try_to_send(self, args[0]);
  if (outcome == WOULD_BLOCK)
    bridge_waiter_add(&self->channel->senders, &exchange.waiter);
  Py_END_CRITICAL_SECTION();
  if (outcome == WOULD_BLOCK)
    outcome = wait_for(&exchange, doing, timeout_ns);
  return conclude(self, outcome);
}

static PyMethodDef send_channel_methods[] = {
    {"send", (PyCFunction)(void (*)(void))send, METH_FASTCALL | METH_KEYWORDS, send_doc},
    {"send_nowait", (PyCFunction)send_nowait, METH_O, send_nowait_doc},
    END_METHODS,
    {NULL, NULL, 0, NULL},
};

static PyType_Slot send_channel_slots[] = {
    {Py_tp_doc, "The sending end of a channel; made by `open_channel`."},
    {Py_tp_methods, send_channel_methods},
    END_SLOTS,
    {0, NULL},
};

PyType_Spec bridge_send_channel_spec = {
    .name = "dromon.green.SendChannel",
    .basicsize = sizeof(EndObject),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_DISALLOW_INSTANTIATION |
             Py_TPFLAGS_IMMUTABLETYPE,
    .slots = send_channel_slots,
};

/* ---- The receiving end ---------------------------------------------------------------------- */

PyDoc_STRVAR(
    receive_nowait_doc,
    "receive_nowait($self, /)\n--\n\n"
    "Receive the oldest value if there is one. From any thread.\n"
    "\n"
    "Raises `WouldBlock` if there is none, `ClosedResourceError` if this end is closed, and\n"
    "`EndOfChannel` if there is none and all sending ones are.");

static PyObject *receive_nowait(EndObject *self, PyObject *Py_UNUSED(ignored)) {
  PyObject *value = NULL;
  enum outcome outcome;
  Py_BEGIN_CRITICAL_SECTION((PyObject *)self->channel);
  outcome = try_to_receive(self, &value);
  Py_END_CRITICAL_SECTION();
  return outcome == DONE ? value : conclude(self, outcome);
}

static enum outcome receive_value(EndObject *self, int64_t timeout_ns, PyObject **value) {
  if (bridge_check_wait("trio.open_memory_channel") < 0)
    return FAILED;
  struct exchange exchange = {.end = self};
  enum outcome outcome;
  Py_BEGIN_CRITICAL_SECTION((PyObject *)self->channel);
  outcome = try_to_receive(self, value);
  if (outcome == WOULD_BLOCK)
    bridge_waiter_add(&self->channel->receivers, &exchange.waiter);
  Py_END_CRITICAL_SECTION();
  if (outcome != WOULD_BLOCK)
    return outcome;
  outcome = wait_for(&exchange, "ReceiveChannel.receive", timeout_ns);
  *value = exchange.waiter.value;
  return outcome;
}

PyDoc_STRVAR(
    receive_doc,
    "receive($self, /, timeout=None)\n--\n\n"
    "Receive the oldest value, once there is one.\n"
    "\n"
    "Raises `TimeoutError` after ``timeout`` seconds, `ClosedResourceError` if this end is\n"
    "closed, `EndOfChannel` if there is nothing left and all sending ones are, and\n"
    "`RuntimeError` in the thread of an event loop.\n"
    "\n"
    "**Cancellation** ends the wait; nothing is taken then.");

static PyObject *receive(EndObject *self, PyObject *const *args, Py_ssize_t nargs,
                         PyObject *keywords) {
  int64_t timeout_ns;
  if (!bridge_timeout_argument("ReceiveChannel.receive", args, nargs, keywords, &timeout_ns))
    return NULL;
  PyObject *value = NULL;
  enum outcome outcome = receive_value(self, timeout_ns, &value);
  return outcome == DONE ? value : conclude(self, outcome);
}

/* Receives until the channel ends. */
static PyObject *receive_next(EndObject *self) {
  PyObject *value = NULL;
  enum outcome outcome = receive_value(self, -1, &value);
  if (outcome == DONE)
    return value;
  return outcome == ENDED ? NULL : conclude(self, outcome);
}

static PyMethodDef receive_channel_methods[] = {
    {"receive", (PyCFunction)(void (*)(void))receive, METH_FASTCALL | METH_KEYWORDS, receive_doc},
    {"receive_nowait", (PyCFunction)receive_nowait, METH_NOARGS, receive_nowait_doc},
    END_METHODS,
    {NULL, NULL, 0, NULL},
};

static PyType_Slot receive_channel_slots[] = {
    {Py_tp_doc, "The receiving end of a channel, and an iterator of what comes; made by "
                "`open_channel`."},
    {Py_tp_methods, receive_channel_methods},
    {Py_tp_iter, PyObject_SelfIter},
    {Py_tp_iternext, receive_next},
    END_SLOTS,
    {0, NULL},
};

PyType_Spec bridge_receive_channel_spec = {
    .name = "dromon.green.ReceiveChannel",
    .basicsize = sizeof(EndObject),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_DISALLOW_INSTANTIATION |
             Py_TPFLAGS_IMMUTABLETYPE,
    .slots = receive_channel_slots,
};

/* ---- Opening -------------------------------------------------------------------------------- */

static bool read_size(PyObject *size, Py_ssize_t *most) {
  if (PyFloat_Check(size) && PyFloat_AS_DOUBLE(size) == Py_HUGE_VAL) {
    *most = PY_SSIZE_T_MAX;
    return true;
  }
  if (!PyLong_Check(size)) {
    PyErr_SetString(PyExc_TypeError, "max_buffer_size must be an int or math.inf");
    return false;
  }
  *most = PyLong_AsSsize_t(size);
  if (*most >= 0)
    return true;
  if (!PyErr_Occurred())
    PyErr_SetString(PyExc_ValueError, "max_buffer_size must be >= 0");
  return false;
}

PyObject *bridge_open_channel(bridge_state *state, PyObject *size) {
  Py_ssize_t most;
  if (!read_size(size, &most))
    return NULL;
  PyTypeObject *type = state->channel_type;
  ChannelObject *channel = (ChannelObject *)type->tp_alloc(type, 0);
  if (channel == NULL)
    return NULL;
  channel->most = most;
  channel->open_senders = channel->open_receivers = 1;
  EndObject *sender = new_end(state->send_channel_type, channel);
  EndObject *receiver = new_end(state->receive_channel_type, channel);
  Py_DECREF(channel);
  if (sender != NULL && receiver != NULL)
    return Py_BuildValue("(NN)", sender, receiver);
  Py_XDECREF(sender);
  Py_XDECREF(receiver);
  return NULL;
}
