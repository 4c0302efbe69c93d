// SPDX-License-Identifier: Apache-2.0

package bmc

import (
	"context"
	"encoding/hex"
	"fmt"
	"strings"

	"github.com/bougou/go-ipmi/pkg/command/app"
	"github.com/bougou/go-ipmi/pkg/command/storage"
	"github.com/bougou/go-ipmi/pkg/types"
)

// Identity reads Get Device ID, Get System GUID and FRU 0. What a BMC does not offer stays empty; IPMI knows no MAC addresses
// of the machine, and no BIOS version.
func (i *ipmi) Identity(ctx context.Context) (Identity, error) {
	var id Identity
	err := i.with(ctx, func() error {
		var device app.GetDeviceIDResponse
		if err := i.do(ctx, &app.GetDeviceIDRequest{}, &device); err != nil {
			return err
		}
		id.BMCVersion = fmt.Sprintf("%d.%02d", device.MajorFirmwareRevision, device.MinorFirmwareRevision)
		var guid app.GetSystemGUIDResponse
		if err := i.do(ctx, &app.GetSystemGUIDRequest{}, &guid); err == nil {
			id.SystemUUID = systemUUID(guid.GUID)
		} else if completed(err) == 0 {
			return err
		}
		return i.readFRU(ctx, &id)
	})
	if err != nil {
		return Identity{}, fmt.Errorf("reading identity: %w", err)
	}
	return id, nil
}

// Byte orders in which BMCs send a UUID of 16 bytes: at place n stands the number of the byte that is printed there.
var uuidOrders = [][16]int{
	// SMBIOS (DSP0134, 7.2.1): the first three fields have their least significant byte first. Most BMCs copy it so.
	{3, 2, 1, 0, 5, 4, 7, 6, 8, 9, 10, 11, 12, 13, 14, 15},
	// IPMI 2.0, 20.8: all of it has its least significant byte first.
	{15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0},
	// RFC 4122: as it is printed.
	{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15},
}

// systemUUID is the UUID as dmidecode and Linux print the SMBIOS one. IPMI does not say which byte order a BMC uses, so it is
// told from the places of the version (1 to 5) and the variant, in the order of uuidOrders; where none fits, as with vendors
// that make up their UUIDs, it is SMBIOS order. SameUUID forgives a wrong guess.
func systemUUID(raw [16]byte) string {
	forms := uuidForms(raw)
	for _, f := range forms {
		if f[14] >= '1' && f[14] <= '5' && strings.IndexByte("89ab", f[19]) >= 0 {
			return uuid(f)
		}
	}
	return uuid(forms[0])
}

func uuidForms(raw [16]byte) []string {
	var forms []string
	for _, order := range uuidOrders {
		var b [16]byte
		for at, from := range order {
			b[at] = raw[from]
		}
		h := hex.EncodeToString(b[:])
		forms = append(forms, strings.Join([]string{h[:8], h[8:12], h[12:16], h[16:20], h[20:]}, "-"))
	}
	return forms
}

// SameUUID says whether a UUID that a BMC told and one that the machine's SMBIOS told are the same, in whichever byte order the
// BMC sent it. Neither may be empty.
func SameUUID(bmc, smbios string) bool {
	bmc, smbios = uuid(bmc), uuid(smbios)
	if bmc == "" || smbios == "" {
		return false
	}
	var raw [16]byte
	if _, err := hex.Decode(raw[:], []byte(strings.ReplaceAll(bmc, "-", ""))); err != nil {
		return false
	}
	// bmc is some order of the bytes sent; undo each, and print the bytes in SMBIOS order. Each order is its own inverse.
	for _, order := range uuidOrders {
		var sent [16]byte
		for at, from := range order {
			sent[from] = raw[at]
		}
		for _, f := range uuidForms(sent) {
			if f == smbios {
				return true
			}
		}
	}
	return false
}

// readFRU reads the product and board areas of FRU 0 (IPMI FRU Information Storage Definition, 8, 11, 12), and no other: one broken
// record elsewhere must not hide the serial number. A machine without a FRU, or with a broken one, is no error.
func (i *ipmi) readFRU(ctx context.Context, id *Identity) error {
	var info storage.GetFRUInventoryAreaInfoResponse
	if err := i.do(ctx, &storage.GetFRUInventoryAreaInfoRequest{}, &info); err != nil {
		return unlessCompleted(err)
	}
	if info.DeviceAccessedByWords {
		return nil // met in no BMC of this century
	}
	var header types.FRUCommonHeader
	raw, err := i.fruBytes(ctx, info, 0, int(types.FRUCommonHeaderSize))
	if err != nil {
		return unlessCompleted(err)
	}
	if header.Unpack(raw) != nil || !header.Valid() {
		return nil
	}
	var product types.FRUProductInfoArea
	if ok, err := i.fruArea(ctx, info, header.ProductOffset8B, product.Unpack); err != nil {
		return err
	} else if ok {
		id.Manufacturer = fruText(product.ManufacturerTypeLength, product.Manufacturer)
		id.Model = fruText(product.NameTypeLength, product.Name)
		id.SerialNumber = fruText(product.SerialNumberTypeLength, product.SerialNumber)
	}
	var board types.FRUBoardInfoArea
	if ok, err := i.fruArea(ctx, info, header.BoardOffset8B, board.Unpack); err != nil {
		return err
	} else if ok {
		fill(&id.Manufacturer, fruText(board.ManufacturerTypeLength, board.Manufacturer))
		fill(&id.Model, fruText(board.ProductNameTypeLength, board.ProductName))
		fill(&id.SerialNumber, fruText(board.SerialNumberTypeLength, board.SerialNumber))
	}
	return nil
}

// fruArea reads one area and decodes it; ok is false where there is none that can be read.
func (i *ipmi) fruArea(ctx context.Context, info storage.GetFRUInventoryAreaInfoResponse, eighths uint8, unpack func([]byte) error) (ok bool, err error) {
	if eighths == 0 {
		return false, nil
	}
	at := int(eighths) * 8
	head, err := i.fruBytes(ctx, info, at, 8)
	if err != nil {
		return false, unlessCompleted(err)
	}
	area, err := i.fruBytes(ctx, info, at, int(head[1])*8)
	if err != nil {
		return false, unlessCompleted(err)
	}
	var sum byte
	for _, b := range area {
		sum += b
	}
	return len(area) >= 8 && sum == 0 && unpack(area) == nil, nil
}

// fruBytes reads n bytes. The pieces are small at once: 16 bytes fit any BMC's buffer.
func (i *ipmi) fruBytes(ctx context.Context, info storage.GetFRUInventoryAreaInfoResponse, at, n int) ([]byte, error) {
	if at+n > int(info.AreaSizeBytes) {
		return nil, errNoFRU
	}
	data := make([]byte, 0, n)
	for len(data) < n {
		var res storage.ReadFRUDataResponse
		req := storage.ReadFRUDataRequest{ReadOffset: uint16(at + len(data)), ReadCount: uint8(min(16, n-len(data)))}
		if err := i.do(ctx, &req, &res); err != nil {
			return nil, err
		}
		got := res.Data[:min(len(res.Data), int(res.CountReturned), int(req.ReadCount))]
		if len(got) == 0 {
			return nil, errNoFRU
		}
		data = append(data, got...)
	}
	return data, nil
}

// errNoFRU is a FRU that ends before what it says that it holds.
var errNoFRU = fmt.Errorf("reading FRU 0: it ends too early: %w", ErrNotSupported)

// unlessCompleted passes on what is no answer of the BMC: that it has no FRU, or none that can be read, is an answer.
func unlessCompleted(err error) error {
	if completed(err) != 0 || err == errNoFRU {
		return nil
	}
	return err
}

func fruText(kind types.TypeLength, raw []byte) string { return told(types.FRUFieldString(kind, raw)) }

func fill(field *string, value string) {
	if *field == "" {
		*field = value
	}
}
