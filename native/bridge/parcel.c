/* parcel.c - writing and reading parcels; see parcel.h.
 *
 * None, bools, ints of 64 bits, floats, strings, bytes, and tuples of them are written here, each as a
 * letter and its value; memoryviews, and bytes that are not small, as shares. All else in a parcel is
 * pickled together (dromon._pickling), so that what is the same object before is the same one after, and
 * stands as a number.
 */
#include "parcel.h"

#include <string.h>

enum {
  SMALL = 4096,    /* bytes that are copied into the parcel, and from there */
  MOVABLE = 65536, /* bytes that are not copied at all, if that can be */
  DEEPEST = 32,    /* tuple in tuples that is not pickled */
};

/* ---- Writing -------------------------------------------------------------------------------- */

static const char *bytes_of(const struct parcel *parcel) {
  return parcel->capacity == 0 ? parcel->small : parcel->bytes;
}

static int enlarge(struct parcel *parcel, size_t capacity) {
  bool is_small = parcel->capacity == 0;
  char *bytes = PyMem_RawRealloc(is_small ? NULL : parcel->bytes, capacity);
  if (bytes == NULL) {
    PyErr_NoMemory();
    return -1;
  }
  if (is_small)
    memcpy(bytes, parcel->small, parcel->size);
  parcel->bytes = bytes;
  parcel->capacity = capacity;
  return 0;
}

static char *reserve(struct parcel *parcel, size_t size) {
  size_t capacity = parcel->capacity == 0 ? sizeof parcel->small : parcel->capacity;
  if (parcel->size + size > capacity && enlarge(parcel, 2 * capacity + size) < 0)
    return NULL;
  char *at = (char *)(uintptr_t)bytes_of(parcel) + parcel->size;
  parcel->size += size;
  return at;
}

/* A letter and a value of 8 bytes. */
static int write_word(struct parcel *parcel, char letter, const void *word) {
  char *at = reserve(parcel, 9);
  if (at == NULL)
    return -1;
  *at = letter;
  memcpy(at + 1, word, 8);
  return 0;
}

static int write_number(struct parcel *parcel, char letter, uint64_t number) {
  return write_word(parcel, letter, &number);
}

static int write_letter(struct parcel *parcel, char letter) {
  char *at = reserve(parcel, 1);
  if (at == NULL)
    return -1;
  *at = letter;
  return 0;
}

static int write_bytes(struct parcel *parcel, char letter, const char *data, size_t size) {
  char *at = write_number(parcel, letter, size) < 0 ? NULL : reserve(parcel, size);
  if (at == NULL)
    return -1;
  memcpy(at, data, size);
  return 0;
}

/* Room for one more pointer in a list whose length doubles. */
static void *grow(void *list, size_t count) {
  if (count & (count - 1))
    return list;
  void *grown = PyMem_RawRealloc(list, (count ? 2 * count : 1) * sizeof(void *));
  if (grown == NULL)
    PyErr_NoMemory();
  return grown;
}

static int add_share(struct parcel *parcel, PyObject *object, bool writable) {
  struct share **shares = grow(parcel->shares, parcel->share_count);
  if (shares == NULL)
    return -1;
  parcel->shares = shares;
  struct share *share = bridge_share_new(object, writable);
  if (share == NULL)
    return -1;
  shares[parcel->share_count++] = share;
  return 0;
}

static int write_share(struct parcel *parcel, char letter, PyObject *object, bool writable) {
  if (add_share(parcel, object, writable) < 0)
    return -1;
  return write_number(parcel, letter, parcel->share_count - 1);
}

static int write_function(struct parcel *parcel, PyObject *function) {
  struct function **functions = grow(parcel->functions, parcel->function_count);
  if (functions == NULL)
    return -1;
  parcel->functions = functions;
  functions[parcel->function_count++] = bridge_function_ref(bridge_function_record(function));
  return write_number(parcel, 'C', parcel->function_count - 1);
}

static int write_int(struct parcel *parcel, PyObject *object, bool *written) {
  int overflow;
  int64_t number = PyLong_AsLongLongAndOverflow(object, &overflow);
  *written = overflow == 0;
  return *written ? write_word(parcel, 'I', &number) : 0;
}

static int write_str(struct parcel *parcel, PyObject *object, bool *written) {
  Py_ssize_t size;
  const char *text = PyUnicode_AsUTF8AndSize(object, &size);
  *written = text != NULL;
  if (*written)
    return write_bytes(parcel, 'S', text, (size_t)size);
  PyErr_Clear(); /* half a pair of surrogates, say, of which pickle knows how to write it */
  return 0;
}

static int write_object(bridge_state *state, struct parcel *parcel, PyObject *object,
                        PyObject **slow, int depth);

static int write_tuple(bridge_state *state, struct parcel *parcel, PyObject *tuple, PyObject **slow,
                       int depth) {
  Py_ssize_t count = PyTuple_GET_SIZE(tuple);
  int result = write_number(parcel, 'U', (uint64_t)count);
  for (Py_ssize_t i = 0; i < count && result == 0; i++)
    result = write_object(state, parcel, PyTuple_GET_ITEM(tuple, i), slow, depth + 1);
  return result;
}

/* What is pickled with all others of its sort, and stands here as its number. */
static int write_slow(struct parcel *parcel, PyObject *object, PyObject **slow) {
  if (*slow == NULL)
    *slow = PyList_New(0);
  if (*slow == NULL || PyList_Append(*slow, object) < 0)
    return -1;
  return write_number(parcel, 'P', (uint64_t)PyList_GET_SIZE(*slow) - 1);
}

static int write_object(bridge_state *state, struct parcel *parcel, PyObject *object,
                        PyObject **slow, int depth) {
  PyTypeObject *type = Py_TYPE(object);
  bool written = true;
  int result = 0;
  if (object == Py_None) {
    result = write_letter(parcel, 'N');
  } else if (type == &PyBool_Type) {
    result = write_letter(parcel, object == Py_True ? 'T' : 'F');
  } else if (type == &PyLong_Type) {
    result = write_int(parcel, object, &written);
  } else if (type == &PyFloat_Type) {
    double number = PyFloat_AS_DOUBLE(object);
    result = write_word(parcel, 'D', &number);
  } else if (type == &PyUnicode_Type) {
    result = write_str(parcel, object, &written);
  } else if (type == &PyBytes_Type) {
    Py_ssize_t size = PyBytes_GET_SIZE(object);
    result = size > SMALL ? write_share(parcel, 'R', object, false)
                          : write_bytes(parcel, 'B', PyBytes_AS_STRING(object), (size_t)size);
  } else if (type == &PyTuple_Type && depth < DEEPEST) {
    result = write_tuple(state, parcel, object, slow, depth);
  } else if (type == &PyMemoryView_Type) {
    result = write_share(parcel, 'M', object, false);
  } else if (type == state->function_type) {
    result = write_function(parcel, object);
  } else {
    written = false;
  }
  return written ? result : write_slow(parcel, object, slow);
}

/* Adds a buffer of pickled data. */
static int add_buffer(struct parcel *parcel, PyObject *buffer) {
  if (PyMemoryView_Check(buffer) || PyPickleBuffer_Check(buffer))
    return add_share(parcel, buffer, false);
  PyObject *writable = PyObject_GetAttrString(buffer, "buffer"); /* of a WritableBuffer */
  if (writable == NULL)
    return -1;
  int result = add_share(parcel, writable, true);
  Py_DECREF(writable);
  return result;
}

/* Takes in what dromon._pickling.dumps returned, whose reference it steals. */
static int add_pickled(struct parcel *parcel, PyObject *pickled) {
  PyObject *data, *buffers;
  if (pickled == NULL)
    return -1;
  int result = -1;
  if (PyArg_ParseTuple(pickled, "SO!", &data, &PyList_Type, &buffers)) {
    size_t before = parcel->share_count;
    result = 0;
    for (Py_ssize_t i = 0; i < PyList_GET_SIZE(buffers) && result == 0; i++)
      result = add_buffer(parcel, PyList_GET_ITEM(buffers, i));
    parcel->pickled_count = parcel->share_count - before;
    parcel->pickled_at = parcel->size;
    if (result == 0 && PyBytes_GET_SIZE(data) > SMALL) {
      parcel->pickled = bridge_share_new(data, false);
      result = parcel->pickled == NULL ? -1 : 0;
    } else if (result == 0) {
      result = write_bytes(parcel, 'B', PyBytes_AS_STRING(data), (size_t)PyBytes_GET_SIZE(data));
    }
  }
  Py_DECREF(pickled);
  return result;
}

static int pickle_slow(struct parcel *parcel, PyObject *slow) {
  PyObject *objects = PyList_AsTuple(slow);
  if (objects == NULL)
    return -1;
  int result = add_pickled(parcel, bridge_call_python("dromon._pickling", "dumps", "(N)", objects));
  return result;
}

int bridge_parcel_write(bridge_state *state, struct parcel *parcel, PyObject *object) {
  PyObject *slow = NULL;
  int result = write_object(state, parcel, object, &slow, 0);
  if (result == 0 && slow != NULL)
    result = pickle_slow(parcel, slow);
  Py_XDECREF(slow);
  if (result < 0)
    bridge_parcel_clear(parcel);
  return result;
}

/* Whether another interpreter can take over the object as it is. Bytes refer to nothing but their type, which all
 * interpreters share, and where there are many, they lie in memory of malloc, which any thread can free. */
static bool is_movable(PyObject *object) {
#if defined(Py_GIL_DISABLED) || defined(Py_TRACE_REFS)
  (void)object;
  return false;
#else
  return PyBytes_CheckExact(object) && PyBytes_GET_SIZE(object) >= MOVABLE &&
         Py_REFCNT(object) == 1;
#endif
}

int bridge_parcel_move(bridge_state *state, struct parcel *parcel, PyObject *object) {
  if (is_movable(object)) {
    parcel->moved = object;
    return write_letter(parcel, 'O');
  }
  int result = bridge_parcel_write(state, parcel, object);
  Py_DECREF(object);
  return result;
}

int bridge_parcel_write_error(bridge_state *state, struct parcel *parcel, PyObject *error) {
  (void)state;
  int result = add_pickled(parcel, bridge_call_python("dromon._remote", "dump_error", "O", error));
  if (result < 0)
    bridge_parcel_clear(parcel);
  return result;
}

/* ---- Reading -------------------------------------------------------------------------------- */

struct reader {
  bridge_state *state;
  const struct parcel *parcel;
  const char *at;
  PyObject *slow; /* tuple of what was pickled, or NULL */
};

static uint64_t read_number(struct reader *reader) {
  uint64_t number;
  memcpy(&number, reader->at, 8);
  reader->at += 8;
  return number;
}

static PyObject *read_object(struct reader *reader);

static PyObject *read_tuple(struct reader *reader) {
  Py_ssize_t count = (Py_ssize_t)read_number(reader);
  PyObject *tuple = PyTuple_New(count);
  for (Py_ssize_t i = 0; i < count && tuple != NULL; i++) {
    PyObject *item = read_object(reader);
    if (item == NULL)
      Py_CLEAR(tuple);
    else
      PyTuple_SET_ITEM(tuple, i, item);
  }
  return tuple;
}

static const char *read_bytes(struct reader *reader, Py_ssize_t *size) {
  *size = (Py_ssize_t)read_number(reader);
  const char *data = reader->at;
  reader->at += *size;
  return data;
}

static PyObject *read_object(struct reader *reader) {
  const struct parcel *parcel = reader->parcel;
  Py_ssize_t size;
  const char *data;
  int64_t number;
  double real;
  switch (*reader->at++) {
  case 'N':
    return Py_NewRef(Py_None);
  case 'T':
    return Py_NewRef(Py_True);
  case 'F':
    return Py_NewRef(Py_False);
  case 'I':
    number = (int64_t)read_number(reader);
    return PyLong_FromLongLong(number);
  case 'D':
    memcpy(&real, reader->at, 8);
    reader->at += 8;
    return PyFloat_FromDouble(real);
  case 'S':
    data = read_bytes(reader, &size);
    return PyUnicode_DecodeUTF8(data, size, NULL);
  case 'B':
    data = read_bytes(reader, &size);
    return PyBytes_FromStringAndSize(data, size);
  case 'R': {
    const Py_buffer *buffer = bridge_share_buffer(parcel->shares[read_number(reader)]);
    return PyBytes_FromStringAndSize(buffer->buf, buffer->len);
  }
  case 'M':
    return bridge_share_view(reader->state, parcel->shares[read_number(reader)]);
  case 'C':
    return bridge_function_load(reader->state, parcel->functions[read_number(reader)]);
  case 'O':
    return Py_NewRef(parcel->moved);
  case 'U':
    return read_tuple(reader);
  default: /* 'P' */
    return Py_NewRef(PyTuple_GET_ITEM(reader->slow, (Py_ssize_t)read_number(reader)));
  }
}

/* Views of the buffers of pickled data. */
static PyObject *read_buffers(bridge_state *state, const struct parcel *parcel) {
  PyObject *buffers = PyList_New((Py_ssize_t)parcel->pickled_count);
  size_t first = parcel->share_count - parcel->pickled_count;
  for (size_t i = 0; i < parcel->pickled_count && buffers != NULL; i++) {
    PyObject *view = bridge_share_view(state, parcel->shares[first + i]);
    if (view == NULL)
      Py_CLEAR(buffers);
    else
      PyList_SET_ITEM(buffers, (Py_ssize_t)i, view);
  }
  return buffers;
}

/* The pickled data, as a view that is good until the parcel is cleared. */
static PyObject *view_pickled(bridge_state *state, const struct parcel *parcel) {
  if (parcel->pickled != NULL)
    return bridge_share_view(state, parcel->pickled);
  struct reader reader = {.at = bytes_of(parcel) + parcel->pickled_at + 1};
  Py_ssize_t size;
  const char *data = read_bytes(&reader, &size);
  return PyMemoryView_FromMemory((char *)(uintptr_t)data, size, PyBUF_READ);
}

/* What module.name(data, buffers) makes of the pickled data. */
static PyObject *unpickle(bridge_state *state, const struct parcel *parcel, const char *module,
                          const char *name) {
  PyObject *data = view_pickled(state, parcel);
  if (data == NULL)
    return NULL;
  PyObject *buffers = read_buffers(state, parcel);
  PyObject *result = buffers == NULL ? NULL : bridge_call_python(module, name, "OO", data, buffers);
  Py_XDECREF(buffers);
  Py_DECREF(data);
  return result;
}

PyObject *bridge_parcel_read(bridge_state *state, const struct parcel *parcel) {
  struct reader reader = {.state = state, .parcel = parcel, .at = bytes_of(parcel)};
  if (parcel->pickled_at != 0) {
    reader.slow = unpickle(state, parcel, "dromon._pickling", "loads");
    if (reader.slow == NULL)
      return NULL;
  }
  PyObject *object = read_object(&reader);
  Py_XDECREF(reader.slow);
  return object;
}

PyObject *bridge_parcel_read_error(bridge_state *state, const struct parcel *parcel) {
  return unpickle(state, parcel, "dromon._remote", "load_error");
}

void bridge_parcel_clear(struct parcel *parcel) {
  Py_XDECREF(parcel->moved);
  for (size_t i = 0; i < parcel->share_count; i++)
    bridge_share_unref(parcel->shares[i]);
  if (parcel->pickled != NULL)
    bridge_share_unref(parcel->pickled);
  for (size_t i = 0; i < parcel->function_count; i++)
    bridge_function_unref(parcel->functions[i]);
  PyMem_RawFree(parcel->shares);
  PyMem_RawFree(parcel->functions);
  if (parcel->capacity > 0)
    PyMem_RawFree(parcel->bytes);
  *parcel = (struct parcel){0};
}
