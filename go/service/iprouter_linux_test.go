package service

import (
	"context"
	"log/slog"
	"net"
	"strings"
	"testing"

	"golang.org/x/net/ipv4"
	"golang.org/x/net/ipv6"
)

// FuzzDestination: the address that a packet is routed by is the one that others read in it.
func FuzzDestination(f *testing.F) {
	f.Add([]byte("E\x00\x00\x14\x00\x00\x00\x00\x40\x11\x00\x00\x0a\x00\x00\x01\x0a\x00\x00\x02"))
	f.Add(append([]byte{0x60, 39: 1}, "payload"...))
	f.Add([]byte{0x45})
	f.Fuzz(func(t *testing.T, packet []byte) {
		to, ok := destination(packet)
		var want net.IP
		switch {
		case len(packet) >= ipv4.HeaderLen && packet[0]>>4 == ipv4.Version:
			want = net.IP(packet[16:20])
		default:
			if h, err := ipv6.ParseHeader(packet); err == nil && h.Version == ipv6.Version {
				want = h.Dst
			}
		}
		if ok != (want != nil) || ok && !want.Equal(net.IP(to.AsSlice())) {
			t.Errorf("%v, %v; want %v", to, ok, want)
		}
	})
}

// TestABugEndsOneRouter: what one part of it finds ends the others, and is told.
func TestABugEndsOneRouter(t *testing.T) {
	log := &buffer{}
	r := &Router{name: "tun7", log: slog.New(slog.NewTextHandler(log, nil))}
	r.ctx, r.stop = context.WithCancel(t.Context())
	r.run(func() { panic("a bug") })
	r.run(func() { <-r.ctx.Done() })
	r.wg.Wait()
	if got := log.String(); !strings.Contains(got, `msg="internal fault" in="IP router" err="a bug"`) || !strings.Contains(got, "interface=tun7") {
		t.Errorf("the log does not name the fault: %s", got)
	}
}
