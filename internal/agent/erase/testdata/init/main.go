// SPDX-License-Identifier: Apache-2.0

// Command init is the first program of a machine that erases all its drives: it loads the drivers as the ramdisk does,
// erases what it finds in the mode that the kernel command line says, prints the records and the facts afterwards, and
// switches the machine off. It must not be run on a machine that anybody needs.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"time"

	"metald.io/metald/api/v1alpha1"
	"metald.io/metald/internal/agent/early"
	"metald.io/metald/internal/agent/erase"
	"metald.io/metald/internal/agent/facts"
)

func main() {
	if os.Getpid() != 1 {
		os.Exit(2)
	}
	fmt.Println("error:", work())
	fmt.Println("off:", early.PowerOff())
}

func work() error {
	if err := early.Mount(); err != nil {
		return err
	}
	if err := early.Console(); err != nil {
		return err
	}
	if _, err := early.Drivers("/etc/metald/modules"); err != nil {
		return err
	}
	line, err := os.ReadFile("/proc/cmdline")
	if err != nil {
		return err
	}
	mode := v1alpha1.EraseFull
	if strings.Contains(string(line), "erase=metadata") {
		mode = v1alpha1.EraseMetadata
	}
	want := 0
	for word := range strings.FieldsSeq(string(line)) {
		_, _ = fmt.Sscanf(word, "drives=%d", &want) // other words do not match
	}
	var seen []v1alpha1.DiskFacts
	for range 100 { // a bus may take its time to tell of its drives
		if seen = facts.Read("/", "").Disks; len(seen) >= want {
			break
		}
		time.Sleep(100 * time.Millisecond)
	}
	say("before", seen)
	plan := v1alpha1.ErasePlan{Mode: mode}
	for _, d := range seen {
		plan.Drives = append(plan.Drives, v1alpha1.DiskTarget{
			Name: d.Name, SerialNumber: d.SerialNumber, WWN: d.WWN, SizeBytes: d.SizeBytes, PCIAddress: d.PCIAddress, HCTL: d.HCTL,
		})
	}
	records, err := erase.Run(context.Background(), erase.Options{
		Plan: plan, Seen: seen, Open: erase.Open, Progress: func(p v1alpha1.StepProgress) { say("progress", p) },
	})
	for _, r := range records {
		say("record", r)
	}
	say("after", facts.Read("/", "").Disks)
	return err
}

func say(what string, value any) {
	text, err := json.Marshal(value)
	fmt.Printf("%s: %s\n", what, text)
	if err != nil {
		fmt.Println(err)
	}
}
