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
#
# A run that "fails" removes one rule, or shows a limit that section 5 of the specification lists (its text says which).
runs='
base            | claim | holds | all rules, 2 members, every message late, lost or repeated | -DN=2
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

confirm         | claim | holds | R40, R41: a read confirms the write that it shows           | -DN=2 -DLD=2 -DRD=1 -DR40 -DR40CLAIMLAST -DHEDGE
confirm-late    | claim | holds | the same, reads are answered late                           | -DN=2 -DLD=2 -DRD=1 -DR40 -DR40CLAIMLAST -DTWOPH
confirm-read    | claim | fails | R40: the fence counts from the read                         | -DN=2 -DLD=2 -DRD=1 -DR40 -DR40CLAIMLAST -DR40READ
confirm-any     | claim | fails | R40: the fence counts from the last send, whatever is shown | -DN=2 -DLD=2 -DRD=1 -DR40 -DR40CLAIMLAST -DR40ANY
confirm-reuse   | claim | fails | R40: a retry reuses the seq of the write before             | -DN=2 -DLD=2 -DRD=1 -DR40 -DR40CLAIMLAST -DR40REUSE
confirm-claims  | claim | fails | R40: an earlier write confirms its claims                   | -DN=2 -DLD=2 -DRD=1 -DR40 -DR40CLAIMANY
foreign         | claim | holds | R44: foreign writes, only a new holder or seq counts        | -DN=2 -DLD=2 -DRD=1 -DFW -DSEQT
foreign-rv      | claim | holds | R44: foreign writes, every new version counts               | -DN=2 -DLD=2 -DRD=1 -DFW
foreign-confirm | claim | holds | R40 and R44 together                                        | -DN=2 -DLD=2 -DRD=1 -DR40 -DR40CLAIMLAST -DFW -DSEQT
foreign-evict   | claim | fails | R23: an eviction without a condition                        | -DN=2 -DLD=2 -DRD=1 -DFW -DNOCOND
foreign-old-seq | claim | fails | limit: an old record is applied again in a gap of a watch   | -DN=2 -DLD=2 -DRD=1 -DFW -DSEQT -DFORGE
edited          | claim | holds | R32, R45: holder, claims or seq are edited by hand          | -DN=2 -DLD=2 -DRD=1 -DEDIT -DSEQT -DNOPAUSE -DNOCRASH
edited-void     | claim | fails | R45: a Lease without a holder is void                       | -DN=2 -DLD=2 -DRD=1 -DEDIT -DSEQT -DEMPTYVOID
edited-believed | claim | fails | R32: the claims of an edited record are believed            | -DN=2 -DLD=2 -DRD=1 -DEDIT -DSEQT -DNOSUM
old-no-recheck  | claim | fails | R52: an evicted record applied again, its member resumes    | -DN=2 -DLD=2 -DRD=1 -DREAPPLY -DSEQT -DNOPAUSE -DNOCRASH
old-believed    | claim | fails | R32: a record whose seq went backwards is believed          | -DN=2 -DLD=2 -DRD=1 -DREAPPLY -DRECHECK -DSEQT -DNOPAUSE -DNOCRASH -DNOBACK

no-fence-gap    | r41   | holds | R41: latency of up to 4 s, no fence                         | -DLAT=8
no-fence-lost   | r41   | holds | R41: the answers of all writes lost, latency 1 s            | -DLAT=2 -DLOST
fixed-timeout   | r41   | fails | R41: a write is given up after RP                           | -DLAT=7 -DFIXED
no-read         | r41   | fails | R41: no GET alongside a write                               | -DLAT=2 -DLOST -DWAIT
lost            | r40live | holds | R40: the answers of all writes lost, works or is evicted  | -DCLAIMLAST
lost-no-claims  | r40live | fails | R40: a read confirms no claims: alive, never works        |
lost-no-read    | r40live | fails | R40: a read confirms nothing                              | -DNOR40
lagging         | r44live | holds | R44: a watch that lags by 10 s, dead peers are evicted    |
lagging-restart | r44live | fails | R44: a relist restarts all timers                         | -DOLD
lagging-foreign | r44live | holds | R44: a third party writes every 5 s                       | -DFWP=5 -DSEQT
lagging-rv      | r44live | fails | R44: every new version restarts the timer                 | -DFWP=5

drain           | drain | holds | R10-R13, R12a, R20, R21: DrainGrace                         |
drain-no-grace  | drain | fails | R10: contexts are cancelled when the drain begins           | -DNOGRACE
drain-cancelled | drain | fails | R12a: active again although contexts were cancelled         | -DCANCELLED
drain-restart   | drain | fails | R12a: the grace of a second drain counts from the first     | -DNORESTART
drain-early     | drain | fails | R11: released with work in flight                           | -DEARLYREL
drain-reenter   | drain | fails | R20: active again while a release is on its way             | -DREENTER
drain-not-free  | drain | fails | R13: free only when the release is answered                 | -DNOTFREE
drain-admit     | drain | fails | R10: work is admitted in any state                          | -DADMIT
drain-lost      | drain | fails | R21: cancelled work is not requeued                         | -DNOREQUEUE

keyed           | tomb  | holds | R47: tombstones keyed by UID and holder, merged, adopted    |
keyed-holder    | tomb  | fails | R47: keyed by the text of the holder                        | -DKEYHOLDER
adopt-edited    | tomb  | fails | R47: adopted from an edited record                          | -DADOPTEDITED
merge-shortest  | tomb  | fails | R47: the merged entry has the shortest time                 | -DMERGEMIN
merge-claims    | tomb  | fails | R47: the merged entry claims what one entry claims          | -DMERGECLAIMS
merge-cut       | tomb  | fails | R47: what exceeds the bound is left out                     | -DCUT
merge-ends      | tomb  | holds | R47: merged entries end, whoever joins                      | -DEND -DBND=9
merge-settled   | tomb  | fails | R47: settled members, too, adopt merged entries: no end     | -DEND -DBND=16 -DMERGEANY

tombstones      | r29   | holds | R29, R43: deletions, relists, churn                         | -DLD=3 -DRD=2
tombstones-seen | r29   | fails | R43: another final seq, the time counts from the last seen  | -DR43LAST
relist-seen     | r29   | fails | R43: missing in a relist, the time counts from the last seen | -DLISTSEEN
relist-claims   | r29   | fails | R43: missing in a relist, only the last seen claims count   | -DLISTCLAIMS
publish-less    | r29   | fails | R29: the remaining time is rounded down                     | -DRDOWN
adopt-less      | r29   | fails | R29: a reader counts less                                   | -DZERO
newcomer-list   | r29   | fails | R49: a newcomer activates after its own list                | -DNOACK
label-twice     | r29   | fails | limit: the ring label is stripped twice in one watch lag    | -DLAB=2 -DNODEL

newcomer        | r49   | holds | R49: a newcomer waits for a settled record, or LD           | -DLD=3 -DRD=2 -DHMIN -DJM=2
newcomer-create | r49   | fails | R49: the bound is the CREATE, not the first list            | -DLD=3 -DRD=2 -DHMIN -DJM=2 -DBYCREATE
newcomer-any    | r49   | fails | R49: the record of an unsettled member suffices             | -DLD=3 -DRD=2 -DHMIN -DJM=2 -DUNSETTLED
newcomer-adopt  | r49   | fails | R49: tombstones are not adopted                             | -DLD=3 -DRD=2 -DHMIN -DJM=2 -DNOADOPT
newcomer-ld     | r49   | fails | R49: LD counts from the CREATE                              | -DLD=3 -DRD=2 -DHMIN -DJM=2 -DNOTBL
durations       | r49   | holds | R46, R49: a member with a longer duration, published        | -DLD=2 -DLDH=4 -DRDH=3 -DHMIN -DJM=2 -DNOREJ -DPUBLD
durations-list  | r49   | fails | R49: only the durations of the first list count             | -DLD=2 -DLDH=4 -DRDH=3 -DHMIN -DJM=2 -DNOREJ -DLISTEDLD
durations-gone  | r49   | fails | limit: all members that knew the longer duration have gone  | -DLD=2 -DLDH=4 -DRDH=3 -DHMIN -DJM=2 -DPUBLD
duration-edited | r49   | holds | R46: the duration is edited, and unknown to a newcomer      | -DLD=2 -DLDH=4 -DRDH=3 -DHMIN -DJM=1 -DEDITLD
duration-own    | r49   | fails | R46: then the newcomer counts its own duration              | -DLD=2 -DLDH=4 -DRDH=3 -DHMIN -DJM=1 -DEDITLD -DUNKNOWN=LD
cold            | r49   | holds | R49: a cold start                                           | -DLD=3 -DRD=2 -DHMIN -DJM=2 -DCOLD2 -DEXC
cold-alone      | r49   | fails | R49: a cold start that ignores joining members              | -DLD=3 -DRD=2 -DHMIN -DJM=2 -DCOLD -DEXC
short-life      | r49   | holds | R18: a Lease created and deleted within a watch lag         | -DLD=3 -DRD=2 -DNEWH -DNORELIST -DCATCHUP -DNOCHURN
short-life-lag  | r49   | fails | R18: the activation does not wait for the watch             | -DLD=3 -DRD=2 -DNEWH -DNORELIST -DNOCHURN
own-claim       | r49   | holds | R18: the watch has come to its own claim                    | -DLD=3 -DRD=2 -DNEWH -DNORELIST -DOWNCLAIM -DNOCHURN
own-claim-lag   | r49   | fails | R18: the watch has not come to the claim                    | -DLD=3 -DRD=2 -DNEWH -DNORELIST -DOWNCLAIM -DNOCHURN -DOWNLAG
own-claim-r31   | r49   | fails | R31: held in the watch, missing in the list, is not waited for | -DLD=3 -DRD=2 -DNEWH -DNORELIST -DOWNCLAIM -DNOCHURN -DNOR31
own-claim-look  | r49   | fails | R18: the other member does not list after its claim         | -DLD=3 -DRD=2 -DNEWH -DNORELIST -DOWNCLAIM -DNOCHURN -DNOLOOK
short-life-gap  | r49   | fails | limit: created and deleted within a gap of a watch          | -DLD=3 -DRD=2 -DNEWH -DGAP -DCATCHUP -DNOCHURN

progress        | live  | holds | after the last change a partition is always owned again     |
reactivate      | live  | fails | active again while a release is on its way: livelock        | -DREACT
no-withdrawal   | live  | fails | a claim that is not wanted is kept: deadlock                | -DNOWITHDRAW
eager           | live  | fails | the owner waits for the claim of the next one: deadlock     | -DEAGER
parameters      | live  | holds | R48: the oldest Lease has parameters that cannot be read    | -DPARAMS
parameters-any  | live  | fails | R48: they become the parameters in force                    | -DPARAMS -DBADOLDEST
'
full='
drift           | claim | holds | clocks that run at rates of 4:5                             | -DN=2 -DDRIFT
deleted         | claim | holds | Leases deleted by hand: tombstones, quarantine, fresh watch | -DN=2 -DLD=2 -DRD=1 -DDEL -DDELMAX=2 -DTOMB -DQD=2 -DWFRESH=1
restored        | claim | holds | etcd restored after an outage longer than the fence         | -DN=2 -DLD=2 -DRD=1 -DRESTORE -DDOWN
confirm-full    | claim | holds | R40 with LD 3, RD 2                                         | -DN=2 -DR40 -DR40CLAIMLAST -DHEDGE
foreign-full    | claim | holds | R44 with LD 3, RD 2                                         | -DN=2 -DFW -DSEQT
edited-full     | claim | holds | R32, R45 with pauses and crashes                            | -DN=2 -DLD=2 -DRD=1 -DEDIT -DSEQT
edited-confirm  | claim | holds | R32, R40, R45: byte for byte                                | -DN=2 -DLD=2 -DRD=1 -DEDIT -DR40 -DR40CLAIMLAST -DSEQT -DNOPAUSE -DNOCRASH
old-recheck     | claim | holds | R32, R51, R52: an old record is applied again               | -DN=2 -DLD=2 -DRD=1 -DREAPPLY -DRECHECK -DSEQT -DNOPAUSE -DNOCRASH
tombstones-full | r29   | holds | R29, R43 with LD 4, RD 3                                    |
own-claim-relist | r49   | holds | the same, with relists                                     | -DLD=3 -DRD=2 -DNEWH -DOWNCLAIM -DNOCHURN
progress-views  | live  | holds | progress for rings that move more than they need to         | -DNONMONO
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
	live) options="-DNFAIR=6 -DMEMLIM=5000" search="-a -f -m1000000" ;;
	claim3) options="-DSAFETY -DCOLLAPSE -DMEMLIM=20000" search="-m30000000 -w27" ;;
	*) options="-DSAFETY -DBFS -DCOLLAPSE -DMEMLIM=5000" search="-E -m1000000" ;;
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
