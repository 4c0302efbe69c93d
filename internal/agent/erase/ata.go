// SPDX-License-Identifier: Apache-2.0

package erase

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"time"
)

// ATA commands (ACS-3), sent by SCSI's ATA PASS-THROUGH (16) (SAT-4, 12.2.3).
const (
	ataPassThrough = 0x85

	ataIdentify        = 0xec
	ataSetPassword     = 0xf1
	ataErasePrepare    = 0xf3
	ataEraseUnit       = 0xf4
	ataDisablePassword = 0xf6

	ataNoData = 3 << 1
	ataIn     = 4 << 1
	ataOut    = 5 << 1

	// ataPassword locks a drive from the command before the erase to its end. It is no secret: when power is lost in
	// between, the next erase can go on with it, and anybody else too.
	ataPassword = "metald"
	// ataLongest is for drives that do not say how long they take, ataSlack on top of what the others say.
	ataLongest = 24 * time.Hour
	ataSlack   = 30 * time.Minute
)

// ataSecurity is what IDENTIFY DEVICE says of the security feature set.
type ataSecurity struct {
	supported, enabled, locked, frozen, expired, enhanced bool
	// normalTakes and enhancedTakes are what the drive says it needs, 0 where it does not say.
	normalTakes, enhancedTakes time.Duration
}

// parseIdentify reads words 82, 89, 90 and 128 (ACS-3, 7.12.7).
func parseIdentify(d []byte) (s ataSecurity, err error) {
	if len(d) < 512 {
		return s, errors.New("reading IDENTIFY DEVICE: it is too short")
	}
	word := func(n int) uint16 { return binary.LittleEndian.Uint16(d[2*n:]) }
	w := word(128)
	s.supported = word(82)&2 != 0 && w&1 != 0
	s.enabled, s.locked, s.frozen, s.expired, s.enhanced = w&2 != 0, w&4 != 0, w&8 != 0, w&16 != 0, w&32 != 0
	s.normalTakes, s.enhancedTakes = ataTakes(word(89)), ataTakes(word(90))
	return s, nil
}

// ataTakes is a time in units of two minutes: eight bits of them, or fifteen where the highest bit says so. The highest
// value means more than that.
func ataTakes(word uint16) time.Duration {
	units, most := word&0xff, uint16(0xff)
	if word&0x8000 != 0 {
		units, most = word&0x7fff, 0x7fff
	}
	if units == most {
		return 0
	}
	return time.Duration(units) * 2 * time.Minute
}

// cannot says why a drive cannot be erased by its security feature set now, empty where it can.
func (s ataSecurity) cannot() string {
	switch {
	case !s.supported:
		return "the drive does not have it"
	case s.frozen:
		return "the drive is frozen, by the firmware most likely"
	case s.expired:
		return "the drive takes no more passwords before it was without power"
	}
	return ""
}

// ataLadder asks the drive about its security feature set.
func ataLadder(do scsiCommand) Ladder {
	const enhanced, normal = "ata-secure-erase-enhanced", "ata-secure-erase"
	d := make([]byte, 512)
	var s ataSecurity
	err := ata(do, ataIdentify, ataIn, d, scsiWithin)
	if err == nil {
		s, err = parseIdentify(d)
	}
	if err != nil {
		return Ladder{Without: []string{enhanced + ", " + normal + ": identifying the drive: " + err.Error()}}
	}
	if why := s.cannot(); why != "" {
		return Ladder{Without: []string{enhanced + ", " + normal + ": " + why}}
	}
	var l Ladder
	if s.enhanced {
		l.Methods = append(l.Methods, Method{Name: enhanced, Scrambles: true, Do: secureErase(do, s, true)})
	} else {
		l.Without = append(l.Without, enhanced+": the drive does not have it")
	}
	l.Methods = append(l.Methods, Method{Name: normal, Scrambles: true, Do: secureErase(do, s, false)})
	return l
}

// secureErase gives the drive a password, which it demands, and has it erase itself, which takes the password away. A
// drive that has one may have it from an erase of ours that power was lost in; then ours is right.
func secureErase(do scsiCommand, s ataSecurity, enhanced bool) func(context.Context, *Pulse) error {
	return func(_ context.Context, p *Pulse) error {
		if !s.enabled {
			if err := ata(do, ataSetPassword, ataOut, passwordBlock(0), scsiWithin); err != nil {
				return fmt.Errorf("setting a password: %w", err)
			}
		}
		word, takes := uint16(0), s.normalTakes
		if enhanced {
			word, takes = 2, s.enhancedTakes
		}
		within := ataLongest
		if takes > 0 {
			within = 2*takes + ataSlack
		}
		err := ata(do, ataErasePrepare, ataNoData, nil, scsiWithin)
		if err == nil {
			p.Wait(within + scsiWithin)
			err = ata(do, ataEraseUnit, ataOut, passwordBlock(word), within)
		}
		if err == nil {
			return nil
		}
		if s.enabled {
			return fmt.Errorf("the drive is locked with a password that is not ours: %w", err)
		}
		if back := ata(do, ataDisablePassword, ataOut, passwordBlock(0), scsiWithin); back != nil {
			err = fmt.Errorf("%w (and the password %q could not be taken away again: %v)", err, ataPassword, back)
		}
		return err
	}
}

// passwordBlock is the data of the security commands: a control word and the user password.
func passwordBlock(word uint16) []byte {
	d := make([]byte, 512)
	binary.LittleEndian.PutUint16(d, word)
	copy(d[2:34], ataPassword)
	return d
}

// ata sends an ATA command with one block of data, or none.
func ata(do scsiCommand, command, protocol byte, data []byte, within time.Duration) error {
	c := make([]byte, 16)
	c[0], c[1], c[14] = ataPassThrough, protocol, command
	if len(data) > 0 {
		const lengthInCount, blocks = 2, 1 << 2
		c[2], c[6] = lengthInCount|blocks, 1
		if protocol == ataIn {
			c[2] |= 1 << 3
		}
	}
	return do(c, data, protocol == ataOut, within)
}
