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

// What is said to an NVMe controller, from the NVM Express Base Specification 2.0.
const (
	nvmeGetLog   = 0x02
	nvmeIdentify = 0x06
	nvmeFormat   = 0x80
	nvmeSanitize = 0x84

	nvmeAll = 0xffffffff // all namespaces
	nvmeOwn = 0xfffffffe // no id that a namespace can have: stands for the drive's own

	// nvmeAdminCommand is _IOWR('N', 0x41, struct nvme_passthru_cmd), nvmeID _IO('N', 0x40) of linux/nvme_ioctl.h.
	nvmeAdminCommand = 0xc0484e41
	nvmeID           = 0x4e40

	// A sanitize of a large drive takes hours where it has to erase each block; the log says how far it is.
	sanitizePoll   = 2 * time.Second
	sanitizeWithin = 24 * time.Hour
	// formatWithin bounds a format, which says nothing until it has ended.
	formatWithin = 4 * time.Hour
	adminWithin  = time.Minute
)

// nvmeCommand is struct nvme_passthru_cmd.
type nvmeCommand struct {
	opcode, flags uint8
	_             uint16
	namespace     uint32
	_, _          uint32
	metadata      uint64
	data          unsafe.Pointer
	metadataLen   uint32
	dataLen       uint32
	cdw           [6]uint32 // 10 to 15
	timeoutMs     uint32
	result        uint32
}

// nvmeAdmin does one admin command; data is what the controller gives back.
type nvmeAdmin func(command nvmeCommand, data []byte, within time.Duration) error

// nvme does an admin command at the drive's controller.
func (b *block) nvme(c nvmeCommand, data []byte, within time.Duration) error {
	if c.namespace == nvmeOwn {
		id, err := b.call(nvmeID, nil)
		if err != nil {
			return fmt.Errorf("reading the namespace's id: %w", err)
		}
		c.namespace = uint32(id)
	}
	if len(data) > 0 {
		c.data, c.dataLen = unsafe.Pointer(&data[0]), uint32(len(data))
	}
	c.timeoutMs = uint32(within.Milliseconds())
	status, err := b.call(nvmeAdminCommand, unsafe.Pointer(&c))
	runtime.KeepAlive(data)
	if err == nil && status != 0 {
		err = fmt.Errorf("the controller answers status %#x", status&0x7ff)
	}
	return err
}

// nvmeAbility is what an NVMe controller says it can do.
type nvmeAbility struct {
	sanitizeCrypto, sanitizeBlock bool
	format, formatCrypto          bool
	// formatWhole says that a format with secure erase takes all namespaces.
	formatWhole bool
}

// parseController reads Identify Controller (figure 275): OACS at 256, SANICAP at 328, FNA at 524.
func parseController(d []byte) (a nvmeAbility, err error) {
	if len(d) < 4096 {
		return a, errors.New("reading Identify Controller: it is too short")
	}
	capabilities := binary.LittleEndian.Uint32(d[328:])
	a.sanitizeCrypto, a.sanitizeBlock = capabilities&1 != 0, capabilities&2 != 0
	a.format = binary.LittleEndian.Uint16(d[256:])&2 != 0
	a.formatCrypto, a.formatWhole = a.format && d[524]&4 != 0, d[524]&3 != 0
	return a, nil
}

// formatWord is command dword 10 of a Format NVM that leaves the namespace's block format and protection as they are
// (Identify Namespace, NVM command set specification, figure 97: FLBAS at 26, DPS at 29).
func formatWord(namespace []byte, erase uint32) (uint32, error) {
	if len(namespace) < 4096 {
		return 0, errors.New("reading Identify Namespace: it is too short")
	}
	flbas, dps := uint32(namespace[26]), uint32(namespace[29])
	return flbas&0xf | (flbas>>4&1)<<4 | (dps&7)<<5 | (dps>>3&1)<<8 | erase<<9 | (flbas>>5&3)<<12, nil
}

// sanitizeState is the sanitize status log (figure 290).
type sanitizeState struct {
	progress int64 // of 65536
	status   uint16
}

const (
	sanitizeRunning = 2
	sanitizeFailed  = 3
)

func parseSanitize(d []byte) sanitizeState {
	return sanitizeState{progress: int64(binary.LittleEndian.Uint16(d)), status: binary.LittleEndian.Uint16(d[2:]) & 7}
}

// nvmeLadder asks the controller what it can do. A sanitize that an earlier boot has begun is waited for: until it has
// ended the drive neither reads nor writes.
func nvmeLadder(ctx context.Context, p *Pulse, do nvmeAdmin) Ladder {
	const sanitizeNames, formatNames = "nvme-sanitize-crypto, nvme-sanitize-block", "nvme-format-crypto, nvme-format"
	var l Ladder
	d := aligned(4096)
	var a nvmeAbility
	err := do(nvmeCommand{opcode: nvmeIdentify, cdw: [6]uint32{1}}, d, adminWithin)
	if err == nil {
		a, err = parseController(d)
	}
	if err != nil {
		l.Without = append(l.Without, sanitizeNames+", "+formatNames+": identifying the controller: "+err.Error())
		return l
	}
	if a.sanitizeCrypto || a.sanitizeBlock {
		if state, err := sanitizeLog(do); err == nil && state.status == sanitizeRunning {
			p.Begin("an earlier sanitize")
			_ = sanitized(ctx, p, do) // how it ended does not matter: another follows
		}
	}
	for _, m := range []struct {
		name string
		can  bool
		Method
	}{
		{"nvme-sanitize-crypto", a.sanitizeCrypto, Method{Whole: true, Do: sanitize(do, 4)}},
		{"nvme-sanitize-block", a.sanitizeBlock, Method{Whole: true, Do: sanitize(do, 2)}},
		{"nvme-format-crypto", a.formatCrypto, Method{Whole: a.formatWhole, Do: format(do, 2, a.formatWhole)}},
		{"nvme-format", a.format, Method{Whole: a.formatWhole, Do: format(do, 1, a.formatWhole)}},
	} {
		if !m.can {
			l.Without = append(l.Without, m.name+": the controller does not have it")
			continue
		}
		m.Method.Name, m.Method.Scrambles = m.name, true
		l.Methods = append(l.Methods, m.Method)
	}
	return l
}

// sanitize begins one and waits until it has ended. It is unrestricted (AUSE), so that one that fails can be left, and
// another method tried.
func sanitize(do nvmeAdmin, action uint32) func(context.Context, *Pulse) error {
	return func(ctx context.Context, p *Pulse) error {
		if err := do(nvmeCommand{opcode: nvmeSanitize, cdw: [6]uint32{action | 1<<3}}, nil, adminWithin); err != nil {
			return fmt.Errorf("starting: %w", err)
		}
		err := sanitized(ctx, p, do)
		if err != nil && ctx.Err() == nil {
			// Exit Failure Mode. Where it is refused, the next method says what the drive still does.
			_ = do(nvmeCommand{opcode: nvmeSanitize, cdw: [6]uint32{1}}, nil, adminWithin)
		}
		return err
	}
}

// sanitized waits until the controller's sanitize has ended.
func sanitized(ctx context.Context, p *Pulse, do nvmeAdmin) error {
	for end := time.Now().Add(sanitizeWithin); time.Now().Before(end); {
		state, err := sanitizeLog(do)
		switch {
		case err != nil:
			return err
		case state.status == sanitizeRunning:
			p.Move(state.progress, 1<<16)
		case state.status == sanitizeFailed:
			return errors.New("the controller says that it failed")
		case state.status == 0:
			return errors.New("the controller says that there was none")
		default:
			return nil
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(sanitizePoll):
		}
	}
	return fmt.Errorf("it takes longer than %s", sanitizeWithin)
}

func sanitizeLog(do nvmeAdmin) (sanitizeState, error) {
	d := aligned(512)
	if err := do(nvmeCommand{opcode: nvmeGetLog, namespace: nvmeAll, cdw: [6]uint32{0x81 | (512/4-1)<<16}}, d, adminWithin); err != nil {
		return sanitizeState{}, fmt.Errorf("reading the sanitize log: %w", err)
	}
	return parseSanitize(d), nil
}

// format formats the namespace, or all where the controller knows no other way, with a secure erase.
func format(do nvmeAdmin, erase uint32, whole bool) func(context.Context, *Pulse) error {
	return func(_ context.Context, p *Pulse) error {
		d := aligned(4096)
		if err := do(nvmeCommand{opcode: nvmeIdentify, namespace: nvmeOwn}, d, adminWithin); err != nil {
			return fmt.Errorf("identifying the namespace: %w", err)
		}
		word, err := formatWord(d, erase)
		if err != nil {
			return err
		}
		c := nvmeCommand{opcode: nvmeFormat, namespace: nvmeOwn, cdw: [6]uint32{word}}
		if whole {
			c.namespace = nvmeAll
		}
		p.Wait(formatWithin)
		return do(c, nil, formatWithin)
	}
}
