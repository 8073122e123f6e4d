# shellcheck shell=sh
# Sourced by the other scripts: sets $python to an interpreter that is new enough, or ends with a message.
# PYTHON in the environment names the one to use.
python=
for candidate in "${PYTHON:-python3}" python3.14 python3.13 python3.12 python3.11 python; do
    if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; then
        python=$candidate
        break
    fi
done
if [ -z "$python" ]; then
    echo "kevynode needs Python 3.11 or later; none was found. PYTHON=/path/to/python3 names one." >&2
    exit 1
fi
if ! "$python" -c 'import ensurepip, venv' >/dev/null 2>&1; then
    echo "$python has no venv module with pip; on Debian and Ubuntu: apt install python3-venv" >&2
    exit 1
fi
