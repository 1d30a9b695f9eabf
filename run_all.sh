#!/usr/bin/env bash
# Sets up a local environment and hands over to Snakemake. `./run_all.sh --help` says what it takes.
set -euo pipefail

root="$(cd -P "$(dirname "${BASH_SOURCE[0]}")" && pwd)"

die() { printf 'run_all.sh: %s\n' "$*" >&2; exit 2; }

version_of() { "$1" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null; }

# The newest Python that the pins support; the variable PYTHON names another one.
find_python() {
  local candidate version refused=""
  for candidate in ${PYTHON:+"$PYTHON"} python3.13 python3.12 python3.11 python3 python; do
    if version="$(version_of "$candidate")"; then
      case "$version" in
        3.11 | 3.12 | 3.13) echo "$candidate"; return ;;
        *) refused="$refused $candidate is Python $version." ;;
      esac
    elif [ "$candidate" = "${PYTHON:-}" ]; then
      refused=" PYTHON=$PYTHON does not run."
    fi
    [ "$candidate" = "${PYTHON:-}" ] && break
  done
  die "Python 3.11, 3.12 or 3.13 is needed: TensorFlow's pinned version has no others.${refused:- No Python was found.}" \
    "Install one of them, or name it: PYTHON=/path/to/python3.12 ./run_all.sh"
}

# What --cluster names: the nodes decide, and not the machine on which this is called.
cluster="" before=""
for word in "$@"; do
  case "$before $word" in
    *" --") break ;;
    *" --cluster="*) cluster="${word#*=}" ;;
    "--cluster "*) cluster="$word" ;;
  esac
  before="$word"
done

has_gpu() {
  case "$cluster" in
    "") command -v nvidia-smi >/dev/null 2>&1 && nvidia-smi -L 2>/dev/null | grep -q GPU ;;
    *:*) sinfo --noheader --format='%P %G' 2>/dev/null | grep -q "^${cluster#*:}\*\? .*gpu" ;;
    # The default partition has a star.
    *) sinfo --noheader --format='%P %G' 2>/dev/null | grep -q '^[^ ]*\* .*gpu' ;;
  esac
}

# A home shared between machines with and without a GPU has an environment for each.
if has_gpu; then
  venv="$root/.venv-gpu" requirements="$root/requirements-gpu.txt"
else
  venv="$root/.venv" requirements="$root/requirements.txt"
fi

# What the environment was made from; if that changes it is made anew.
wanted() { cat "$1"; echo "$root"; }

set_up() {
  local python
  if [ -f "$venv/made-from" ] && wanted "$requirements" | cmp -s - "$venv/made-from"; then return; fi
  python="$(find_python)" || exit $?
  echo "Setting up the environment in $(basename "$venv") with $(version_of "$python") from $(basename "$requirements"); this takes some minutes, once."
  rm -rf "$venv"
  "$python" -m venv "$venv" || die "$python has no venv module (on Debian and Ubuntu: apt install python3-venv)"
  "$venv/bin/python" -m pip install --quiet --disable-pip-version-check -r "$requirements" \
    || die "the packages could not be installed; see pip's message above. Is the package index reachable?"
  "$venv/bin/python" -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e "$root"
  "$venv/bin/python" -m ipykernel install --sys-prefix --name fer2013 --display-name "Python (fer2013)" >/dev/null
  wanted "$requirements" >"$venv/made-from"
}

# Two calls at once set up one after the other.
locked_set_up() {
  if command -v flock >/dev/null 2>&1; then
    exec 9>"$venv.lock"
    flock 9
    set_up
    exec 9>&-
  else
    set_up
  fi
}

case "${1:-}" in
  -h | --help)
    python="$(find_python)" || exit $?
    PYTHONPATH="$root" exec "$python" -m fer_utils.batch.cli --help
    ;;
esac

case "$(uname -sm 2>/dev/null || true)" in
  "Darwin x86_64") die "this is a Mac with an Intel processor (or a terminal under Rosetta), for which TensorFlow 2.21 has no build;" \
    "use a Mac with Apple silicon, Linux, or the notebooks on a hosted JupyterLab" ;;
esac

locked_set_up
# Kernels and jobs are found by name; they must be this environment's, and no module of the working directory's.
export PATH="$venv/bin:$PATH" PYTHONSAFEPATH=1

case "${1:-}" in
  test)
    shift
    cd "$root"
    python -m ruff check .
    python -m ruff format --check .
    # The report is opened in Chromium where there is one, with a driver that nothing else needs.
    if command -v chromium >/dev/null 2>&1 || command -v google-chrome >/dev/null 2>&1; then
      python -m pip install --quiet --disable-pip-version-check -r requirements-browser.txt \
        || echo "run_all.sh: Playwright could not be installed; the tests in a browser are left out." >&2
    fi
    # A file stays on one worker: its tests share what is slow to make.
    exec python -m pytest --numprocesses auto --dist loadfile --no-loadscope-reorder "$@"
    ;;
  lab)
    shift
    # Defaults for JupyterLab beside the user's own settings, and the one kernel that the notebooks name.
    # Notebooks may import what lies beside them: only the server itself is kept from its working directory.
    unset PYTHONSAFEPATH
    JUPYTER_CONFIG_PATH="$root/.jupyter${JUPYTER_CONFIG_PATH:+:$JUPYTER_CONFIG_PATH}" \
      exec python -P -m jupyterlab --ServerApp.ip=127.0.0.1 --ServerApp.root_dir="$root" \
      --KernelSpecManager.allowed_kernelspecs=fer2013 --KernelSpecManager.ensure_native_kernel=False \
      --MultiKernelManager.default_kernel_name=fer2013 \
      --LabApp.default_url=/lab/tree/notebooks/00_index.ipynb "$@"
    ;;
  try)
    shift
    exec python -m fer_utils.training.faces "$@"
    ;;
  benchmark)
    shift
    cd "$root"
    # Not installed like fer_utils, so that Python must be told where it lies.
    PYTHONPATH="$root" exec python -m benchmarks.compare "$@"
    ;;
  *)
    # A run keeps TensorFlow's errors in its logs. Elsewhere `fer_utils` drops them too: in JupyterLab each is a red box.
    export TF_CPP_MIN_LOG_LEVEL="${TF_CPP_MIN_LOG_LEVEL:-2}"
    exec python -m fer_utils.batch.run "$@"
    ;;
esac
