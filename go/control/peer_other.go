//go:build !linux && !darwin

package control

import "net"

// peerOf knows nothing here: rules about users and groups match nobody.
func peerOf(*net.UnixConn) (uid int, groups []int, ok bool) { return 0, nil, false }
