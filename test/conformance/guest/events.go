// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package guest

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strconv"

	"github.com/muster-fleet/muster/test/conformance"
)

// event is one event and the process that it speaks of.
type event struct {
	pid    int
	fields conformance.Event
}

// EventFile follows the agent's events, one JSON object a line.
type EventFile struct {
	path   string
	offset int64
}

// read returns the events that were added since the last call.
func (f *EventFile) read() ([]event, error) {
	file, err := os.Open(f.path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("events: %w", err)
	}
	defer file.Close()
	if info, err := file.Stat(); err == nil && info.Size() < f.offset {
		f.offset = 0 // rotated
	}
	if _, err := file.Seek(f.offset, io.SeekStart); err != nil {
		return nil, fmt.Errorf("events: %w", err)
	}
	text, err := io.ReadAll(file)
	if err != nil {
		return nil, fmt.Errorf("events: %w", err)
	}
	text = text[:bytes.LastIndexByte(text, '\n')+1] // half a line is read again
	f.offset += int64(len(text))
	var out []event
	for line := range bytes.SplitSeq(bytes.TrimSpace(text), []byte("\n")) {
		if len(line) == 0 {
			continue
		}
		e, err := decodeEvent(line)
		if err != nil {
			return nil, err
		}
		out = append(out, e)
	}
	return out, nil
}

func decodeEvent(line []byte) (event, error) {
	var raw map[string]any
	decoder := json.NewDecoder(bytes.NewReader(line))
	decoder.UseNumber()
	if err := decoder.Decode(&raw); err != nil {
		return event{}, fmt.Errorf("events: %w: %s", err, line)
	}
	e := event{fields: conformance.Event{}}
	for name, value := range raw {
		switch v := value.(type) {
		case string:
			e.fields[name] = v
		case json.Number:
			e.fields[name] = v.String()
		case bool:
			e.fields[name] = strconv.FormatBool(v)
		}
	}
	pid, err := strconv.Atoi(e.fields["HostPID"])
	if err != nil {
		return event{}, fmt.Errorf("events: no HostPID: %s", line)
	}
	e.pid = pid
	return e, nil
}

// of returns the events of these processes.
func of(events []event, members family) []conformance.Event {
	var out []conformance.Event
	for _, e := range events {
		if members[e.pid] {
			out = append(out, e.fields)
		}
	}
	return out
}
