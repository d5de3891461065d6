package daemon

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// moment is what the counters said at some time.
type moment struct {
	at          time.Time
	packets     uint64
	idle, total uint64 // Ticks of all cores.
}

// measure asks the machine how it is.
func measure(packets uint64) (moment, error) {
	m := moment{at: time.Now(), packets: packets}
	var err error
	m.idle, m.total, err = machineTicks()
	return m, err
}

// worked is the time for which this process has kept cores busy. No system refuses to tell.
func worked() time.Duration {
	var usage unix.Rusage
	_ = unix.Getrusage(unix.RUSAGE_SELF, &usage)
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}

// machineTicks reads the first line of /proc/stat (proc_stat(5)): "cpu", then the ticks spent as user, nice, system, idle,
// iowait, irq, softirq and steal since the machine was started.
func machineTicks() (idle, total uint64, err error) {
	f, err := os.Open("/proc/stat")
	if err != nil {
		return 0, 0, err
	}
	defer f.Close()
	var b [512]byte
	n, err := f.Read(b[:])
	if err != nil {
		return 0, 0, err
	}
	line, _, _ := bytes.Cut(b[:n], []byte("\n"))
	fields := bytes.Fields(line)
	if len(fields) < 9 || string(fields[0]) != "cpu" {
		return 0, 0, fmt.Errorf("/proc/stat begins with %.80q, not with the ticks of all cores", line)
	}
	for i, field := range fields[1:9] {
		ticks, err := strconv.ParseUint(string(field), 10, 64)
		if err != nil {
			return 0, 0, fmt.Errorf("/proc/stat: %w", err)
		}
		total += ticks
		if i == 3 || i == 4 {
			idle += ticks
		}
	}
	return idle, total, nil
}

// until is what happened from m to a later moment, but for what this process used.
func (m moment) until(later moment) load {
	l := load{packets: float64(later.packets-m.packets) / later.at.Sub(m.at).Seconds(), idle: 1}
	if later.total > m.total {
		l.idle = float64(later.idle-m.idle) / float64(later.total-m.total)
	}
	return l
}
