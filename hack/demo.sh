#!/usr/bin/env bash
# Builds the demo, shows how far the build is (the first one compiles several hundred packages), and runs it.
set -euo pipefail
cd "$(dirname "$0")/../test"
binary=../bin/demo
tty=
[ -t 1 ] && tty=1
echo 'Building the demo ...'
GOWORK=off "${GO:-go}" build -v -buildvcs=false -o "$binary" ./cmd/demo 2>&1 | awk -v tty=$tty '
	/[ #]/ && !/^go: downloading / { if (n) printf "\r\033[K"; print; next } # a message; the other lines are modules and packages
	tty { printf "\r%d modules and packages", ++n; fflush() }
	END { if (n) printf "\r\033[K" }'
exec "$binary" "$@"
