// SPDX-License-Identifier: Apache-2.0

package apiserver

import (
	"cmp"

	flowcontrolv1 "k8s.io/api/flowcontrol/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
)

// flowKinds are the kinds that say whose requests wait for whose.
func flowKinds() []nativeKind {
	version := flowcontrolv1.SchemeGroupVersion
	return []nativeKind{
		{
			version: version, kind: "FlowSchema", plural: "flowschemas", singular: "flowschema", global: true,
			new:     func() runtime.Object { return &flowcontrolv1.FlowSchema{} },
			newList: func() runtime.Object { return &flowcontrolv1.FlowSchemaList{} },
			rules:   rules{prepare: prepareFlowSchema, validate: validateFlowSchema},
			status:  keepFlowSchema,
			columns: columns{flowSchemaHeads, flowSchemaCells},
		},
		{
			version: version, kind: "PriorityLevelConfiguration", plural: "prioritylevelconfigurations",
			singular: "prioritylevelconfiguration", global: true,
			new:     func() runtime.Object { return &flowcontrolv1.PriorityLevelConfiguration{} },
			newList: func() runtime.Object { return &flowcontrolv1.PriorityLevelConfigurationList{} },
			rules:   rules{prepare: preparePriorityLevel, validate: validatePriorityLevel},
			status:  keepPriorityLevel,
			columns: columns{priorityLevelHeads, priorityLevelCells},
		},
	}
}

var (
	flowSchemaHeads = []metav1.TableColumnDefinition{
		column("Name", "string", 0), column("PriorityLevel", "string", 0), column("MatchingPrecedence", "integer", 0),
		column("DistinguisherMethod", "string", 0), column("Age", "string", 0), column("MissingPL", "string", 0),
	}
	priorityLevelHeads = []metav1.TableColumnDefinition{
		column("Name", "string", 0), column("Type", "string", 0), column("NominalConcurrencyShares", "integer", 0),
		column("Queues", "integer", 0), column("HandSize", "integer", 0), column("QueueLengthLimit", "integer", 0),
		column("Age", "string", 0),
	}
)

func flowSchemaCells(object runtime.Object) []any {
	schema := object.(*flowcontrolv1.FlowSchema)
	by, missing := "<none>", "?"
	if method := schema.Spec.DistinguisherMethod; method != nil {
		by = string(method.Type)
	}
	for _, condition := range schema.Status.Conditions {
		if condition.Type == flowcontrolv1.FlowSchemaConditionDangling {
			missing = string(condition.Status)
		}
	}
	return []any{schema.Name, schema.Spec.PriorityLevelConfiguration.Name, int64(schema.Spec.MatchingPrecedence), by,
		age(schema.CreationTimestamp.Time), missing}
}

func priorityLevelCells(object runtime.Object) []any {
	level := object.(*flowcontrolv1.PriorityLevelConfiguration)
	var shares, queues, hand, length any = "<none>", "<none>", "<none>", "<none>"
	if limited := level.Spec.Limited; limited != nil {
		if limited.NominalConcurrencyShares != nil {
			shares = int64(*limited.NominalConcurrencyShares)
		}
		if q := limited.LimitResponse.Queuing; q != nil {
			queues, hand, length = int64(q.Queues), int64(q.HandSize), int64(q.QueueLengthLimit)
		}
	}
	return []any{level.Name, string(level.Spec.Type), shares, queues, hand, length, age(level.CreationTimestamp.Time)}
}

// What a writer leaves out, as Kubernetes fills it in. The library reads some of these without looking whether they are there.
const (
	defaultPrecedence  = 1000
	defaultShares      = 30
	defaultQueues      = 64
	defaultHand        = 8
	defaultQueueLength = 50
)

func defaultFlowSchema(schema *flowcontrolv1.FlowSchema) {
	schema.Spec.MatchingPrecedence = cmp.Or(schema.Spec.MatchingPrecedence, defaultPrecedence)
}

func defaultPriorityLevel(level *flowcontrolv1.PriorityLevelConfiguration) {
	if exempt := level.Spec.Exempt; exempt != nil {
		exempt.NominalConcurrencyShares = cmp.Or(exempt.NominalConcurrencyShares, new(int32))
		exempt.LendablePercent = cmp.Or(exempt.LendablePercent, new(int32))
	}
	limited := level.Spec.Limited
	if limited == nil {
		return
	}
	limited.NominalConcurrencyShares = cmp.Or(limited.NominalConcurrencyShares, new(int32(defaultShares)))
	limited.LendablePercent = cmp.Or(limited.LendablePercent, new(int32))
	if q := limited.LimitResponse.Queuing; q != nil {
		q.Queues, q.HandSize = cmp.Or(q.Queues, defaultQueues), cmp.Or(q.HandSize, defaultHand)
		q.QueueLengthLimit = cmp.Or(q.QueueLengthLimit, defaultQueueLength)
	}
}

// The two prepare what an apply or a patch has put together since it was decoded, and keep the status from whoever does not
// write it.

func prepareFlowSchema(object, old runtime.Object) {
	schema := object.(*flowcontrolv1.FlowSchema)
	defaultFlowSchema(schema)
	schema.Generation, schema.Status = 1, flowcontrolv1.FlowSchemaStatus{}
	if old != nil {
		was := old.(*flowcontrolv1.FlowSchema)
		schema.Status = was.Status
		schema.Generation = generation(&was.ObjectMeta, equality.Semantic.DeepEqual(schema.Spec, was.Spec))
	}
}

func preparePriorityLevel(object, old runtime.Object) {
	level := object.(*flowcontrolv1.PriorityLevelConfiguration)
	defaultPriorityLevel(level)
	level.Generation, level.Status = 1, flowcontrolv1.PriorityLevelConfigurationStatus{}
	if old != nil {
		was := old.(*flowcontrolv1.PriorityLevelConfiguration)
		level.Status = was.Status
		level.Generation = generation(&was.ObjectMeta, equality.Semantic.DeepEqual(level.Spec, was.Spec))
	}
}

// generation counts the changes of a spec.
func generation(was *metav1.ObjectMeta, same bool) int64 {
	if same {
		return was.Generation
	}
	return was.Generation + 1
}

// keepFlowSchema takes all but the status from the schema as it was.
func keepFlowSchema(object, old runtime.Object) {
	is, was := object.(*flowcontrolv1.FlowSchema), old.(*flowcontrolv1.FlowSchema)
	status, version, managed := is.Status, is.ResourceVersion, is.ManagedFields
	was.DeepCopyInto(is)
	is.Status, is.ResourceVersion, is.ManagedFields = status, version, managed
}

// keepPriorityLevel takes all but the status from the level as it was.
func keepPriorityLevel(object, old runtime.Object) {
	is, was := object.(*flowcontrolv1.PriorityLevelConfiguration), old.(*flowcontrolv1.PriorityLevelConfiguration)
	status, version, managed := is.Status, is.ResourceVersion, is.ManagedFields
	was.DeepCopyInto(is)
	is.Status, is.ResourceVersion, is.ManagedFields = status, version, managed
}
