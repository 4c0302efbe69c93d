// SPDX-License-Identifier: Apache-2.0

package storetest

import (
	"context"
	"fmt"
	"testing"

	"k8s.io/apiserver/pkg/features"
	"k8s.io/apiserver/pkg/storage/etcd3"
	upstream "k8s.io/apiserver/pkg/storage/testing"
)

// Run runs the whole suite, each test on a store of its own.
func Run(t *testing.T, open Opener) {
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			// Most of their time is waiting. They begin when the tests below, which set feature gates, have ended.
			t.Parallel()
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
					if got := f.calls.GetStreamReadsAndReset() > 0; c.name == "List" && got != streamed {
						t.Errorf("lists were streamed: %v, want %v", got, streamed)
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
}

var cases = []testCase{
	{"Create", func(ctx context.Context, t *testing.T, f *fixture) { upstream.RunTestCreate(ctx, t, f, f.stored) }},
	{"CreateWithTTL", func(ctx context.Context, t *testing.T, f *fixture) { upstream.RunTestCreateWithTTL(ctx, t, f) }},
	{"CreateWithKeyExist", func(ctx context.Context, t *testing.T, f *fixture) { upstream.RunTestCreateWithKeyExist(ctx, t, f) }},
	{"Get", func(ctx context.Context, t *testing.T, f *fixture) { upstream.RunTestGet(ctx, t, f) }},
	{"UnconditionalDelete", func(ctx context.Context, t *testing.T, f *fixture) { upstream.RunTestUnconditionalDelete(ctx, t, f) }},
	{"ConditionalDelete", func(ctx context.Context, t *testing.T, f *fixture) { upstream.RunTestConditionalDelete(ctx, t, f) }},
	{"DeleteWithSuggestion", func(ctx context.Context, t *testing.T, f *fixture) { upstream.RunTestDeleteWithSuggestion(ctx, t, f) }},
	{"DeleteWithSuggestionAndConflict", func(ctx context.Context, t *testing.T, f *fixture) {
		upstream.RunTestDeleteWithSuggestionAndConflict(ctx, t, f)
	}},
	{"DeleteWithConflict", func(ctx context.Context, t *testing.T, f *fixture) { upstream.RunTestDeleteWithConflict(ctx, t, f) }},
	{"DeleteWithSuggestionOfDeletedObject", func(ctx context.Context, t *testing.T, f *fixture) {
		upstream.RunTestDeleteWithSuggestionOfDeletedObject(ctx, t, f)
	}},
	{"ValidateDeletionWithSuggestion", func(ctx context.Context, t *testing.T, f *fixture) {
		upstream.RunTestValidateDeletionWithSuggestion(ctx, t, f)
	}},
	{"ValidateDeletionWithOnlySuggestionValid", func(ctx context.Context, t *testing.T, f *fixture) {
		upstream.RunTestValidateDeletionWithOnlySuggestionValid(ctx, t, f)
	}},
	{"PreconditionalDeleteWithSuggestion", func(ctx context.Context, t *testing.T, f *fixture) {
		upstream.RunTestPreconditionalDeleteWithSuggestion(ctx, t, f)
	}},
	{"PreconditionalDeleteWithOnlySuggestionPass", func(ctx context.Context, t *testing.T, f *fixture) {
		upstream.RunTestPreconditionalDeleteWithOnlySuggestionPass(ctx, t, f)
	}},
	{"ListPaging", func(ctx context.Context, t *testing.T, f *fixture) { upstream.RunTestListPaging(ctx, t, f) }},
	{"GetListNonRecursive", func(ctx context.Context, t *testing.T, f *fixture) {
		upstream.RunTestGetListNonRecursive(ctx, t, f.raise, f)
	}},
	{"GetListRecursivePrefix", func(ctx context.Context, t *testing.T, f *fixture) { upstream.RunTestGetListRecursivePrefix(ctx, t, f) }},
	{"KeySchema", func(ctx context.Context, t *testing.T, f *fixture) { upstream.RunTestKeySchema(ctx, t, f) }},
	{"GuaranteedUpdate", func(ctx context.Context, t *testing.T, f *fixture) {
		upstream.RunTestGuaranteedUpdate(ctx, t, f, f.stored)
	}},
	{"GuaranteedUpdateWithTTL", func(ctx context.Context, t *testing.T, f *fixture) {
		upstream.RunTestGuaranteedUpdateWithTTL(ctx, t, f)
	}},
	{"GuaranteedUpdateChecksStoredData", func(ctx context.Context, t *testing.T, f *fixture) {
		upstream.RunTestGuaranteedUpdateChecksStoredData(ctx, t, f)
	}},
	{"GuaranteedUpdateWithConflict", func(ctx context.Context, t *testing.T, f *fixture) {
		upstream.RunTestGuaranteedUpdateWithConflict(ctx, t, f)
	}},
	{"GuaranteedUpdateWithSuggestionAndConflict", func(ctx context.Context, t *testing.T, f *fixture) {
		upstream.RunTestGuaranteedUpdateWithSuggestionAndConflict(ctx, t, f)
	}},
	{"TransformationFailure", func(ctx context.Context, t *testing.T, f *fixture) { upstream.RunTestTransformationFailure(ctx, t, f) }},
	{"CompactRevision", func(ctx context.Context, t *testing.T, f *fixture) {
		upstream.RunTestCompactRevision(ctx, t, f, f.raise, f.compact)
	}},
	{"ListContinuation", func(ctx context.Context, t *testing.T, f *fixture) {
		upstream.RunTestListContinuation(ctx, t, f, f.frugal)
	}},
	{"ListPaginationRareObject", func(ctx context.Context, t *testing.T, f *fixture) {
		upstream.RunTestListPaginationRareObject(ctx, t, f, f.frugal)
	}},
	{"ListContinuationWithFilter", func(ctx context.Context, t *testing.T, f *fixture) {
		upstream.RunTestListContinuationWithFilter(ctx, t, f, f.frugal)
	}},
	{"ListInconsistentContinuation", func(ctx context.Context, t *testing.T, f *fixture) {
		upstream.RunTestListInconsistentContinuation(ctx, t, f, f.compact)
	}},
	{"ListResourceVersionMatch", func(ctx context.Context, t *testing.T, f *fixture) {
		upstream.RunTestListResourceVersionMatch(ctx, t, f)
	}},
	{"NamespaceScopedList", func(ctx context.Context, t *testing.T, f *fixture) { upstream.RunTestNamespaceScopedList(ctx, t, f) }},

	{"Watch", func(ctx context.Context, t *testing.T, f *fixture) { upstream.RunTestWatch(ctx, t, f) }},
	{"ClusterScopedWatch", func(ctx context.Context, t *testing.T, f *fixture) { upstream.RunTestClusterScopedWatch(ctx, t, f) }},
	{"NamespaceScopedWatch", func(ctx context.Context, t *testing.T, f *fixture) { upstream.RunTestNamespaceScopedWatch(ctx, t, f) }},
	{"DeleteTriggerWatch", func(ctx context.Context, t *testing.T, f *fixture) { upstream.RunTestDeleteTriggerWatch(ctx, t, f) }},
	{"WatchFromZero", func(ctx context.Context, t *testing.T, f *fixture) {
		upstream.RunTestWatchFromZero(ctx, t, f, f.compact)
	}},
	{"WatchFromNonZero", func(ctx context.Context, t *testing.T, f *fixture) { upstream.RunTestWatchFromNonZero(ctx, t, f) }},
	{"DelayedWatchDelivery", func(ctx context.Context, t *testing.T, f *fixture) { upstream.RunTestDelayedWatchDelivery(ctx, t, f) }},
	{"WatchError", func(ctx context.Context, t *testing.T, f *fixture) { upstream.RunTestWatchError(ctx, t, f) }},
	{"WatchContextCancel", func(ctx context.Context, t *testing.T, f *fixture) { upstream.RunTestWatchContextCancel(ctx, t, f) }},
	{"WatcherTimeout", func(ctx context.Context, t *testing.T, f *fixture) { upstream.RunTestWatcherTimeout(ctx, t, f) }},
	{"WatchDeleteEventObjectHaveLatestRV", func(ctx context.Context, t *testing.T, f *fixture) {
		upstream.RunTestWatchDeleteEventObjectHaveLatestRV(ctx, t, f)
	}},
	{"WatchInitializationSignal", func(ctx context.Context, t *testing.T, f *fixture) {
		upstream.RunTestWatchInitializationSignal(ctx, t, f)
	}},
	{"ProgressNotify", func(ctx context.Context, t *testing.T, f *fixture) {
		upstream.RunOptionalTestProgressNotify(ctx, t, f, f.raise)
	}},
	{"WatchDispatchBookmarkEvents", func(ctx context.Context, t *testing.T, f *fixture) {
		upstream.RunTestWatchDispatchBookmarkEvents(ctx, t, f, false)
	}},
	{"SendInitialEventsBackwardCompatibility", func(ctx context.Context, t *testing.T, f *fixture) {
		upstream.RunSendInitialEventsBackwardCompatibility(ctx, t, f)
	}},
	{"WatchErrorIsBlockingFurtherEvents", func(ctx context.Context, t *testing.T, f *fixture) {
		upstream.RunWatchErrorIsBlockingFurtherEvents(ctx, t, f)
	}},
}

// streamable are those that read in one of two ways.
var streamable = []testCase{
	{"List", func(ctx context.Context, t *testing.T, f *fixture) {
		upstream.RunTestList(ctx, t, f, f.compact, false, f.lists)
	}},
	{"ConsistentList", func(ctx context.Context, t *testing.T, f *fixture) {
		upstream.RunTestConsistentList(ctx, t, f, f.raise, false, true, false)
	}},
	{"WatchSemantics", func(ctx context.Context, t *testing.T, f *fixture) { upstream.RunWatchSemantics(ctx, t, f) }},
	{"WatchSemanticsWithConcurrentDecode", func(ctx context.Context, t *testing.T, f *fixture) {
		gate(t, features.ConcurrentWatchObjectDecode, true)
		upstream.RunWatchSemantics(ctx, t, f)
	}},
	{"WatchSemanticInitialEventsExtended", func(ctx context.Context, t *testing.T, f *fixture) {
		upstream.RunWatchSemanticInitialEventsExtended(ctx, t, f)
	}},
	{"WatchListMatchSingle", func(ctx context.Context, t *testing.T, f *fixture) { upstream.RunWatchListMatchSingle(ctx, t, f) }},
}

// corruptObjects are the tests of values that cannot be read, with and without the gate that lets them be deleted.
func corruptObjects(t *testing.T, open Opener) {
	t.Run("ListWithoutErrorAggregation", func(t *testing.T) {
		gate(t, features.AllowUnsafeMalformedObjectDeletion, false)
		upstream.RunTestGetListWithoutErrorAggregation(t.Context(), t, setup(t, open), corrupt(t))
	})
	for _, c := range []testCase{
		{"ListWithErrorAggregation", func(ctx context.Context, t *testing.T, f *fixture) {
			f.Interface = etcd3.NewStoreWithUnsafeCorruptObjectDeletion(f.Interface, pods)
			upstream.RunTestGetListWithErrorAggregation(ctx, t, f, corrupt(t))
		}},
		{"WatchWithUnsafeDelete", func(ctx context.Context, t *testing.T, f *fixture) {
			upstream.RunTestWatchWithUnsafeDelete(ctx, t, f, corrupt(t))
		}},
		{"DeleteWithConflictAndMissingExpectedError", func(ctx context.Context, t *testing.T, f *fixture) {
			upstream.RunTestDeleteWithConflictAndMissingExpectedTransformOrDecodeError(ctx, t, f, f.codec.failing.Store)
		}},
		{"DeleteExpectedDecodeError", func(ctx context.Context, t *testing.T, f *fixture) {
			upstream.RunTestDeleteExpectedTransformOrDecodeError(ctx, t, f, f.codec.failing.Store)
		}},
		{"DeleteExpectedTransformError", func(ctx context.Context, t *testing.T, f *fixture) {
			faulty := &faultyTransformer{Transformer: f.transformer.now.Load().Transformer}
			f.transformer.now.Store(&transformer{faulty})
			upstream.RunTestDeleteExpectedTransformOrDecodeError(ctx, t, f, faulty.failing.Store)
		}},
		{"DeleteWithSuggestionAndMissingExpectedError", func(ctx context.Context, t *testing.T, f *fixture) {
			upstream.RunTestDeleteWithSuggestionAndMissingExpectedTransformOrDecodeError(ctx, t, f)
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			gate(t, features.AllowUnsafeMalformedObjectDeletion, true)
			c.run(t.Context(), t, setup(t, open))
		})
	}
}
