// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package control

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"time"
)

// Asker answers questions and changes nothing.
type Asker interface {
	Status(ctx context.Context) (*Status, error)
	Plan(ctx context.Context) (*Plan, error)
	Rulesets(ctx context.Context) (*Rulesets, error)
}

// Doer changes what the agent does.
type Doer interface {
	Sync(ctx context.Context, request SyncRequest) (*SyncResult, error)
	Suspend(ctx context.Context, request SuspendRequest) (*Suspension, error)
	Resume(ctx context.Context) error
	Reload(ctx context.Context) error
	StandDown(ctx context.Context, file []byte) (*StandDown, error)
}

// Streamer gives out events.
type Streamer interface {
	// Follow returns a channel of JSON lines; it is closed when the reader is too slow or stop is called.
	Follow() (lines <-chan []byte, stop func())
	// Flush returns when every event emitted before the call has been written.
	Flush(ctx context.Context) error
}

// Server serves the control API. Now is the clock of suspensions' bounds.
type Server struct {
	Ask    Asker
	Do     Doer
	Stream Streamer
	Log    *slog.Logger
	Now    func() time.Time
}

// Serve answers on listener until ctx ends; the listener is closed then.
func (s *Server) Serve(ctx context.Context, listener net.Listener) error {
	server := &http.Server{
		Handler:           s.Handler(),
		ReadHeaderTimeout: headTimeout,
		ReadTimeout:       headTimeout,
		MaxHeaderBytes:    8 << 10,
		BaseContext:       func(net.Listener) context.Context { return ctx },
		ErrorLog:          slog.NewLogLogger(s.Log.Handler(), slog.LevelDebug),
	}
	stop := context.AfterFunc(ctx, func() { _ = server.Close() })
	defer stop()
	err := server.Serve(&peerListener{Listener: listener, log: s.Log, slots: make(chan struct{}, maxClients)})
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return fmt.Errorf("control socket: %w", err)
}

// Handler returns the API without its socket; who may call is the socket's business.
func (s *Server) Handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET "+pathStatus, answer(func(r *http.Request) (any, error) { return s.Ask.Status(r.Context()) }))
	mux.HandleFunc("GET "+pathPlan, answer(func(r *http.Request) (any, error) { return s.Ask.Plan(r.Context()) }))
	mux.HandleFunc("GET "+pathRulesets, answer(func(r *http.Request) (any, error) { return s.Ask.Rulesets(r.Context()) }))
	mux.HandleFunc("POST "+pathSync, answer(s.sync))
	mux.HandleFunc("POST "+pathSuspend, answer(s.suspend))
	mux.HandleFunc("POST "+pathResume, answer(func(r *http.Request) (any, error) { return nil, s.Do.Resume(r.Context()) }))
	mux.HandleFunc("POST "+pathReload, answer(func(r *http.Request) (any, error) { return nil, s.Do.Reload(r.Context()) }))
	mux.HandleFunc("POST "+pathStandDown, answer(func(r *http.Request) (any, error) {
		file, err := io.ReadAll(r.Body)
		if err != nil {
			return nil, &Error{Name: "request", Message: "request not understood: " + err.Error()}
		}
		return s.Do.StandDown(r.Context(), file)
	}))
	mux.HandleFunc("POST "+pathFlush, answer(func(r *http.Request) (any, error) { return nil, s.Stream.Flush(r.Context()) }))
	mux.HandleFunc("GET "+pathEvents, s.events)
	return mux
}

func (s *Server) sync(r *http.Request) (any, error) {
	var request SyncRequest
	if err := decode(r, &request); err != nil {
		return nil, err
	}
	return s.Do.Sync(r.Context(), request)
}

func (s *Server) suspend(r *http.Request) (any, error) {
	var request SuspendRequest
	if err := decode(r, &request); err != nil {
		return nil, err
	}
	now := s.Now()
	switch {
	case request.Reason == "" || len(request.Reason) > maxReason:
		return nil, &Error{Name: "reason", Message: "a suspension needs a reason of at most 1024 bytes", Advice: "muster suspend --reason TEXT --for 2h"}
	case !request.Until.After(now):
		return nil, &Error{Name: "until", Message: "the end of the suspension is in the past", Advice: "muster suspend --reason TEXT --for 2h"}
	case request.Until.After(now.Add(maxSuspend)):
		return nil, &Error{Name: "until", Message: "a suspension lasts at most 30 days", Advice: "set mode: audit in the configuration for longer"}
	}
	return s.Do.Suspend(r.Context(), request)
}

// events streams until either side leaves; an empty line every few seconds finds dead readers.
func (s *Server) events(w http.ResponseWriter, r *http.Request) {
	lines, stop := s.Stream.Follow()
	defer stop()
	control := http.NewResponseController(w)
	w.Header().Set("Content-Type", "application/jsonl")
	w.WriteHeader(http.StatusOK)
	_ = control.Flush()
	alive := time.NewTicker(headTimeout)
	defer alive.Stop()
	for {
		line := []byte(nil)
		select {
		case <-r.Context().Done():
			return
		case <-alive.C:
		case next, open := <-lines:
			if !open {
				return
			}
			line = next
		}
		_ = control.SetWriteDeadline(s.Now().Add(headTimeout))
		if _, err := w.Write(append(line, '\n')); err != nil {
			return
		}
		if len(lines) == 0 && control.Flush() != nil {
			return
		}
	}
}

// answer turns a function into a handler; nil means 204.
func answer(fn func(*http.Request) (any, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		r.Body = http.MaxBytesReader(w, r.Body, maxRequest)
		value, err := fn(r)
		if err != nil {
			refuse(w, err)
			return
		}
		if value == nil {
			w.WriteHeader(http.StatusNoContent)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(value) // the reader went away: nobody is left to tell
	}
}

func refuse(w http.ResponseWriter, err error) {
	out := &Error{Name: "failed", Message: err.Error()}
	var named interface{ Name() string }
	if errors.As(err, &named) {
		out.Name = named.Name()
	}
	var hinter interface{ Hint() string }
	if errors.As(err, &hinter) {
		out.Advice = hinter.Hint()
	}
	status := http.StatusInternalServerError
	if own, ok := errors.AsType[*Error](err); ok {
		out, status = own, http.StatusBadRequest
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(out) // the reader went away: nobody is left to tell
}

// decode reads a strict JSON body.
func decode(r *http.Request, out any) error {
	decoder := json.NewDecoder(r.Body)
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(out); err != nil && !errors.Is(err, io.EOF) {
		return &Error{Name: "request", Message: "request not understood: " + err.Error()}
	}
	return nil
}
