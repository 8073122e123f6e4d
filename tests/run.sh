#!/bin/sh
# Everything CI runs: ruff, mypy, and the tests with branch coverage against an installed wheel.
#
#   sh tests/run.sh [pytest arguments]       for example: sh tests/run.sh tests/unit -k config
#
# Needs Python 3.11 or later with pip and venv, and sets up the rest in .venv-tests beside the sources. PYTHON names
# the interpreter to use. With arguments only pytest runs, and the coverage floor is not enforced.
set -eu

root=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)
venv=$root/.venv-tests
. "$root/deploy/find-python.sh"

# The folder is kept while interpreter and requirements stay the same.
stamp=$("$python" -c 'import sys; print(sys.version)' | cat - "$root/pyproject.toml" | cksum)
if [ "$(cat "$venv/stamp" 2>/dev/null || true)" != "$stamp" ]; then
    rm -rf "$venv"
    "$python" -m venv "$venv"
fi
pip() {
    "$venv/bin/python" -m pip --disable-pip-version-check --quiet "$@"
}
build_wheel() {
    rm -rf "$venv/wheel"
    pip wheel --no-deps --no-build-isolation --wheel-dir "$venv/wheel" "$root"
    wheel=$(echo "$venv"/wheel/kevynode-*.whl)
}
if [ ! -f "$venv/stamp" ]; then
    echo "== setting up $venv"
    pip install 'hatchling>=1.27' 'cython>=3.1' 'setuptools>=77'
    build_wheel
    pip install "${wheel}[dev]"
    echo "$stamp" >"$venv/stamp"
else
    build_wheel
    pip install --no-deps --force-reinstall "$wheel"
fi

failed=
check() {
    name=$1
    shift
    echo "== $name"
    "$@" || failed="$failed $name"
}

cd "$root"
if [ $# -eq 0 ]; then
    check ruff "$venv/bin/ruff" check .
    check ruff-format "$venv/bin/ruff" format --check .
    check mypy "$venv/bin/mypy"
fi

# Paths among the arguments are meant from the project's root; the tests themselves start in an empty folder, so that
# the installed package is imported and not the sources.
whole=yes
[ $# -eq 0 ] || whole=
paths=
count=$#
while [ "$count" -gt 0 ]; do
    argument=$1
    shift
    count=$((count - 1))
    if [ -e "$root/${argument%%::*}" ] && [ "${argument#-}" = "$argument" ]; then
        paths=yes
        argument=$root/$argument
    fi
    set -- "$@" "$argument"
done
[ -n "$paths" ] || set -- "$@" "$root/tests"

work=$(mktemp -d)
beside=
# At the end; what it finds ended already is no failure.
clean() {
    for process in $beside; do
        kill "$process" 2>/dev/null || true
    done
    rm -rf "$work"
}
trap clean EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
mkdir "$work/empty"
cd "$work/empty"
export COVERAGE_FILE="$work/coverage" COVERAGE_RCFILE="$root/pyproject.toml"
export HYPOTHESIS_STORAGE_DIRECTORY="$venv/hypothesis"

# The hot parts exist twice: the pure ones are the reference, and the compiled ones say nothing to coverage. Each runs
# all that compares a node with the real server.
run_pure() {
    KEVYNODE_PURE=1 "$venv/bin/python" -m coverage run -m pytest -c "$root/pyproject.toml" --rootdir "$root" "$@"
}
run_compiled() {
    KEVYNODE_PURE='' "$venv/bin/python" "$@" -c "$root/pyproject.toml" --rootdir "$root"
}
run_simulations() {
    KEVYNODE_PURE=1 nice -n 10 "$venv/bin/python" -m pytest -c "$root/pyproject.toml" --rootdir "$root" -p no:cacheprovider \
        "$root/tests/sim"
}
# What is compared with a baseline is counted in a folder of its own, with the wheel's compiled parts.
count_instructions() {
    if command -v valgrind >/dev/null; then
        mkdir "$work/counted" &&
            cp -r "$root/bench" "$work/counted/" &&
            "$venv/bin/python" -m zipfile -e "$wheel" "$work/counted" &&
            cd "$work/counted" &&
            nice -n 10 "$venv/bin/python" -m bench regress --tolerance 5 \
                --work "GET,SET,INCR,HSET,MGET,SET replicated,replica apply"
    else
        echo "== skipped: instructions, because valgrind is not installed"
    fi
}
simulate() {
    cd "$root" && KEVYNODE_PURE=1 nice -n 10 "$venv/bin/python" -m tests.sim --seeds 200 --minutes 10
}
# Run a command and keep what it prints for later: beside NAME COMMAND [ARGUMENT...], then report NAME.
beside() {
    name=$1
    shift
    (
        "$@" && touch "$work/$name.passed"
    ) >"$work/$name.log" 2>&1
}
report() {
    echo "== $1"
    cat "$work/$1.log"
    [ -e "$work/$1.passed" ] || failed="$failed $1"
}
if [ -n "$whole" ]; then
    # Side by side: a machine with two cores is done sooner. The first half keeps one of them busy. The second half often
    # waits for processes; what is simulated and counted takes what that leaves, and delays nobody.
    beside pytest-unit-compat-moves \
        run_pure -p no:cacheprovider "$root/tests/unit" "$root/tests/compat" "$root"/tests/stream/test_moves*.py &
    half=$!
    (
        beside simulations simulate || true
        beside pytest-sim run_simulations || true
        beside instructions count_instructions
    ) &
    rest=$!
    beside="$half $rest"
    if "$venv/bin/python" -c 'import sys; from kevynode.twins import COMPILED; sys.exit(not COMPILED)'; then
        check pytest-twins-compat run_compiled -m pytest -p no:cacheprovider \
            "$root"/tests/unit/test_twins*.py "$root"/tests/stream/test_hub*.py "$root/tests/compat"
    else
        # Where there is a compiler they have to be there.
        echo "== skipped: pytest-twins-compat, because the compiled parts were not built"
        [ -z "${CI:-}" ] || failed="$failed compiled"
    fi
    # Not measured: it would slow down every process that is started, and says little that the other tests do not.
    check pytest-e2e run_compiled -m pytest -p no:cacheprovider "$root/tests/e2e"
    check pytest-stream run_pure "$root/tests/stream" \
        --ignore-glob="$root/tests/stream/test_moves*.py"
    wait "$half" "$rest" || true
    for name in pytest-unit-compat-moves simulations pytest-sim instructions; do
        report "$name"
    done
    "$venv/bin/python" -m coverage combine --quiet
    "$venv/bin/python" -m coverage report >"$work/report" || failed="$failed coverage"
    case $failed in
    *coverage*) cat "$work/report" ;;
    *) echo "== coverage: $(grep "^TOTAL" "$work/report")" ;;
    esac
else
    check pytest run_compiled -m coverage run -m pytest "$@"
fi
if [ -n "$failed" ]; then
    echo "== failed:$failed"
    exit 1
fi
echo "== all good"
