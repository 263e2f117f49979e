// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package events

import (
	"time"

	"github.com/muster-fleet/muster/enforce"
)

// Of policies in audit the event file tells since when they are, and once a day that they still are: a soak without any
// event proves something only when somebody has listened.
const auditedEvery = 24 * time.Hour

// The records of type SystemEvent and operation DryRun: EventData.Operation is one of these.
const (
	dryRunOperation = "DryRun"
	dryRunBegins    = "begin"
	dryRunGoesOn    = "go on"
	dryRunEnds      = "end"
)

// Audited is told which policies are in force and deny nothing yet, as often as the caller likes.
func (p *Pipe) Audited(list []enforce.AuditedPolicy, now time.Time) {
	current := map[string]enforce.AuditedPolicy{}
	for _, a := range list {
		name := DryRunName(a.Policy, a.Version)
		current[name] = a
		told, known := p.audited[name]
		if known && told.Mode == a.Mode && now.Sub(told.at) < auditedEvery {
			continue
		}
		operation := dryRunBegins
		if known {
			operation = dryRunGoesOn
		}
		p.offer(dryRunRecord(a, name, operation, now))
		p.audited[name] = auditedPolicy{a, now}
	}
	for name, told := range p.audited {
		if _, still := current[name]; !still {
			p.offer(dryRunRecord(told.AuditedPolicy, name, dryRunEnds, now))
			delete(p.audited, name)
		}
	}
}

// auditedPolicy is what was told of a policy last, and when.
type auditedPolicy struct {
	enforce.AuditedPolicy

	at time.Time
}

// offer puts a record into the queue, or counts it as lost.
func (p *Pipe) offer(r Record) {
	select {
	case p.queue <- item{record: &r}:
	default:
		p.lose(LossQueue, 1)
	}
}

func dryRunRecord(a enforce.AuditedPolicy, name, operation string, now time.Time) Record {
	r := Record{
		Timestamp: now.Unix(), UpdatedTime: now.UTC().Format(time.RFC3339Nano),
		Type: "SystemEvent", Operation: dryRunOperation, ATags: []string{}, Result: resultPassed, Count: 1,
		EventData: EventData{DryRun: []string{name}, Operation: operation},
	}
	if a.Mode == enforce.ModeAudit {
		r.EventData.Mode = string(a.Mode)
	}
	return r
}
