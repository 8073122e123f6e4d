#!/bin/sh
# Everything CI runs: ruff, mypy, and the tests with branch coverage against an installed wheel.
#
#   sh tests/run.sh [pytest arguments]       for example: sh tests/run.sh tests/unit -k config
#
# Needs Python 3.11 or later with pip and venv, and sets up the rest in .venv-tests beside the sources. PYTHON names
# the interpreter to use. With arguments only pytest runs, and coverage is not measured. Every step says how many seconds
# it took.
set -eu

now() {
    date +%s
}
script_began=$(now)
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
}
# What the wheel needs to run and to be tested, one requirement a line.
requirements() {
    "$venv/bin/python" -c '
import sys, tomllib
project = tomllib.load(open(sys.argv[1], "rb"))["project"]
print(*project["dependencies"], *project["optional-dependencies"]["dev"], sep="\n")' "$root/pyproject.toml"
}
if [ ! -f "$venv/stamp" ]; then
    pip install 'hatchling>=1.27' 'cython>=3.1' 'setuptools>=77'
    # Most of the one is compiling, and most of the other is downloading and unpacking.
    build_wheel &
    building=$!
    requirements >"$venv/requirements"
    pip install -r "$venv/requirements"
    wait "$building"
    echo "$stamp" >"$venv/stamp"
else
    build_wheel
fi
wheel=$(echo "$venv"/wheel/kevynode-*.whl)
pip install --no-deps --force-reinstall "$wheel"
echo "== set up $venv ($(($(now) - script_began)) s)"

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
workers=
# End a process and all below it; that it has ended already is no failure.
end_all() {
    below=$(ps -A -o pid= -o ppid= 2>/dev/null | awk -v parent="$1" '$2 == parent { print $1 }') || true
    kill "$1" 2>/dev/null || true
    for process in $below; do
        (end_all "$process")
    done
}
clean() {
    for worker in $workers; do
        end_all "$worker"
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

# What the commands of a worker are started with; see below.
gently=
python() {
    $gently "$venv/bin/python" "$@"
}
run_pytest() {
    python "$@" -c "$root/pyproject.toml" --rootdir "$root"
}
# The hot parts exist twice. The pure ones are the reference, and the compiled ones say nothing to coverage.
measured() {
    export KEVYNODE_PURE=1
    run_pytest -m coverage run -m pytest -p no:cacheprovider -m 'not slow' "$@"
}
pure() {
    export KEVYNODE_PURE=1
    run_pytest -m pytest -p no:cacheprovider "$@"
}
compiled() {
    export KEVYNODE_PURE=''
    run_pytest -m pytest "$@"
}

# One function for each part of what there is to do.
part_ruff() {
    cd "$root" && "$venv/bin/ruff" check . && "$venv/bin/ruff" format --check .
}
part_mypy() {
    cd "$root" && $gently "$venv/bin/mypy"
}
part_unit() {
    measured "$root/tests/unit" --ignore-glob="$root/tests/unit/test_twins*"
}
# Two halves, because whatever is begun last should not take long.
part_stream() {
    measured "$root/tests/stream" --ignore-glob="$root/tests/stream/test_m*" --ignore-glob="$root/tests/stream/test_s*"
}
part_stream_scopes() {
    measured "$root"/tests/stream/test_m*.py "$root"/tests/stream/test_s*.py
}
# Coverage makes what runs the same lines over and over take five times as long, and learns nothing from it.
part_unit_slow() {
    pure -m slow "$root/tests/unit" --ignore-glob="$root/tests/unit/test_twins*"
}
part_stream_slow() {
    pure -m slow "$root/tests/stream"
}
# All that compares a node with the real server runs with both.
part_compat() {
    pure "$root/tests/compat"
}
part_compiled() {
    if KEVYNODE_PURE='' "$venv/bin/python" -c 'import sys; from kevynode.twins import COMPILED; sys.exit(not COMPILED)'; then
        compiled -p no:cacheprovider "$root"/tests/unit/test_twins*.py "$root"/tests/stream/test_hub*.py \
            "$root/tests/compat" "$root/tests/sim/test_fuzzing.py"
    else
        # Where there is a compiler they have to be there.
        echo "skipped, because the compiled parts were not built"
        [ -z "${CI:-}" ]
    fi
}
# Not measured: it would slow down every process that is started, and says little that the other tests do not.
part_e2e() {
    compiled -p no:cacheprovider "$root/tests/e2e"
}
part_sim() {
    pure "$root/tests/sim"
}
part_seeds() {
    export KEVYNODE_PURE=1
    cd "$root" && python -m tests.sim --seeds 200 --jobs 1 --minutes 10
}
# What is compared with a baseline is counted in a folder of its own, with the wheel's compiled parts.
part_instructions() {
    if command -v valgrind >/dev/null; then
        mkdir "$work/counted" &&
            cp -r "$root/bench" "$work/counted/" &&
            "$venv/bin/python" -m zipfile -e "$wheel" "$work/counted" &&
            cd "$work/counted" &&
            python -m bench regress --tolerance 5 --work "GET,SET,INCR,HSET,MGET,SET replicated,replica apply"
    else
        echo "skipped, because valgrind is not installed"
    fi
}

# Run a part, and show what it has printed when it has ended: run_part NAME COMMAND [ARGUMENT...]
run_part() {
    name=$1
    shift
    began=$(now)
    if ("$@") >"$work/$name.log" 2>&1; then
        touch "$work/$name.passed"
    fi
    seconds=$(($(now) - began))
    {
        echo "== $name ($seconds s)"
        cat "$work/$name.log"
    } >"$work/$name.shown"
    cat "$work/$name.shown"
}
# Run each of the named parts that nobody else has begun.
work_through() {
    for part in "$@"; do
        if mkdir "$work/$part.begun" 2>/dev/null; then
            run_part "$part" "part_$part"
        fi
    done
}
parts='seeds unit stream_slow stream stream_scopes compiled compat unit_slow mypy sim instructions'
backwards=
for part in $parts; do
    backwards="$part $backwards"
done

failed=
if [ -n "$whole" ]; then
    # Three workers take one part after the other, so that two cores are busy to the end. The third begins with the last
    # one and gets what the others leave, who often wait for processes. The tests of whole processes run in the
    # foreground, because what a shell starts beside itself ignores Ctrl-C, and so do its children.
    work_through $parts &
    workers=$!
    (
        gently='nice -n 10'
        work_through $backwards
    ) &
    workers="$workers $!"
    work_through ruff e2e $parts
    wait $workers || true
    workers=
    for part in ruff e2e $parts; do
        [ -e "$work/$part.passed" ] || failed="$failed $part"
    done
    {
        "$venv/bin/python" -m coverage combine --quiet && "$venv/bin/python" -m coverage report
    } >"$work/report" 2>&1 || failed="$failed coverage"
    case $failed in
    *coverage*) cat "$work/report" ;;
    *) echo "== coverage: $(grep "^TOTAL" "$work/report")" ;;
    esac
else
    compiled "$@" || failed=" pytest"
fi
if [ -n "$failed" ]; then
    echo "== failed after $(($(now) - script_began)) s:$failed"
    exit 1
fi
echo "== all good after $(($(now) - script_began)) s"
