// SPDX-License-Identifier: Apache-2.0

package tpm

import (
	"encoding/binary"
	"fmt"
	"strings"

	"github.com/google/go-tpm/tpm2"

	"metald.io/metald/api/v1alpha1"
)

const (
	// nvChunk is what is read of an NV index at once; every TPM takes this much.
	nvChunk = 512
	// maxCertificate bounds an EK certificate.
	maxCertificate = 8192
)

// certificate reads an EK certificate, nil where there is none: TPMs in virtual machines and of some makers have none,
// and the pinned key does not need it.
func (t *TPM) certificate(index tpm2.TPMHandle) []byte {
	public, err := tpm2.NVReadPublic{NVIndex: index}.Execute(t.dev)
	if err != nil {
		return nil
	}
	area, err := public.NVPublic.Contents()
	if err != nil || area.DataSize > maxCertificate {
		return nil
	}
	var der []byte
	for len(der) < int(area.DataSize) {
		response, err := tpm2.NVRead{
			AuthHandle: tpm2.AuthHandle{Handle: index, Name: public.NVName, Auth: tpm2.PasswordAuth(nil)},
			NVIndex:    tpm2.NamedHandle{Handle: index, Name: public.NVName},
			Size:       min(nvChunk, area.DataSize-uint16(len(der))),
			Offset:     uint16(len(der)),
		}.Execute(t.dev)
		if err != nil || len(response.Data.Buffer) == 0 {
			return nil
		}
		der = append(der, response.Data.Buffer...)
	}
	return trim(der)
}

// trim cuts what makers leave behind a certificate to fill the index: its DER header says how long it is.
func trim(der []byte) []byte {
	if len(der) < 4 || der[0] != 0x30 || der[1] != 0x82 {
		return nil // every certificate is longer than 255 bytes, so any other header is not one
	}
	length := 4 + int(binary.BigEndian.Uint16(der[2:4]))
	if length > len(der) {
		return nil
	}
	return der[:length]
}

// Facts says what the TPM is (TPM2_GetCapability, TPM_PT_FIXED).
func (t *TPM) Facts() (*v1alpha1.TPMFacts, error) {
	response, err := tpm2.GetCapability{
		Capability: tpm2.TPMCapTPMProperties, Property: uint32(tpm2.TPMPTFamilyIndicator), PropertyCount: 32,
	}.Execute(t.dev)
	if err != nil {
		return nil, fmt.Errorf("reading the TPM's properties: %w", err)
	}
	properties, err := response.CapabilityData.Data.TPMProperties()
	if err != nil {
		return nil, fmt.Errorf("reading the TPM's properties: %w", err)
	}
	facts := &v1alpha1.TPMFacts{}
	var high, low uint32
	for _, p := range properties.TPMProperty {
		switch p.Property {
		case tpm2.TPMPTFamilyIndicator:
			facts.Version = characters(p.Value)
		case tpm2.TPMPTManufacturer:
			facts.Manufacturer = characters(p.Value)
		case tpm2.TPMPTFirmwareVersion1:
			high = p.Value
		case tpm2.TPMPTFirmwareVersion2:
			low = p.Value
		}
	}
	// Makers show the first word as major.minor; the second is theirs alone.
	facts.Firmware = fmt.Sprintf("%d.%d.%d.%d", high>>16, high&0xffff, low>>16, low&0xffff)
	return facts, nil
}

// characters reads a property that is four characters in a number, as "2.0" or "IFX".
func characters(value uint32) string {
	return strings.TrimRight(string(binary.BigEndian.AppendUint32(nil, value)), "\x00 ")
}
