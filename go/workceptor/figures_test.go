package workceptor

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/pyreceptor/pyreceptor/go/workceptor/runner"
	"github.com/pyreceptor/pyreceptor/go/workceptor/store"
	"github.com/pyreceptor/pyreceptor/go/workceptor/unit"
)

// builtRunner builds the program that is the runner of daemons.
func builtRunner(b *testing.B) string {
	b.Helper()
	path := filepath.Join(b.TempDir(), "receptor")
	build := exec.Command("go", "build", "-trimpath", "-ldflags", "-s -w", "-o", path, "../cmd/receptor")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		b.Fatalf("%v: %s", err, out)
	}
	return path
}

func figureEngine(b *testing.B) *Engine {
	runner := builtRunner(b)
	e := openEngine(b, b.TempDir(), noMesh{"alpha"}, func(c *Config) { c.Runner = runner })
	releaseAll(b, e)
	return e
}

func percentile(all []time.Duration, p int) float64 {
	slices.Sort(all)
	return float64(all[(len(all)-1)*p/100].Microseconds()) / 1000
}

// oneUnit runs cat over payload and returns when its first byte and its end were there.
func oneUnit(b testing.TB, e *Engine, payload string) (first, finished time.Duration) {
	began := time.Now()
	id := submit(b, e, request("localhost", "cat", ""), payload)
	r, err := e.Results(b.Context(), id, 0)
	if err != nil {
		b.Fatal(err)
	}
	if _, err := io.ReadFull(r, make([]byte, 1)); err != nil {
		b.Fatal(err)
	}
	first = time.Since(began)
	if n, err := io.Copy(io.Discard, r); n != int64(len(payload)-1) || err != nil {
		b.Fatalf("got %d bytes more, %v", n, err)
	}
	r.Close()
	wait(b, e, id)
	finished = time.Since(began)
	if _, err := e.Release(b.Context(), id, false); err != nil {
		b.Fatal(err)
	}
	return first, finished
}

// BenchmarkLocalSubmit is one unit after another: cat of 1 KiB.
func BenchmarkLocalSubmit(b *testing.B) {
	e := figureEngine(b)
	payload := strings.Repeat("x", 1024)
	var first, finished []time.Duration
	for b.Loop() {
		f, d := oneUnit(b, e, payload)
		first, finished = append(first, f), append(finished, d)
	}
	b.ReportMetric(percentile(first, 50), "ms-first")
	b.ReportMetric(percentile(finished, 50), "ms-finished")
	b.ReportMetric(percentile(finished, 99), "ms-p99")
}

// BenchmarkClients is as many units as 1, 16 and 64 clients get done, and the same commands by bare fork and exec.
func BenchmarkClients(b *testing.B) {
	e := figureEngine(b)
	for _, clients := range []int{1, 16, 64} {
		b.Run(fmt.Sprintf("Units%d", clients), func(b *testing.B) {
			together(b, clients, func() { oneUnit(b, e, "x\n") })
		})
		b.Run(fmt.Sprintf("Bare%d", clients), func(b *testing.B) {
			together(b, clients, func() {
				cmd := exec.Command("cat")
				cmd.Stdin = strings.NewReader("x\n")
				if out, err := cmd.Output(); string(out) != "x\n" || err != nil {
					b.Errorf("got %q, %v", out, err)
				}
			})
		})
	}
}

func together(b *testing.B, clients int, do func()) {
	var left atomic.Int64
	left.Store(int64(b.N))
	var wg sync.WaitGroup
	b.ResetTimer()
	for range clients {
		wg.Go(func() {
			for left.Add(-1) >= 0 {
				do()
			}
		})
	}
	wg.Wait()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "units/s")
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { return len(p), nil }

// warm has the kernel use as much memory for a file as the next round will. A virtual machine gives back what it does not
// use, and to fetch it again takes longer than what is measured.
func warm(b *testing.B, size int64) {
	b.StopTimer()
	defer b.StartTimer()
	f, err := os.Create(filepath.Join(b.TempDir(), "warm"))
	if err != nil {
		b.Fatal(err)
	}
	defer os.Remove(f.Name())
	defer f.Close()
	if _, err := io.CopyN(f, zeros{}, size); err != nil {
		b.Fatal(err)
	}
}

// BenchmarkLocalPayload is 256 MiB into a command that reads it and says how much it was.
func BenchmarkLocalPayload(b *testing.B) {
	e := figureEngine(b)
	const size = 256 << 20
	b.SetBytes(size)
	for b.Loop() {
		warm(b, size)
		s, err := e.Submit(request("localhost", "shraw", `-c "dd of=/dev/null bs=1M 2>&1"`))
		if err != nil {
			b.Fatal(err)
		}
		if err := s.ReadPayload(io.LimitReader(zeros{}, size)); err != nil {
			b.Fatal(err)
		}
		if _, err := s.Start(b.Context()); err != nil {
			b.Fatal(err)
		}
		wait(b, e, s.ID())
		if got := file(b, e, s.ID(), "stdout"); !strings.Contains(got, strconv.Itoa(size)+" bytes") {
			b.Fatalf("got %s", got)
		}
		b.StopTimer()
		e.Release(b.Context(), s.ID(), false)
		b.StartTimer()
	}
}

// BenchmarkLocalOutput is 1 GiB of output, read as it comes by the client of a Unix socket.
func BenchmarkLocalOutput(b *testing.B) {
	e := figureEngine(b)
	const size = 1 << 30
	buf := make([]byte, 256<<10)
	b.SetBytes(size)
	for b.Loop() {
		warm(b, size)
		near, far, err := streamPair()
		if err != nil {
			b.Fatal(err)
		}
		id := submit(b, e, request("localhost", "shraw", fmt.Sprintf(`-c "head -c %d /dev/zero"`, size)), "")
		r, err := e.Results(b.Context(), id, 0)
		if err != nil {
			b.Fatal(err)
		}
		go func() {
			r.(io.WriterTo).WriteTo(far.UnixConn)
			far.Close()
		}()
		n := 0
		for more := 1; more > 0; n += more {
			more, _ = near.UnixConn.Read(buf)
		}
		if n != size {
			b.Fatalf("got %d bytes", n)
		}
		near.Close()
		r.Close()
		b.StopTimer()
		if s := wait(b, e, id); s.SHA256 == "" {
			b.Errorf("got %+v", s)
		}
		e.Release(b.Context(), id, false)
		b.StartTimer()
	}
}

// BenchmarkBareOutput is what the command of BenchmarkLocalOutput takes to write its output to a file.
func BenchmarkBareOutput(b *testing.B) {
	const size = 1 << 30
	path := filepath.Join(b.TempDir(), "output")
	b.SetBytes(size)
	for b.Loop() {
		warm(b, size)
		if err := exec.Command("bash", "-c", fmt.Sprintf(`head -c %d /dev/zero > "$0"`, size), path).Run(); err != nil {
			b.Fatal(err)
		}
		b.StopTimer()
		os.Remove(path)
		b.StartTimer()
	}
}

// BenchmarkRunnerCost is what it takes beyond the command true until the node hears of its end from a runner: from a new one, and
// from the same for its next unit; and the memory of one whose command runs.
func BenchmarkRunnerCost(b *testing.B) {
	e := figureEngine(b)
	var bare, fresh, again []time.Duration
	for b.Loop() {
		began := time.Now()
		if err := exec.Command("true").Run(); err != nil {
			b.Fatal(err)
		}
		bare = append(bare, time.Since(began))
		one, two := newDir(b, e, ""), newDir(b, e, "")
		began = time.Now()
		r, err := e.runners.start(ownState())
		if err != nil {
			b.Fatal(err)
		}
		runUnit(b, r, one, "true")
		fresh = append(fresh, time.Since(began))
		began = time.Now()
		runUnit(b, r, two, "true")
		again = append(again, time.Since(began))
		e.runners.dismiss(r)
		for _, dir := range []*store.Dir{one, two} {
			trash, err := dir.Discard()
			if err != nil {
				b.Fatal(err)
			}
			e.delete(trash, true)
		}
	}
	b.ReportMetric(percentile(fresh, 50)-percentile(bare, 50), "ms-new")
	b.ReportMetric(percentile(again, 50)-percentile(bare, 50), "ms-next")
	r, err := e.runners.start(ownState())
	if err != nil {
		b.Fatal(err)
	}
	defer e.runners.dismiss(r)
	dir := newDir(b, e, "300")
	if err := r.send(runner.RunMessage("sleep", dir.Path())); err != nil {
		b.Fatal(err)
	}
	if told := hear(b, r); told.Program == 0 {
		b.Fatalf("got %+v", told)
	}
	time.Sleep(500 * time.Millisecond) // What its start took is given back about when it tells that the command runs.
	b.ReportMetric(resident(b, r.process.Pid), "MB-RSS")
	if err := r.send(runner.CancelMessage(dir.Path())); err != nil {
		b.Fatal(err)
	}
	hear(b, r)
}

// newDir is the directory of a unit without payload that waits for its runner.
func newDir(b *testing.B, e *Engine, params string) *store.Dir {
	b.Helper()
	record := unit.Record{WorkType: "x", Extra: &unit.CommandExtra{Params: params}}
	_, dir, stdin, err := e.root.Create(record, func(UnitID) bool { return false })
	if err != nil {
		b.Fatal(err)
	}
	stdin.Close()
	return dir
}

// runUnit has r run a command as the unit in dir.
func runUnit(b *testing.B, r *warmRunner, dir *store.Dir, command string) {
	b.Helper()
	if err := r.send(runner.RunMessage(command, dir.Path())); err != nil {
		b.Fatal(err)
	}
	report := hear(b, r)
	if rec, err := unit.Parse(report.Status); err != nil || !report.Ended || rec.State != Succeeded {
		b.Fatalf("got %+v, %v", rec, err)
	}
}

func hear(b *testing.B, r *warmRunner) runner.Report {
	b.Helper()
	n, err := r.conn.Read(r.buf[:])
	if err != nil {
		b.Fatal(err)
	}
	report, err := runner.ParseReport(r.buf[:n])
	if err != nil {
		b.Fatal(err)
	}
	return report
}

// resident is how much memory a process has, in MiB.
func resident(b *testing.B, pid int) float64 {
	b.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		b.Fatal(err)
	}
	_, rest, _ := bytes.Cut(text, []byte("VmRSS:"))
	kib, err := strconv.ParseFloat(strings.Fields(string(rest))[0], 64)
	if err != nil {
		b.Fatal(err)
	}
	return kib / 1024
}

// tenThousand fills a data directory with finished units.
func tenThousand(b *testing.B) string {
	b.Helper()
	dir := b.TempDir()
	record := unit.Record{State: Succeeded, Detail: "exit status 0", WorkType: "cat", Outcome: unit.Exit(0)}
	record.Created = time.Now().UTC()
	text := record.Append(nil)
	for i := range 10_000 {
		path := filepath.Join(dir, "alpha", fmt.Sprintf("unit%04d", i))
		if err := os.MkdirAll(path, 0o700); err != nil {
			b.Fatal(err)
		}
		for name, content := range map[string][]byte{"status": text, "status.lock": nil, "stdin": nil, "stdout": nil} {
			if err := os.WriteFile(filepath.Join(path, name), content, 0o600); err != nil {
				b.Fatal(err)
			}
		}
	}
	return dir
}

// waited is what this process takes of the processor while nobody asks anything of it for a second.
func waited(b *testing.B) time.Duration {
	b.Helper()
	before := cpu(b)
	time.Sleep(time.Second)
	return cpu(b) - before
}

// BenchmarkTenThousand is the start of an engine on 10,000 units, the list of them, and what it costs to have them.
func BenchmarkTenThousand(b *testing.B) {
	dir := tenThousand(b)
	var starts, lists []time.Duration
	idle, alone := time.Duration(0), waited(b)
	for b.Loop() {
		e, err := New(Config{Mesh: noMesh{"alpha"}, DataDir: dir})
		if err != nil {
			b.Fatal(err)
		}
		if err := e.RegisterCommand(CommandType{WorkType: "cat", Command: "cat"}); err != nil {
			b.Fatal(err)
		}
		began := time.Now()
		if err := e.Start(); err != nil {
			b.Fatal(err)
		}
		starts = append(starts, time.Since(began))
		began = time.Now()
		if list := e.List(); len(list) != 10_000 {
			b.Fatalf("got %d units", len(list))
		}
		lists = append(lists, time.Since(began))
		idle = waited(b)
		e.Close()
	}
	b.ReportMetric(percentile(starts, 50), "ms-start")
	b.ReportMetric(percentile(lists, 50), "ms-list")
	b.ReportMetric(float64(idle.Microseconds())/1000, "ms-idle-per-s")
	b.ReportMetric(float64(alone.Microseconds())/1000, "ms-alone-per-s")
}

func cpu(b *testing.B) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
