#!/bin/sh
# A kevynode on this machine to try things with, until Ctrl-C.
#
#   sh deploy/local-cluster.sh [--nodes N] [--dir DIR] [--port N]
#
# Needs Python 3.11 or later with pip and venv, and sets up the rest in .local-cluster beside the sources. --dir is
# the folder for data (default: .local-cluster/data). --port is the client port (default: 6004, or the next free one).
# This version runs a single node, whatever --nodes says.
set -eu

root=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)
home=$root/.local-cluster
venv=$home/venv
data=$home/data
nodes=1
port=

usage() {
    echo "usage: sh deploy/local-cluster.sh [--nodes N] [--dir DIR] [--port N]" >&2
    exit 2
}
number() {
    case $1 in
    '' | *[!0-9]*) usage ;;
    esac
}
while [ $# -gt 0 ]; do
    case $1 in
    -h | --help)
        sed -n '2,9s/^# \{0,1\}//p' "$0"
        exit 0
        ;;
    esac
    [ $# -ge 2 ] || usage
    case $1 in
    --nodes)
        number "$2"
        nodes=$2
        ;;
    --dir) data=$2 ;;
    --port)
        number "$2"
        port=$2
        ;;
    *) usage ;;
    esac
    shift 2
done

. "$root/deploy/find-python.sh"

# Installed again when the sources, the requirements or the interpreter changed.
stamp=$({
    "$python" -c 'import sys; print(sys.version)'
    find "$root/kevynode" "$root/pyproject.toml" -type f ! -name '*.pyc' -exec cksum {} + | sort
} | cksum)
if [ "$(cat "$venv/stamp" 2>/dev/null || true)" != "$stamp" ]; then
    echo "Setting up $venv ..."
    rm -rf "$venv"
    mkdir -p "$home"
    "$python" -m venv "$venv"
    "$venv/bin/python" -m pip --disable-pip-version-check --quiet install "$root"
    echo "$stamp" >"$venv/stamp"
fi

mkdir -p "$data/replica"
if [ -z "$port" ]; then
    port=$("$venv/bin/python" - <<'EOF'
import socket

for port in range(6004, 6104):
    with socket.socket() as probe:
        # As the node binds, so that a port whose last connections are just closing counts as free.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            continue
        print(port)
        break
EOF
    )
    if [ -z "$port" ]; then
        echo "no free port from 6004 to 6103; choose one with --port" >&2
        exit 1
    fi
fi
replication_port=$((port + 10000))
[ "$replication_port" -le 65535 ] || replication_port=PORT
[ "$nodes" -eq 1 ] || echo "This script runs a single node: scopes, which a cluster is made of, are planned."

cat <<EOF
Starting a node on 127.0.0.1:$port with its data in $data. Ctrl-C stops it; the next start finds the data again.
Once its ready line shows, try in another terminal:

    redis-cli -p $port SET greeting hello
    redis-cli -p $port GET greeting
    redis-cli -p $port INFO server
    $venv/bin/kevynode status 127.0.0.1:$port

and for a live copy of it, which follows the replication port of its ready line:

    $venv/bin/kevynode run --port 0 --dir "$data/replica" --replicaof 127.0.0.1:$replication_port

EOF
# The node takes the place of this script, so that Ctrl-C and SIGTERM are its own, and so is the exit status.
exec "$venv/bin/kevynode" run --bind 127.0.0.1 --port "$port" --dir "$data"
