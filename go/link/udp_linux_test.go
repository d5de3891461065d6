package link

import "golang.org/x/sys/unix"

// sender makes up the address of a peer.
func sender(i int) endpoint {
	e := endpoint{length: unix.SizeofSockaddrInet4}
	copy(e.raw[:], []byte{unix.AF_INET, 0, byte(i >> 8), byte(i), 127, 0, 0, 1})
	return e
}
