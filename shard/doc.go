// Copyright The Operator Scaling Authors.
// SPDX-License-Identifier: Apache-2.0

// Package shard lets all replicas of an operator work at the same time. Exactly one works
// on each object.
//
//	s, err := shard.New(client, shard.DefaultConfig("foo-operator")) // starts nothing
//	config.Wrap(s.WrapTransport)                                     // of the workers' clients
//	foos := shard.WrapInformer(s, factory.Example().V1().Foos().Informer())
//	queue := shard.NewQueue(s, workqueue.DefaultTypedControllerRateLimiter[cache.ObjectName]())
//
//	work, stopWork := context.WithCancel(context.WithoutCancel(ctx))
//	factory.StartWithContext(work) // work outlives ctx: a drain needs caches, clients, workers
//	startWorkers(work, queue)      // each item with queue.Context(work, item)
//	err = s.Run(ctx)               // when ctx ends: drains, releases, returns
//	queue.ShutDown()
//	stopWork()
//
// What to use for what:
//
//   - Constructors that take generated informers: [WrapGenerated], [NewQueueFor], [WorkContext].
//   - Other informers: [WrapInformer], [NewInformer], [InformerFor]. Their keys: [ByController] for
//     dependents, [Unfiltered] for handlers that must see all objects.
//   - Handlers that learn which objects were gained and released: [HandlerFuncs], [AddGained].
//   - Work without a queue: [Sharder.Acquire], [Sharder.TryAcquire].
//   - Metrics and probes: [Sharder.Collector], [Sharder.ReadyHandler], [Sharder.HealthHandler],
//     [Sharder.DebugHandler].
//   - Fencing tokens, which the API server checks: [StampToken], [TokenFromContext].
//   - Tests: package shardtest.
//
// Guarantees (docs/guarantees.md in the repository has the full text):
//
//   - G1: One member at a time works on an object, between Get and Done of a [Queue], or
//     between [Sharder.Acquire] and done.
//   - G2: No work is handed out after the fence; the contexts of work end then.
//   - G3: A partition is released only when no work is in flight on it.
//   - G4: A member that gains a partition receives its objects as Adds, and recent deletions.
//   - G5: Work on the partitions that a member keeps continues.
//   - G6: In an outage of the API server all members stop, then resume what they had.
//   - G7: Each object is owned again within Config.LeaseDuration + 2 s of a crash.
//   - G8: Leases that are malformed or foreign are ignored and counted, or block safely.
//   - G9: After a handover, work starts when the caches show what the former owner wrote.
//
// A request that left this process before the fence may arrive after it: write with
// resourceVersions, or see [StampToken]. Owns, Owner and Members report what this member
// knew a moment ago: to act on an object, take it from the queue. New and the
// constructors of informers start nothing; a queue runs client-go's goroutines until ShutDown.
// All others run under [Sharder.Run]. Any goroutine may call the other methods.
package shard
