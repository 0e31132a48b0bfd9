// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package faultproxy

import (
	"math/bits"
	"net/http"
	"strconv"
	"strings"
)

// Class is a set of request classes. Each request belongs to exactly one class.
type Class uint8

// The classes. A list that client-go does through a watch (sendInitialEvents, its default
// for informers) is a watch. Requests that are not for resources, such as discovery,
// belong to the classes of objects.
const (
	LeaseWrite  Class = 1 << iota // create, update, patch, delete of Leases
	LeaseRead                     // get, list of Leases
	LeaseWatch                    // watch of Leases
	ObjectWrite                   // the same for everything else
	ObjectRead
	ObjectWatch

	Leases   = LeaseWrite | LeaseRead | LeaseWatch
	Objects  = ObjectWrite | ObjectRead | ObjectWatch
	Writes   = LeaseWrite | ObjectWrite
	Reads    = LeaseRead | ObjectRead
	Watches  = LeaseWatch | ObjectWatch
	Requests = Leases | Objects // all of them
)

// classes is the number of single classes.
const classes = 6

var classNames = [classes]string{"LeaseWrite", "LeaseRead", "LeaseWatch", "ObjectWrite", "ObjectRead", "ObjectWatch"}

// String returns the names of the classes in the set, joined by "|".
func (c Class) String() string {
	var names []string
	for i, name := range classNames {
		if c&(1<<i) != 0 {
			names = append(names, name)
		}
	}
	return strings.Join(names, "|")
}

// index returns the index of a single class in an array.
func (c Class) index() int { return bits.TrailingZeros8(uint8(c)) }

// classOf returns the class of a request.
func classOf(r *http.Request) Class {
	write, read, watch := ObjectWrite, ObjectRead, ObjectWatch
	// /apis/<group>/<version>[/namespaces/x]/<resource>[/<name>], or /api/<version>/...
	parts := strings.Split(strings.Trim(r.URL.Path, "/"), "/")
	at := 3
	if parts[0] == "api" {
		at = 2
	}
	old := len(parts) > at && parts[at] == "watch" // deprecated, and still served
	if old {
		at++
	}
	if len(parts) > at && parts[0] == "apis" && parts[1] == "coordination.k8s.io" {
		if resource := parts[at:]; resource[0] == "leases" ||
			(len(resource) > 2 && resource[0] == "namespaces" && resource[2] == "leases") {
			write, read, watch = LeaseWrite, LeaseRead, LeaseWatch
		}
	}
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		return write
	}
	if asked, _ := strconv.ParseBool(r.URL.Query().Get("watch")); asked || old {
		return watch
	}
	return read
}
