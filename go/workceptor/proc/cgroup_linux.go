package proc

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const (
	cgroupPrefix = "receptor-"
	removeWait   = 100 * time.Millisecond
)

// Cgroup is a control group (version 2) for one command, from which none of its processes can escape. A nil one is no
// cgroup, and its methods do nothing.
type Cgroup struct {
	path   string
	killed bool
}

// NewCgroup makes a cgroup for the unit in unitDir below that of the calling process; nil if that is not permitted. It is
// permitted in a subtree that was delegated: the directory is the caller's own and the caller is not root, or it is marked
// as delegated, or it is the root of what the caller sees (as in a container).
func NewCgroup(unitDir string) *Cgroup {
	parent := cgroupParent()
	if parent == "" {
		return nil
	}
	g := &Cgroup{path: filepath.Join(parent, cgroupPrefix+filepath.Base(unitDir))}
	if err := os.Mkdir(g.path, 0o755); err != nil {
		return nil
	}
	return g
}

// cgroupParent is where the process may make cgroups; "" is nowhere.
var cgroupParent = sync.OnceValue(func() string {
	if parent := ownCgroup(); parent != "" && delegated(parent) {
		return parent
	}
	return ""
})

// ownCgroup is the directory of the calling process's cgroup; "" if there is none.
func ownCgroup() string {
	text, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return ""
	}
	for line := range strings.Lines(string(text)) {
		if path, ok := strings.CutPrefix(strings.TrimSpace(line), "0::"); ok {
			if mount := cgroupMount(); mount != "" {
				return filepath.Join(mount, path)
			}
		}
	}
	return ""
}

// cgroupMount is where the version 2 hierarchy is mounted: at one of the two usual places.
func cgroupMount() string {
	for _, path := range []string{"/sys/fs/cgroup", "/sys/fs/cgroup/unified"} {
		var fs unix.Statfs_t
		if unix.Statfs(path, &fs) == nil && fs.Type == unix.CGROUP2_SUPER_MAGIC {
			return path
		}
	}
	return ""
}

func delegated(path string) bool {
	if path == cgroupMount() {
		return true
	}
	var mark [1]byte
	for _, name := range []string{"trusted.delegate", "user.delegate"} {
		if n, err := unix.Getxattr(path, name, mark[:]); err == nil && n == 1 && mark[0] == '1' {
			return true
		}
	}
	info, err := os.Stat(path)
	if err != nil {
		return false
	}
	owner, ok := info.Sys().(*syscall.Stat_t)
	return ok && os.Geteuid() != 0 && int(owner.Uid) == os.Geteuid()
}

// Path returns the directory; "" for no cgroup.
func (g *Cgroup) Path() string {
	if g == nil {
		return ""
	}
	return g.path
}

// Start calls start, which starts a process as sys says, such that the process is in the cgroup from its first
// instruction on. If the kernel refuses, it is started outside.
func (g *Cgroup) Start(sys *syscall.SysProcAttr, start func() (pid int, err error)) (pid int, err error) {
	if g == nil {
		return start()
	}
	dir, err := os.Open(g.path)
	if err != nil {
		return start()
	}
	defer dir.Close()
	sys.UseCgroupFD, sys.CgroupFD = true, int(dir.Fd())
	if pid, err = start(); err == nil {
		return pid, nil
	}
	sys.UseCgroupFD = false
	return start()
}

// Kill sends SIGKILL to all processes of the cgroup; false if that could not be done.
func (g *Cgroup) Kill() bool {
	if g == nil || killCgroup(g.path) != nil {
		return false
	}
	g.killed = true
	return true
}

// Remove deletes the cgroup if it is empty. One in which processes live on is left. Killed processes take a moment to go.
func (g *Cgroup) Remove() {
	if g == nil {
		return
	}
	for pause := time.Millisecond; pause < removeWait; pause *= 2 {
		if err := syscall.Rmdir(g.path); !errors.Is(err, syscall.EBUSY) || g.populated() {
			return
		}
		time.Sleep(pause)
	}
}

// populated reports whether processes live in the cgroup that nobody has killed.
func (g *Cgroup) populated() bool {
	text, err := os.ReadFile(filepath.Join(g.path, "cgroup.events"))
	return err == nil && strings.Contains(string(text), "populated 1") && !g.killed
}

func killCgroup(path string) error {
	f, err := os.OpenFile(filepath.Join(path, "cgroup.kill"), os.O_WRONLY, 0) // Since Linux 5.14.
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = f.WriteString("1")
	return err
}

// KillCgroup kills what is left in a cgroup that NewCgroup made for the unit in unitDir, and deletes it when it is empty.
// The path is not trusted. False: nothing was killed.
func KillCgroup(path, unitDir string) bool {
	g := cgroupOf(path, unitDir)
	killed := g.Kill()
	g.Remove()
	return killed
}

// RemoveCgroup deletes a cgroup that NewCgroup made for the unit in unitDir, unless processes live in it. The path is not
// trusted.
func RemoveCgroup(path, unitDir string) { cgroupOf(path, unitDir).Remove() }

func cgroupOf(path, unitDir string) *Cgroup {
	if path == "" || filepath.Clean(path) != path || filepath.Base(path) != cgroupPrefix+filepath.Base(unitDir) {
		return nil
	}
	if mount := cgroupMount(); mount == "" || !strings.HasPrefix(path, mount+"/") {
		return nil
	}
	return &Cgroup{path: path}
}
