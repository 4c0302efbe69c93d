// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/google/renameio/v2"
	"github.com/spf13/cobra"

	"metald.io/metald/internal/daemon"
	"metald.io/metald/internal/inventory/audit"
)

func newAuditCommand(a *access) *cobra.Command {
	c := group("audit", "Show, export and verify the record of what was done",
		newAuditListCommand(a), newAuditExportCommand(a), newAuditVerifyCommand(a))
	c.Long = c.Short + `.

The record says who wrote which object, and what metald did to the world: each entry carries the hash of the one before, and the
daemon signs how far it has come. Copy <data-dir>/audit/checkpoint to another machine now and then: with it 'metald audit verify'
finds whatever was done to the record since.`
	return c
}

func newAuditListCommand(a *access) *cobra.Command {
	var o output
	var host string
	var since time.Duration
	var last int
	c := &cobra.Command{
		Use: "list", Short: "List what was done lately",
		Args:    cobra.NoArgs,
		Example: "  metald audit list --host r1n05 --since 72h",
		RunE: func(c *cobra.Command, _ []string) error {
			if o.format != "" && o.format != "wide" && o.format != "json" {
				return usageErrorf("-o %s: want wide or json", o.format)
			}
			d, err := a.open()
			if err != nil {
				return err
			}
			query := url.Values{"since": {time.Now().Add(-since).UTC().Format(time.RFC3339)}, "last": {strconv.Itoa(last)}}
			if host != "" {
				namespace, name := d.locate(host)
				query.Set("host", namespace+"/"+name)
			}
			lines, err := d.stream(c.Context(), daemon.AuditRecordsPath, query)
			if err != nil {
				return fmt.Errorf("reading the record: %w", err)
			}
			defer lines.Close()
			if o.format == "json" {
				_, err = io.Copy(c.OutOrStdout(), lines)
				return err
			}
			rows, err := auditRows(lines)
			if err != nil {
				return err
			}
			if len(rows) == 0 {
				fmt.Fprintln(c.ErrOrStderr(), "Nothing is recorded of that")
				return nil
			}
			return o.table(c.OutOrStdout(), columnsOf("TIME", "WHO", "WHAT", "HOST", "RESULT", "WHY", "|", "ENTRY", "VIA", "ADDRESS", "REQUEST"), rows)
		},
	}
	c.Flags().StringVar(&host, "host", "", "only what concerns this host")
	c.Flags().DurationVar(&since, "since", 24*time.Hour, "how far back to look")
	c.Flags().IntVar(&last, "last", 1000, "how many entries at most, the newest")
	c.Flags().StringVarP(&o.format, "output", "o", "", "output: wide, or json for the lines of an export (default: a table)")
	c.Flags().BoolVar(&o.noHeaders, "no-headers", false, "leave out the table's first line")
	return c
}

// stream asks for a path beside the API.
func (d *door) stream(ctx context.Context, path string, query url.Values) (io.ReadCloser, error) {
	r := d.core.Get().AbsPath(path)
	for key, values := range query {
		r.Param(key, values[0])
	}
	return r.Stream(ctx)
}

func auditRows(lines io.Reader) ([][]any, error) {
	var rows [][]any
	scan := bufio.NewScanner(lines)
	scan.Buffer(nil, 1<<20)
	for scan.Scan() {
		e, err := audit.ParseLine(scan.Bytes())
		if err != nil {
			return nil, fmt.Errorf("reading the record: %w", err)
		}
		r, err := audit.DecodeRecord(e.Payload)
		if err != nil {
			return nil, fmt.Errorf("reading entry %d of the record: %w", e.Seq, err)
		}
		who := r.Actor.User
		if r.Actor.As != "" {
			who += " as " + r.Actor.As
		}
		what, result := auditWords(r)
		rows = append(rows, []any{r.Time.Format("2006-01-02T15:04:05Z"), who, what, r.Host, result, r.Reason,
			fmt.Sprint(e.Seq), r.Actor.Via, r.Actor.Address, r.Request})
	}
	if err := scan.Err(); err != nil {
		return nil, fmt.Errorf("reading the record: %w", err)
	}
	return rows, nil
}

// auditWords says in words what was done, and what came of it.
func auditWords(r audit.Record) (what, result string) {
	var words []string
	if a := r.Act; a != nil {
		text := a.Verb
		if a.Detail != "" {
			text += " (" + a.Detail + ")"
		}
		words = append(words, text)
		result = a.Phase
		if a.Error != "" {
			result += ": " + a.Error
		}
	}
	for _, c := range r.Changes {
		text := c.Verb + " " + c.Object.String()
		if len(c.Fields) > 0 {
			text += ": " + strings.Join(c.Fields, ", ")
		}
		words = append(words, text)
	}
	return strings.Join(words, "; "), result
}

func newAuditExportCommand(a *access) *cobra.Command {
	var to string
	c := &cobra.Command{
		Use: "export", Short: "Write the whole record to a file, for 'metald audit verify'",
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			d, err := a.open()
			if err != nil {
				return err
			}
			lines, err := d.stream(c.Context(), daemon.AuditExportPath, nil)
			if err != nil {
				return fmt.Errorf("reading the record: %w", err)
			}
			defer lines.Close()
			if to == "" || to == "-" {
				_, err := io.Copy(c.OutOrStdout(), lines)
				return err
			}
			f, err := renameio.NewPendingFile(to, renameio.WithPermissions(0o600))
			if err != nil {
				return fmt.Errorf("writing %s: %w", to, err)
			}
			defer f.Cleanup() //nolint:errcheck // it is there whole, or the error is told
			if _, err := io.Copy(f, lines); err != nil {
				return fmt.Errorf("reading the record: %w", err)
			}
			if err := f.CloseAtomicallyReplace(); err != nil {
				return fmt.Errorf("writing %s: %w", to, err)
			}
			return nil
		},
	}
	c.Flags().StringVarP(&to, "output", "o", "", "the file (default: stdout)")
	return c
}

func newAuditVerifyCommand(a *access) *cobra.Command {
	var keyFile, checkpointFile string
	c := &cobra.Command{
		Use: "verify FILE", Short: "Find whatever was done to an exported record; needs no daemon",
		Long: `Find whatever was done to an exported record: edits, drops, insertions, another order, a missing end. It needs no daemon, only the
daemon's public key, <data-dir>/pki/audit.pub, which should come from where the site has kept it. An earlier checkpoint that the site
has kept shows besides that the record was not rolled back, or cut off and signed anew, before that.

It exits with 0 when all is as the daemon wrote it, and with 1, and a line for each finding, when it is not. FILE may be '-'.`,
		Example: "  metald audit verify record.jsonl --key audit.pub --checkpoint checkpoints",
		Args:    cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			if keyFile == "" {
				keyFile = filepath.Join(a.dataDir, "pki", audit.PublicFile)
			}
			text, err := os.ReadFile(keyFile)
			if err != nil {
				return fmt.Errorf("reading the daemon's public key (give --key): %w", err)
			}
			keys, err := audit.ParsePublicKeys(text)
			if err != nil {
				return fmt.Errorf("reading %s: %w", keyFile, err)
			}
			var given []audit.Checkpoint
			var findings []string
			if checkpointFile != "" {
				f, err := os.Open(checkpointFile)
				if err != nil {
					return fmt.Errorf("reading checkpoints: %w", err)
				}
				defer f.Close()
				if given, err = audit.ReadCheckpoints(f); err != nil {
					findings = append(findings, fmt.Sprintf("%s: %v", checkpointFile, err))
				} else if len(given) == 0 {
					return errors.New("reading checkpoints: there is none in " + checkpointFile)
				}
			}
			from := c.InOrStdin()
			if args[0] != "-" {
				f, err := os.Open(args[0])
				if err != nil {
					return fmt.Errorf("reading the export: %w", err)
				}
				defer f.Close()
				from = f
			}
			report, err := audit.Verify(from, given, keys...)
			if err != nil {
				return err
			}
			for _, f := range report.Findings {
				findings = append(findings, f.String())
			}
			return tellVerdict(c.OutOrStdout(), report, findings, len(given))
		},
	}
	c.Flags().StringVar(&keyFile, "key", "", "the daemon's public key (default: pki/audit.pub in --data-dir)")
	c.Flags().StringVar(&checkpointFile, "checkpoint", "", "file of earlier checkpoints, which the site has kept elsewhere")
	return c
}

// tellVerdict prints what an auditor asks: is it whole, from when to when, and up to which point by the site's own evidence.
func tellVerdict(w io.Writer, r audit.Report, findings []string, given int) error {
	for _, f := range findings {
		fmt.Fprintln(w, f)
	}
	if r.Omitted > 0 {
		fmt.Fprintf(w, "and %d more\n", r.Omitted)
	}
	for _, t := range r.Turns {
		fmt.Fprintf(w, "note: %s\n", t)
	}
	if n := len(findings) + r.Omitted; n > 0 {
		return codedError{exitError, fmt.Errorf("the record is not what the daemon wrote: %d findings", n)}
	}
	if r.Entries == 0 {
		fmt.Fprintf(w, "%s: the record is empty\n", r.Origin)
	} else {
		fmt.Fprintf(w, "%s: %d entries from %s to %s, the last has hash %s\n", r.Origin, r.Entries, r.From.Format(time.RFC3339), r.To.Format(time.RFC3339), r.Head)
	}
	if given == 0 {
		fmt.Fprintln(w, "it is as the daemon signed it; no earlier checkpoint was given, so a rollback before that would not be seen")
	} else {
		fmt.Fprintf(w, "it is as the daemon signed it, and agrees with %d earlier checkpoints\n", r.Matched)
	}
	return nil
}
