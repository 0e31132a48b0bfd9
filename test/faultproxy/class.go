// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package faultproxy

import (
	"math/bits"
	"net/http"
	"strings"

	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apiserver/pkg/endpoints/request"
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

// parser parses requests as kube-apiserver does.
var parser = request.RequestInfoFactory{
	APIPrefixes:          map[string]sets.Empty{"api": {}, "apis": {}},
	GrouplessAPIPrefixes: map[string]sets.Empty{"api": {}},
}

// classOf returns the class of a request.
func classOf(r *http.Request) Class {
	info, err := parser.NewRequestInfo(r)
	ofLeases := err == nil && info.APIGroup == "coordination.k8s.io" && info.Resource == "leases"
	class := ObjectWrite
	switch {
	case err == nil && info.Verb == "watch":
		class = ObjectWatch
	case r.Method == http.MethodGet || r.Method == http.MethodHead:
		class = ObjectRead
	}
	if ofLeases {
		class >>= ObjectWrite.index()
	}
	return class
}
