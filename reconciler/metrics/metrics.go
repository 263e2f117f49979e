// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

// Package metrics shows the agent to Prometheus. Labels are bounded: policies beyond a fixed number are
// counted as "other" by the event pipe, and every other label takes its values from a closed list.
package metrics

import (
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/muster-fleet/muster/enforce"
	"github.com/muster-fleet/muster/fleet"
	"github.com/muster-fleet/muster/reconciler"
)

// Metrics implements reconciler.Watcher.
type Metrics struct {
	registry *prometheus.Registry
	rounds   *prometheus.CounterVec
	took     prometheus.Histogram
	pulls    *prometheus.CounterVec
	refused  *prometheus.CounterVec
	repaired *prometheus.CounterVec
	state    *prometheus.GaugeVec
	drift    *prometheus.GaugeVec
	gaps     prometheus.Gauge
	rules    *prometheus.GaugeVec
	release  *prometheus.GaugeVec
	last     prometheus.Gauge
}

// New returns metrics that read event counters from counters at every scrape.
func New(counters reconciler.Counters, version string) *Metrics {
	m := &Metrics{
		registry: prometheus.NewRegistry(),
		rounds:   counterVec("rounds_total", "Rounds of the loop by cause.", "cause"),
		took:     prometheus.NewHistogram(prometheus.HistogramOpts{Name: "muster_round_seconds", Help: "Duration of a round.", Buckets: prometheus.ExponentialBuckets(0.001, 4, 9)}),
		pulls:    counterVec("pulls_total", "Looks at the source by result.", "result"),
		refused:  counterVec("releases_refused_total", "Refused releases by name of the refusal.", "name"),
		repaired: counterVec("drift_repaired_total", "Differences found in the kernel and corrected, by kind.", "kind"),
		state:    gaugeVec("host_state", "1 for the state that the host is in.", "state"),
		drift:    gaugeVec("drift", "Differences between declared and enforced, by kind.", "kind"),
		gaps:     prometheus.NewGauge(prometheus.GaugeOpts{Name: "muster_gaps", Help: "Rules asked for that this host cannot enforce."}),
		rules:    gaugeVec("rules", "Rules declared, by subject.", "subject"),
		release:  gaugeVec("release_sequence", "Sequence of the releases held, by level and tenant.", "level", "tenant"),
		last:     prometheus.NewGauge(prometheus.GaugeOpts{Name: "muster_last_round_timestamp_seconds", Help: "When the last round ended."}),
	}
	info := prometheus.NewGauge(prometheus.GaugeOpts{Name: "muster_build_info", Help: "1.", ConstLabels: prometheus.Labels{"version": version}})
	info.Set(1)
	m.registry.MustRegister(m.rounds, m.took, m.pulls, m.refused, m.repaired, m.state, m.drift, m.gaps, m.rules, m.release, m.last, info,
		&eventCollector{counters: counters}, collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return m
}

func counterVec(name, help string, labels ...string) *prometheus.CounterVec {
	return prometheus.NewCounterVec(prometheus.CounterOpts{Name: "muster_" + name, Help: help}, labels)
}

func gaugeVec(name, help string, labels ...string) *prometheus.GaugeVec {
	return prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "muster_" + name, Help: help}, labels)
}

// Handler serves the metrics.
func (m *Metrics) Handler() http.Handler {
	return promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{MaxRequestsInFlight: 4})
}

// Pulled counts a look at the source.
func (m *Metrics) Pulled(ok bool) {
	result := "ok"
	if !ok {
		result = "failed"
	}
	m.pulls.WithLabelValues(result).Inc()
}

// Refused counts a refused release.
func (m *Metrics) Refused(name string) { m.refused.WithLabelValues(name).Inc() }

// Repaired counts a corrected difference.
func (m *Metrics) Repaired(kind enforce.DriftKind) { m.repaired.WithLabelValues(string(kind)).Inc() }

// Round shows what a round concluded.
func (m *Metrics) Round(cause reconciler.Cause, took time.Duration, report *fleet.Report) {
	m.rounds.WithLabelValues(string(cause)).Inc()
	m.took.Observe(took.Seconds())
	m.last.Set(float64(report.Time.Unix()))
	m.state.Reset()
	m.state.WithLabelValues(string(report.State)).Set(1)
	m.drift.Reset()
	for _, d := range report.Drift {
		m.drift.WithLabelValues(string(d.Kind)).Inc()
	}
	m.gaps.Set(float64(len(report.Gaps)))
	m.rules.Reset()
	for _, s := range report.Subjects {
		m.rules.WithLabelValues(string(s.Subject)).Set(float64(s.Rules))
	}
	m.release.Reset()
	for _, r := range report.Releases {
		m.release.WithLabelValues(r.Level, r.Tenant).Set(float64(r.Sequence))
	}
}

// eventCollector reads the pipe's counters at scrape time.
type eventCollector struct{ counters reconciler.Counters }

// Describe sends nothing: the collector is unchecked, since its metrics depend on what was counted.
func (c *eventCollector) Describe(chan<- *prometheus.Desc) {}

// Collect sends the counters of now.
func (c *eventCollector) Collect(out chan<- prometheus.Metric) {
	events := prometheus.NewDesc("muster_events_total", "Events by policy and action.", []string{"policy", "action"}, nil)
	for _, n := range c.counters.Counts() {
		out <- prometheus.MustNewConstMetric(events, prometheus.CounterValue, float64(n.Count), n.Policy, n.Action)
	}
	lost := prometheus.NewDesc("muster_events_lost_total", "Lost events by reason.", []string{"reason"}, nil)
	for reason, n := range c.counters.Losses() {
		out <- prometheus.MustNewConstMetric(lost, prometheus.CounterValue, float64(n), reason)
	}
}
