/* test_cxx.c - tests of the C++ runtime's state of cxx.h. */
#include "cxx.h"

#include "testing.h"

#include <dlfcn.h>
#include <string.h>

static bool is_loaded(void) {
  void *library = dlopen("libstdc++.so.6", RTLD_NOLOAD | RTLD_LAZY);
  if (library != NULL)
    dlclose(library);
  return library != NULL;
}

/* As a Python extension would bring it. */
static struct cxx_state *load_and_get(void) {
  void *library = dlopen("libstdc++.so.6", RTLD_LOCAL | RTLD_LAZY);
  CHECK(library != NULL);
  struct cxx_state *(*get_globals)(void) =
      (struct cxx_state * (*)(void)) dlsym(library, "__cxa_get_globals");
  CHECK(get_globals != NULL);
  return get_globals();
}

static void check_state(const struct cxx_state *state, void *caught, unsigned uncaught) {
  CHECK(state->caught == caught);
  CHECK_EQ(state->uncaught, uncaught);
}

static void without_the_runtime_there_is_nothing_to_save(void) {
  struct cxx_state state;
  for (int i = 0; i < 3; i++) {
    memset(&state, 0xa5, sizeof state);
    cxx_save(&state);
    check_state(&state, NULL, 0);
    cxx_restore(&state);
    CHECK(!is_loaded());
  }
}

static void a_runtime_that_is_loaded_later_is_found(void) {
  struct cxx_state saved;
  cxx_save(&saved);
  struct cxx_state *of_thread = load_and_get();
  *of_thread = (struct cxx_state){.caught = &saved, .uncaught = 2};
  cxx_save(&saved);
  check_state(&saved, &saved, 2);
  *of_thread = (struct cxx_state){0};
}

static void what_is_restored_is_what_was_saved(void) {
  struct cxx_state *of_thread = load_and_get();
  struct cxx_state first, second = {0};
  *of_thread = (struct cxx_state){.caught = &first, .uncaught = 1};
  cxx_save(&first);
  cxx_restore(&second);
  check_state(of_thread, NULL, 0);
  *of_thread = (struct cxx_state){.caught = &second, .uncaught = 0};
  cxx_save(&second);
  cxx_restore(&first);
  check_state(of_thread, &first, 1);
  cxx_save(&first);
  cxx_restore(&second);
  check_state(of_thread, &second, 0);
  *of_thread = (struct cxx_state){0};
}

int main(void) {
  RUN_UNLESS(is_loaded(), "since it is loaded already",
             without_the_runtime_there_is_nothing_to_save);
  RUN(a_runtime_that_is_loaded_later_is_found);
  RUN(what_is_restored_is_what_was_saved);
  return 0;
}
