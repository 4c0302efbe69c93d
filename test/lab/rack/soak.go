// SPDX-License-Identifier: Apache-2.0

package rack

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"time"
)

// soakRun is how one run of the end-to-end tests went.
type soakRun struct {
	took   time.Duration
	tests  int
	failed []string
	err    error
}

// Soak runs the end-to-end tests some times in a row, with a log each in build/soak, beside a core that is kept busy if
// busy is set, and prints what failed. A run that fails does not end it.
func (r *Rack) Soak(ctx context.Context, times int, busy bool) error {
	if err := needRoot(); err != nil {
		return err
	}
	dir := filepath.Join(r.Repo, "build", "soak")
	if err := errors.Join(os.RemoveAll(dir), os.MkdirAll(dir, 0o755)); err != nil {
		return fmt.Errorf("making the logs' directory: %w", err)
	}
	program := filepath.Join(dir, "e2e.test")
	build := exec.CommandContext(ctx, "go", "test", "-c", "-tags", "e2e", "-o", program, "./test/e2e")
	build.Dir = r.Repo
	if _, err := output(build); err != nil {
		return err
	}
	if busy {
		stop := make(chan struct{})
		defer close(stop)
		go burn(stop)
	}
	var runs []soakRun
	for n := range times {
		log := filepath.Join(dir, fmt.Sprintf("run-%d.log", n+1))
		r.say("run %d of %d: %s", n+1, times, r.relative(log))
		run := r.soakOnce(ctx, program, log)
		runs = append(runs, run)
		r.say("    %s", run.line())
		if ctx.Err() != nil {
			break
		}
	}
	return r.soakSummary(runs, times)
}

func (r *Rack) soakOnce(ctx context.Context, program, log string) (run soakRun) {
	file, err := os.Create(log)
	if err != nil {
		return soakRun{err: err}
	}
	defer file.Close()
	cmd := exec.CommandContext(ctx, program, "-test.v", "-test.timeout=60m")
	cmd.Dir = filepath.Join(r.Repo, "test", "e2e")
	cmd.Stdout, cmd.Stderr = file, file
	// It takes its rack down when it is asked to stop.
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = 2 * time.Minute
	start := time.Now()
	run.err = cmd.Run()
	run.took = time.Since(start)
	if _, err := file.Seek(0, io.SeekStart); err != nil {
		run.err = errors.Join(run.err, err)
		return run
	}
	run.tests, run.failed = verdicts(file)
	return run
}

var verdictLine = regexp.MustCompile(`^--- (PASS|FAIL|SKIP): (\S+) \((\S+)s\)`)

// verdicts reads what `go test -v` prints at the end of each test.
func verdicts(log io.Reader) (tests int, failed []string) {
	for scan := bufio.NewScanner(log); scan.Scan(); {
		v := verdictLine.FindStringSubmatch(scan.Text())
		if v == nil {
			continue
		}
		tests++
		if v[1] != "PASS" { // one that was skipped has shown nothing
			failed = append(failed, v[2])
		}
	}
	return tests, failed
}

func (s soakRun) green() bool { return s.err == nil && s.tests > 0 && len(s.failed) == 0 }

func (s soakRun) line() string {
	verdict := "green"
	if !s.green() {
		verdict = "FAILED " + strings.Join(s.failed, " ")
		if s.err != nil {
			verdict += fmt.Sprintf(" (%v)", s.err)
		}
	}
	return fmt.Sprintf("%7s  %2d tests  %s", s.took.Round(time.Second), s.tests, verdict)
}

func (r *Rack) soakSummary(runs []soakRun, times int) error {
	green := 0
	r.say("\nrun    took  tests   verdict")
	for n, run := range runs {
		r.say("%3d %s", n+1, run.line())
		if run.green() {
			green++
		}
	}
	r.say("%d of %d green", green, times)
	if green < times {
		return fmt.Errorf("soaking: %d of %d runs were not green; logs in %s", times-green, times, r.relative(filepath.Join(r.Repo, "build", "soak")))
	}
	return nil
}

// burn keeps one core busy.
func burn(stop chan struct{}) {
	for n := uint64(1); ; n++ {
		if n%(1<<20) == 0 {
			select {
			case <-stop:
				return
			default:
			}
		}
	}
}
