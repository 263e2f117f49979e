// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

// Package wire is what the lab's host side and the agent inside the guest say to each other over one
// virtio-serial port: frames of numbered streams. A stream is one request (run a command, take files, give
// files) and ends with one Exit frame from the guest. There is no flow control: whoever reads the port
// must never wait for a stream's consumer.
package wire

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"sync"
)

// Port is the name of the virtio-serial port.
const Port = "muster.lab"

// MaxPayload bounds one frame; longer data is cut into several.
const MaxPayload = 256 << 10

// ErrFrame is the kind of error for a frame that breaks the protocol.
var ErrFrame = errors.New("broken frame")

// Kind says what a frame carries.
type Kind uint8

// The kinds. Hello is the guest's first frame (JSON Hello). Run, Put and Get open a stream (JSON Request).
// In and Out are a command's streams or a tar archive's bytes; an empty In ends the input. Kill ends the command's
// process group. Exit (JSON Exit) ends a stream.
const (
	KindHello Kind = iota + 1
	KindRun
	KindPut
	KindGet
	KindIn
	KindOut
	KindErr
	KindKill
	KindExit
)

// Hello is what the guest says once it is ready.
type Hello struct {
	Release string `json:"release"`
	LSM     string `json:"lsm"`
}

// Request opens a stream.
type Request struct {
	// Args, Env, Dir, UID and GID describe a command (Run). Env is added to a small default one.
	Args []string `json:"args,omitempty"`
	Env  []string `json:"env,omitempty"`
	Dir  string   `json:"dir,omitempty"`
	UID  uint32   `json:"uid,omitempty"`
	GID  uint32   `json:"gid,omitempty"`
	// Stdin says that In frames follow.
	Stdin bool `json:"stdin,omitempty"`
	// Paths are what Get wants.
	Paths []string `json:"paths,omitempty"`
}

// Exit ends a stream. Error is set when the request could not be carried out at all.
type Exit struct {
	Code  int    `json:"code"`
	Error string `json:"error,omitempty"`
}

// Frame is one message.
type Frame struct {
	Stream  uint32
	Kind    Kind
	Payload []byte
}

const headerSize = 9

// Read returns the next frame.
func Read(r io.Reader) (Frame, error) {
	var head [headerSize]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return Frame{}, fmt.Errorf("reading a frame: %w", err)
	}
	size := binary.LittleEndian.Uint32(head[5:])
	if size > MaxPayload {
		return Frame{}, fmt.Errorf("%w: %d bytes announced", ErrFrame, size)
	}
	f := Frame{Stream: binary.LittleEndian.Uint32(head[:]), Kind: Kind(head[4]), Payload: make([]byte, size)}
	if _, err := io.ReadFull(r, f.Payload); err != nil {
		return Frame{}, fmt.Errorf("reading a frame's payload: %w", err)
	}
	return f, nil
}

// Writer sends frames; it may be used by several goroutines.
type Writer struct {
	mu sync.Mutex
	w  io.Writer
}

// NewWriter returns a Writer on w.
func NewWriter(w io.Writer) *Writer { return &Writer{w: w} }

// Send writes one frame of at most MaxPayload bytes.
func (w *Writer) Send(stream uint32, kind Kind, payload []byte) error {
	if len(payload) > MaxPayload {
		return fmt.Errorf("%w: %d bytes to send", ErrFrame, len(payload))
	}
	buf := make([]byte, headerSize, headerSize+len(payload))
	binary.LittleEndian.PutUint32(buf, stream)
	buf[4] = byte(kind)
	binary.LittleEndian.PutUint32(buf[5:], uint32(len(payload)))
	w.mu.Lock()
	defer w.mu.Unlock()
	if _, err := w.w.Write(append(buf, payload...)); err != nil {
		return fmt.Errorf("sending a frame: %w", err)
	}
	return nil
}

// SendJSON writes v as one frame.
func (w *Writer) SendJSON(stream uint32, kind Kind, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("encoding a frame: %w", err)
	}
	return w.Send(stream, kind, b)
}

// Stream returns an io.Writer that sends what is written as frames of one stream and kind. Empty writes send nothing.
func (w *Writer) Stream(stream uint32, kind Kind) io.Writer {
	return streamWriter{w: w, stream: stream, kind: kind}
}

type streamWriter struct {
	w      *Writer
	stream uint32
	kind   Kind
}

func (s streamWriter) Write(p []byte) (int, error) {
	sent := 0
	for sent < len(p) {
		n := min(len(p)-sent, MaxPayload)
		if err := s.w.Send(s.stream, s.kind, p[sent:sent+n]); err != nil {
			return sent, err
		}
		sent += n
	}
	return sent, nil
}

// Queue is an unbounded pipe: Push never waits, Read does. It stands between the port's reader and a stream's consumer.
type Queue struct {
	mu     sync.Mutex
	ready  *sync.Cond
	data   []byte
	closed bool
}

// NewQueue returns an empty Queue.
func NewQueue() *Queue {
	q := &Queue{}
	q.ready = sync.NewCond(&q.mu)
	return q
}

// Push appends p.
func (q *Queue) Push(p []byte) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.data = append(q.data, p...)
	q.ready.Broadcast()
}

// Close ends the queue: Read returns what is left and then io.EOF.
func (q *Queue) Close() error {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.closed = true
	q.ready.Broadcast()
	return nil
}

// Read implements io.Reader.
func (q *Queue) Read(p []byte) (int, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for len(q.data) == 0 && !q.closed {
		q.ready.Wait()
	}
	if len(q.data) == 0 {
		return 0, io.EOF
	}
	n := copy(p, q.data)
	q.data = q.data[n:]
	return n, nil
}
