// SPDX-License-Identifier: Apache-2.0

package rack

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"
)

// qmp is one connection to QEMU's machine protocol. QEMU serves one client at a time.
type qmp struct {
	conn net.Conn

	mu      sync.Mutex
	id      int
	waiting map[int]chan qmpReply
	closed  chan struct{}
}

type qmpReply struct {
	ID     int             `json:"id"`
	Event  string          `json:"event"`
	Return json.RawMessage `json:"return"`
	Error  *struct {
		Class string `json:"class"`
		Desc  string `json:"desc"`
	} `json:"error"`
}

var errGone = errors.New("QEMU has ended")

// dialQMP connects, waiting for the socket until ctx ends. Events go to handle, one at a time, from another goroutine.
func dialQMP(ctx context.Context, path string, handle func(event string)) (*qmp, error) {
	var conn net.Conn
	for {
		var err error
		if conn, err = net.Dial("unix", path); err == nil {
			break
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("connecting to QEMU: %w", err)
		case <-time.After(20 * time.Millisecond):
		}
	}
	q := &qmp{conn: conn, waiting: map[int]chan qmpReply{}, closed: make(chan struct{})}
	go q.read(handle)
	if err := q.do(ctx, "qmp_capabilities", nil); err != nil {
		conn.Close()
		return nil, err
	}
	return q, nil
}

func (q *qmp) read(handle func(string)) {
	defer close(q.closed)
	defer q.conn.Close()
	events := make(chan string, 64)
	defer close(events)
	go func() {
		for event := range events {
			handle(event)
		}
	}()
	for scan := bufio.NewScanner(q.conn); scan.Scan(); {
		var reply qmpReply
		if json.Unmarshal(scan.Bytes(), &reply) != nil {
			continue
		}
		if reply.Event != "" {
			events <- reply.Event
			continue
		}
		q.mu.Lock()
		answer := q.waiting[reply.ID]
		delete(q.waiting, reply.ID)
		q.mu.Unlock()
		if answer != nil {
			answer <- reply
		}
	}
}

// do executes one command and waits for its answer.
func (q *qmp) do(ctx context.Context, command string, arguments map[string]any) error {
	answer := make(chan qmpReply, 1)
	q.mu.Lock()
	q.id++
	request := map[string]any{"execute": command, "id": q.id}
	if arguments != nil {
		request["arguments"] = arguments
	}
	text, err := json.Marshal(request)
	if err != nil {
		q.mu.Unlock()
		return fmt.Errorf("encoding %s: %w", command, err)
	}
	q.waiting[q.id] = answer
	_, err = q.conn.Write(append(text, '\n'))
	q.mu.Unlock()
	if err != nil {
		return fmt.Errorf("sending %s to QEMU: %w: %w", command, errGone, err)
	}
	select {
	case reply := <-answer:
		if reply.Error != nil {
			return fmt.Errorf("doing %s in QEMU: %s", command, reply.Error.Desc)
		}
		return nil
	case <-q.closed:
		return fmt.Errorf("doing %s in QEMU: %w", command, errGone)
	case <-ctx.Done():
		return fmt.Errorf("doing %s in QEMU: %w", command, ctx.Err())
	}
}

func (q *qmp) alive() bool {
	select {
	case <-q.closed:
		return false
	default:
		return true
	}
}
