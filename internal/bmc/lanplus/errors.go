// SPDX-License-Identifier: Apache-2.0

package lanplus

import (
	"errors"
	"fmt"

	"github.com/bougou/go-ipmi/pkg/types"
)

// Errors on which control flow turns. They are wrapped: use errors.Is.
var (
	// ErrRefused: the BMC refused the user, the password or the privilege, or does not know the password itself.
	ErrRefused = errors.New("the BMC refused the user or the password")
	// ErrSuite: the BMC speaks none of the two cipher suites, or not as it was asked.
	ErrSuite = errors.New("the BMC offers neither cipher suite 17 nor 3, and others are not spoken")
	// ErrFull: the BMC has no room for another session now.
	ErrFull = errors.New("the BMC has no room for another session")
	// ErrSilent: no answer that is one in time.
	ErrSilent = errors.New("the BMC does not answer")
	// ErrSpoilt: an answer with the right key that makes no sense.
	ErrSpoilt = errors.New("the BMC's answer makes no sense")
)

// CompletionError is a command that the BMC did not do.
type CompletionError struct {
	Command string
	// Code is the completion code (IPMI 2.0, table 5-2).
	Code uint8
}

func (e *CompletionError) Error() string {
	return fmt.Sprintf("%s: completion code %#02x (%s)", e.Command, e.Code, types.CompletionCode(e.Code))
}

// unsuited are the status codes that say that the proposed algorithms are not known, before any credentials were used
// (IPMI 2.0, table 13-15).
func unsuited(code types.RmcpStatusCode) bool {
	switch code {
	case types.RmcpStatusCodeInvalidAuthAlg, types.RmcpStatusCodeInvalidIntegrityAlg, types.RmcpStatusCodeInvalidConfidentAlg,
		types.RmcpStatusCodeNoMatchingAuthPayload, types.RmcpStatusCodeNoMatchingIntegrityPayload,
		types.RmcpStatusCodeNoCipherSuiteMatch, types.RmcpStatusCodeIllegalParameter:
		return true
	}
	return false
}

// meaning turns a status code of the handshake into an error.
func meaning(code types.RmcpStatusCode) error {
	var kind error
	switch code {
	case types.RmcpStatusCodeNoResToCreateSess, types.RmcpStatusCodeNoResToCreateSessAtRole,
		types.RmcpStatusCodeInvalidSessionID, types.RmcpStatusCodeInactiveSessionID:
		kind = ErrFull // or it dropped the session that it had just opened, which is the same for us
	case types.RmcpStatusCodeInvalidRole, types.RmcpStatusCodeUnauthorizedRoleOfPriLevel, types.RmcpStatusCodeInvalidNameLength,
		types.RmcpStatusCodeUnauthorizedName, types.RmcpStatusCodeUnauthorizedGUID, types.RmcpStatusCodeInvalidIntegrityCheckValue:
		kind = ErrRefused
	default:
		kind = ErrSuite
	}
	return fmt.Errorf("%w: status %#02x (%s)", kind, uint8(code), code)
}
