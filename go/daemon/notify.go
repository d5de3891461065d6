package daemon

import (
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// notifier tells the service manager that started this process how it does: sd_notify(3).
type notifier struct {
	conn     net.Conn      // nil: nobody wants to know.
	watchdog time.Duration // How often the manager wants to hear that all is well; 0: it does not ask.
}

// newNotifier goes by the variables NOTIFY_SOCKET, WATCHDOG_USEC and WATCHDOG_PID.
func newNotifier(environ []string) *notifier {
	n := new(notifier)
	path := LookupEnv(environ, "NOTIFY_SOCKET")
	if path == "" {
		return n
	}
	if path[0] == '@' { // A name of the abstract kind.
		path = "\x00" + path[1:]
	}
	conn, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		return n
	}
	n.conn = conn
	usec, err := strconv.ParseInt(LookupEnv(environ, "WATCHDOG_USEC"), 10, 64)
	pid := LookupEnv(environ, "WATCHDOG_PID")
	if err == nil && usec > 0 && (pid == "" || pid == strconv.Itoa(os.Getpid())) {
		n.watchdog = time.Duration(usec) * time.Microsecond / 2
	}
	return n
}

// send sends variables, one per line. A manager that does not listen is no reason to stop.
func (n *notifier) send(lines ...string) {
	if n.conn != nil {
		_, _ = n.conn.Write([]byte(strings.Join(lines, "\n")))
	}
}

func (n *notifier) ready(status string) { n.send("READY=1", "STATUS="+status) }

// reloading says so with the clock that the manager compares it by; ready ends it.
func (n *notifier) reloading() {
	var now unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_MONOTONIC, &now)
	n.send("RELOADING=1", fmt.Sprintf("MONOTONIC_USEC=%d", now.Nano()/1000), "STATUS=Reading the configuration again")
}

func (n *notifier) close() {
	if n.conn != nil {
		_ = n.conn.Close()
	}
}

// ticks is when to tell the manager that all is well; nil is never.
func (n *notifier) ticks() (<-chan time.Time, func()) {
	if n.watchdog == 0 {
		return nil, func() {}
	}
	t := time.NewTicker(n.watchdog)
	return t.C, t.Stop
}

// LookupEnv returns the value of a variable, the last one if there are more.
func LookupEnv(environ []string, name string) (value string) {
	for _, v := range environ {
		if key, text, _ := strings.Cut(v, "="); key == name {
			value = text
		}
	}
	return value
}

// managerVariables are between the service manager and this process: commands of units do not inherit them.
var managerVariables = []string{"NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", "LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES"}
