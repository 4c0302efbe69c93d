// SPDX-License-Identifier: Apache-2.0

package erase

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"runtime"
	"time"
	"unsafe"
)

// SCSI commands (SPC-5, SBC-4) and the kernel's way to send them (scsi/sg.h).
const (
	scsiSense    = 0x03
	scsiSanitize = 0x48

	sanitizeBlockAction  = 0x02
	sanitizeCryptoAction = 0x03
	sanitizeExitAction   = 0x1f

	sgIO         = 0x2285
	sgNone       = -1
	sgToDevice   = -2
	sgFromDevice = -3

	scsiWithin = time.Minute
)

// sgHeader is struct sg_io_hdr.
type sgHeader struct {
	interfaceID  int32
	direction    int32
	commandLen   uint8
	maxSense     uint8
	_            uint16
	dataLen      uint32
	data         unsafe.Pointer
	command      unsafe.Pointer
	sense        unsafe.Pointer
	timeoutMs    uint32
	_            uint32
	_            int32
	_            uintptr
	status       uint8
	_            uint8
	_            uint8
	senseLen     uint8
	hostStatus   uint16
	driverStatus uint16
	_            int32
	_            uint32
	_            uint32
}

// scsiCommand sends one command. Its data goes to the device, or comes from it. The error is a senseError where the device
// says why.
type scsiCommand func(command, data []byte, out bool, within time.Duration) error

// scsi sends a command to the drive.
func (b *block) scsi(command, data []byte, out bool, within time.Duration) error {
	sense := make([]byte, 64)
	h := sgHeader{
		interfaceID: 'S', direction: sgNone, commandLen: uint8(len(command)), maxSense: uint8(len(sense)),
		command: unsafe.Pointer(&command[0]), sense: unsafe.Pointer(&sense[0]), timeoutMs: uint32(within.Milliseconds()),
	}
	if len(data) > 0 {
		h.data, h.dataLen, h.direction = unsafe.Pointer(&data[0]), uint32(len(data)), sgFromDevice
		if out {
			h.direction = sgToDevice
		}
	}
	err := b.ioctl(sgIO, unsafe.Pointer(&h))
	runtime.KeepAlive(command)
	runtime.KeepAlive(data)
	switch {
	case err != nil:
		return err
	case h.senseLen > 0 && h.status != 0:
		return parseSense(sense[:min(int(h.senseLen), len(sense))])
	case h.status != 0 || h.hostStatus != 0 || h.driverStatus&0xf != 0:
		return fmt.Errorf("the drive answers status %#x, its adapter %#x, the driver %#x", h.status, h.hostStatus, h.driverStatus)
	}
	return nil
}

// senseError is what a drive says of a command that did not end well.
type senseError struct {
	key, code, qualifier byte
	// progress is of 65536, -1 where it says none.
	progress int64
}

func (e senseError) Error() string {
	switch {
	case e.key == 5 && (e.code == 0x20 || e.code == 0x24 || e.code == 0x26):
		return "the drive does not have it"
	case e.code == 0x31 && e.qualifier == 0x03:
		return "the drive says that it failed"
	case e.key == 0xb:
		return fmt.Sprintf("the drive aborts the command (sense %x/%02x/%02x)", e.key, e.code, e.qualifier)
	}
	return fmt.Sprintf("the drive answers sense %x/%02x/%02x", e.key, e.code, e.qualifier)
}

// sanitizing says that the drive is at it: LOGICAL UNIT NOT READY, SANITIZE IN PROGRESS.
func (e senseError) sanitizing() bool { return e.key == 2 && e.code == 0x04 && e.qualifier == 0x1b }

// parseSense reads sense data, fixed or with descriptors (SPC-5, 4.4). Short data is what it is: all zero behind its end.
func parseSense(short []byte) senseError {
	d := make([]byte, 64)
	copy(d, short)
	e := senseError{progress: -1}
	specific := func(at int) {
		if d[at]&0x80 != 0 {
			e.progress = int64(binary.BigEndian.Uint16(d[at+1:]))
		}
	}
	switch d[0] & 0x7f {
	case 0x70, 0x71:
		e.key, e.code, e.qualifier = d[2]&0xf, d[12], d[13]
		specific(15)
	case 0x72, 0x73:
		e.key, e.code, e.qualifier = d[1]&0xf, d[2], d[3]
		for at := 8; at+8 <= min(len(d), 8+int(d[7])); at += 2 + int(d[at+1]) {
			if d[at] == 2 {
				specific(at + 4)
			}
		}
	}
	return e
}

// scsiLadder does not ask: a drive that has no SANITIZE says so, and many that have it do not list their commands.
func scsiLadder(do scsiCommand) Ladder {
	return Ladder{Methods: []Method{
		{Name: "scsi-sanitize-crypto", Scrambles: true, Do: scsiSanitizing(do, sanitizeCryptoAction)},
		{Name: "scsi-sanitize", Scrambles: true, Do: scsiSanitizing(do, sanitizeBlockAction)},
	}}
}

// scsiSanitizing begins a sanitize and asks until it has ended. IMMED lets the command end at once, AUSE lets the drive be
// left where it fails.
func scsiSanitizing(do scsiCommand, action byte) func(context.Context, *Pulse) error {
	return func(ctx context.Context, p *Pulse) error {
		const immediate, unrestricted = 1 << 7, 1 << 5
		if err := do([]byte{scsiSanitize, immediate | unrestricted | action, 9: 0}, nil, false, scsiWithin); err != nil {
			return err
		}
		for end := time.Now().Add(sanitizeWithin); time.Now().Before(end); {
			d := make([]byte, 64)
			if err := do([]byte{scsiSense, 0, 0, 0, byte(len(d)), 0}, d, false, scsiWithin); err != nil {
				return fmt.Errorf("asking how far it is: %w", err)
			}
			switch e := parseSense(d); {
			case e.sanitizing():
				p.Move(max(0, e.progress), 1<<16)
			case e.key == 0:
				return nil
			default:
				_ = do([]byte{scsiSanitize, sanitizeExitAction, 9: 0}, nil, false, scsiWithin) // the next method says what the drive still does
				return e
			}
			select {
			case <-ctx.Done():
				return context.Cause(ctx)
			case <-time.After(sanitizePoll):
			}
		}
		return errors.New("it does not end")
	}
}
