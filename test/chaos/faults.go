// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package chaos

import (
	"net/http"
	"slices"
	"time"

	"github.com/tom-ludwig/operator-scaling/test/faultproxy"
)

// kind is one kind of fault: a step, and what it needs for itself while it lasts.
type kind struct {
	name  string
	needs needs
	step  step
}

// kinds has all faults.
var kinds = slices.Concat(processFaults, networkFaults, serverFaults, leaseFaults, crashFaults, pairFaults)

// Rules for the requests of a replica with a gateway.
var (
	cut       = faultproxy.Rule{Action: faultproxy.Cut}
	stalled   = faultproxy.Rule{Action: faultproxy.Stall}
	late      = faultproxy.Rule{Action: faultproxy.Stall, Late: true}
	lost      = faultproxy.Rule{Action: faultproxy.DropResponse}
	halfLost  = faultproxy.Rule{Action: faultproxy.DropResponse, Probability: 0.5}
	hanging   = faultproxy.Rule{Action: faultproxy.DropResponse, Hang: true}
	slow      = faultproxy.Rule{Action: faultproxy.Delay, Delay: 400 * time.Millisecond, Late: true}
	throttled = faultproxy.Rule{Action: faultproxy.Fail, Status: http.StatusTooManyRequests, Probability: 0.7}
	failing   = faultproxy.Rule{Action: faultproxy.Fail, Status: http.StatusInternalServerError, Probability: 0.7}
)

func delayed(d time.Duration) faultproxy.Rule {
	return faultproxy.Rule{Action: faultproxy.Delay, Delay: d}
}

var processFaults = []kind{
	{"SIGKILL, restarted in its Pod", aReplica, steps(kill, leases(0.5))},
	{"SIGKILL, comes back as another Pod", aReplica, steps(killPod, leases(1), stay(2*time.Second), newPod)},
	{"SIGKILL, another Pod at once", aReplica, steps(killPod, newPod, leases(1), stay(2*time.Second))},
	{"SIGSTOP for half the renew deadline", aReplica, pause(process, 0.3)},
	{"SIGSTOP past the fence", aReplica, pause(process, 0.8)},
	{"SIGSTOP for two lease durations", aReplica, pause(process, 2)},
	// Slow writes, so that one is in flight at any moment.
	{"SIGSTOP during a reconcile, for two lease durations", aGateway, steps(set(faultproxy.ObjectWrite, delayed(500*time.Millisecond)), stay(time.Second), pause(process, 2))},
	{"SIGTERM, comes back as another Pod", aReplica, steps(stop, atMostOneLease, newPod)},
	{"rolling restart", theFleet, onEach(stop, newPod, tolerate(ready))},
	{"SIGTERM to half of the fleet at once", theFleet, steps(stopHalf, restartStopped)},
	{"one more replica for a while", aSurgeReplica, steps(onSurge(newPod, tolerate(ready)), leases(1))},
	{"duplicate identity in the same Pod", aReplica, duplicate(false)},
	{"duplicate name in another Pod", aReplica, duplicate(true)},
	{"slow reconciles while partitions move", aSurgeReplica, steps(set(faultproxy.ObjectWrite, delayed(2*time.Second)), onSurge(newPod, tolerate(ready)), leases(1))},
	// If the servers were unavailable too, the replica would be fenced, cancel the write,
	// and exit with code 0.
	{"SIGTERM during a reconcile that does not end", aGateway | theServer, steps(hit(faultproxy.ObjectWrite, stalled), stopMustFail, restart)},
}

var networkFaults = []kind{
	// Through a gateway, by request class.
	{"Lease writes: black hole", aGateway, requests(faultproxy.LeaseWrite, stalled, 2)},
	{"Lease writes: arrive two lease durations late", aGateway, requests(faultproxy.LeaseWrite, late, 2)},
	{"Lease writes: responses lost", aGateway, requests(faultproxy.LeaseWrite, lost, 1.5)},
	{"Lease writes: responses never arrive", aGateway, requests(faultproxy.LeaseWrite, hanging, 1.5)},
	{"Lease writes: half of the responses lost while partitions move", aSurgeReplica, requestsWhileMoving(faultproxy.LeaseWrite, halfLost)},
	{"Lease writes: slow while partitions move", aSurgeReplica, requestsWhileMoving(faultproxy.LeaseWrite, slow)},
	{"Lease reads: cut while partitions move", aSurgeReplica, requestsWhileMoving(faultproxy.LeaseRead, cut)},
	{"Lease watch: half open", aGateway, requests(faultproxy.LeaseWatch, stalled, 2)},
	{"Lease watch: half open while partitions move", aSurgeReplica, requestsWhileMoving(faultproxy.LeaseWatch, stalled)},
	{"object watches: half open", aGateway, requests(faultproxy.ObjectWatch, stalled, 1)},
	{"object writes: responses lost", aGateway, requests(faultproxy.ObjectWrite, halfLost, 1)},
	{"object writes: black hole", aGateway, requests(faultproxy.ObjectWrite, stalled, 0.8)},
	{"everything: cut", aGateway, requests(faultproxy.Requests, cut, 2)},
	{"everything: black hole", aGateway, requests(faultproxy.Requests, stalled, 2)},
	{"everything: 429", aGateway, requests(faultproxy.Requests, throttled, 1)},
	{"everything: 500", aGateway, requests(faultproxy.Requests, failing, 1)},
	// A member that sees late that a peer was evicted tries to evict it too.
	{"slow watches, and a member is killed", theFleet, steps(slowWatches(250*time.Millisecond), onSurge(newPod, tolerate(ready), killPod), leases(1), stay(3*time.Second))},
	// Partitions are released, and a moment later a member joins. A member that has seen
	// only the release claims what the new member has claimed.
	{"slow watches, while members join and leave", theFleet, steps(slowWatches(900*time.Millisecond), joinAndLeave)},

	// Through a tunnel: end-to-end TLS and HTTP/2, all requests on one connection.
	{"cable: cut", aTunnel, steps(cutCable, leases(0.5))},
	{"cable: cut, connections refused", aTunnel, steps(cable(faultproxy.Cable{Refuse: true}), cutCable, leases(2))},
	{"cable: half open for half the renew deadline", aTunnel, steps(cable(faultproxy.Cable{Stall: faultproxy.BothWays}), leases(0.3))},
	{"cable: half open", aTunnel, steps(cable(faultproxy.Cable{Stall: faultproxy.BothWays}), leases(2))},
	{"cable: no request reaches the server", aTunnel, steps(cable(faultproxy.Cable{Stall: faultproxy.ToServer}), leases(2))},
	{"cable: no response comes back", aTunnel, steps(cable(faultproxy.Cable{Stall: faultproxy.ToClient}), leases(2))},
	{"cable: slow", aTunnel, steps(cable(faultproxy.Cable{Delay: 150 * time.Millisecond}), leases(1))},
}

var serverFaults = []kind{
	{"kube-apiserver killed and restarted", theServer, steps(killAPIServer, startAPIServer)},
	{"kube-apiserver down for a long time", theServer, steps(killAPIServer, outage, startAPIServer)},
	{"kube-apiserver paused", theServer, pause(apiServer, 2)},
	{"etcd paused", theServer, pause(etcd, 1)},
	{"watches from a stale second API server", aGateway | theServer, stale(faultproxy.Watches)},
	{"everything from a stale second API server", aGateway | theServer, stale(faultproxy.Requests)},
	{"reads from the second API server, writes to the first", aGateway | theServer, steps(route(faultproxy.Watches|faultproxy.Reads, 1), leases(1))},
}

var leaseFaults = []kind{
	{"Lease deleted by hand", aReplica, steps(deleteLease, leases(1))},
	// At about the time when the new member does its first list.
	{"Lease deleted by hand while a member joins", aSurgeReplica, steps(onSurge(newPod), stayBetween(500*time.Millisecond, 1500*time.Millisecond), deleteLease, leases(1))},
	{"Lease edited continuously: conflicts", aReplica, editContinuously},
	{"claims on a Lease made unreadable", aReplica, steps(annotate("operator-scaling.tom-ludwig.github.io/claims", "garbage"), leases(1))},
	{"ring parameters on a Lease made unreadable", aReplica, steps(annotate("operator-scaling.tom-ludwig.github.io/parameters", "v9 unknown"), leases(1))},
}

// Pairs of faults in which rules of the protocol meet.
var pairFaults = []kind{
	{"Lease deleted while a process of another Pod waits for it", aReplica, duplicate(true, deleteLease)},
	{"most replicas killed at once, and the others have client-go's default limits", theFleet, killMost},
	{"slow reconciles while a replica comes and goes", aSurgeReplica, steps(set(faultproxy.ObjectWrite, delayed(2*time.Second)), surgeJoins, stay(500*time.Millisecond), onSurge(terminate), leases(1), onSurge(exited))},
	// It works until its own fence, which is later than the others' leases would end.
	{"Lease deleted of a replica with a longer duration that is cut off", aSurgeReplica, onSurge(restartWithLongLease, ready, stay(time.Second), set(faultproxy.LeaseWrite|faultproxy.LeaseRead|faultproxy.LeaseWatch, stalled), deleteLease, leases(2.5))},
	{"Lease writes: black hole, and OnChange blocks", aGateway, steps(restartWith("--block-when-fenced"), ready, requests(faultproxy.LeaseWrite, stalled, 2), killPod, restartWith())},
	{"Lease writes: all responses lost while partitions move", aSurgeReplica, requestsWhileMoving(faultproxy.LeaseWrite, lost)},
	{"SIGKILL, and its Lease is deleted, while a replica comes and goes", aSurgeReplica, steps(killPod, leases(0.2), deleteLease, onSurge(newPod, tolerate(ready), stop), newPod, leases(0.5))},
	{"lagging watches, and a member is killed", theFleet, steps(slowWatches(3*time.Second), onSurge(newPod, tolerate(ready), killPod), leases(4))},
}

// Crashes at the worst points, at which the gateway holds the process. Partitions move to
// the replica when a surge replica leaves, and away from it when one joins.
var crashFaults = []kind{
	{"SIGKILL after a claim is committed, before the response arrives", aSurgeReplica, steps(surgeLeaves, crash(faultproxy.LeaseWrite, hanging))},
	{"SIGKILL before the list", aSurgeReplica, steps(surgeLeaves, crash(faultproxy.LeaseRead, stalled))},
	// A slow write blocks the drain that the surge replica causes.
	{"SIGKILL during a drain", aSurgeReplica, steps(surgeJoins, crash(faultproxy.ObjectWrite, delayed(time.Second)))},
	{"SIGKILL after a release is sent, before it arrives", aSurgeReplica, steps(surgeJoins, crash(faultproxy.LeaseWrite, late))},
}
