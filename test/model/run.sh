#!/usr/bin/env bash
# Checks the models of the ownership protocol with spin (https://spinroot.com):
# the protocol as it is must hold, and with any one of its rules removed it must
# fail. Prints states and depth of each run.
#
#   run.sh [-full] [name ...]     -full adds the runs that take many minutes or over 4 GB
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
for tool in spin gcc; do
	command -v "$tool" >/dev/null || { echo "model: '$tool' is not installed (Debian: apt-get install spin gcc)" >&2; exit 2; }
done

# name | model | expected | what it shows | flags
runs='
base            | claim | holds | all rules, 2 members, every message late, lost or repeated | -DN=2
drift           | claim | holds | clocks that run at rates of 4:5                             | -DN=2 -DDRIFT
deleted         | claim | holds | Leases deleted by hand: tombstones, quarantine, fresh watch | -DN=2 -DLD=2 -DRD=1 -DDEL -DDELMAX=2 -DTOMB -DQD=2 -DWFRESH=1
restored        | claim | holds | etcd restored after an outage longer than the fence         | -DN=2 -DLD=2 -DRD=1 -DRESTORE -DDOWN
no-condition    | claim | fails | a peer is dead because a clock says so                      | -DN=2 -DNOCAS
no-condition-q  | claim | fails | the same, judged by a quorum read                           | -DN=2 -DNOCASQ
no-look         | claim | fails | peers are looked up in the watch cache after a claim        | -DN=2 -DNOBARRIER
look-then-claim | claim | fails | the claim is written after looking                          | -DN=2 -DNOWRITE
trust-read      | claim | fails | a claim is concluded from a read after a lost answer        | -DN=2 -DRELYGET
fence-response  | claim | fails | the fence counts from the response                          | -DN=2 -DRESPFENCE
one-clock       | claim | fails | the clock stands still while the machine is frozen          | -DN=2 -DVMFREEZE
no-check        | claim | fails | a paused process goes on without looking at the fence       | -DN=2 -DNOCHECK
no-margin       | claim | fails | lease duration equals the renew deadline                    | -DN=2 -DLD=2 -DRD=2
too-much-drift  | claim | fails | clocks differ more than the margin                          | -DN=2 -DDRIFT -DLD=10
no-tombstone    | claim | fails | Leases deleted by hand, no tombstones                       | -DN=2 -DDEL
no-regression   | claim | fails | a member does not notice that the server went back          | -DN=2 -DLD=2 -DRD=1 -DRESTORE -DDOWN -DNOREGR
progress        | live  | holds | after the last change a partition is always owned again     |
progress-views  | live  | holds | the same for rings that move more than they need to         | -DNONMONO
reactivate      | live  | fails | active again while a release is on its way: livelock        | -DREACT
no-withdrawal   | live  | fails | a claim that is not wanted is kept: deadlock                | -DNOWITHDRAW
eager           | live  | fails | the owner waits for the claim of the next one: deadlock     | -DEAGER
'
full='
three           | claim3 | holds | all rules, 3 members: 84 million states, 11 GB, 10 minutes | -DN=3
'
[ "${1:-}" = -full ] && { runs+=$full; shift; }
only=" $* "

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
failed=0 held=0 caught=0
printf '%-16s %-6s %-9s %12s %9s %7s  %s\n' run expect result states depth time shows
while IFS='|' read -r name model expect shows flags; do
	name=$(echo $name) model=$(echo $model) expect=$(echo $expect) shows=$(echo $shows)
	[ -n "$name" ] || continue
	[ "$only" = "  " ] || [[ "$only" == *" $name "* ]] || continue
	cd "$work"
	rm -f pan*
	# shellcheck disable=SC2086 # flags are words
	spin -a $flags "$here/$model.pml" >spin.log 2>&1 || { cat spin.log >&2; exit 2; }
	case $model in
	live) options="-DNFAIR=6 -DMEMLIM=12000" search="-a -f -m1000000" ;;
	claim) options="-DSAFETY -DBFS -DCOLLAPSE -DMEMLIM=12000" search="-m1000000" ;;
	claim3) options="-DSAFETY -DCOLLAPSE -DMEMLIM=20000" search="-m30000000 -w27" ;;
	esac
	# shellcheck disable=SC2086
	gcc -O2 -w $options -o pan pan.c
	start=$SECONDS
	# shellcheck disable=SC2086
	./pan $search >pan.log 2>&1 || true
	if grep -q 'errors: 0' pan.log && ! grep -qi 'out of memory\|max search depth too small' pan.log; then
		result=holds
	elif grep -q 'assertion violated\|acceptance cycle' pan.log; then
		result=fails
	else
		result=aborted
	fi
	states=$(sed -n 's/^ *\([0-9.e+]*\) states, stored.*/\1/p' pan.log | head -n 1)
	depth=$(sed -n 's/.*depth reached \([0-9]*\).*/\1/p' pan.log | head -n 1)
	mark=ok
	if [ "$result" != "$expect" ]; then mark=WRONG failed=1; elif [ "$result" = fails ]; then caught=$((caught + 1)); else held=$((held + 1)); fi
	printf '%-16s %-6s %-9s %12s %9s %6ss  %s\n' "$name" "$expect" "$result/$mark" "$states" "$depth" "$((SECONDS - start))" "$shows"
done <<<"$runs"
echo "$held hold, $caught mutants caught"
exit $failed
