// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
)

// rangeHelp is told wherever a command takes hosts.
const rangeHelp = `A HOST may be NAMESPACE/NAME, and stand for many: 'r1n[01-18]' or 'r[1-2]n[01-03,07]', in quotes where the shell would read them.`

// maxHosts bounds what one command line can mean: a slip of the finger must not become a million requests.
const maxHosts = 10_000

// takesHosts makes a command's arguments hosts: ranges are spelt out before it runs, and the shell completes names.
func takesHosts(a *access, atLeast int, c *cobra.Command) *cobra.Command {
	run := c.RunE
	c.Args = func(c *cobra.Command, args []string) error {
		if err := cobra.MinimumNArgs(atLeast)(c, args); err != nil {
			return err
		}
		_, err := expandHosts(args)
		return err
	}
	c.RunE = func(c *cobra.Command, args []string) error {
		hosts, err := expandHosts(args)
		if err != nil {
			return usageErrorf("%w", err)
		}
		return run(c, hosts)
	}
	c.ValidArgsFunction = completeHosts(a)
	if c.Long != "" {
		c.Long += "\n\n" + rangeHelp
	}
	return c
}

// expandHosts spells out ranges, in their order. A host that is named twice is meant once.
func expandHosts(args []string) ([]string, error) {
	var hosts []string
	seen := map[string]bool{}
	for _, arg := range args {
		names, err := expandHost(arg)
		if err != nil {
			return nil, fmt.Errorf("%q: %w", arg, err)
		}
		for _, n := range names {
			if !seen[n] {
				seen[n] = true
				hosts = append(hosts, n)
			}
		}
		if len(hosts) > maxHosts {
			return nil, errTooMany
		}
	}
	return hosts, nil
}

var errTooMany = fmt.Errorf("more than %d hosts", maxHosts)

// expandHost spells out one argument; the last bracket runs fastest, as on an odometer.
func expandHost(arg string) ([]string, error) {
	before, rest, found := strings.Cut(arg, "[")
	if strings.Contains(before, "]") {
		return nil, errors.New("']' without '['")
	}
	if !found {
		if arg == "" {
			return nil, errors.New("no host has an empty name")
		}
		return []string{arg}, nil
	}
	inside, after, found := strings.Cut(rest, "]")
	if !found {
		return nil, errors.New("'[' without ']'")
	}
	numbers, err := expandNumbers(inside)
	if err != nil {
		return nil, err
	}
	tails := []string{""}
	if after != "" {
		if tails, err = expandHost(after); err != nil {
			return nil, err
		}
	}
	if len(numbers)*len(tails) > maxHosts {
		return nil, errTooMany
	}
	var names []string
	for _, n := range numbers {
		for _, t := range tails {
			names = append(names, before+n+t)
		}
	}
	return names, nil
}

// expandNumbers spells out "01-03,07".
func expandNumbers(list string) ([]string, error) {
	var numbers []string
	for part := range strings.SplitSeq(list, ",") {
		low, high, isRange := strings.Cut(part, "-")
		if !isRange {
			high = low
		}
		from, errFrom := number(low)
		to, errTo := number(high)
		if err := errors.Join(errFrom, errTo); err != nil {
			return nil, fmt.Errorf("[%s]: want numbers and ranges, as [01-18] or [1-3,7]", list)
		}
		width := 0 // how many digits are kept by leading zeros
		if padded(low) || padded(high) {
			if len(low) != len(high) {
				return nil, fmt.Errorf("[%s]: %s and %s have not the same number of digits", list, low, high)
			}
			width = len(low)
		}
		switch {
		case from > to:
			return nil, fmt.Errorf("[%s]: %s comes after %s", list, low, high)
		case to-from >= maxHosts || len(numbers) > maxHosts:
			return nil, errTooMany
		}
		for n := from; n <= to; n++ {
			numbers = append(numbers, fmt.Sprintf("%0*d", width, n))
		}
	}
	return numbers, nil
}

func padded(digits string) bool { return len(digits) > 1 && digits[0] == '0' }

// number reads digits, and nothing else that Go would take for a number.
func number(digits string) (int, error) {
	if len(digits) > 9 || strings.Trim(digits, "0123456789") != "" {
		return 0, strconv.ErrSyntax
	}
	return strconv.Atoi(digits)
}

// completionTime is how long a person who pressed Tab is kept waiting.
const completionTime = 2 * time.Second

// completeHosts offers the names of hosts that are not on the line yet. Where the API is away it offers nothing.
func completeHosts(a *access) cobra.CompletionFunc {
	return func(c *cobra.Command, args []string, begun string) ([]string, cobra.ShellCompDirective) {
		names, err := completions(c.Context(), a, func(ctx context.Context, d *door) ([]string, error) {
			namespace, prefix := d.namespace, ""
			if ns, _, qualified := strings.Cut(begun, "/"); qualified {
				namespace, prefix = ns, ns+"/"
			}
			hosts, err := d.hosts(ctx, namespace, "")
			var names []string
			for _, h := range hosts {
				names = append(names, prefix+h.Name)
			}
			return names, err
		})
		if err != nil {
			cobra.CompErrorln(err.Error())
		}
		names = slices.DeleteFunc(names, func(n string) bool { return !strings.HasPrefix(n, begun) || slices.Contains(args, n) })
		return names, cobra.ShellCompDirectiveNoFileComp
	}
}

// completePools offers the names of pools.
func completePools(a *access) cobra.CompletionFunc {
	return func(c *cobra.Command, _ []string, begun string) ([]string, cobra.ShellCompDirective) {
		names, err := completions(c.Context(), a, func(ctx context.Context, d *door) ([]string, error) {
			pools, err := d.pools(ctx, d.namespace)
			var names []string
			for _, p := range pools {
				names = append(names, p.Name)
			}
			return names, err
		})
		if err != nil {
			cobra.CompErrorln(err.Error())
		}
		return slices.DeleteFunc(names, func(n string) bool { return !strings.HasPrefix(n, begun) }), cobra.ShellCompDirectiveNoFileComp
	}
}

func completions(ctx context.Context, a *access, list func(context.Context, *door) ([]string, error)) ([]string, error) {
	if ctx == nil {
		ctx = context.Background()
	}
	ctx, cancel := context.WithTimeout(ctx, completionTime)
	defer cancel()
	d, err := a.open()
	if err != nil {
		return nil, err
	}
	names, err := list(ctx, d)
	slices.Sort(names)
	return names, err
}
