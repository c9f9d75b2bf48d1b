/* cxx.c - see cxx.h.
 *
 * The runtime is looked for at each save until it is found, but only if an object was loaded since the
 * last look: the dynamic linker counts them. Once found, it is kept loaded.
 */
#include "cxx.h"

#include "atomic.h"

#include <dlfcn.h>
#include <link.h>
#include <stddef.h>

typedef struct cxx_state *get_globals_function(void);

/* Release, for who acquires it: what the linker wrote when it loaded the runtime comes before. */
static get_globals_function *get_globals;

/* What the linker's counter was at the latest look. Relaxed: a value that is too old makes for one more
 * look, and one that is not has been followed by its look. */
static uint64_t looked_at;

static int read_loads(struct dl_phdr_info *info, size_t size, void *loads) {
  (void)size;
  *(uint64_t *)loads = info->dlpi_adds;
  return 1; /* each object would tell the same */
}

static get_globals_function *look(void) {
  void *library = dlopen("libstdc++.so.6", RTLD_NOLOAD | RTLD_LAZY);
  if (library == NULL)
    return NULL;
  get_globals_function *found = (get_globals_function *)dlsym(library, "__cxa_get_globals");
  store_release(&get_globals, found);
  return found;
}

static get_globals_function *find(void) {
  get_globals_function *found = load_acquire(&get_globals);
  if (found != NULL)
    return found;
  uint64_t loads = 0;
  dl_iterate_phdr(read_loads, &loads);
  if (loads == load_relaxed(&looked_at))
    return NULL;
  found = look();
  store_relaxed(&looked_at, loads);
  return found;
}

void cxx_save(struct cxx_state *state) {
  get_globals_function *get = find();
  *state = get == NULL ? (struct cxx_state){0} : *get();
}

void cxx_restore(const struct cxx_state *state) {
  get_globals_function *get = load_acquire(&get_globals);
  if (get != NULL)
    *get() = *state;
}
