/* prelude.h - what the C source of `dromon._native` begins with; see meson.build beside it. */
#include <dromon/dromon.h>
