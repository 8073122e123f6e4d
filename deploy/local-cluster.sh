#!/bin/sh
# A cluster of kevynodes on this machine to try things with, until Ctrl-C.
#
#   sh deploy/local-cluster.sh [--nodes N] [--dir DIR] [--port N] [--demo] [--python FILE]
#
# Each node writes a scope of its own and has live copies of the others'; each is the fallback of another one.
#
# --nodes N      how many: from 1 to 16; 3 unless said otherwise
# --dir DIR      folder of their data and configurations (default: .local-cluster/data); found again at the next start
# --port N       client port of the first one; the others follow (default: 6004, or the next that are free). Each node
#                listens for the other nodes 10000 above its client port.
# --demo         show what there is to see, and end: with data in a folder that is then removed, unless --dir is there
# --python FILE  an interpreter that has kevynode installed: nothing is set up then
#
# Needs Python 3.11 or later with pip and venv, and sets up the rest in .local-cluster beside the sources.
set -eu

root=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)
venv=$root/.local-cluster/venv
installed=

usage() {
    [ $# -eq 0 ] || echo "local-cluster.sh: $*" >&2
    echo "usage: sh deploy/local-cluster.sh [--nodes N] [--dir DIR] [--port N] [--demo] [--python FILE]" >&2
    exit 2
}
# Each argument is taken from the front; what is meant for the cluster goes to the end.
count=$#
while [ "$count" -gt 0 ]; do
    option=$1
    shift
    count=$((count - 1))
    case $option in
    -h | --help)
        sed -n '2,/^[^#]/s/^# \{0,1\}//p' "$0"
        exit 0
        ;;
    --demo) set -- "$@" --demo ;;
    --nodes | --dir | --port | --python)
        [ "$count" -gt 0 ] || usage "$option needs a value"
        value=$1
        shift
        count=$((count - 1))
        if [ "$option" = --python ]; then
            installed=$value
        else
            set -- "$@" "$option=$value"
        fi
        ;;
    --python=*) installed=${option#*=} ;;
    --nodes=* | --dir=* | --port=*) set -- "$@" "$option" ;;
    *) usage "what is $option?" ;;
    esac
done

if [ -n "$installed" ]; then
    if ! "$installed" -P -c 'import kevynode' 2>/dev/null; then
        echo "$installed: no interpreter that has kevynode installed" >&2
        exit 1
    fi
else
    . "$root/deploy/find-python.sh"
    # Installed again when the sources, the requirements or the interpreter changed.
    stamp=$({
        "$python" -c 'import sys; print(sys.version)'
        find "$root/kevynode" "$root/pyproject.toml" "$root/hatch_build.py" -type f ! -name '*.pyc' ! -name '*.so' -exec cksum {} + | sort
    } | cksum)
    if [ "$(cat "$venv/stamp" 2>/dev/null || true)" != "$stamp" ]; then
        echo "Setting up $venv ..."
        rm -rf "$venv"
        mkdir -p "$root/.local-cluster"
        "$python" -m venv "$venv"
        "$venv/bin/python" -m pip --disable-pip-version-check --quiet install "$root"
        echo "$stamp" >"$venv/stamp"
    fi
    installed=$venv/bin/python
fi

# It takes the place of this script, so that Ctrl-C and SIGTERM are its own, and so is the exit status.
exec "$installed" "$root/deploy/local_cluster.py" "$@"
