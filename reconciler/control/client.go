// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package control

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"syscall"
)

// ErrUnreachable is the kind of every error that means that no agent answered.
var ErrUnreachable = errors.New("the agent does not answer")

// Error is a refusal by the agent, or the reason why it could not be asked.
type Error struct {
	Name    string `json:"name"`
	Message string `json:"message"`
	Advice  string `json:"hint,omitempty"`
	kind    error
}

func (e *Error) Error() string { return e.Message }

// Unwrap returns the kind.
func (e *Error) Unwrap() error { return e.kind }

// Hint is what the operator can do.
func (e *Error) Hint() string { return e.Advice }

// Client talks to one agent.
type Client struct {
	socket string
	http   *http.Client
}

// NewClient returns a client of the agent behind socket; nothing is dialled yet.
func NewClient(socket string) *Client {
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "unix", socket)
	}
	return &Client{socket: socket, http: &http.Client{Transport: &http.Transport{DialContext: dial, DisableKeepAlives: true}}}
}

// Status asks for the status.
func (c *Client) Status(ctx context.Context) (*Status, error) {
	return call[Status](ctx, c, http.MethodGet, pathStatus, nil)
}

// Sync makes the agent look at its source now.
func (c *Client) Sync(ctx context.Context, request SyncRequest) (*SyncResult, error) {
	return call[SyncResult](ctx, c, http.MethodPost, pathSync, request)
}

// Plan asks what the agent would do now.
func (c *Client) Plan(ctx context.Context) (*Plan, error) {
	return call[Plan](ctx, c, http.MethodGet, pathPlan, nil)
}

// Rulesets asks for the rulesets that this host should obey.
func (c *Client) Rulesets(ctx context.Context) (*Rulesets, error) {
	return call[Rulesets](ctx, c, http.MethodGet, pathRulesets, nil)
}

// Suspend holds the host where it is.
func (c *Client) Suspend(ctx context.Context, request SuspendRequest) (*Suspension, error) {
	return call[Suspension](ctx, c, http.MethodPost, pathSuspend, request)
}

// Resume ends a suspension.
func (c *Client) Resume(ctx context.Context) error {
	_, err := call[struct{}](ctx, c, http.MethodPost, pathResume, nil)
	return err
}

// Reload makes the agent read its configuration, labels and trust again.
func (c *Client) Reload(ctx context.Context) error {
	_, err := call[struct{}](ctx, c, http.MethodPost, pathReload, nil)
	return err
}

// StandDown gives the agent a signed stand-down.
func (c *Client) StandDown(ctx context.Context, file []byte) (*StandDown, error) {
	return call[StandDown](ctx, c, http.MethodPost, pathStandDown, json.RawMessage(file))
}

// Flush returns when every event that the kernel emitted before the call is in the event sinks.
func (c *Client) Flush(ctx context.Context) error {
	_, err := call[struct{}](ctx, c, http.MethodPost, pathFlush, nil)
	return err
}

// Events calls fn with each event, one line of JSON without its newline, until ctx ends or fn fails.
func (c *Client) Events(ctx context.Context, fn func(line []byte) error) error {
	response, err := c.do(ctx, http.MethodGet, pathEvents, nil)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	scanner := bufio.NewScanner(response.Body)
	scanner.Buffer(make([]byte, 0, 64<<10), 1<<20)
	for scanner.Scan() {
		if len(scanner.Bytes()) == 0 {
			continue // a keep-alive
		}
		if err := fn(scanner.Bytes()); err != nil {
			return err
		}
	}
	if ctx.Err() != nil {
		return nil
	}
	if err := scanner.Err(); err != nil {
		return fmt.Errorf("event stream: %w", err)
	}
	return &Error{Name: "stream-ended", Message: "the agent ended the event stream", Advice: "it was stopped, or this reader was too slow; start again", kind: ErrUnreachable}
}

func call[T any](ctx context.Context, c *Client, method, path string, body any) (*T, error) {
	response, err := c.do(ctx, method, path, body)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	out := new(T)
	if response.StatusCode == http.StatusNoContent {
		return out, nil
	}
	if err := json.NewDecoder(io.LimitReader(response.Body, maxAnswer)).Decode(out); err != nil {
		return nil, fmt.Errorf("answer of the agent: %w", err)
	}
	return out, nil
}

func (c *Client) do(ctx context.Context, method, path string, body any) (*http.Response, error) {
	var reader io.Reader
	if body != nil {
		encoded, err := json.Marshal(body)
		if err != nil {
			return nil, fmt.Errorf("request: %w", err)
		}
		reader = bytes.NewReader(encoded)
	}
	request, err := http.NewRequestWithContext(ctx, method, "http://musterd"+path, reader)
	if err != nil {
		return nil, fmt.Errorf("request: %w", err)
	}
	response, err := c.http.Do(request)
	if err != nil {
		return nil, c.unreachable(err)
	}
	if response.StatusCode/100 == 2 {
		return response, nil
	}
	defer response.Body.Close()
	refusal := &Error{}
	if err := json.NewDecoder(io.LimitReader(response.Body, maxRequest)).Decode(refusal); err != nil || refusal.Message == "" {
		refusal.Message = "the agent answered " + response.Status
	}
	return nil, refusal
}

// unreachable says in the operator's words why nobody answered.
func (c *Client) unreachable(err error) error {
	out := &Error{Name: "unreachable", Message: fmt.Sprintf("no answer on %s: %v", c.socket, err), kind: ErrUnreachable}
	switch {
	case errors.Is(err, fs.ErrPermission):
		out.Advice = "only root may ask the agent; use sudo"
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ECONNREFUSED):
		out.Advice = "musterd is not running here, or uses another socket (--socket); see: systemctl status musterd"
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, syscall.ECONNRESET):
		out.Advice = "only root, or the user who runs musterd, may ask it; or musterd was just stopped"
	}
	return out
}
