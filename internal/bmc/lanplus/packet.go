// SPDX-License-Identifier: Apache-2.0

package lanplus

import (
	"crypto/rand"
	"encoding/binary"

	"github.com/bougou/go-ipmi/pkg/crypto"
	"github.com/bougou/go-ipmi/pkg/types"
)

const (
	// maxDatagram is far above what a BMC answers: one Ethernet frame.
	maxDatagram = 2048
	headerSize  = 16 // RMCP header and RMCP+ session header
	// flags in the payload type
	encrypted, authenticated = 0x80, 0x40
	rmcpPlus                 = 0x06
	nextHeader               = 0x07
)

var rmcp = []byte{0x06, 0, 0xff, 0x07} // version, reserved, no acknowledgement wanted, class IPMI (IPMI 2.0, 13.1.3)

// suite is what a cipher suite id means.
type suite struct {
	id        types.CipherSuiteID
	auth      types.AuthAlg
	integrity types.IntegrityAlg
	secrecy   types.CryptAlg
}

func suiteOf(id types.CipherSuiteID) suite {
	auth, integrity, secrecy, _ := types.GetCipherSuiteAlgorithms(id)
	return suite{id, auth, integrity, secrecy}
}

// plainPacket is a packet outside a session: the handshake.
func plainPacket(kind types.PayloadType, payload []byte) []byte {
	p := append(append([]byte{}, rmcp...), rmcpPlus, byte(kind))
	p = binary.LittleEndian.AppendUint32(p, 0)
	p = binary.LittleEndian.AppendUint32(p, 0)
	p = binary.LittleEndian.AppendUint16(p, uint16(len(payload)))
	return append(p, payload...)
}

// header splits off what every packet of RMCP+ begins with. Anything else, and what is shorter than it says, is not ok.
func header(p []byte) (kind byte, session, sequence uint32, payload, rest []byte, ok bool) {
	if len(p) < headerSize || p[0] != rmcp[0] || p[3] != rmcp[3] || p[4] != rmcpPlus {
		return
	}
	n := int(binary.LittleEndian.Uint16(p[14:]))
	if len(p) < headerSize+n {
		return
	}
	return p[5], binary.LittleEndian.Uint32(p[6:]), binary.LittleEndian.Uint32(p[10:]), p[headerSize : headerSize+n], p[headerSize+n:], true
}

// keys are what both sides know after the handshake.
type keys struct {
	suite
	k1, k2 []byte
}

// seal makes a packet of the session: encrypted, then authenticated (IPMI 2.0, 13.28.4 and 13.29).
func (k keys) seal(session, sequence uint32, message []byte) ([]byte, error) {
	iv := make([]byte, 16)
	_, _ = rand.Read(iv) // it never fails
	body, err := crypto.EncryptAESPayload(message, k.k2, iv)
	if err != nil {
		return nil, err
	}
	p := append(append([]byte{}, rmcp...), rmcpPlus, byte(types.PayloadTypeIPMI)|encrypted|authenticated)
	p = binary.LittleEndian.AppendUint32(p, session)
	p = binary.LittleEndian.AppendUint32(p, sequence)
	p = binary.LittleEndian.AppendUint16(p, uint16(len(body)))
	p = append(p, body...)
	pad := 0
	for ; (len(p)-len(rmcp)+2)%4 != 0; pad++ {
		p = append(p, 0xff)
	}
	p = append(p, byte(pad), nextHeader)
	code, err := crypto.SessionIntegrityAuthCode(k.integrity, p[len(rmcp):], k.k1, "")
	if err != nil {
		return nil, err
	}
	return append(p, code...), nil
}

// open checks and decrypts a packet of the session. What is not encrypted, not authenticated or not by the right key is not ok,
// and was not looked into.
func (k keys) open(session uint32, p []byte) (sequence uint32, message []byte, ok bool) {
	kind, id, sequence, body, _, ok := header(p)
	if !ok || id != session || kind != byte(types.PayloadTypeIPMI)|encrypted|authenticated {
		return 0, nil, false
	}
	n, known := crypto.IntegrityAuthCodeLen(k.integrity)
	if !known || n == 0 || len(p) < headerSize+len(body)+2+n {
		return 0, nil, false
	}
	code, err := crypto.SessionIntegrityAuthCode(k.integrity, p[len(rmcp):len(p)-n], k.k1, "")
	if err != nil || !crypto.Equal(code, p[len(p)-n:]) {
		return 0, nil, false
	}
	if len(body) < 32 || len(body)%16 != 0 {
		return 0, nil, false
	}
	message, err = crypto.DecryptAESPayload(body, k.k2)
	return sequence, message, err == nil
}
