#!/usr/bin/env bash
# Make the Python environment, or bring it up to requirements.txt, and print its folder.
#
#   venv=$(bin/setup_env.sh)      VENV=DIR    the environment [.venv beside run.sh]; clones may share it
#                                 PYTHON=EXE  the Python to make it with [the first that suits]
#   --check           install nothing: print the folder; end with 1 if there is something to do
#   --check-python    install nothing: print the Python to make it with; end with 1 if there is none
#
# What set-up leaves in the environment:
#   canopy.stamp       written last: Python's version, the path hook and requirements.txt as they
#                      were installed. While it matches, there is nothing to do. Contents are compared,
#                      not dates: a fresh clone dates its files at will.
#   canopy.unfinished  there while set-up writes; found later, it tells of an interrupted install.
#   canopy.made        this environment was made here, hence may be made anew. One that existed before
#                      (a venv of the user's) is filled, but never emptied.
#   canopy.lock        locked while set-up writes. The lock belongs to the open file, thus to this
#                      shell and pip together, and ends with the last of them, however they end.
#   canopy_clone.*     the path hook, see below.
set -euo pipefail

root=$(CDPATH='' cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
requirements=$root/requirements.txt
venv=${VENV:-$root/.venv}
case $venv in /*) ;; *) venv=$PWD/$venv ;; esac

say() { printf '%s set-up: %s\n' "$(date +%Y-%m-%dT%H:%M:%S)" "$*" >&2; }
die() {
  printf "set-up: %s\n" "$*" >&2
  exit 1
}

# The project's place on the path is found anew by each Python that starts, because clones that
# share an environment must each get their own code: a fixed path (.pth, editable install) would
# hand one clone's code to all. run.sh and make set PYTHONPATH besides, which goes first.
hook() {
  cat <<'PYTHON'
"""Put the project at the path's end: the clone that holds the script being run, else the one
around the working folder, else the one around this environment."""

import os
import sys


def clone_around(folder):
    while True:
        marks = [os.path.join(folder, "bin", "setup_env.sh"), os.path.join(folder, "local", "io", "errors.py")]
        if all(map(os.path.isfile, marks)):
            return folder
        if folder == os.path.dirname(folder):
            return None
        folder = os.path.dirname(folder)


def starting_folders():
    environment = os.path.realpath(sys.prefix)
    script = os.path.realpath((getattr(sys, "argv", None) or [""])[0])
    if os.path.isfile(script) and not script.startswith(environment + os.sep):
        yield os.path.dirname(script)
    try:
        yield os.getcwd()
    except OSError:  # the working folder was removed
        pass
    yield environment


sys.path.extend([clone for clone in map(clone_around, starting_folders()) if clone][:1])
PYTHON
}

stamp() { # stamp VERSION: what canopy.stamp holds once all is installed
  printf 'python %s\n' "$1"
  hook
  cat "$requirements"
}

version() { "$1" -I -S -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null; }

ready() {
  local found
  [[ -f $venv/canopy.stamp ]] || return 1
  found=$(version "$venv/bin/python") || return 1
  stamp "$found" | cmp -s - "$venv/canopy.stamp"
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

refuse_foreign_folder() { # never write into a folder that holds something else
  [[ -e $venv ]] || return 0
  [[ -d $venv ]] || die "VENV=$venv is not a folder: give another."
  [[ -e $venv/pyvenv.cfg || -e $venv/canopy.lock || -z $(ls -A "$venv") ]] ||
    die "VENV=$venv holds files but no Python environment: give a new or an empty folder."
}

lock() {
  exec 9>>"$venv/canopy.lock" || die "cannot write in $venv: give another folder with VENV=DIR."
  "$1" -I -c 'import fcntl, sys
try:
    fcntl.flock(9, fcntl.LOCK_EX | fcntl.LOCK_NB)
except BlockingIOError:
    print("set-up: another set-up works on this environment; waiting for it.", file=sys.stderr)
    fcntl.flock(9, fcntl.LOCK_EX)'
}

make_environment() { # make_environment PYTHON: an environment without packages, made anew if half done
  local interrupted=''
  if [[ -e $venv/canopy.unfinished ]]; then interrupted=yes; fi
  if [[ ! -e $venv/pyvenv.cfg ]]; then : >"$venv/canopy.made"; fi
  rm -f "$venv/canopy.stamp"
  : >"$venv/canopy.unfinished"
  if [[ -e $venv/canopy.made ]]; then
    if [[ -n $interrupted ]] || ! suitable "$venv/bin/python" >/dev/null; then
      find "$venv/" -mindepth 1 -maxdepth 1 ! -name 'canopy.*' -exec rm -rf {} +
      say "making $venv with $1"
      "$1" -I -m venv "$venv" >&2 || die "$1 -m venv $venv failed: see above."
    fi
  else
    suitable "$venv/bin/python" >/dev/null ||
      die "the environment $venv has no Python 3.10-3.12 with ensurepip: give another with VENV=DIR."
    # Whatever an interrupted install left may be half a package: write all of them again.
    if [[ -n $interrupted ]]; then pip_options+=(--ignore-installed); fi
    "$venv/bin/python" -I -m pip --version >/dev/null 2>&1 || "$venv/bin/python" -I -m ensurepip >&2
  fi
}

install_packages() {
  if [[ ! -t 2 ]]; then pip_options+=(--quiet --quiet --progress-bar off); fi
  say "installing requirements.txt into $venv (the first time this takes minutes and up to 6 GB)"
  # -I: packages on somebody's PYTHONPATH are not packages of this environment.
  "$venv/bin/python" -I -m pip install "${pip_options[@]}" -r "$requirements" >&2 ||
    die "pip could not install $requirements into $venv (its reason is above): mend that and run again."
}

put() { # put FILE: standard input to FILE, by renaming
  cat >"$1.$$" && mv -f "$1.$$" "$1"
}

case ${1:-} in
  '') ;;
  --check) printf '%s\n' "$venv" && ready && exit 0 || exit 1 ;;
  --check-python) find_python && exit 0 ;;
  *) die "unknown option $1; known: --check --check-python." ;;
esac

if ! ready; then
  python=$(find_python)
  refuse_foreign_folder
  mkdir -p "$venv" || die "cannot make $venv: give another folder with VENV=DIR."
  lock "$python"
  if ! ready; then # still: another set-up may have finished while this one waited
    pip_options=(--disable-pip-version-check --no-input)
    make_environment "$python"
    install_packages
    packages=$("$venv/bin/python" -I -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
    hook | put "$packages/canopy_clone.py"
    echo 'import canopy_clone' | put "$packages/canopy_clone.pth"
    rm -f "$venv/canopy.unfinished"
    stamp "$(version "$venv/bin/python")" | put "$venv/canopy.stamp"
    say "done in $SECONDS s"
  fi
fi
printf '%s\n' "$venv"
