// SPDX-License-Identifier: Apache-2.0

package disk

import "fmt"

// TooSmallError is a disk that cannot hold what it should. Sizes are in bytes; Needed is 0 where nobody can tell.
type TooSmallError struct {
	Disk          string
	Needed, Found int64
}

func (e *TooSmallError) Error() string {
	if e.Needed == 0 {
		return fmt.Sprintf("%s is too small: it has %d bytes, and the image is longer", e.Disk, e.Found)
	}
	return fmt.Sprintf("%s is too small: at least %d bytes are needed, it has %d", e.Disk, e.Needed, e.Found)
}

// WrongDiskError is a disk that is not the one the plan means, or a plan that does not tell disks apart.
type WrongDiskError struct {
	What       string // the evidence, as "serial number"
	Want, Seen string
}

func (e *WrongDiskError) Error() string {
	return fmt.Sprintf("this is not the disk of the plan: %s wanted %q, seen %q", e.What, e.Want, e.Seen)
}

// InUseError is a disk that something on this machine holds.
type InUseError struct{ Disk, By string }

func (e *InUseError) Error() string { return fmt.Sprintf("%s is in use: %s", e.Disk, e.By) }

// ImageError says that the image is not what was promised, or of no use as a disk image. Another disk or another try does
// not help.
type ImageError struct{ What, Got, Want string }

func (e *ImageError) Error() string {
	return fmt.Sprintf("the image is wrong: %s is %s, want %s", e.What, e.Got, e.Want)
}

// ReadBackError is a disk that gives back something else than what was written to it.
type ReadBackError struct{ Disk, What string }

func (e *ReadBackError) Error() string {
	return fmt.Sprintf("%s does not give back what was written to it: %s", e.Disk, e.What)
}
