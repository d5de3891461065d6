package netceptor_test

import (
	"context"
	"fmt"
	"io"
	"log"
	"net"
	"time"

	"github.com/pyreceptor/pyreceptor/go/link"
	"github.com/pyreceptor/pyreceptor/go/netceptor"
	"github.com/pyreceptor/pyreceptor/go/wire"
)

// line starts nodes with these names, each linked to the next in memory. Real ones use link.ListenTCP and link.DialTCP,
// or another transport of package link.
func line(ids ...wire.NodeID) []*netceptor.Node {
	memory := link.NewMemory()
	var nodes []*netceptor.Node
	for i, id := range ids {
		n, err := netceptor.New(netceptor.Config{ID: id})
		if err != nil {
			log.Fatal(err)
		}
		nodes = append(nodes, n)
		l, err := memory.Listen(string(id))
		if err != nil {
			log.Fatal(err)
		}
		if _, err := n.Listen(l, netceptor.LinkOptions{Cost: 1}); err != nil {
			log.Fatal(err)
		}
		if i > 0 {
			if _, err := n.Dial(memory.Dialer(string(ids[i-1])), netceptor.LinkOptions{Cost: 1}); err != nil {
				log.Fatal(err)
			}
		}
	}
	for _, n := range nodes { // Until everybody has a way to everybody.
		for _, id := range ids {
			if _, _, err := n.WaitRoute(context.Background(), id); err != nil {
				log.Fatal(err)
			}
		}
	}
	return nodes
}

func stop(nodes []*netceptor.Node) {
	for _, n := range nodes {
		_ = n.Close()
	}
}

// Three nodes in one process, and a probe from one end to the other.
func ExampleNode_Ping() {
	nodes := line("alpha", "bravo", "charlie")
	defer stop(nodes)
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()

	next, cost, err := nodes[0].WaitRoute(ctx, "charlie")
	fmt.Println("charlie by way of", next, "at cost", cost, err)
	pong := nodes[0].Ping(ctx, "charlie", wire.MaxHops)
	fmt.Println("answer from", pong.From, pong.Err)
	nodes[0].Traceroute(ctx, "charlie", func(hop int, p netceptor.Pong) { fmt.Println(hop, p.From) })
	// Output:
	// charlie by way of bravo at cost 2 <nil>
	// answer from charlie <nil>
	// 0 alpha
	// 1 bravo
	// 2 charlie
}

// A service that repeats what it is told, and a client two hops away. A stream is a net.Conn.
func ExampleNode_DialStream() {
	nodes := line("alpha", "bravo", "charlie")
	defer stop(nodes)
	ln, err := nodes[2].ListenStream("echo", nil, nil)
	if err != nil {
		log.Fatal(err)
	}
	go func() {
		for {
			s, err := ln.Accept()
			if err != nil {
				return // The listener was closed.
			}
			_, _ = io.Copy(s, s)
			_ = s.Close()
		}
	}()

	s, err := nodes[0].DialStream(context.Background(), "charlie", "echo", nil)
	if err != nil {
		log.Fatal(err)
	}
	_, _ = io.WriteString(s, "hello over two hops")
	_ = s.CloseWrite()
	answer, err := io.ReadAll(s)
	fmt.Println(string(answer), err)
	_ = s.Close()
	// Output: hello over two hops <nil>
}

// Datagrams, and the notice about one that found nobody.
func ExampleNode_ListenPacket() {
	nodes := line("alpha", "bravo", "charlie")
	defer stop(nodes)
	in, err := nodes[2].ListenPacket("inbox", nil)
	if err != nil {
		log.Fatal(err)
	}
	out, err := nodes[0].ListenPacket("sender", nil)
	if err != nil {
		log.Fatal(err)
	}
	_, _ = out.WriteTo([]byte("knock, knock"), netceptor.Addr{Node: "charlie", Service: "inbox"})
	buf := make([]byte, wire.MaxPayload)
	n, from, err := in.ReadFrom(buf)
	fmt.Printf("%s from %v %v\n", buf[:n], from, err)

	_, _ = out.WriteTo([]byte("anybody?"), netceptor.Addr{Node: "charlie", Service: "nobody"})
	notice := <-out.Notices()
	fmt.Println(notice.Reporter, "says:", notice.Problem)
	// Output:
	// knock, knock from alpha:sender <nil>
	// charlie says: service unknown
}

// A link over a connection that the program has made itself, here a pipe: a tunnel, a serial line or a pair of standard
// streams do as well.
func ExampleNode_AddLink() {
	nodes := append(line("alpha"), line("bravo")...)
	defer stop(nodes)
	here, there := net.Pipe()
	if _, err := nodes[0].AddLink(link.NewStream(here, "pipe"), netceptor.LinkOptions{Cost: 1.5}); err != nil {
		log.Fatal(err)
	}
	b, err := nodes[1].AddLink(link.NewStream(there, "pipe"), netceptor.LinkOptions{Cost: 1.5})
	if err != nil {
		log.Fatal(err)
	}
	_, cost, err := nodes[0].WaitRoute(context.Background(), "bravo")
	fmt.Println("bravo at cost", cost, err)

	_ = nodes[0].Close()
	<-b.Done() // The link is gone, and with it what carried it.
	fmt.Println("links of bravo:", len(nodes[1].Status().Connections))
	// Output:
	// bravo at cost 1.5 <nil>
	// links of bravo: 0
}

// A service that the mesh is told of, and a node that learns of it.
func ExampleServiceAd() {
	nodes := line("alpha", "bravo")
	defer stop(nodes)
	events := nodes[0].Subscribe(100)
	defer events.Close()
	ad := &netceptor.ServiceAd{Tags: map[string]string{"type": "Printer"}}
	if _, err := nodes[1].ListenStream("print", ad, nil); err != nil {
		log.Fatal(err)
	}
	for e := range events.C {
		if e.Kind == netceptor.ServiceSeen && e.Service == "print" {
			break
		}
	}
	for _, ad := range nodes[0].Status().Advertisements {
		fmt.Println(ad.NodeID, ad.Service, ad.Tags["type"])
	}
	// Output: bravo print Printer
}
