// SPDX-License-Identifier: Apache-2.0

package storetest

import (
	"context"
	"fmt"
	"slices"
	"testing"

	"k8s.io/apiserver/pkg/features"
	"k8s.io/apiserver/pkg/storage/etcd3"
	upstream "k8s.io/apiserver/pkg/storage/testing"
)

// Ability is something that a store may lack.
type Ability string

// RangeStream is a list that is answered in pieces, which an etcd before 3.7 does not know.
const RangeStream Ability = "RangeStream"

// Run runs the whole suite, each test on a store of its own.
func Run(t *testing.T, open Opener, without ...Ability) {
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			// Most of their time is waiting. They begin when the tests below, which set feature gates, have ended.
			if c.counted {
				// apiserver's compactor reads its own note a second after the start.
				gate(t, features.ListFromCacheSnapshot, false)
			} else if !c.timed {
				t.Parallel()
			}
			c.run(t.Context(), t, setup(t, open))
		})
	}
	t.Run("CorruptObjects", func(t *testing.T) { corruptObjects(t, open) })
	t.Run("Stats", func(t *testing.T) {
		for _, sized := range []bool{true, false} {
			t.Run(fmt.Sprintf("sized=%v", sized), func(t *testing.T) {
				f := setup(t, open)
				if sized {
					if err := f.EnableResourceSizeEstimation(f.keys); err != nil {
						t.Fatal(err)
					}
				}
				upstream.RunTestStats(t.Context(), t, f, f.codec, f.transformer, sized)
			})
		}
	})
	for _, streamed := range []bool{false, true} {
		t.Run(fmt.Sprintf("RangeStream=%v", streamed), func(t *testing.T) {
			gate(t, features.EtcdRangeStream, streamed)
			for _, c := range streamable {
				t.Run(c.name, func(t *testing.T) {
					f := setup(t, open)
					c.run(t.Context(), t, f)
					if got := f.calls.GetStreamReadsAndReset() > 0; c.name == "List" && got != (streamed && !slices.Contains(without, RangeStream)) {
						t.Errorf("lists were streamed: %v, with the gate %v and without %q", got, streamed, without)
					}
				})
			}
		})
	}
}

// testCase is one of upstream's tests.
type testCase struct {
	name string
	run  func(ctx context.Context, t *testing.T, f *fixture)
	// timed tests fail when their own parallel parts wait for a place among others.
	timed bool
	// counted tests count the calls made.
	counted bool
}

var cases = []testCase{
	{name: "Create", run: func(ctx context.Context, t *testing.T, f *fixture) { upstream.RunTestCreate(ctx, t, f, f.stored) }},
	{name: "CreateWithTTL", run: func(ctx context.Context, t *testing.T, f *fixture) { upstream.RunTestCreateWithTTL(ctx, t, f) }},
	{name: "CreateWithKeyExist", run: func(ctx context.Context, t *testing.T, f *fixture) { upstream.RunTestCreateWithKeyExist(ctx, t, f) }},
	{name: "Get", timed: true, run: func(ctx context.Context, t *testing.T, f *fixture) { upstream.RunTestGet(ctx, t, f) }},
	{name: "UnconditionalDelete", run: func(ctx context.Context, t *testing.T, f *fixture) { upstream.RunTestUnconditionalDelete(ctx, t, f) }},
	{name: "ConditionalDelete", run: func(ctx context.Context, t *testing.T, f *fixture) { upstream.RunTestConditionalDelete(ctx, t, f) }},
	{name: "DeleteWithSuggestion", run: func(ctx context.Context, t *testing.T, f *fixture) { upstream.RunTestDeleteWithSuggestion(ctx, t, f) }},
	{name: "DeleteWithSuggestionAndConflict", run: func(ctx context.Context, t *testing.T, f *fixture) {
		upstream.RunTestDeleteWithSuggestionAndConflict(ctx, t, f)
	}},
	{name: "DeleteWithConflict", run: func(ctx context.Context, t *testing.T, f *fixture) { upstream.RunTestDeleteWithConflict(ctx, t, f) }},
	{name: "DeleteWithSuggestionOfDeletedObject", run: func(ctx context.Context, t *testing.T, f *fixture) {
		upstream.RunTestDeleteWithSuggestionOfDeletedObject(ctx, t, f)
	}},
	{name: "ValidateDeletionWithSuggestion", run: func(ctx context.Context, t *testing.T, f *fixture) {
		upstream.RunTestValidateDeletionWithSuggestion(ctx, t, f)
	}},
	{name: "ValidateDeletionWithOnlySuggestionValid", run: func(ctx context.Context, t *testing.T, f *fixture) {
		upstream.RunTestValidateDeletionWithOnlySuggestionValid(ctx, t, f)
	}},
	{name: "PreconditionalDeleteWithSuggestion", run: func(ctx context.Context, t *testing.T, f *fixture) {
		upstream.RunTestPreconditionalDeleteWithSuggestion(ctx, t, f)
	}},
	{name: "PreconditionalDeleteWithOnlySuggestionPass", run: func(ctx context.Context, t *testing.T, f *fixture) {
		upstream.RunTestPreconditionalDeleteWithOnlySuggestionPass(ctx, t, f)
	}},
	{name: "ListPaging", run: func(ctx context.Context, t *testing.T, f *fixture) { upstream.RunTestListPaging(ctx, t, f) }},
	{name: "GetListNonRecursive", run: func(ctx context.Context, t *testing.T, f *fixture) {
		upstream.RunTestGetListNonRecursive(ctx, t, f.raise, f)
	}},
	{name: "GetListRecursivePrefix", run: func(ctx context.Context, t *testing.T, f *fixture) { upstream.RunTestGetListRecursivePrefix(ctx, t, f) }},
	{name: "KeySchema", run: func(ctx context.Context, t *testing.T, f *fixture) { upstream.RunTestKeySchema(ctx, t, f) }},
	{name: "GuaranteedUpdate", run: func(ctx context.Context, t *testing.T, f *fixture) {
		upstream.RunTestGuaranteedUpdate(ctx, t, f, f.stored)
	}},
	{name: "GuaranteedUpdateWithTTL", run: func(ctx context.Context, t *testing.T, f *fixture) {
		upstream.RunTestGuaranteedUpdateWithTTL(ctx, t, f)
	}},
	{name: "GuaranteedUpdateChecksStoredData", run: func(ctx context.Context, t *testing.T, f *fixture) {
		upstream.RunTestGuaranteedUpdateChecksStoredData(ctx, t, f)
	}},
	{name: "GuaranteedUpdateWithConflict", run: func(ctx context.Context, t *testing.T, f *fixture) {
		upstream.RunTestGuaranteedUpdateWithConflict(ctx, t, f)
	}},
	{name: "GuaranteedUpdateWithSuggestionAndConflict", run: func(ctx context.Context, t *testing.T, f *fixture) {
		upstream.RunTestGuaranteedUpdateWithSuggestionAndConflict(ctx, t, f)
	}},
	{name: "TransformationFailure", run: func(ctx context.Context, t *testing.T, f *fixture) { upstream.RunTestTransformationFailure(ctx, t, f) }},
	{name: "CompactRevision", run: func(ctx context.Context, t *testing.T, f *fixture) {
		upstream.RunTestCompactRevision(ctx, t, f, f.raise, f.compact)
	}},
	{name: "ListContinuation", counted: true, run: func(ctx context.Context, t *testing.T, f *fixture) {
		upstream.RunTestListContinuation(ctx, t, f, f.frugal)
	}},
	{name: "ListPaginationRareObject", counted: true, run: func(ctx context.Context, t *testing.T, f *fixture) {
		upstream.RunTestListPaginationRareObject(ctx, t, f, f.frugal)
	}},
	{name: "ListContinuationWithFilter", counted: true, run: func(ctx context.Context, t *testing.T, f *fixture) {
		upstream.RunTestListContinuationWithFilter(ctx, t, f, f.frugal)
	}},
	{name: "ListInconsistentContinuation", run: func(ctx context.Context, t *testing.T, f *fixture) {
		upstream.RunTestListInconsistentContinuation(ctx, t, f, f.compact)
	}},
	{name: "ListResourceVersionMatch", run: func(ctx context.Context, t *testing.T, f *fixture) {
		upstream.RunTestListResourceVersionMatch(ctx, t, f)
	}},
	{name: "NamespaceScopedList", run: func(ctx context.Context, t *testing.T, f *fixture) { upstream.RunTestNamespaceScopedList(ctx, t, f) }},

	{name: "Watch", run: func(ctx context.Context, t *testing.T, f *fixture) { upstream.RunTestWatch(ctx, t, f) }},
	{name: "ClusterScopedWatch", run: func(ctx context.Context, t *testing.T, f *fixture) { upstream.RunTestClusterScopedWatch(ctx, t, f) }},
	{name: "NamespaceScopedWatch", run: func(ctx context.Context, t *testing.T, f *fixture) { upstream.RunTestNamespaceScopedWatch(ctx, t, f) }},
	{name: "DeleteTriggerWatch", run: func(ctx context.Context, t *testing.T, f *fixture) { upstream.RunTestDeleteTriggerWatch(ctx, t, f) }},
	{name: "WatchFromZero", run: func(ctx context.Context, t *testing.T, f *fixture) {
		upstream.RunTestWatchFromZero(ctx, t, f, f.compact)
	}},
	{name: "WatchFromNonZero", run: func(ctx context.Context, t *testing.T, f *fixture) { upstream.RunTestWatchFromNonZero(ctx, t, f) }},
	{name: "DelayedWatchDelivery", run: func(ctx context.Context, t *testing.T, f *fixture) { upstream.RunTestDelayedWatchDelivery(ctx, t, f) }},
	{name: "WatchError", run: func(ctx context.Context, t *testing.T, f *fixture) { upstream.RunTestWatchError(ctx, t, f) }},
	{name: "WatchContextCancel", run: func(ctx context.Context, t *testing.T, f *fixture) { upstream.RunTestWatchContextCancel(ctx, t, f) }},
	{name: "WatcherTimeout", run: func(ctx context.Context, t *testing.T, f *fixture) { upstream.RunTestWatcherTimeout(ctx, t, f) }},
	{name: "WatchDeleteEventObjectHaveLatestRV", run: func(ctx context.Context, t *testing.T, f *fixture) {
		upstream.RunTestWatchDeleteEventObjectHaveLatestRV(ctx, t, f)
	}},
	{name: "WatchInitializationSignal", run: func(ctx context.Context, t *testing.T, f *fixture) {
		upstream.RunTestWatchInitializationSignal(ctx, t, f)
	}},
	{name: "ProgressNotify", run: func(ctx context.Context, t *testing.T, f *fixture) {
		upstream.RunOptionalTestProgressNotify(ctx, t, f, f.raise)
	}},
	{name: "WatchDispatchBookmarkEvents", run: func(ctx context.Context, t *testing.T, f *fixture) {
		upstream.RunTestWatchDispatchBookmarkEvents(ctx, t, f, false)
	}},
	{name: "SendInitialEventsBackwardCompatibility", run: func(ctx context.Context, t *testing.T, f *fixture) {
		upstream.RunSendInitialEventsBackwardCompatibility(ctx, t, f)
	}},
	{name: "WatchErrorIsBlockingFurtherEvents", run: func(ctx context.Context, t *testing.T, f *fixture) {
		upstream.RunWatchErrorIsBlockingFurtherEvents(ctx, t, f)
	}},
}

// streamable are those that read in one of two ways.
var streamable = []testCase{
	{name: "List", run: func(ctx context.Context, t *testing.T, f *fixture) {
		upstream.RunTestList(ctx, t, f, f.compact, false, f.lists)
	}},
	{name: "ConsistentList", run: func(ctx context.Context, t *testing.T, f *fixture) {
		upstream.RunTestConsistentList(ctx, t, f, f.raise, false, true, false)
	}},
	{name: "WatchSemantics", run: func(ctx context.Context, t *testing.T, f *fixture) { upstream.RunWatchSemantics(ctx, t, f) }},
	{name: "WatchSemanticsWithConcurrentDecode", run: func(ctx context.Context, t *testing.T, f *fixture) {
		gate(t, features.ConcurrentWatchObjectDecode, true)
		upstream.RunWatchSemantics(ctx, t, f)
	}},
	{name: "WatchSemanticInitialEventsExtended", run: func(ctx context.Context, t *testing.T, f *fixture) {
		upstream.RunWatchSemanticInitialEventsExtended(ctx, t, f)
	}},
	{name: "WatchListMatchSingle", run: func(ctx context.Context, t *testing.T, f *fixture) { upstream.RunWatchListMatchSingle(ctx, t, f) }},
}

// corruptObjects are the tests of values that cannot be read, with and without the gate that lets them be deleted.
func corruptObjects(t *testing.T, open Opener) {
	t.Run("ListWithoutErrorAggregation", func(t *testing.T) {
		gate(t, features.AllowUnsafeMalformedObjectDeletion, false)
		upstream.RunTestGetListWithoutErrorAggregation(t.Context(), t, setup(t, open), corrupt(t))
	})
	for _, c := range []testCase{
		{name: "ListWithErrorAggregation", run: func(ctx context.Context, t *testing.T, f *fixture) {
			f.Interface = etcd3.NewStoreWithUnsafeCorruptObjectDeletion(f.Interface, pods)
			upstream.RunTestGetListWithErrorAggregation(ctx, t, f, corrupt(t))
		}},
		{name: "WatchWithUnsafeDelete", run: func(ctx context.Context, t *testing.T, f *fixture) {
			upstream.RunTestWatchWithUnsafeDelete(ctx, t, f, corrupt(t))
		}},
		{name: "DeleteWithConflictAndMissingExpectedError", run: func(ctx context.Context, t *testing.T, f *fixture) {
			upstream.RunTestDeleteWithConflictAndMissingExpectedTransformOrDecodeError(ctx, t, f, f.codec.failing.Store)
		}},
		{name: "DeleteExpectedDecodeError", run: func(ctx context.Context, t *testing.T, f *fixture) {
			upstream.RunTestDeleteExpectedTransformOrDecodeError(ctx, t, f, f.codec.failing.Store)
		}},
		{name: "DeleteExpectedTransformError", run: func(ctx context.Context, t *testing.T, f *fixture) {
			faulty := &faultyTransformer{Transformer: f.transformer.now.Load().Transformer}
			f.transformer.now.Store(&transformer{faulty})
			upstream.RunTestDeleteExpectedTransformOrDecodeError(ctx, t, f, faulty.failing.Store)
		}},
		{name: "DeleteWithSuggestionAndMissingExpectedError", run: func(ctx context.Context, t *testing.T, f *fixture) {
			upstream.RunTestDeleteWithSuggestionAndMissingExpectedTransformOrDecodeError(ctx, t, f)
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			gate(t, features.AllowUnsafeMalformedObjectDeletion, true)
			c.run(t.Context(), t, setup(t, open))
		})
	}
}
