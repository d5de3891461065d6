package service_test

import (
	"context"
	"fmt"
	"io"
	"net"

	"github.com/pyreceptor/pyreceptor/go/service"
)

func ExampleBridge() {
	left, a := tcpPair()
	right, b := tcpPair()
	done := make(chan service.Carried, 1)
	go func() { done <- service.Bridge(context.Background(), a, b) }()

	_, _ = left.Write([]byte("question"))
	_ = left.CloseWrite()
	question, _ := io.ReadAll(right) // Ends, although the answer is still to come.
	_, _ = right.Write([]byte("answer"))
	_ = right.CloseWrite()
	answer, _ := io.ReadAll(left)

	carried := <-done
	fmt.Printf("%s: %s (%d and %d bytes, %v)\n", question, answer, carried.AB, carried.BA, carried.Err)
	// Output: question: answer (8 and 6 bytes, <nil>)
}

// tcpPair returns both ends of a TCP connection on this machine.
func tcpPair() (client, server *net.TCPConn) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		panic(err)
	}
	defer l.Close()
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		panic(err)
	}
	s, err := l.Accept()
	if err != nil {
		panic(err)
	}
	return c.(*net.TCPConn), s.(*net.TCPConn)
}
