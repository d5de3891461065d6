package service

import (
	"errors"
	"net/netip"
	"os"
	"slices"
	"testing"

	"golang.org/x/sys/unix"
)

// tunInterface makes an interface that goes with the test.
func tunInterface(t *testing.T) (name string) {
	t.Helper()
	f, err := os.OpenFile("/dev/net/tun", os.O_RDWR, 0)
	if err != nil {
		t.Skip("there is no TUN device here: ", err)
	}
	t.Cleanup(func() { f.Close() })
	request, err := unix.NewIfreq("rxtest%d")
	if err == nil {
		request.SetUint16(unix.IFF_TUN | unix.IFF_NO_PI)
		err = unix.IoctlIfreq(int(f.Fd()), unix.TUNSETIFF, request)
	}
	if err != nil {
		t.Skip("no interface can be made here: ", err)
	}
	return request.Name()
}

func TestKernelRoutes(t *testing.T) {
	name := tunInterface(t)
	self, peer := netip.MustParseAddr("10.251.77.1"), netip.MustParseAddr("10.251.77.2")
	index, err := setInterface(name, self, peer)
	if err != nil {
		t.Fatal(err)
	}
	network := netip.MustParsePrefix("10.251.78.0/24")
	for range 2 { // Again is no error.
		if err := addRoute(index, network, peer); err != nil {
			t.Fatal(err)
		}
	}
	wanted := func(where string, want bool) {
		t.Helper()
		routes, err := listRoutes(index)
		if err != nil || slices.Contains(routes, network) != want {
			t.Errorf("%s: got %v, %v, want %s among them: %v", where, routes, err, network, want)
		}
	}
	wanted("added", true)
	if routes, err := listRoutes(index + 1000); err != nil || len(routes) > 0 {
		t.Errorf("another interface: got %v, %v, want none", routes, err)
	}
	if err := removeRoute(index, network); err != nil {
		t.Error(err)
	}
	wanted("removed", false)
	if err := removeRoute(index, network); !errors.Is(err, unix.ESRCH) {
		t.Errorf("removed twice: got %v, want ESRCH", err)
	}
	if err := addRoute(index, network, netip.MustParseAddr("192.0.2.77")); err == nil {
		t.Error("a gateway that is not on the interface is accepted")
	}
	if _, err := setInterface("rxtestnone", self, peer); !errors.Is(err, unix.ENODEV) {
		t.Errorf("unknown interface: got %v, want ENODEV", err)
	}
}
