//go:build !linux

package service

import (
	"errors"
	"log/slog"
	"net/netip"

	"github.com/pyreceptor/pyreceptor/go/netceptor"
)

// IPRouter makes an IP network of nodes, on Linux only.
type IPRouter struct {
	Network   string
	Interface string
	Local     netip.Prefix
	Routes    []netip.Prefix
}

// Router is a running [IPRouter].
type Router struct{}

// StartIPRouter returns errors.ErrUnsupported.
func StartIPRouter(*netceptor.Node, IPRouter, *slog.Logger) (*Router, error) {
	return nil, errors.ErrUnsupported
}

// Name is that of the interface.
func (*Router) Name() string { return "" }

// Close does nothing.
func (*Router) Close() error { return nil }
