/* unlink.c - interpreters that the runtime shall not see: at the end of the process, and while it forks.
 *
 * When there are others than the main one, Py_FinalizeEx aborts the process (CPython 3.12), or ends them by
 * itself (from 3.14), and aborts if a thread is in one. Ending one can fail, too: in 3.12.1 it aborts after
 * `import hashlib`. CPython has no function for leaving them alone; the list is in its internal headers.
 *
 * In the child of a fork, too, the runtime would end them, in which CPython 3.13.0 aborts.
 *
 * So is the list of the parsers of arguments that functions of extension modules share. Each has a tuple of
 * its keywords, which the interpreter has made that first called the function, and Py_FinalizeEx frees it
 * as if that were the main one. From 3.13 on it is.
 */
#define PY_SSIZE_T_CLEAN
#include "python_internal.h"

#include "isolate.h"

#if PY_VERSION_HEX >= 0x030C0000

/* For an assertion of Py_FinalizeEx, in builds from 3.13 on that have assertions: in how many interpreters of the list each
 * type is. */
static void count_types(PyInterpreterState *interpreter, int change) {
#if PY_VERSION_HEX >= 0x030D0000
  for (size_t i = 0; i < _Py_MAX_MANAGED_STATIC_BUILTIN_TYPES; i++)
    if (interpreter->types.builtins.initialized[i].type != NULL)
      _PyRuntime.types.managed_static.types[i].interp_count += change;
  for (size_t i = 0; i < _Py_MAX_MANAGED_STATIC_EXT_TYPES; i++)
    if (interpreter->types.for_extensions.initialized[i].type != NULL)
      _PyRuntime.types.managed_static.types[_Py_MAX_MANAGED_STATIC_BUILTIN_TYPES + i]
          .interp_count += change;
#else
  (void)interpreter, (void)change;
#endif
}

void bridge_unlink_interpreter(PyInterpreterState *interpreter) {
  /* Without the runtime's lock, which extension modules cannot take (from 3.13): the list changes only
   * when interpreters begin and end, and none of ours does any more. */
  PyInterpreterState **link = &_PyRuntime.interpreters.head;
  while (*link != NULL && *link != interpreter)
    link = &(*link)->next;
  if (*link == NULL)
    return;
  *link = interpreter->next;
  count_types(interpreter, -1);
}

void bridge_link_interpreter(PyInterpreterState *interpreter) {
  interpreter->next = _PyRuntime.interpreters.head;
  _PyRuntime.interpreters.head = interpreter;
  count_types(interpreter, 1);
}

void bridge_forget_parsers(void) {
#if PY_VERSION_HEX < 0x030D0000
  _PyRuntime.getargs.static_parsers = NULL;
#endif
}
#endif
