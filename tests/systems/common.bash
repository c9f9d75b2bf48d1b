# What the scripts here share. They run from the top of the tree, and keep what they make below
# build/systems.

systems=$PWD/build/systems

need() { # COMMAND...
  local command
  for command in "$@"; do
    command -v "$command" >/dev/null || { echo "$0: needs $command" >&2; exit 1; }
  done
}

# The mirror of Debian that this machine's own apt uses.
debian_mirror() {
  local mirrors
  mirrors=$(apt-get indextargets --format '$(REPO_URI)' \
    'Created-By: Packages' 'Origin: Debian' 'Label: Debian')
  [ -n "$mirrors" ] || { echo "$0: no mirror of Debian is known; run apt-get update" >&2; exit 1; }
  head -n 1 <<<"$mirrors" | sed 's,/*$,,'
}

# Makes a folder by a function, unless it is there and was made by the same code with the same arguments.
make_once() { # FOLDER FUNCTION ARGUMENT...
  local folder=$1 way
  way="$(declare -f "$2") ${*:3}"
  [ "$(cat "$folder.made-by" 2>/dev/null)" = "$way" ] && return
  rm -rf "$folder" "$folder.made-by"
  mkdir -p "$systems"
  "$2" "$folder" "${@:3}"
  echo "$way" >"$folder.made-by"
}

# Python's packages that dromon needs (dependencies) or its tests do (a dependency group), a line each.
# Without the groups that a group includes: what only the examples need is not tested here.
requirements() { # GROUP...
  python3 - "$@" <<'PYTHON'
import sys, tomllib
project = tomllib.load(open("pyproject.toml", "rb"))
groups = project["dependency-groups"] | {"dependencies": project["project"]["dependencies"]}
for name in sys.argv[1:]:
    print(*(each for each in groups[name] if isinstance(each, str)), sep="\n")
PYTHON
}
