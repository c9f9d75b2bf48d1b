/* parkable.c - whether what a green thread runs may be parked; see parkable.h.
 *
 * Three things are tied to the OS thread, or to a moment, so that other code must not run meanwhile:
 *
 *   - A user's greenlet, one with a parent. It is a piece of the very stack that would be left, and greenlet
 *     keeps the current one for each OS thread, not for each thread state.
 *   - A `__del__` that the garbage collector calls: no other collection begins before that one has ended. (One
 *     that is called since the last reference is gone waits as any code does.) One by another name (`__del__ =
 *     close`) is not recognised: frames know the name of their code only.
 *   - An import. Its lock belongs to the OS thread: the next green thread there would get it, too, and see
 *     half a module.
 *
 * It is asked before each park, and an ordinary one must not feel it. So frames are looked at only while a
 * collection is under way, in whatever thread, and where they are: PyEval_GetFrame and PyFrame_GetBack would make
 * an object of each. Both are in CPython's internal headers. The frames of other threads, and of other green threads, are not looked at.
 */
#define PY_SSIZE_T_CLEAN
#include "python_internal.h"

#include "parkable.h"

/* ---- Frames ---- */

static const struct _PyInterpreterFrame *innermost_frame(void) {
#if PY_VERSION_HEX >= 0x030D0000
  return PyThreadState_Get()->current_frame;
#else
  return PyThreadState_Get()->cframe->current_frame;
#endif
}

/* Not always a code object: since 3.13 it is None where C code called Python code. Borrowed. */
static PyObject *executable_of(const struct _PyInterpreterFrame *frame) {
#if PY_VERSION_HEX >= 0x030E0000
  return PyStackRef_AsPyObjectBorrow(frame->f_executable);
#elif PY_VERSION_HEX >= 0x030D0000
  return frame->f_executable;
#else
  return (PyObject *)frame->f_code;
#endif
}

static bool is_finalizer(const struct _PyInterpreterFrame *frame) {
  PyObject *executable = executable_of(frame);
  if (!PyCode_Check(executable))
    return false;
  PyObject *name = ((PyCodeObject *)executable)->co_name; /* not interned if it was unpickled */
  return PyUnicode_GET_LENGTH(name) == sizeof("__del__") - 1 &&
         PyUnicode_CompareWithASCIIString(name, "__del__") == 0;
}

static bool is_collecting(void) {
  return PyThreadState_Get()->interp->gc.collecting;
}

static bool in_finalizer(void) {
  if (!is_collecting())
    return false;
  for (const struct _PyInterpreterFrame *frame = innermost_frame(); frame != NULL;
       frame = frame->previous)
    if (is_finalizer(frame))
      return true;
  return false;
}

/* ---- Imports ---- */

/* Whether the lock that it weakly refers to is owned by the thread with that ident. */
static bool is_owner(PyObject *reference, PyObject *ident) {
  PyObject *lock = PyObject_CallNoArgs(reference);
  PyObject *owner = lock == NULL ? NULL : PyObject_GetAttrString(lock, "owner");
  bool is = owner != NULL && PyObject_RichCompareBool(owner, ident, Py_EQ) > 0;
  Py_XDECREF(owner);
  Py_XDECREF(lock);
  PyErr_Clear(); /* the lock is gone: None has no owner */
  return is;
}

/* They are there only while some thread imports. */
static bool in_import(const bridge_state *state) {
  if (PyDict_GET_SIZE(state->module_locks) == 0)
    return false;
  PyObject *references = PyDict_Values(state->module_locks);
  PyObject *ident = PyLong_FromUnsignedLong(PyThread_get_thread_ident());
  bool owner = false;
  if (references != NULL && ident != NULL)
    for (Py_ssize_t i = 0; i < PyList_GET_SIZE(references) && !owner; i++)
      owner = is_owner(PyList_GET_ITEM(references, i), ident);
  Py_XDECREF(ident);
  Py_XDECREF(references);
  PyErr_Clear();
  return owner;
}

/* ---- Greenlets ---- */

static bool has_parent(PyObject *const words[], PyObject *module) {
  PyObject *current = PyObject_CallMethodNoArgs(module, words[BRIDGE_GREENLET_GETCURRENT]);
  PyObject *parent =
      current == NULL ? NULL : PyObject_GetAttr(current, words[BRIDGE_GREENLET_PARENT]);
  bool has = parent != NULL && parent != Py_None;
  Py_XDECREF(parent);
  Py_XDECREF(current);
  return has;
}

/* If nobody imported greenlet, there are none. */
static bool in_greenlet(const bridge_state *state) {
  PyObject *const *words = state->greenlet_words;
  PyObject *modules = PyImport_GetModuleDict(); /* borrowed */
  PyObject *module;
  Py_BEGIN_CRITICAL_SECTION(modules);
  module = Py_XNewRef(PyDict_GetItemWithError(modules, words[BRIDGE_GREENLET_MODULE]));
  Py_END_CRITICAL_SECTION();
  bool in = module != NULL && has_parent(words, module);
  Py_XDECREF(module);
  PyErr_Clear();
  return in;
}

/* ---- The answer ---- */

enum parkable bridge_parkable(const bridge_state *state) {
  if (in_finalizer())
    return IN_FINALIZER;
  if (in_import(state))
    return IN_IMPORT;
  return in_greenlet(state) ? IN_GREENLET : PARKABLE;
}

int bridge_parkable_init(bridge_state *state) {
  static const char *const words[] = {
      [BRIDGE_GREENLET_MODULE] = "greenlet",
      [BRIDGE_GREENLET_GETCURRENT] = "getcurrent",
      [BRIDGE_GREENLET_PARENT] = "parent",
  };
  for (int i = 0; i < BRIDGE_GREENLET_WORDS; i++)
    if ((state->greenlet_words[i] = PyUnicode_InternFromString(words[i])) == NULL)
      return -1;
  PyObject *importlib = PyImport_ImportModule("_frozen_importlib");
  if (importlib == NULL)
    return -1;
  state->module_locks = PyObject_GetAttrString(importlib, "_module_locks");
  Py_DECREF(importlib);
  return state->module_locks == NULL ? -1 : 0;
}
