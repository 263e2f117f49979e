// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package vm

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"time"

	"github.com/muster-fleet/muster/test/vm/wire"
)

// ErrMachine means that the machine ended, or never came up; the message carries the end of its console.
var ErrMachine = errors.New("the machine is gone")

// bootLimit is how long a boot may take on a busy machine; it takes 4 to 8 s on an idle one.
const bootLimit = 120 * time.Second

// Machine is a running guest. Its methods may be used by several goroutines.
type Machine struct {
	// Kernel is the release that runs, LSM the list of security modules that the kernel reports.
	Kernel, LSM string
	// Began is when it was switched on: what had to be fetched is there, and the wait for other machines is over.
	Began time.Time

	cmd     *exec.Cmd
	cancel  context.CancelFunc
	conn    net.Conn
	out     *wire.Writer
	console *console
	dir     string
	share   *share
	gone    chan struct{} // closed once QEMU has ended

	mu      sync.Mutex
	next    uint32
	streams map[uint32]*stream
	dead    error
}

// stream is one open request as the host sees it.
type stream struct {
	stdout, stderr io.Writer
	exit           chan wire.Exit
}

// bootAttempts is how often a machine may start whose kernel panics before anything of ours runs in it: QEMU's
// emulation of several processors now and then executes an instruction that the booting kernel is just patching.
const bootAttempts = 3

// Boot starts a machine and waits until its agent answers. The machine lives until Close or the end of ctx.
// A panic after that is never tried again.
func Boot(ctx context.Context, o Options) (*Machine, error) {
	o = o.withDefaults()
	for attempt := 1; ; attempt++ {
		m, err := bootOnce(ctx, o)
		if err == nil || attempt == bootAttempts || ctx.Err() != nil || !strings.Contains(err.Error(), "Kernel panic") {
			return m, err
		}
		fmt.Fprintf(o.Progress, "attempt %d of %d: the kernel panicked while it booted: %v\n", attempt, bootAttempts, err)
	}
}

func bootOnce(ctx context.Context, o Options) (*Machine, error) {
	dir, err := os.MkdirTemp("", "muster-lab-")
	if err != nil {
		return nil, err
	}
	img, err := prepare(ctx, o, dir)
	if err != nil {
		os.RemoveAll(dir)
		return nil, err
	}
	slot, err := takeSlot(ctx)
	if err != nil {
		os.RemoveAll(dir)
		return nil, err
	}
	// The child inherits the lock; this process gives it up, so that the slot is free when QEMU has ended.
	defer slot.Close()
	img.socket = filepath.Join(dir, "agent")
	if o.Share != "" {
		img.share = filepath.Join(dir, "share")
	}
	m := &Machine{Began: time.Now(), dir: dir, console: &console{live: o.Console}, gone: make(chan struct{}), streams: map[uint32]*stream{}}
	if err := m.start(ctx, o, img, slot); err != nil {
		m.Close()
		return nil, err
	}
	return m, nil
}

func (m *Machine) start(ctx context.Context, o Options, img image, slot *os.File) error {
	listener, err := net.Listen("unix", img.socket)
	if err != nil {
		close(m.gone)
		return err
	}
	defer listener.Close()
	ctx, m.cancel = context.WithCancel(ctx)
	if img.share != "" {
		if m.share, err = startShare(ctx, o.Share, img.share, m.console); err != nil {
			close(m.gone)
			return err
		}
	}
	m.cmd = command(ctx, o, img, slot)
	m.cmd.Stdout, m.cmd.Stderr = m.console, m.console
	if err := m.cmd.Start(); err != nil {
		close(m.gone)
		return fmt.Errorf("starting %s: %w", qemu, err)
	}
	go func() {
		_ = m.cmd.Wait()
		close(m.gone)
		listener.Close()
	}()
	m.conn, err = listener.Accept()
	if err != nil {
		return m.lost(err)
	}
	m.out = wire.NewWriter(m.conn)
	return m.greet()
}

// greet waits for the agent's first frame and starts the reader.
func (m *Machine) greet() error {
	limit := time.AfterFunc(bootLimit, func() { m.conn.Close() })
	f, err := wire.Read(m.conn)
	if !limit.Stop() {
		return m.lost(fmt.Errorf("no answer within %s", bootLimit))
	}
	if err != nil {
		return m.lost(err)
	}
	var hello wire.Hello
	if err := json.Unmarshal(f.Payload, &hello); err != nil || f.Kind != wire.KindHello {
		return m.lost(errors.Join(wire.ErrFrame, err))
	}
	m.Kernel, m.LSM = hello.Release, hello.LSM
	go m.read()
	return nil
}

func (m *Machine) lost(err error) error {
	return fmt.Errorf("%w: %w; its console ends: %s", ErrMachine, err, m.console.tail())
}

// read hands every frame to its stream until the machine ends.
func (m *Machine) read() {
	for {
		f, err := wire.Read(m.conn)
		if err != nil {
			<-m.gone
			m.fail(m.lost(err))
			return
		}
		m.mu.Lock()
		s := m.streams[f.Stream]
		if f.Kind == wire.KindExit {
			delete(m.streams, f.Stream)
		}
		m.mu.Unlock()
		if s == nil {
			continue
		}
		switch f.Kind {
		case wire.KindOut:
			_, _ = s.stdout.Write(f.Payload)
		case wire.KindErr:
			_, _ = s.stderr.Write(f.Payload)
		case wire.KindExit:
			var exit wire.Exit
			if err := json.Unmarshal(f.Payload, &exit); err != nil {
				exit = wire.Exit{Code: -1, Error: err.Error()}
			}
			s.exit <- exit
		}
	}
}

// fail ends every open stream.
func (m *Machine) fail(err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.dead = err
	for id, s := range m.streams {
		delete(m.streams, id)
		close(s.exit)
	}
}

// open starts a request.
func (m *Machine) open(kind wire.Kind, req wire.Request, stdout, stderr io.Writer) (uint32, *stream, error) {
	s := &stream{stdout: stdout, stderr: stderr, exit: make(chan wire.Exit, 1)}
	m.mu.Lock()
	if m.dead != nil {
		defer m.mu.Unlock()
		return 0, nil, m.dead
	}
	m.next++
	id := m.next
	m.streams[id] = s
	m.mu.Unlock()
	if err := m.out.SendJSON(id, kind, req); err != nil {
		return 0, nil, m.lost(err)
	}
	return id, s, nil
}

// result waits for a stream's end.
func (m *Machine) result(s *stream) (int, error) {
	exit, ok := <-s.exit
	if !ok {
		m.mu.Lock()
		defer m.mu.Unlock()
		return -1, m.dead
	}
	if exit.Error != "" {
		return exit.Code, fmt.Errorf("in the guest: %s", exit.Error)
	}
	return exit.Code, nil
}

// Close ends the machine. Nothing that it wrote remains.
func (m *Machine) Close() error {
	if m.cancel != nil {
		m.cancel()
	}
	if m.conn != nil {
		m.conn.Close()
	}
	<-m.gone
	if m.share != nil {
		<-m.share.done
	}
	return os.RemoveAll(m.dir)
}

// Console returns the end of what the serial console printed: kernel messages, mostly.
func (m *Machine) Console() string { return m.console.tail() }

// console keeps the last part of what is written and passes all of it on.
type console struct {
	mu   sync.Mutex
	kept bytes.Buffer
	live io.Writer
}

const consoleKept = 16 << 10

func (c *console) Write(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.kept.Write(p)
	if over := c.kept.Len() - consoleKept; over > 0 {
		c.kept.Next(over)
	}
	_, _ = c.live.Write(p)
	return len(p), nil
}

func (c *console) tail() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return consoleEnd(c.kept.String())
}

// faults is how the kernel begins to tell of what it dies of; the traces that follow say less.
var faults = regexp.MustCompile(`(?m)^.*(BUG: |general protection fault|\[#1\]|Kernel panic).*$`)

// consoleEnd is the end of a console, and before it the first fault that the end leaves out.
func consoleEnd(s string) string {
	const most = 3000
	end := tail(s, most)
	if first := faults.FindString(s); !strings.Contains(end, first) {
		return first + "\n" + end
	}
	return end
}
