/* cxx.h - what the C++ runtime keeps of exceptions for each thread, and must be kept for each stack.
 *
 * `__cxa_get_globals()` (Itanium C++ ABI, 2.2.2) gives a thread's list of caught exceptions and its
 * number of uncaught ones. A stack that is left inside a catch block, or a destructor that runs while an
 * exception passes, would else hand them to the next stack of the thread, whose `throw;` and end of a
 * catch block take what is first in the list.
 *
 * The runtime meant here is libstdc++.so.6, of which a process has one. It may come into the process at
 * any time, with some Python extension. Not reached are copies that are linked statically into something
 * or renamed, and libc++.
 */
#ifndef DROMON_CORE_CXX_H
#define DROMON_CORE_CXX_H

/* All zeros: nothing is caught, as a stack begins. */
struct cxx_state {
  void *caught;
  unsigned uncaught;
};

/* Reads the calling thread's. May wait until a dlopen of another thread is through, constructors included:
 * not to be called with a lock that those may want (Python's GIL). */
void cxx_save(struct cxx_state *state);

/* Writes the calling thread's. To be called after a cxx_save, as a switch does: this one does not look for
 * the runtime. What was saved before there was one needs none. */
void cxx_restore(const struct cxx_state *state);

#endif
