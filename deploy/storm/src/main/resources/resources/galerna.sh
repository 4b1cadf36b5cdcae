#!/bin/sh
# Runs the program beside this file: files that come out of a jar may not be executed.
set -e
here=$(dirname "$0")
[ -x "$here/galerna" ] || chmod +x "$here/galerna"
exec "$here/galerna" "$@"
