package netceptor

import (
	"bufio"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"

	"github.com/quic-go/quic-go"
	_ "github.com/quic-go/quic-go/qlog" // Names its events in the files' heads.
	"github.com/quic-go/quic-go/qlogwriter"
)

// traceQUIC writes what one QUIC connection does to a file of its own, log_ID_client.qlog or log_ID_server.qlog. A file
// that cannot be made costs the trace, not the connection.
func (n *Node) traceQUIC(_ context.Context, client bool, id quic.ConnectionID) qlogwriter.Trace {
	side := "server"
	if client {
		side = "client"
	}
	f, err := os.OpenFile(filepath.Join(n.qlogDir, "log_"+id.String()+"_"+side+".qlog"), os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		n.log.Warn("Streams are not traced", "err", err)
		return nil
	}
	seq := qlogwriter.NewConnectionFileSeq(bufferedFile{bufio.NewWriter(f), f}, client, id)
	n.wg.Go(seq.Run) // Ends with its connection.
	return seq
}

type bufferedFile struct {
	*bufio.Writer
	file io.Closer
}

func (b bufferedFile) Close() error { return errors.Join(b.Flush(), b.file.Close()) }
