// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

package shard

import (
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	authorizationv1 "k8s.io/client-go/kubernetes/typed/authorization/v1"
	coordinationv1 "k8s.io/client-go/kubernetes/typed/coordination/v1"
	corev1 "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/util/flowcontrol"
)

// clients has the clients for the API groups that a member uses.
type clients struct {
	leases  coordinationv1.LeasesGetter
	pods    corev1.PodsGetter
	reviews authorizationv1.SelfSubjectAccessReviewsGetter
}

// newClients returns the clients of the clientset, without its rate limiter: a heartbeat
// must not wait behind other requests. Everything else stays as in the clientset, because
// the requests come from its own REST clients: the HTTP client, and with it
// authentication, TLS, impersonation, user agent and wrappers; the address and its path
// prefix; the content type.
//
// This applies only to client-go's own types. The methods of a fake, or of a clientset
// that wraps another one, must be called: such a clientset decides where its requests go,
// and applies its own rate limiter, too.
func newClients(clientset kubernetes.Interface) clients {
	c := clients{leases: clientset.CoordinationV1(), pods: clientset.CoreV1(), reviews: clientset.AuthorizationV1()}
	if generated, ok := c.leases.(*coordinationv1.CoordinationV1Client); ok && hasREST(generated.RESTClient()) {
		c.leases = coordinationv1.New(unretried{unthrottled{generated.RESTClient()}})
	}
	if generated, ok := c.pods.(*corev1.CoreV1Client); ok && hasREST(generated.RESTClient()) {
		c.pods = corev1.New(unthrottled{generated.RESTClient()})
	}
	if generated, ok := c.reviews.(*authorizationv1.AuthorizationV1Client); ok && hasREST(generated.RESTClient()) {
		c.reviews = authorizationv1.New(unthrottled{generated.RESTClient()})
	}
	return c
}

// hasREST reports whether c is a client, and neither nil nor an interface with a nil pointer.
func hasREST(c rest.Interface) bool {
	r, ok := c.(*rest.RESTClient)
	return c != nil && (!ok || r != nil)
}

// unthrottled is a REST client whose requests do not wait for a rate limiter.
type unthrottled struct{ rest.Interface }

func (u unthrottled) GetRateLimiter() flowcontrol.RateLimiter { return nil }

func (u unthrottled) Verb(verb string) *rest.Request { return u.Interface.Verb(verb).Throttle(nil) }
func (u unthrottled) Post() *rest.Request            { return u.Interface.Post().Throttle(nil) }
func (u unthrottled) Put() *rest.Request             { return u.Interface.Put().Throttle(nil) }
func (u unthrottled) Get() *rest.Request             { return u.Interface.Get().Throttle(nil) }
func (u unthrottled) Delete() *rest.Request          { return u.Interface.Delete().Throttle(nil) }

func (u unthrottled) Patch(t types.PatchType) *rest.Request {
	return u.Interface.Patch(t).Throttle(nil)
}

// unretried is a REST client that returns a response with Retry-After at once.
// client-go would wait as long as the server asks and send the request again, up
// to ten times within one call: a heartbeat would spend all of its time there, and a
// watch could not be restarted in the meantime. The member itself retries, with a
// backoff, and the next attempt may reach a server that is not busy and not shutting down.
type unretried struct{ rest.Interface }

func (i unretried) Verb(verb string) *rest.Request { return i.Interface.Verb(verb).MaxRetries(0) }
func (i unretried) Post() *rest.Request            { return i.Interface.Post().MaxRetries(0) }
func (i unretried) Put() *rest.Request             { return i.Interface.Put().MaxRetries(0) }
func (i unretried) Get() *rest.Request             { return i.Interface.Get().MaxRetries(0) }
func (i unretried) Delete() *rest.Request          { return i.Interface.Delete().MaxRetries(0) }

func (i unretried) Patch(t types.PatchType) *rest.Request {
	return i.Interface.Patch(t).MaxRetries(0)
}
