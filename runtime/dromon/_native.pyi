from typing import Any

# cffi's own objects: the declarations are those of native/include/dromon/dromon.h.
ffi: Any
lib: Any
