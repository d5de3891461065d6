package netceptor

import "net"

// NetListener returns l as a net.Listener, for servers of other packages (net/http, for instance). Closing either closes
// both.
func (l *StreamListener) NetListener() net.Listener { return netListener{l} }

type netListener struct{ *StreamListener }

func (l netListener) Accept() (net.Conn, error) {
	s, err := l.StreamListener.Accept()
	if err != nil {
		return nil, err // Not a nil *Stream in a net.Conn.
	}
	return s, nil
}
