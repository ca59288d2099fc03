#!/usr/bin/env bash
# Make .venv hold exactly what requirements/ says, plus this project in editable form. `make setup` runs it.
#
# - Nothing to do: it compares one stamp and returns at once, without network.
# - Two calls at a time: the second waits for the first (where the machine has flock).
# - A call that was killed: the next one finds .venv/.unfinished and starts the environment afresh.
#
# PYTHON           interpreter to build from            (default: python3.11, else python3; 3.11 or newer)
# VARIANT          cpu or cuda                          (default: cuda where nvidia-smi lists a GPU)
# TORCH_INDEX_URL  index for torch and fbgemm alone     (default: pip's own)
# pip's own variables (PIP_INDEX_URL, PIP_FIND_LINKS, PIP_NO_INDEX, ...) work as always.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

readonly TORCH=torch==2.13.0
readonly STAMP=.venv/.stamp UNFINISHED=.venv/.unfinished
VARIANT=${VARIANT:-}
if [ -z "$VARIANT" ]; then
  if nvidia-smi -L >/dev/null 2>&1; then VARIANT=cuda; else VARIANT=cpu; fi
fi

say() { printf 'setup: %s\n' "$*"; }

fail() { # pip takes back a step that failed, so what .venv holds is sound: only the stamp is missing
  rm -f "$UNFINISHED"
  say "$*" >&2
  exit 1
}

wanted_stamp() {
  printf '%s\n%s\n' "$VARIANT" "$PWD"
  cat pyproject.toml requirements/lock.txt "requirements/$VARIANT.txt" scripts/setup.sh | cksum
}

up_to_date() { [ -x .venv/bin/python ] && [ ! -e "$UNFINISHED" ] && [ "$(cat "$STAMP" 2>/dev/null)" = "$(wanted_stamp)" ]; }

must_start_afresh() { # killed half-way, moved to another folder, or built for the other variant
  [ -e "$UNFINISHED" ] && return 0
  [ -x .venv/bin/python ] && .venv/bin/python -m pip --version >/dev/null 2>&1 || return 0
  [ -e "$STAMP" ] && [ "$(head -n 2 "$STAMP")" != "$(wanted_stamp | head -n 2)" ]
}

choose_python() {
  local candidate
  for candidate in ${PYTHON:+"$PYTHON"} python3.11 python3; do
    if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
      echo "$candidate"
      return
    fi
    [ -z "${PYTHON:-}" ] || break
  done
  return 1
}

pip_install() { .venv/bin/python -m pip install -qq --no-compile --disable-pip-version-check "$@"; }

compile_all() { # as pip does, but on all cores; a few packages carry templates that are no Python
  .venv/bin/python -m compileall -qq -j 0 .venv/lib >/dev/null 2>&1 || true
}

check_complete() { # the one complaint expected is the one that requirements/cpu.txt explains
  local complaints
  complaints=$(.venv/bin/python -m pip check | grep -v -e '^torchrec .* requires fbgemm-gpu' -e '^No broken' || true)
  [ -z "$complaints" ] || fail "the pinned versions do not fit together: $complaints"
}

[ -f "requirements/$VARIANT.txt" ] || { say "VARIANT is '$VARIANT': use cpu or cuda" >&2; exit 2; }
up_to_date && exit 0

mkdir -p .venv
if command -v flock >/dev/null; then
  exec 9>.venv/.lock
  flock 9
  up_to_date && exit 0
fi
trap 'say "interrupted; the next call starts afresh" >&2; exit 130' INT TERM HUP

if must_start_afresh; then
  python=$(choose_python) || { say "no Python 3.11 or newer found: set PYTHON=/path/to/python3.11" >&2; exit 2; }
  find .venv -mindepth 1 -maxdepth 1 ! -name .lock -exec rm -rf {} +
  touch "$UNFINISHED"
  say "new .venv from $("$python" --version)"
  "$python" -m venv .venv || fail "could not make .venv with $python"
fi
touch "$UNFINISHED"
rm -f "$STAMP"

say "packages of requirements/lock.txt (a first time takes a minute or more)"
pip_install --no-deps -r requirements/lock.txt || fail "could not install requirements/lock.txt"
say "torch and torchrec ($VARIANT)"
torch_index=()
[ -z "${TORCH_INDEX_URL:-}" ] || torch_index=(--index-url "$TORCH_INDEX_URL")
pip_install ${torch_index[@]+"${torch_index[@]}"} -c requirements/lock.txt "$TORCH" || fail "could not install $TORCH"
if [ "$VARIANT" = cuda ]; then
  # faiss-cpu, of an earlier setup, is the same module as faiss-gpu: to remove it later would remove both
  .venv/bin/python -m pip uninstall -qq -y --disable-pip-version-check faiss-cpu || fail "could not remove faiss-cpu"
  # fbgemm must be built for the same CUDA as torch, so it comes from the same index
  pip_install ${torch_index[@]+"${torch_index[@]}"} --no-deps "$(grep '^fbgemm' requirements/cuda.txt)" || fail "could not install fbgemm"
fi
pip_install --no-deps -r "requirements/$VARIANT.txt" || fail "could not install requirements/$VARIANT.txt"
say "this project, editable"
pip_install --no-deps --no-build-isolation -e . || fail "could not install the project itself"
compile_all
check_complete

wanted_stamp >"$STAMP"
rm -f "$UNFINISHED"
say "ready: .venv ($VARIANT)"
