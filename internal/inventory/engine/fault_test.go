// SPDX-License-Identifier: Apache-2.0

package engine

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// childMode makes the test binary a process that a test kills or starves.
const childMode = "ENGINE_TEST_CHILD"

func TestMain(m *testing.M) {
	switch path := os.Getenv("ENGINE_TEST_FILE"); os.Getenv(childMode) {
	case "writer":
		writeForEver(path)
	case "full":
		if err := runOutOfRoom(path); err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func child(t *testing.T, mode, path string) *exec.Cmd {
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), childMode+"="+mode, "ENGINE_TEST_FILE="+path)
	cmd.Stderr = os.Stderr
	return cmd
}

// writeForEver writes from several goroutines, with fsync, and prints each revision once it is acknowledged.
func writeForEver(path string) {
	e, err := Open(path, Options{Logger: discard, Now: time.Now, Note: say})
	if err != nil {
		fmt.Println("error", err)
		os.Exit(1)
	}
	writers, _ := strconv.Atoi(os.Getenv("ENGINE_TEST_WRITERS"))
	var mu sync.Mutex
	var wg sync.WaitGroup
	for w := range writers {
		wg.Go(func() {
			for i := 0; ; i++ {
				key := fmt.Sprintf("/%d/%d", w, i%50)
				resp, err := e.Client().Put(context.Background(), key, strings.Repeat("x", rand.IntN(3000)))
				if err == nil {
					err = e.Records("dhcp").Put(context.Background(), fmt.Sprint(w), []byte(strconv.FormatInt(resp.Header.Revision, 10)))
				}
				mu.Lock()
				if err != nil {
					fmt.Println("error", err)
				} else {
					fmt.Println(resp.Header.Revision, key, w)
				}
				mu.Unlock()
			}
		})
	}
	wg.Wait()
}

// TestKill kills a writing process at a random moment: what it had acknowledged is there, and its revision is not given
// out again.
func TestKill(t *testing.T) {
	rounds := 5
	if testing.Short() {
		rounds = 2
	}
	path := filepath.Join(t.TempDir(), "a.db")
	for range rounds {
		killRound(t, path, 8, 100*time.Millisecond+rand.N(300*time.Millisecond))
	}
}

// killRound lets a process write for a while, kills it, and compares the file with what it had acknowledged. It returns the
// revision that the file has then, and how many acknowledgements there were.
func killRound(t *testing.T, path string, writers int, delay time.Duration) (rev int64, acks int) {
	t.Helper()
	cmd := child(t, "writer", path)
	cmd.Env = append(cmd.Env, fmt.Sprint("ENGINE_TEST_WRITERS=", writers))
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var timer *time.Timer
	acknowledged := map[string]int64{} // key -> newest revision acknowledged
	records := map[string]int64{}
	var newest int64
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		if timer == nil { // from the first line on: a busy machine may take long to start a process
			timer = time.AfterFunc(delay, func() { cmd.Process.Kill() })
		}
		var rev int64
		var key, record string
		if _, err := fmt.Sscan(lines.Text(), &rev, &key, &record); err != nil {
			continue // the last line may be cut; an error is told below by its absence
		}
		acknowledged[key] = max(acknowledged[key], rev)
		records[record] = max(records[record], rev)
		newest = max(newest, rev)
		acks++
	}
	cmd.Wait() //nolint:errcheck // it was killed
	if newest == 0 {
		t.Fatalf("nothing was acknowledged in %v", delay)
	}

	e := open(t, path)
	resp, err := e.Client().Get(t.Context(), "/", clientv3.WithPrefix())
	if err != nil {
		t.Fatal(err)
	}
	if resp.Header.Revision < newest {
		t.Errorf("killed after %v: revision %d, but %d was acknowledged", delay, resp.Header.Revision, newest)
	}
	there := map[string]int64{}
	for _, kv := range resp.Kvs {
		there[string(kv.Key)] = kv.ModRevision
	}
	for key, rev := range acknowledged {
		if there[key] < rev {
			t.Errorf("killed after %v: %s is at revision %d, but %d was acknowledged", delay, key, there[key], rev)
		}
	}
	all, err := e.Records("dhcp").All()
	if err != nil {
		t.Fatal(err)
	}
	for record, rev := range records {
		if got, _ := strconv.ParseInt(string(all[record]), 10, 64); got < rev {
			t.Errorf("killed after %v: record %s holds %d, but %d was acknowledged", delay, record, got, rev)
		}
	}
	// The log tells of each revision once, up to the newest.
	told := int64(0)
	for i, p := range payloads(t, e) {
		var rev int64
		fmt.Sscan(p, &rev)
		if i > 0 && rev != told+1 {
			t.Errorf("killed after %v: the log goes from revision %d to %d", delay, told, rev)
		}
		told = rev
	}
	if told != resp.Header.Revision {
		t.Errorf("killed after %v: the log ends at revision %d of %d", delay, told, resp.Header.Revision)
	}
	head, _ := e.Head()
	if err := e.Trim(t.Context(), head); err != nil {
		t.Fatal(err)
	}
	// A client that saw all of it goes on watching; one that did not must list again.
	for rev, want := range map[int64]error{resp.Header.Revision + 1: nil, resp.Header.Revision: rpctypes.ErrCompacted} {
		ctx, cancel := context.WithCancel(t.Context())
		watch := e.Client().Watch(ctx, "/", clientv3.WithPrefix(), clientv3.WithRev(rev))
		put(t, e.Client(), "/after", "1")
		got := <-watch
		if !errors.Is(got.Err(), want) {
			t.Errorf("watching from %d after revision %d: got %v, want %v", rev, resp.Header.Revision, got.Err(), want)
		}
		cancel()
	}
	rev = e.header().Revision
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}
	return rev, acks
}

// TestFullDisk runs in a process of its own, whose files may not grow.
func TestFullDisk(t *testing.T) {
	out, err := child(t, "full", filepath.Join(t.TempDir(), "a.db")).Output()
	if err != nil {
		t.Errorf("%v: %s", err, out)
	}
}

func runOutOfRoom(path string) error {
	e, err := Open(path, Options{Logger: discard, Now: time.Now})
	if err != nil {
		return err
	}
	ctx, c, value := context.Background(), e.Client(), strings.Repeat("x", 20_000)
	if _, err := c.Put(ctx, "/first", value); err != nil {
		return err
	}
	// Once where writing fails, once where growing the file does.
	for _, room := range []int64{400_000, 18 << 20} {
		if err := limit(room); err != nil {
			return err
		}
		refused := false
		for i := 0; i < 2000 && !refused; i++ {
			_, err := c.Put(ctx, fmt.Sprintf("/%d/%d", room, i), value)
			refused = errors.Is(err, rpctypes.ErrNoSpace)
			if err != nil && !refused {
				return fmt.Errorf("put %d with room for %d bytes: got %w, want ErrNoSpace", i, room, err)
			}
		}
		if !refused {
			return fmt.Errorf("2000 writes of 20 kB found room in %d bytes", room)
		}
		err = nil // a record may still find a free page or two
		for i := 0; err == nil && i < 100; i++ {
			err = e.Records("dhcp").Put(ctx, fmt.Sprint(room, i), []byte(value))
		}
		if !errors.Is(err, ErrFull) {
			return fmt.Errorf("records: got %v, want ErrFull", err)
		}
		head, hash := e.Head()
		for err = nil; err == nil; {
			_, err = e.Append(ctx, []byte(value))
		}
		if !errors.Is(err, ErrFull) {
			return fmt.Errorf("log: got %v, want ErrFull", err)
		}
		appended, _ := e.Head()
		// With a note a write is refused together with it.
		if _, err := c.Put(WithNote(ctx, []byte(value)), "/noted", value); !errors.Is(err, rpctypes.ErrNoSpace) {
			return fmt.Errorf("write with a note: got %v, want ErrNoSpace", err)
		}
		if seq, _ := e.Head(); seq != appended {
			return fmt.Errorf("log: head went from %d to %d by a write that was refused", appended, seq)
		}
		if entries, err := e.Log(head+1, 1<<20); err != nil || len(entries) != int(appended-head) || len(entries) > 0 && entries[0].Prev != hash {
			return fmt.Errorf("log: %d entries after %d with no room, %w; want %d", len(entries), head, err, appended-head)
		}
		before, err := c.Get(ctx, "/", clientv3.WithPrefix(), clientv3.WithCountOnly())
		if err != nil {
			return fmt.Errorf("reading with no room: %w", err)
		}
		if err := limit(-1); err != nil {
			return err
		}
		after, err := c.Put(ctx, "/again", value)
		if err != nil {
			return fmt.Errorf("writing with room again: %w", err)
		}
		if entry, err := e.Append(ctx, []byte("again")); err != nil || entry.Seq != appended+1 {
			return fmt.Errorf("log with room again: entry %d, %w; want %d", entry.Seq, err, appended+1)
		}
		if after.Header.Revision != before.Header.Revision+1 {
			return fmt.Errorf("revision went from %d to %d: a refused write counted", before.Header.Revision, after.Header.Revision)
		}
	}
	select {
	case err := <-e.Fatal():
		return fmt.Errorf("a full disk was fatal: %w", err)
	default:
	}
	if err := e.Close(); err != nil {
		return err
	}
	e, err = Open(path, Options{Logger: discard, Now: time.Now})
	if err != nil {
		return fmt.Errorf("opening it again: %w", err)
	}
	return e.Close()
}

// limit sets how long a file may be; -1 is as long as it likes.
func limit(size int64) error {
	var l syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_FSIZE, &l); err != nil {
		return err
	}
	l.Cur = l.Max
	if size >= 0 {
		l.Cur = uint64(size)
	}
	return syscall.Setrlimit(syscall.RLIMIT_FSIZE, &l)
}

// TestIOErrorIsFatal takes the file's descriptor away below the engine.
func TestIOErrorIsFatal(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a.db")
	var file *os.File
	e := open(t, path, func(o *Options) {
		o.NoSync = false
		o.OpenFile = func(name string, flag int, mode os.FileMode) (*os.File, error) {
			f, err := os.OpenFile(name, flag, mode)
			file = f
			return f, err
		}
	})
	put(t, e.Client(), "/a", "1")
	watch := e.Client().Watch(t.Context(), "/", clientv3.WithPrefix())
	readOnly, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer readOnly.Close()
	if err := syscall.Dup3(int(readOnly.Fd()), int(file.Fd()), syscall.O_CLOEXEC); err != nil {
		t.Fatal(err)
	}
	if resp, err := e.Client().Put(t.Context(), "/a", "2"); err == nil {
		t.Fatalf("a write that cannot have reached the disk was acknowledged: %v", resp)
	}
	select {
	case err := <-e.Fatal():
		if !errors.Is(err, syscall.EBADF) {
			t.Errorf("fatal error: got %v, want EBADF", err)
		}
	case <-time.After(5 * time.Second):
		t.Fatal("no fatal error within 5s")
	}
	if _, err := e.Client().Put(t.Context(), "/b", "3"); err == nil {
		t.Error("a write was acknowledged after the fatal error")
	}
	if err := e.Records("dhcp").Put(t.Context(), "a", nil); !errors.Is(err, ErrClosed) {
		t.Errorf("record after the fatal error: got %v, want ErrClosed", err)
	}
	if resp, open := <-watch; open {
		t.Errorf("the watch told of a write that failed: %v", resp.Events)
	}
	e.Close()
	e = open(t, path)
	resp, err := e.Client().Get(t.Context(), "/a")
	if err != nil {
		t.Fatal(err)
	}
	if got := string(resp.Kvs[0].Value); got != "1" {
		t.Errorf("after reopen: got %q, want the acknowledged %q", got, "1")
	}
}
