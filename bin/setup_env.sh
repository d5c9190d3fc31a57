#!/usr/bin/env bash
# Make the Python environment, or bring it up to the requirements, and print its folder.
#
#   venv=$(bin/setup_env.sh)      VENV=DIR    the environment [.venv beside run.sh]; clones may share it
#                                 PYTHON=EXE  the Python to make it with [the first that suits]
#   --dev             with what tests and lint need besides: requirements-dev.txt
#   --check           install nothing: print the folder; end with 1 if there is something to do
#   --check-python    install nothing: print the Python to make it with; end with 1 if there is none
#
# What set-up leaves in the environment:
#   canopy.stamp   Python's version, the clone whose code is linked and the requirements as installed;
#                  while they hold there is nothing to do. "unfinished" while set-up writes: found later,
#                  it tells of an interrupted install.
#   canopy.made    this environment was made here, hence may be made anew. One that existed before
#                  (a venv of the user's) is filled, but never emptied.
#   canopy.lock    locked while set-up writes. The lock belongs to the open file, thus to this
#                  shell and pip together, and ends with the last of them, however they end.
# The link (pip install -e) leads to one clone; with scripts of another, local/__init__.py turns to theirs.
set -euo pipefail

root=$(CDPATH='' cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
lists=("$root/requirements.txt")
venv=${VENV:-$root/.venv}
case $venv in /*) ;; *) venv=$PWD/$venv ;; esac

say() { printf '%s set-up: %s\n' "$(date +%Y-%m-%dT%H:%M:%S)" "$*" >&2; }
die() {
  printf "set-up: %s\n" "$*" >&2
  exit 1
}
version() { "$1" -I -S -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null; }

wanted() { cat "$root/requirements.lock" "${lists[@]}"; }
ready() { # contents are compared, not dates: a fresh clone dates its files at will
  local found first installed
  found=$(version "$venv/bin/python") || return 1
  { read -r first && installed=$(cat); } 2>/dev/null <"$venv/canopy.stamp" || return 1
  [[ $first == "python $found linked to "* && -e ${first#*linked to }/local/__init__.py ]] || return 1
  [[ $installed$'\n' == "$(wanted)"$'\n'* ]] # what --dev installed comes last and is never too much
}

# The real executable behind a name (not a shim, not an active environment) if it suits, by running
# it: a name on the path proves nothing. Debian ships Python without ensurepip.
suitable() {
  "$1" -I -c 'import sys
if not (3, 10) <= sys.version_info[:2] <= (3, 12): sys.exit(1)
import ensurepip, venv
print(getattr(sys, "_base_executable", None) or sys.executable)' 2>/dev/null
}

find_python() {
  local name found seen=''
  set -- python3 python3.12 python3.11 python3.10 python
  if [[ -x $venv/bin/python ]]; then set -- "$@" "$venv/bin/python"; fi
  if [[ -n ${PYTHON:-} ]]; then set -- "$PYTHON"; fi
  for name in "$@"; do
    if suitable "$name"; then return; fi
    if found=$(version "$name"); then seen="$seen, $name is $found"; fi
  done
  die "Python 3.10, 3.11 or 3.12 with its venv and ensurepip modules is needed and none of ($*)" \
    "is one${seen:+ (${seen#, })}: install one (Debian: apt install python3 python3-venv) or name" \
    "it with PYTHON=/path/to/python."
}

lock() { # lock PYTHON: the environment's folder, which must be one or become one
  [[ ! -e $venv || -d $venv ]] || die "VENV=$venv is not a folder: give another."
  [[ ! -e $venv || -e $venv/pyvenv.cfg || -e $venv/canopy.lock || -z $(ls -A "$venv") ]] ||
    die "VENV=$venv holds files but no Python environment: give a new or an empty folder."
  { mkdir -p "$venv" && : >>"$venv/canopy.lock"; } 2>/dev/null || die "cannot write in $venv: give another with VENV=DIR."
  exec 9>>"$venv/canopy.lock"
  "$1" -I -c 'import fcntl, sys
try:
    fcntl.flock(9, fcntl.LOCK_EX | fcntl.LOCK_NB)
except BlockingIOError:
    print("set-up: another set-up works on this environment; waiting for it.", file=sys.stderr)
    fcntl.flock(9, fcntl.LOCK_EX)'
}

install() { # install PYTHON: all that is wanted, in an environment that is made, filled or made anew
  local state lines=() options=(--disable-pip-version-check --no-input)
  state=$(cat "$venv/canopy.stamp" 2>/dev/null || true)
  if [[ ! -e $venv/pyvenv.cfg ]]; then : >"$venv/canopy.made"; fi
  echo unfinished >"$venv/canopy.stamp"
  if [[ ! -e $venv/canopy.made ]]; then
    # Whatever an interrupted install left may be half a package: write all of them again.
    if [[ $state == unfinished ]]; then options+=(--ignore-installed); fi
  elif [[ $state != python* ]] || ! suitable "$venv/bin/python" >/dev/null; then
    find "$venv/" -mindepth 1 -maxdepth 1 ! -name 'canopy.*' -exec rm -rf {} +
    say "making $venv with $1"
    "$1" -I -m venv "$venv" >&2 || die "$1 -m venv $venv failed: see above."
  fi
  suitable "$venv/bin/python" >/dev/null ||
    die "the environment $venv has no Python 3.10-3.12 with ensurepip: give another with VENV=DIR."
  # -I: packages on somebody's PYTHONPATH are not packages of this environment.
  set -- "$venv/bin/python" -I -m pip
  "$@" --version >/dev/null 2>&1 || "$venv/bin/python" -I -m ensurepip >&2
  if [[ ! -t 2 ]]; then options+=(--quiet --quiet --progress-bar off); fi
  for list in "${lists[@]}"; do lines+=(--requirement "$list"); done
  say "installing ${lists[*]##*/} into $venv (the first time this takes minutes and up to 6 GB)"
  if ! { "$@" install "${options[@]}" "${lines[@]}" &&
    "$@" install "${options[@]}" --no-deps --no-build-isolation --editable "$root"; } >&2; then
    die "pip could not install ${lists[*]} into $venv (its reason is above): mend that and run again."
  fi
}

case ${1:-} in
  '') ;;
  --dev) lists+=("$root/requirements-dev.txt") ;;
  --check) printf '%s\n' "$venv" && ready && exit 0 || exit 1 ;;
  --check-python) find_python && exit 0 ;;
  *) die "unknown option $1; known: --dev --check --check-python." ;;
esac

if ! ready; then
  python=$(find_python)
  lock "$python"
  if ! ready; then # still: another set-up may have finished while this one waited
    install "$python"
    { echo "python $(version "$venv/bin/python") linked to $root" && wanted; } >"$venv/canopy.stamp.new"
    mv -f "$venv/canopy.stamp.new" "$venv/canopy.stamp"
    say "done in $SECONDS s"
  fi
fi
printf '%s\n' "$venv"
